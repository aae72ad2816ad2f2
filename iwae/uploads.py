"""A picture that somebody sends: a file's bytes, an image or an array → pixels, or a sentence that says why not."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from iwae.files import shown

Array = NDArray[np.float32]

FORMATS = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF")
MAX_BYTES = 10 * 2**20
MAX_PIXELS = 25_000_000  # 24-megapixel cameras fit; decoded, at 4 bytes a pixel, this is 95 MiB
MAX_CLEAR_PIXELS = 20_000_000  # with transparency, which averaging takes a second copy for
MIN_SIDE = 8  # px; scikit-learn's digits are 8×8
WORK_SIDE = 640  # px of the longer side that is worked on: a digit a tenth as wide still has 64 px
BLANK = "The picture is blank: nothing stands out from the paper, and one digit should."


class PictureError(ValueError):
    """The picture cannot be used; the message is one sentence for the person who sent it."""


def read_picture(data: bytes, *, name: str = "") -> Image.Image:
    """Decode an uploaded picture: upright, and reduced to `WORK_SIDE` px where it is larger.

    What counts is the content, whatever `name` ends in. Raises PictureError where the bytes are none of
    `FORMATS`, damaged, more than `MAX_BYTES`, or stand for more than `MAX_PIXELS` (checked before decoding).
    """
    label = f"“{shown(name)}”" if name else "The file"
    allowed = f"{', '.join(FORMATS)} of at most {MAX_BYTES // 2**20} MB are allowed"
    if not data:
        raise PictureError(f"{label} is empty (0 bytes): {allowed}.")
    if len(data) > MAX_BYTES:
        raise PictureError(f"{label} is too large ({len(data) / 2**20:.1f} MB): {allowed}.")
    try:
        image = Image.open(io.BytesIO(data), formats=[f.upper() for f in FORMATS])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{label} has far too many pixels: at most {MAX_PIXELS:,} are allowed.") from error
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} is not a picture, or its beginning is damaged: {allowed}.") from error
    _check_size(image, label)
    image.draft(None, (2 * WORK_SIDE, 2 * WORK_SIDE))  # JPEG alone: decodes at 1/2, 1/4 or 1/8 where that will do
    return _load(image, label)


def decoded(picture: bytes | Image.Image | np.ndarray, name: str = "") -> Image.Image:
    """The picture, upright and of at most `WORK_SIDE` px, its mode kept. Raises PictureError."""
    if isinstance(picture, bytes):
        return read_picture(picture, name=name)
    image = picture if isinstance(picture, Image.Image) else _from_array(picture)
    _check_size(image, "The picture")
    return _load(image, "The picture")


def _check_size(image: Image.Image, label: str) -> None:
    width, height = image.size
    clear = image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info
    most, kind = (MAX_CLEAR_PIXELS, " with transparency") if clear else (MAX_PIXELS, "")
    if width * height > most:
        raise PictureError(f"{label} is too large ({width}×{height} pixels{kind}): at most {most:,} are allowed.")
    if min(width, height) < MIN_SIDE:
        raise PictureError(f"{label} is too small ({width}×{height} pixels): a digit needs {MIN_SIDE}×{MIN_SIDE}.")


def _load(image: Image.Image, label: str) -> Image.Image:
    """Decode, reduce to WORK_SIDE and turn upright; transparency and depth are kept."""
    try:
        image.load()
        if image.mode == "1":  # these modes cannot be averaged as they are
            image = image.convert("L")
        elif image.mode.startswith("I;16"):
            image = image.convert("I")
        elif image.mode in ("P", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
        return ImageOps.exif_transpose(reduced(image, WORK_SIDE))
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} is damaged or cut short: it cannot be decoded to its end.") from error


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Average down to at most `side` px wide and high."""
    scale = min(1.0, side / max(image.size))
    return image.resize([max(1, round(n * scale)) for n in image.size], Image.Resampling.BOX)


def _from_array(values: np.ndarray) -> Image.Image:
    shaped = values.size and (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4)))
    unit = values.dtype == bool or np.issubdtype(values.dtype, np.floating)
    if not shaped or not (((values >= 0) & (values <= 1)).all() if unit else values.dtype == np.uint8):
        raise PictureError(
            f"An array of {values.dtype} {list(values.shape)} is no picture, or its values are out of range: "
            "[h, w], [h, w, 3] or [h, w, 4] of bool, uint8 or float in 0..1 is."
        )
    return Image.fromarray(np.rint(values * 255.0).astype(np.uint8) if unit else values)


def pixels(image: Image.Image) -> Array:
    """Any mode → [h, w] or [h, w, 3] in 0..1, transparency laid over a paper that shows the ink."""
    if image.mode in ("I", "F"):  # 16 bits and more have no fixed white: 12-bit scans come in 16-bit files
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            raise PictureError("The picture holds values that are not finite numbers (NaN or infinity).")
        values = values - min(values.min(), 0)
        return (values / (values.max() or 1)).astype(np.float32)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L" if image.mode == "L" else "RGB"), dtype=np.float32) / 255
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return colour * alpha + _backdrop(colour, alpha[..., 0]) * (1 - alpha)


def _backdrop(colour: Array, alpha: Array) -> Array:
    """What to lay a transparent picture on: its own paper, if it brings one, else what contrasts its ink."""
    solid = colour[alpha > 0.5]
    if not len(solid):
        raise PictureError(BLANK)
    level = solid.mean(axis=1)
    if alpha.mean() > 0.5 and level.std() > 0.05:
        return np.median(solid, axis=0)
    return np.full(3, level.mean() < 0.5, dtype=np.float32)
