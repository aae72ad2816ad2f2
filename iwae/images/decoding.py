"""Decode uploaded pictures in a separate process: ``python -m iwae.images.decoding``.

Decoders are where hostile files do their harm: minutes of a processor for a hundred kilobytes, gigabytes for a few
hundred bytes. No check of the bytes finds them all, so the process that decodes has limits (`MEGABYTES` of memory,
`SECONDS` of processor time); one that exceeds them ends with its process. `uploads.py` starts the process, and checks
what it writes.

Imports nothing but Pillow, and pillow-heif for the first HEIC picture: it starts in a tenth of a second.
"""

import io
import json
import re
import sys

from PIL import Image, ImageOps
from PIL.JpegImagePlugin import JpegImageFile

from iwae.system.limits import limit_memory, limit_time

FORMATS = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF")
MAX_BYTES = 25 * 2**20  # photos of 48 megapixels have 10 to 20 MB
MAX_PIXELS = 25_000_000  # to be decoded; 24-megapixel cameras fit
MAX_CLEAR_PIXELS = 20_000_000  # with transparency, which averaging takes a second copy for
MAX_WEBP_PIXELS = 12_000_000  # whose decoder keeps several copies of 4 bytes a pixel
MAX_HEIC_PIXELS = 20_000_000  # whose decoder keeps the picture twice; 25 million took more than MEGABYTES
MAX_JPEG_PIXELS = 220_000_000  # decoded at 1/8 of its size where it is larger than needed; no phone has more
MAX_COEFFICIENTS = 80_000_000  # of a progressive JPEG, which holds all of them at once, 2 bytes each
MIN_SIDE = 8  # px; scikit-learn's digits are 8×8
WORK_SIDE = 640  # px of the longer side that is worked on: a digit a tenth as wide still has 64 px
MODES = ("L", "LA", "RGB", "RGBA", "I", "F", "CMYK", "YCbCr", "HSV", "LAB", "La", "RGBa")  # of a decoded picture
MEGABYTES, SECONDS = 180, 2.0  # that decoding may take, above what the process has when it begins

HEIC = rb".{4}ftyp(hei|hev|mif1|msf1)"  # what its files begin with; read where pillow-heif is installed
OTHER_FORMATS = (  # files that people send as pictures: what they begin with, what they are, what to do
    (HEIC, "a HEIC picture", "save it as JPEG (iPhone: Settings, Camera, Formats)"),
    (rb"RIFF.{4}WEBP", f"a WebP of over {MAX_WEBP_PIXELS:,} pixels, or its beginning is damaged", "save it as PNG"),
    (rb".{4}ftypavi[fs]", "an AVIF picture", "save it as PNG or JPEG"),
    (rb"\xff\x0a|.{4}JXL ", "a JPEG XL picture", "save it as PNG or JPEG"),
    (rb".{4}jP  ", "a JPEG 2000 picture", "save it as PNG or JPEG"),
    (rb".{4}ftyp", "a video", "take a still picture"),
    (rb"%PDF", "a PDF", "export the page as PNG"),
    (rb"8BPS", "a Photoshop file", "export it as PNG"),
    (rb"P[1-7]\s", "a Netpbm picture", "save it as PNG"),
    (rb"\0\0[\1\2]\0", "an icon", "save it as PNG"),
    (rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>|<!--.*?-->|<!DOCTYPE svg.*?>|\s)*<svg", "an SVG drawing", "export it as PNG"),
    (rb"(\xef\xbb\xbf)?\s*<(!DOCTYPE )?html", "a web page", "take a screenshot"),
)  # fmt: skip


class PictureError(ValueError):
    """The picture cannot be used; the message is one sentence for the person who sent it."""


def decode(data: bytes, label: str = "The file", smallest: int = MIN_SIDE) -> Image.Image:
    """Decode the bytes of a file: upright, and reduced to `WORK_SIDE` px where it is larger.

    What counts is the content. Raises PictureError, its sentence beginning with ``label``, where the bytes are none of
    `FORMATS`, damaged, or stand for more pixels than allowed (checked before decoding), or fewer than ``smallest`` in a
    row or column.
    """
    heic = re.match(HEIC, data[:1000], re.DOTALL) is not None
    if heic:
        _register_heic(label, data)
    try:
        image = Image.open(io.BytesIO(data), formats=["HEIF"] if heic else [f.upper() for f in FORMATS])
    except Image.DecompressionBombError as error:
        raise PictureError(f"{label} has far too many pixels: at most {MAX_PIXELS:,} are allowed.") from error
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} {_describe_unknown(data)}.") from error
    if isinstance(image, JpegImageFile):
        _check_count(image.size, MAX_JPEG_PIXELS, label)
        parts = [width * height for _, width, height, _ in image.layer]  # of brightness and colours: how finely sampled
        if image.info.get("progressive") and image.width * image.height * sum(parts) / max(parts) > MAX_COEFFICIENTS:
            raise PictureError(f"{label} is a progressive JPEG of too many pixels: save it as a plain one, or smaller.")
        image.draft(None, (2 * WORK_SIDE, 2 * WORK_SIDE))  # decodes at 1/2, 1/4 or 1/8 where that will do
    elif heic:
        _check_count(image.size, MAX_HEIC_PIXELS, label, " in a HEIC file")
    elif image.format == "WEBP":
        _check_count(image.size, MAX_WEBP_PIXELS, label, " in a WebP file")
    return load(image, label, smallest)


def _register_heic(label: str, data: bytes) -> None:
    """Let Pillow open HEIC pictures. Raises PictureError where pillow-heif is not installed."""
    from iwae.system import optional

    try:
        optional.require("To read it as it is", "pillow_heif")
    except optional.MissingError as error:
        raise PictureError(f"{label} {_describe_unknown(data)}. {error}.") from error
    from pillow_heif import register_heif_opener

    register_heif_opener(thumbnails=False)


def load(image: Image.Image, label: str = "The picture", smallest: int = MIN_SIDE) -> Image.Image:
    """Decode an open image, reduce it to `WORK_SIDE` and turn it upright; transparency and depth are kept.

    Raises PictureError for one that is too large or too small, or whose pixels cannot be read.
    """
    clear = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    _check_count(image.size, MAX_CLEAR_PIXELS if clear else MAX_PIXELS, label, " with transparency" * clear)
    width, height = image.size
    if min(width, height) < smallest:
        raise PictureError(f"{label} is too small ({width}×{height} pixels): a digit needs {smallest}×{smallest}.")
    try:
        image.load()
        if image.mode == "1":  # these modes cannot be averaged as they are
            image = image.convert("L")
        elif image.mode.startswith("I;16"):
            image = image.convert("I")
        elif image.mode in ("P", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
        return ImageOps.exif_transpose(reduced(image, WORK_SIDE))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} is damaged or cut short: it cannot be decoded to its end.") from error


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Average down to at most `side` px wide and high."""
    scale = min(1.0, side / max(image.size))
    return image.resize([max(1, round(n * scale)) for n in image.size], Image.Resampling.BOX)


def _check_count(size: tuple[int, int], most: int, label: str, kind: str = "") -> None:
    width, height = size
    if width * height > most:
        raise PictureError(f"{label} is too large ({width}×{height} pixels{kind}): at most {most:,} are allowed.")


def _describe_unknown(data: bytes) -> str:
    """The kind of a file outside `FORMATS`, and what to do about it."""
    for beginning, what, remedy in OTHER_FORMATS:
        if re.match(beginning, data[:1000], re.DOTALL | re.IGNORECASE):
            return f"is {what}: {remedy} ({', '.join(FORMATS)} are allowed)"
    return f"is not a picture, or its beginning is damaged: {', '.join(FORMATS)} are allowed"


def serve() -> None:
    """Decode pictures from standard input, one after the other: 8 bytes of length, then the file.

    The answer is a line of JSON, {"mode", "size", "bytes"} with the pixels behind it, or {"error"}. A picture that
    takes too much memory is the last one; one that takes too long ends the process without an answer.
    """
    Image.MAX_IMAGE_PIXELS = None  # our own limits are stricter
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    limit_memory(MEGABYTES)
    while length := source.read(8):
        data = source.read(int.from_bytes(length, "big"))
        limit_time(SECONDS)
        pixels = b""
        try:
            image = decode(data, "")
            pixels = image.tobytes()
            answer = {"mode": image.mode, "size": image.size, "bytes": len(pixels)}
        except PictureError as error:
            answer = {"error": str(error).strip()}
        except MemoryError:
            answer = {"error": f"needs more than {MEGABYTES} MB of memory to be decoded.", "last": True}
        limit_time(0)
        sink.write(json.dumps(answer).encode() + b"\n" + pixels)
        sink.flush()
        if "last" in answer:
            return
        image = data = pixels = None


if __name__ == "__main__":
    serve()
