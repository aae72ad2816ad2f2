"""Uploads that are hostile or odd: always a digit or a sentence, within 200 MB and 2 s of one processor."""

import io
import itertools
import json
import os
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from iwae import digits

ROOT = Path(__file__).parents[1]
MEGABYTES, SECONDS = 200, 2.0  # for one file, above what the process has before; processor time


def drawing(side: int = 200, mode: str = "L") -> Image.Image:
    """A seven, dark on light."""
    image = Image.new("L", (side, side), 245)
    pen = ImageDraw.Draw(image)
    pen.line([(side * 0.3, side * 0.25), (side * 0.7, side * 0.25), (side * 0.45, side * 0.8)], 20, side // 12)
    return image.convert(mode)


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, rows: bytes | None = None, depth: int = 8, colour: int = 0, extra: bytes = b""
) -> bytes:
    """A PNG by hand; with ``rows`` None, blank rows as its header promises."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if rows is None:
        packer, line = zlib.compressobj(1), bytes(1 + width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8)
        rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def corpus() -> dict[str, bytes]:
    """At least 200 files by name."""
    seven, rng = drawing(), np.random.default_rng(0)
    grain = Image.fromarray(rng.integers(0, 256, (180, 180, 3), np.uint8))  # does not compress: many kilobytes
    noisy = Image.blend(drawing(180, "RGB"), grain, 0.1)
    found = {"zero bytes": b"", "one byte": b"\x89"}
    whole = {
        "png": encoded(noisy, "PNG"),
        "jpeg": encoded(noisy, "JPEG", quality=97),
        "progressive": encoded(noisy, "JPEG", quality=97, progressive=True),
        "webp": encoded(noisy, "WEBP", quality=97),
        "lossless webp": encoded(noisy, "WEBP", lossless=True),
        "bmp": encoded(noisy.convert("L"), "BMP"),
        "gif": encoded(noisy, "GIF"),
        "tiff": encoded(noisy.convert("L"), "TIFF"),
        "tiff lzw": encoded(noisy.convert("L"), "TIFF", compression="tiff_lzw"),
    }
    found |= whole
    for name, data in whole.items():  # truncated at every kilobyte, and its last byte
        found |= {f"{name} cut at {end}": data[:end] for end in (*range(1024, len(data), 1024), len(data) - 1)}
    for width, height in ((1, 1), (1, 100), (8, 8), (7, 8), (8, 25_000), (4999, 5), (65_535, 1)):
        found[f"{width}×{height}"] = png(width, height)
    flood = zlib.compress(bytes(2**27), 9)
    found["20,000×20,000 bomb"] = png(20_000, 20_000)
    found["20,000×20,000, header alone"] = png(20_000, 20_000, b"")
    found["2³¹−1 wide"] = png(2**31 - 1, 2**31 - 1, b"")
    found["no width"] = png(0, 10, b"")
    found["all that is allowed"] = png(5000, 5000)
    found["all that is allowed, in colour"] = png(5000, 5000, colour=2)
    found["all that is allowed, with alpha"] = png(5000, 4000, colour=6)
    found["too many with alpha"] = png(4001, 5000, b"", colour=6)
    found["all that is allowed, 16 bits"] = png(5000, 5000, depth=16)
    found["16 bits in four channels"] = png(5000, 4000, depth=16, colour=6)
    found["more rows than promised"] = png(50, 50, zlib.compress(bytes(51 * 10_000)))
    found["rows that unfold to 128 MB"] = png(100, 100, flood)
    found["text that unfolds to 128 MB"] = png(100, 100, extra=chunk(b"zTXt", b"a\0\0" + flood))
    found["profile that unfolds"] = png(100, 100, extra=chunk(b"iCCP", b"a\0\0" + flood))
    found["a thousand texts"] = png(100, 100, extra=b"".join(chunk(b"tEXt", b"k\0" + b"v" * 900) for _ in range(1000)))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        image = Image.fromarray(np.asarray(seven).astype(np.uint16) * 257) if mode == "I;16" else seven.convert(mode)
        found[f"png {mode}"] = encoded(image, "PNG")
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I"):
        found[f"tiff {mode}"] = encoded(seven.convert("RGB").convert(mode), "TIFF")
    found["tiff LAB"] = encoded(Image.new("LAB", (60, 60)), "TIFF")
    for compression in ("packbits", "tiff_deflate", "tiff_lzw", "group4", "jpeg"):
        image = seven.convert("1") if compression == "group4" else seven
        found[f"tiff {compression}"] = encoded(image, "TIFF", compression=compression)
    found["jpeg cmyk"] = encoded(seven.convert("CMYK"), "JPEG")
    found["jpeg profile of zeros"] = encoded(seven, "JPEG", icc_profile=bytes(3000))
    found["png profile of noise"] = encoded(seven, "PNG", icc_profile=rng.bytes(3000))
    clear = seven.convert("P")
    found["palette, one colour clear"] = encoded(clear, "PNG", transparency=0)
    found["palette with alpha"] = encoded(clear, "PNG", transparency=bytes(range(256)))
    found["gif, all clear"] = encoded(Image.new("P", (50, 50)), "GIF", transparency=0)
    for orientation, format in itertools.product((*range(10), 65_535), ("JPEG", "PNG", "WEBP")):
        found[f"{format} turned by {orientation}"] = encoded(seven, format, exif=exif(orientation))
    found["jpeg with EXIF of noise"] = encoded(seven, "JPEG", exif=b"Exif\0\0" + rng.bytes(5000))
    frames = [drawing(60).rotate(number) for number in range(20)]
    for format in ("GIF", "PNG", "WEBP", "TIFF"):
        found[f"animated {format}"] = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    dark = np.asarray(seven, np.float32)
    for name, value in (("NaN", np.nan), ("∞", np.inf), ("−∞", -np.inf), ("1e38", 1e38), ("−1e38", -1e38)):
        spoilt = dark.copy()
        spoilt[50, 50] = value
        found[f"tiff with a {name}"] = tiff(spoilt)
    found["tiff of NaN"] = tiff(np.full((50, 50), np.nan, np.float32))
    found["tiff of −5"] = tiff(np.where(dark < 100, -5, 0).astype(np.float32))
    found["tiff of 2³¹"] = tiff(np.where(dark < 100, 2**31 - 1, -(2**31)).astype(np.int32))
    info = PngImagePlugin.PngInfo()
    info.add_text("<script>", "<script>alert(1)</script>", zip=True)
    found["png with a script in its text"] = encoded(seven, "PNG", pnginfo=info)
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script><image href='file:///etc/passwd'/></svg>"
    for name, data in {
        "svg": svg,
        "svg after a BOM": b"\xef\xbb\xbf" + svg,
        "html": b"<!DOCTYPE html><script>alert(1)</script>" * 100,
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n(/etc/passwd) (r) file\n",
        "pdf": b"%PDF-1.7\n1 0 obj\n<< /JS (app.alert(1)) >>\n",
        "zip": b"PK\x03\x04" + rng.bytes(2000),
        "elf": b"\x7fELF" + rng.bytes(2000),
        "ppm": encoded(seven, "PPM"),
        "ico": encoded(seven, "ICO"),
        "png after junk": b"junk" + whole["png"],
        "gif that is a zip": whole["gif"] + b"PK\x05\x06" + bytes(18),
        "png in a jpeg's clothes": b"\xff\xd8\xff\xe0" + whole["png"],
    }.items():
        found[f"{name}, renamed"] = data
    for number in range(20):
        found[f"random bytes {number}"] = rng.bytes(int(rng.integers(1, 20_000)))
    found["11 MB"] = whole["png"] + bytes(11 * 2**20)
    found["10 MB behind the picture"] = whole["png"] + bytes(10 * 2**20 - len(whole["png"]))
    for value in (0, 127, 255):
        found[f"all {value}"] = encoded(Image.new("L", (300, 300), value), "PNG")
    found["noise"] = encoded(Image.fromarray(rng.integers(0, 256, (300, 300), np.uint8)), "PNG")
    found["4-megapixel noise"] = encoded(Image.fromarray(rng.integers(0, 256, (2000, 2000), np.uint8)), "JPEG")
    return found


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return corpus()


def outcome(data: bytes, name: str) -> str:
    """``digit``, or the sentence it is refused with; everything else raises."""
    try:
        image = digits.prepare(data, name=name).image
    except digits.PictureError as error:
        return str(error)
    assert image.shape == (28, 28) and image.dtype == np.float32
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() == 1
    return "digit"


@pytest.mark.filterwarnings("ignore")  # Pillow's own about broken files
def test_every_file_gives_a_digit_or_a_sentence(files):
    assert len(files) >= 200
    said = {name: outcome(data, "photo.png") for name, data in files.items()}
    sentences = [text for text in said.values() if text != "digit"]
    assert all(text.endswith(".") and len(text) < 300 and text.isprintable() for text in sentences), sentences
    kinds = {"png": "digit", "progressive": "digit", "jpeg cmyk": "digit", "png I;16": "digit", "noise": "blank"}
    kinds |= {"palette, one colour clear": "digit", "JPEG turned by 6": "digit", "WEBP turned by 65535": "digit"}
    kinds |= {"animated GIF": "digit", "svg, renamed": "is not a picture", "tiff with a NaN": "not finite"}
    kinds |= {"1×1": "too small", "20,000×20,000 bomb": "pixels", "11 MB": "too large", "zero bytes": "is empty"}
    kinds |= {"png cut at 2048": "cut short", "all 255": "blank", "all 0": "blank", "tiff of −5": "digit"}
    assert {name: said[name] for name, kind in kinds.items() if kind not in said[name]} == {}
    assert "4001×5000 pixels with transparency" in said["too many with alpha"]
    assert sum(text == "digit" for text in said.values()) >= 60


HEAVY = (
    "20,000×20,000 bomb", "all that is allowed", "all that is allowed, in colour", "all that is allowed, with alpha",
    "all that is allowed, 16 bits", "16 bits in four channels", "rows that unfold to 128 MB",
    "text that unfolds to 128 MB",
    "profile that unfolds", "10 MB behind the picture", "4-megapixel noise", "8×25000", "animated WEBP", "noise",
)  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_worst_files_stay_below_200_mb_and_2_s(files, tmp_path):
    """Peak resident memory above the process's own, and processor time, one file after the other in one process."""
    for number, name in enumerate(HEAVY):
        (tmp_path / f"{number:02}").write_bytes(files[name])
    program = f"""
        import json, time, warnings
        from pathlib import Path
        import numpy as np
        from iwae import digits
        warnings.simplefilter("ignore")

        def memory(kind):
            lines = Path("/proc/self/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))

        digits.prepare(np.pad(np.zeros((60, 20), np.uint8), 20, constant_values=255))
        found = []
        for path in sorted(Path({str(tmp_path)!r}).iterdir()):
            data = path.read_bytes()
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before, started = memory("VmRSS"), time.process_time()
            try:
                digits.prepare(data)
            except digits.PictureError:
                pass
            found.append((memory("VmHWM") - before, time.process_time() - started))
        print(json.dumps(found))
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    measured = dict(zip(HEAVY, json.loads(done.stdout), strict=True))
    print({name: f"{megabytes:.0f} MB {seconds:.2f} s" for name, (megabytes, seconds) in measured.items()})
    heavy = {name: values for name, values in measured.items() if values[0] > MEGABYTES or values[1] > SECONDS}
    assert heavy == {}
