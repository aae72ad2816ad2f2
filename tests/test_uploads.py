"""Uploads that are hostile or odd: always a digit or a sentence, within 200 MB and 2 s of one processor."""

import io
import itertools
import json
import os
import re
import struct
import subprocess
import sys
import textwrap
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from iwae.images import decoding, digits, uploads
from iwae.system import optional

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
    width: int,
    height: int,
    rows: bytes | None = None,
    depth: int = 8,
    colour: int = 0,
    extra: bytes = b"",
    behind: bytes = b"",
) -> bytes:
    """A PNG by hand; with ``rows`` None, blank rows as its header promises."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    if rows is None:
        packer, line = zlib.compressobj(1), bytes(1 + width * depth * {0: 1, 2: 3, 6: 4}[colour] // 8)
        rows = b"".join(packer.compress(line) for _ in range(height)) + packer.flush()
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", rows) + behind + chunk(b"IEND", b"")


def tiff(values: np.ndarray) -> bytes:
    return encoded(Image.fromarray(values), "TIFF")


def exif(orientation: int) -> Image.Exif:
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def costly(jpeg: bytes, image: bytes) -> dict[str, bytes]:
    """Small files, by name, that take a decoder minutes or gigabytes; each is a sound file but for one thing."""
    head, body = image[:33], image[33:]
    pages = np.zeros((5000, 5000), np.uint8)
    scans = encoded(Image.fromarray(pages), "JPEG", progressive=True)
    last = scans.rindex(b"\xff\xda")
    strips = 1_200_000
    entries = (
        (256, 4, 8),
        (257, 4, strips),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 0),
        (277, 3, 1),
        (278, 4, 1),
    )

    def tags(rows, extra: bytes = b"") -> bytes:
        packed = b"".join(struct.pack("<HHII", tag, kind, count, value) for tag, kind, count, value in rows)
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(rows)) + packed + bytes(4) + extra

    many = [(tag, kind, 1, value) for tag, kind, value in entries]
    at = 8 + 2 + 12 * (len(many) + 2) + 4
    many += [(273, 4, strips, at), (279, 4, strips, at)]
    tile = [(256, 4, 1, 100), (257, 4, 1, 100), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tile += [(322, 4, 1, 20_000), (323, 4, 1, 20_000), (324, 4, 1, 8 + 2 + 120 + 4), (325, 4, 1, 5000)]
    flat = zlib.compress(bytes(4 * 2**20), 9)
    rle = struct.pack("<2sIHHI", b"BM", 0, 0, 0, 1078) + struct.pack(
        "<IiiHHIIiiII", 40, 8, 1_000_000, 1, 8, 1, 0, 0, 0, 256, 0
    )
    gif = encoded(drawing(60), "GIF")
    begin = 13 + 3 * 2 ** (1 + (gif[10] & 7))  # behind the palette
    vp8x = b"ANIM" + struct.pack("<I", 6) + bytes(6)
    canvas = (16_382).to_bytes(3, "little") * 2
    still = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF" + struct.pack("<I", 16 + len(still)) + bytes(6) + bytes(6) + bytes(4) + still
    webp = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + canvas + vp8x + frame + frame
    return {
        "jpeg of 2,000 empty scans": scans[:last] + scans[last:-2] * 2000 + b"\xff\xd9",
        "jpeg filled with 0xFF": jpeg[:2] + b"\xff" * (9 * 2**20) + jpeg[2:],
        "jpeg of empty markers": jpeg[:2] + b"\xff\xfe\0\2" * (2 * 2**20) + jpeg[2:],
        "png of 9,000 profiles": head + chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(2**20), 9)) * 9000 + body,
        "png of 840,000 empty chunks": head + chunk(b"tEXt", b"") * 840_000 + body,
        "png with its transparency last": png(5000, 5000, colour=2, behind=chunk(b"tRNS", bytes(6))),
        "tiff of 1.2 million strips": tags(sorted(many), struct.pack("<I", 8) * strips),
        "tiff with a tile of 20,000²": tags(sorted(tile), flat[:5000]),
        "bmp of few columns": rle + bytes(1024) + b"\0\0" * 1_000_000 + b"\0\1",
        "gif with a comment of single bytes": gif[:begin] + b"!\xfe" + b"\1a" * (4 * 2**20) + b"\0" + gif[begin:],
        "webp of 25 megapixels": encoded(Image.new("RGB", (5000, 5000)), "WEBP", quality=1, method=0),
        "animated webp on a large canvas": b"RIFF" + struct.pack("<I", len(webp)) + webp,
    }


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
    found["26 MB"] = whole["png"] + bytes(26 * 2**20)
    found["10 MB behind the picture"] = whole["png"] + bytes(10 * 2**20 - len(whole["png"]))
    for value in (0, 127, 255):
        found[f"all {value}"] = encoded(Image.new("L", (300, 300), value), "PNG")
    found |= costly(whole["jpeg"], whole["png"])
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
    kinds |= {"animated GIF": "digit", "svg, renamed": "is an SVG drawing", "tiff with a NaN": "not finite"}
    kinds |= {"1×1": "too small", "20,000×20,000 bomb": "pixels", "26 MB": "too large", "zero bytes": "is empty"}
    kinds |= {"png cut at 2048": "cut short", "all 255": "blank", "all 0": "blank", "tiff of −5": "digit"}
    assert {name: said[name] for name, kind in kinds.items() if kind not in said[name]} == {}
    assert "4001×5000 pixels with transparency" in said["too many with alpha"]
    assert sum(text == "digit" for text in said.values()) >= 60


def test_a_decoder_that_ends_takes_nothing_with_it():
    """Killed between two pictures, as when the machine is short of memory: the next one has a new process."""
    seven = encoded(drawing(), "PNG")
    before = digits.prepare(seven).image
    decoders = [child for child in psutil.Process().children() if "iwae.images.decoding" in child.cmdline()]
    assert decoders
    for child in decoders:
        child.kill()
        child.wait()
    assert np.array_equal(digits.prepare(seven).image, before)


def test_pictures_sent_at_once_wait_for_each_other():
    files = [encoded(drawing(side), "PNG") for side in range(100, 116)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(digits.prepare, files))
    assert len([c for c in psutil.Process().children() if "iwae.images.decoding" in c.cmdline()]) <= uploads.PROCESSES
    assert all(np.array_equal(one.image, digits.prepare(data).image) for one, data in zip(together, files, strict=True))


@pytest.mark.parametrize(
    ("beginning", "said"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC picture"), (b"\0\0\0\x1cftypavif", "AVIF"),
        (b"\0\0\0\x18ftypmp42", "video"), (b"\xff\x0a\xfa\x1f", "JPEG XL"), (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7\n", "PDF"), (b"<?xml version='1.0'?>\n<!-- x -->\n<svg xmlns=''>", "SVG"),
        (b"P5\n3 3\n255\n", "Netpbm"),
        (b"\0\0\1\0\1\0", "icon"), (b"<!DOCTYPE html><html>", "web page"), (b"hello", "not a picture"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_called_by_its_name(beginning, said):
    with pytest.raises(digits.PictureError, match=f"“a.png” is .*{said}.*(PNG|JPEG|still|screenshot)"):
        digits.prepare(beginning + bytes(100), name="a.png")


def test_a_heic_picture_is_read_where_its_package_is_installed(monkeypatch):
    """Turned, transparent, cut short; elsewhere a sentence says what to install, or how to do without."""
    heif = pytest.importorskip("pillow_heif", reason="requirements-extra.txt")
    seven = drawing(400)
    file = io.BytesIO()
    heif.from_pillow(seven.convert("RGB")).save(file, quality=90)
    data = file.getvalue()
    assert np.abs(digits.prepare(data).image - digits.prepare(encoded(seven, "PNG")).image).mean() < 0.01
    turned = heif.from_pillow(seven.convert("RGBA").rotate(90))
    turned.info["exif"] = exif(6).tobytes()  # to be shown turned by 90 degrees clockwise
    turned.save(file := io.BytesIO(), quality=90)
    upright = digits.prepare(file.getvalue()).image
    assert np.abs(upright - digits.prepare(data).image).mean() < 0.02
    for end in (100, len(data) // 2, len(data) - 50):
        assert re.search("HEIC|cut short", outcome(data[:end], "photo.heic"))
    large = data.replace(struct.pack(">II", 400, 400), struct.pack(">II", 5000, 4001))  # ispe: the size that it claims
    assert "5000×4001 pixels in a HEIC file" in outcome(large, "photo.heic")
    monkeypatch.setattr(optional, "missing", lambda *names: list(names))
    with pytest.raises(digits.PictureError, match=r"HEIC picture: save it as JPEG .*needs pillow_heif: pip install"):
        decoding.decode(data)


def test_a_phone_of_48_megapixels():
    """Decoded at an eighth of its size: 8,000 × 6,000 pixels take no more than others."""
    seven = drawing(750).resize((8000, 6000))
    image = digits.prepare(encoded(seven, "JPEG", quality=70)).image
    assert np.abs(image - digits.prepare(drawing(750).resize((1000, 750))).image).mean() < 0.02


HEAVY = (
    "20,000×20,000 bomb", "all that is allowed", "all that is allowed, in colour", "all that is allowed, with alpha",
    "all that is allowed, 16 bits", "16 bits in four channels", "rows that unfold to 128 MB",
    "text that unfolds to 128 MB",
    "profile that unfolds", "10 MB behind the picture", "4-megapixel noise", "8×25000", "animated WEBP", "noise",
)  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_the_worst_files_stay_below_200_mb_and_2_s(files, tmp_path):
    """Peak resident memory of program and decoder above what they have before, and processor time of both."""
    names = (*HEAVY, *costly(files["jpeg"], files["png"]))
    for number, name in enumerate(names):
        (tmp_path / f"{number:02}").write_bytes(files[name])
    program = f"""
        import json, os, resource, time
        from pathlib import Path
        import numpy as np, psutil
        from iwae.images import digits

        def memory(kind, process="self"):
            lines = Path(f"/proc/{{process}}/status").read_text().splitlines()
            return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(kind))

        def decoder():
            return next(iter(psutil.Process().children()), None)

        tiny = {files["8×8"]!r}
        found = []
        for path in sorted(Path({str(tmp_path)!r}).iterdir()):
            data = path.read_bytes()
            try:
                digits.prepare(tiny)
            except digits.PictureError:
                pass
            child = decoder()
            before = memory("VmRSS"), memory("VmRSS", child.pid)
            spent = time.process_time() + sum(child.cpu_times()[:2])
            for process in ("self", child.pid):
                Path(f"/proc/{{process}}/clear_refs").write_text("5")  # the peak begins anew
            ended = resource.getrusage(resource.RUSAGE_CHILDREN)
            try:
                digits.prepare(data)
            except digits.PictureError:
                pass
            peak = memory("VmHWM") - before[0]
            if child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
                peak += memory("VmHWM", child.pid) - before[1]
                spent = time.process_time() + sum(child.cpu_times()[:2]) - spent
            else:
                after = resource.getrusage(resource.RUSAGE_CHILDREN)
                children = after.ru_utime + after.ru_stime - ended.ru_utime - ended.ru_stime
                spent = time.process_time() + children - spent
            found.append((peak, spent))
        print(json.dumps(found))
    """
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    measured = dict(zip(names, json.loads(done.stdout), strict=True))
    print({name: f"{megabytes:.0f} MB {seconds:.2f} s" for name, (megabytes, seconds) in measured.items()})
    slack = 0.3  # s: the kernel's clock for such a limit ticks every few milliseconds, and the program works, too
    heavy = {name: values for name, values in measured.items() if values[0] > MEGABYTES or values[1] > SECONDS + slack}
    assert heavy == {}
