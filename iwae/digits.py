"""A picture of a handwritten digit → a 28×28 image as MNIST's, stage by stage.

MNIST was made so: black-and-white scans were cropped to the ink, scaled with antialiasing to fit 20×20 with
their aspect kept, and moved by whole pixels until the centre of mass lay at pixel (14, 14) of 28×28 (every one
of its images has it within 0.51 px of there). `prepare` does the same to a photo, a drawing or a scan, once it
has found the paper, its light and the ink.

Pixels are float32 in 0..1; axis order is [row, column] or [row, column, RGB].
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import ndimage

Array = NDArray[np.float32]

FORMATS = ("PNG", "JPEG", "WebP", "BMP", "GIF", "TIFF")
MAX_BYTES = 10 * 2**20
MAX_PIXELS = 25_000_000  # 24-megapixel cameras fit; decoded, at 4 bytes a pixel, this is 95 MiB
WORK_SIDE = 640  # px of the longer side that is worked on: a digit a tenth as wide still has 64 px

MIN_CONTRAST = 0.03  # of ink against paper: 8 of 255 grey levels; less is no ink
LOW_CONTRAST = 0.15  # below it, the caller is told
NOISE_FLOOR = 5.0  # standard deviations of the paper's noise that a pixel of ink must exceed
DARKNESS = 0.05  # 
CLEAR = 8.0
THIN_STROKE = 1.15  # px in 20×20; 
PEN_STROKE = 2.0


class PictureError(ValueError):
    """The picture cannot be used; the message is one sentence for the person who sent it."""


@dataclass(frozen=True)
class Stage:
    """One step of the preparation, to be shown: `image` is float32 [h, w] or [h, w, 3] in 0..1."""

    name: str
    caption: str
    image: Array


@dataclass(frozen=True)
class Digit:
    """A prepared digit: `image` float32 [28, 28], 0 = paper and 1 = ink, and how it came about."""

    image: Array
    stages: tuple[Stage, ...]
    inverted: bool  # dark ink on light paper was inverted
    note: str | None  # what the person should know about this picture, if anything


def read_picture(data: bytes, *, name: str = "") -> Image.Image:
    """Decode an uploaded picture: upright, and reduced to `WORK_SIDE` px where it is larger.

    What counts is the content, whatever `name` ends in. Raises PictureError where the bytes are none of
    `FORMATS`, damaged, more than `MAX_BYTES`, or stand for more than `MAX_PIXELS` (checked before decoding).
    """
    label = f"“{name}”" if name else "The picture"
    if not data:
        raise PictureError(f"{label} is empty (0 bytes).")
    if len(data) > MAX_BYTES:
        raise PictureError(f"{label} has {len(data) / 2**20:.1f} MB; at most {MAX_BYTES / 2**20:.0f} MB are allowed.")
    try:
        image = Image.open(io.BytesIO(data), formats=[f.upper() for f in FORMATS])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError(f"{label} is far too large: {_PIXEL_RULE}.") from error
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(
            f"{label} is not a picture that can be read, or its beginning is damaged: allowed are "
            f"{', '.join(FORMATS)}, whatever the file is called."
        ) from error
    return _load(image, label)


def prepare(picture: bytes | Image.Image | np.ndarray, *, invert: bool | None = None) -> Digit:
    """Turn a picture of one digit into a 28×28 image as MNIST's.

    `picture`: the bytes of a file, a PIL image, or an array [h, w], [h, w, 3] or [h, w, 4] of bool, uint8
    or float in 0..1. `invert`: True says that the ink is darker than the paper, False that it is lighter,
    None decides from the border of the picture. Raises PictureError where no ink is found.
    """
    if isinstance(picture, bytes):
        image = read_picture(picture)
    else:
        image = _load(_from_array(picture) if isinstance(picture, np.ndarray) else picture.copy(), "The picture")
    received = _pixels(image)
    grey = _grey(received)
    inverted = _dark_ink(grey) if invert is None else invert
    ink, contrast, others = _ink(grey, inverted)
    stages = (
        Stage("As received", f"Upright, at {image.width}×{image.height} pixels.", received),
        Stage("Grey", "One brightness per pixel, from the colours in which ink and paper differ most.", grey),
        Stage(
            "Ink on paper",
            f"Paper and shadows removed; the ink was {'darker' if inverted else 'lighter'} than the paper.",
            ink,
        ),
    )
    notes = []
    if contrast < LOW_CONTRAST:
        notes.append(f"The ink stands out from the paper by only {contrast:.0%}: check the result.")
    if others:
        notes.append("Other marks were left out: the largest one was taken for the digit.")
    return _finish(ink, stages, inverted, notes)


def from_canvas(pixels: Sequence[int] | np.ndarray) -> Digit:
    """Prepare a drawing on a 28×28 canvas: 784 numbers 0..255, row by row, ink high.

    Raises PictureError where nothing was drawn or the numbers are not 784 in 0..255.
    """
    values = np.asarray(pixels, dtype=np.float64).ravel()
    if values.size != 28 * 28 or not ((values >= 0) & (values <= 255)).all():
        raise PictureError("A drawing is 784 numbers from 0 to 255 (28×28 pixels); this one is not.")
    if not values.any():
        raise PictureError("Nothing is drawn yet: draw a digit first.")
    drawn = (values / 255).astype(np.float32).reshape(28, 28)
    return _finish(drawn, (Stage("As drawn", "Your strokes, on 28×28 pixels.", drawn),), False, [])


# Reading ---------------------------------------------------------------------------------------------------

_PIXEL_RULE = f"at most {MAX_PIXELS / 1e6:.0f} million pixels are allowed"


def _load(image: Image.Image, label: str) -> Image.Image:
    """Check the size, decode, reduce to WORK_SIDE and turn upright; keeps transparency and depth."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise PictureError(f"{label} is too large: {width}×{height} pixels, {_PIXEL_RULE}.")
    try:
        if image.mode in ("1", "P", "PA"):  # these cannot be averaged as they are
            image.load()
            image = image.convert("L" if image.mode == "1" else "RGBA")
        elif image.mode.startswith("I;16"):
            image = image.convert("I")
        image.thumbnail((WORK_SIDE, WORK_SIDE), Image.Resampling.BOX, reducing_gap=2.0)
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} is damaged or cut short: it could not be decoded to the end.") from error


def _from_array(values: np.ndarray) -> Image.Image:
    shaped = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    if not shaped or values.size == 0:
        raise PictureError(f"An array of shape {values.shape} is no picture: [h, w], [h, w, 3] or [h, w, 4] is.")
    if np.issubdtype(values.dtype, np.floating):
        if not ((values >= 0) & (values <= 1)).all():
            raise PictureError("A picture of floats must lie in 0..1 and hold no NaN.")
        values = np.rint(values * 255).astype(np.uint8)
    elif values.dtype == bool:
        values = values.astype(np.uint8) * 255
    elif values.dtype != np.uint8:
        raise PictureError(f"An array of {values.dtype} is no picture: bool, uint8 or float in 0..1 is.")
    return Image.fromarray(values)


def _pixels(image: Image.Image) -> Array:
    """Any mode → [h, w] or [h, w, 3] in 0..1, transparency laid over a paper that shows the ink."""
    if image.mode in ("I", "F"):  # 16 bits and more have no fixed white: 12-bit scans come in 16-bit files
        values = np.asarray(image, dtype=np.float32)
        if not np.isfinite(values).all():
            raise PictureError("The picture holds values that are not numbers (NaN or infinity).")
        values = values - min(values.min(), 0)
        return values / (values.max() or 1)
    if not image.has_transparency_data:
        return np.asarray(image.convert("L" if image.mode == "L" else "RGB"), dtype=np.float32) / 255
    rgba = np.asarray(image.convert("RGBA"), dtype=np.float32) / 255
    colour, alpha = rgba[..., :3], rgba[..., 3:]
    return colour * alpha + _backdrop(colour, alpha[..., 0]) * (1 - alpha)


def _backdrop(colour: Array, alpha: Array) -> Array:
    """What to lay a transparent picture on: its own paper, if it brings one, else what contrasts its ink."""
    solid = colour[alpha > 0.5]
    if not len(solid):
        raise PictureError("The picture is blank: it is transparent all over.")
    level = solid.mean(axis=1)
    if alpha.mean() > 0.5 and level.std() > 0.05:
        return np.median(solid, axis=0)
    return np.full(3, level.mean() < 0.5, dtype=np.float32)


# Finding the ink -------------------------------------------------------------------------------------------


def _small(image: Array, side: int = 64) -> Array:
    """A thumbnail by area averages, at most `side` px wide and high."""
    height, width = image.shape
    scale = min(1.0, side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _grey(pixels: Array) -> Array:
    """Luminance, or the colour channel in which the ink stands out half as much again (yellow on white)."""
    if pixels.ndim == 2:
        return pixels
    luminance = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's "L"
    channels = [luminance, *np.moveaxis(pixels, 2, 0)]

    def detail(channel: Array) -> float:
        small = _small(np.ascontiguousarray(channel))
        return float(np.abs(small - ndimage.gaussian_filter(small, 6)).max())

    details = [detail(channel) for channel in channels]
    best = int(np.argmax(details))
    return np.ascontiguousarray(channels[best]) if details[best] > 1.5 * details[0] else luminance


def _dark_ink(grey: Array) -> bool:
    """Is the ink darker than the paper? Paper touches the border: fit its light there, see which side stands out."""
    small = _small(grey)
    y, x = (np.linspace(-1, 1, n) for n in small.shape)
    basis = np.stack(np.broadcast_arrays(1, x, y[:, None], x * x, y[:, None] ** 2, x * y[:, None]), axis=-1)
    border = np.ones(small.shape, dtype=bool)
    border[2:-2, 2:-2] = False
    weight = np.ones(border.sum())
    for _ in range(10):  # least absolute deviations, so that ink which reaches the border has no say
        surface = np.linalg.lstsq(basis[border] * weight[:, None], small[border] * weight, rcond=None)[0]
        weight = 1 / np.sqrt(np.abs(basis[border] @ surface - small[border]) + 0.01)
    return bool(((small - basis @ surface) ** 3).sum() < 0)


def _paper(signal: Array) -> Array:
    """The level of the paper under each pixel: an opening wider than any stroke follows light and shadows."""
    small = ndimage.median_filter(_small(signal), 5)
    window = max(3, round(0.4 * max(small.shape)))
    paper = ndimage.gaussian_filter(ndimage.grey_opening(small, size=window), 1.0)
    size = (signal.shape[1], signal.shape[0])
    return np.asarray(Image.fromarray(paper).resize(size, Image.Resampling.BILINEAR))


def _ink(grey: Array, inverted: bool) -> tuple[Array, float, bool]:
    """Grey picture → coverage of each pixel by ink, the ink's contrast, and were other marks left out?"""
    signal = 1 - grey if inverted else grey
    paper = _paper(signal)
    light = (1 - paper if inverted else paper) + DARKNESS
    ink = (signal - paper) * (np.median(light) / light)
    for blur in (0.0, 0.7, 1.4, 2.8):  # px: the least that lifts the ink clear of the noise
        level, noise, core = _levels(ndimage.gaussian_filter(ink, blur))
        if core > max(MIN_CONTRAST, CLEAR * noise):
            break
    else:
        raise PictureError("The picture is blank: nothing on it stands out from the paper; it needs one digit.")
    ink = level
    mark, others = _mark(ink > core / 2)
    rows, columns = np.nonzero(mark)
    size = max(np.ptp(rows), np.ptp(columns)) + 1
    # A pixel of the result averages (size / 20)² of these: smooth and steepen the edges by no more than that.
    zoom = max(1.0, size / 20)
    rest = np.sqrt(max(0.0, (0.15 * (zoom - 1)) ** 2 - blur**2))
    smooth = ndimage.gaussian_filter(ink, rest) / core
    low = max(0.5 - 0.5 / min(zoom, 4), NOISE_FLOOR * noise / core / zoom)
    coverage = np.clip((smooth - low) / (1 - 2 * low), 0, 1)
    labels, _ = ndimage.label(coverage > 0, np.ones((3, 3)))
    kept = np.unique(labels[mark])
    return np.where(np.isin(labels, kept[kept > 0]), coverage, 0), core, others


def _levels(ink: Array) -> tuple[Array, float, float]:
    """Ink with the paper's mean at 0, the paper's noise (standard deviation), and the level of the ink's core."""
    ink = ink - np.median(ink)
    noise = 1.4826 * float(np.median(-ink[ink <= 0]))
    candidates = ink[ink > max(NOISE_FLOOR * noise, 0.5 / 255)]
    core = float(np.percentile(candidates[candidates >= _otsu(candidates)], 75)) if candidates.size else 0.0
    return ink, noise, core


def _otsu(values: Array) -> float:
    """Otsu's threshold: the split with the largest variance between its two classes."""
    counts, edges = np.histogram(values, 128)
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between[:-1]))])


def _mark(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
    """The digit among the connected marks: the largest off the border, with its parts; were others left out?"""
    labels, _ = ndimage.label(mask, np.ones((3, 3)))
    area = np.bincount(labels.ravel())
    area[0] = 0
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    inside = area.copy()
    inside[edge] = 0
    main = int(np.argmax(inside if inside.max() >= 0.2 * area.max() else area))
    boxes = ndimage.find_objects(labels)
    reach = 0.3 * max(s.stop - s.start for s in boxes[main - 1])
    large = np.flatnonzero(area >= 0.03 * area[main])

    def gap(label: int) -> int:
        pairs = zip(boxes[label - 1], boxes[main - 1], strict=True)
        return max(max(a.start - b.stop, b.start - a.stop) for a, b in pairs)

    parts = [label for label in large if label == main or (inside[label] and gap(label) <= reach)]
    return np.isin(labels, parts), len(parts) < len(large)


# As MNIST was made -----------------------------------------------------------------------------------------


def _finish(ink: Array, stages: tuple[Stage, ...], inverted: bool, notes: list[str]) -> Digit:
    cropped = _crop(ink)
    stroke = _stroke(cropped) * 20 / max(cropped.shape)
    if stroke < THIN_STROKE:
        cropped = _thicken(cropped, (PEN_STROKE - stroke) / 2 * max(cropped.shape) / 20)
    scaled = _scale(cropped)
    image = _centre(scaled)
    stages += (
        Stage("Cropped", "To the ink.", cropped),
        Stage("20×20", "Scaled to fit 20×20 pixels, its aspect kept.", scaled),
        Stage("Centred", "Its centre of mass in the middle of 28×28 pixels: what the models see.", image),
    )
    return Digit(image, stages, inverted, " ".join(notes) or None)


def _crop(ink: Array) -> Array:
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _stroke(ink: Array) -> float:
    """Mean width of the strokes in px: a line of length l and width w has area l·w and 2·l of edge."""
    padded = np.pad(ink, 1)
    edge = np.hypot(np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]).sum()
    return float(2 * ink.sum() / edge)


def _thicken(ink: Array, radius: float) -> Array:
    """Grow the strokes by `radius` px on each side (unchanged where it is not positive)."""
    if radius <= 0:
        return ink
    padded = np.pad(ink, int(np.ceil(radius)) + 1)
    distance = ndimage.distance_transform_edt(padded < 0.5)
    return _crop(np.maximum(padded, np.clip(radius + 1 - distance, 0, 1)).astype(np.float32))


def _scale(ink: Array) -> Array:
    factor = 20 / max(ink.shape)
    size = (max(1, round(ink.shape[1] * factor)), max(1, round(ink.shape[0] * factor)))
    resample = Image.Resampling.BOX if factor < 1 else Image.Resampling.BILINEAR
    scaled = np.asarray(Image.fromarray(ink).resize(size, resample))
    return scaled / scaled.max()


def _centre(scaled: Array) -> Array:
    """Place in 28×28 by whole pixels (nothing is blurred), centre of mass as near (14, 14) as the frame allows."""
    image = np.zeros((28, 28), dtype=np.float32)
    top, left = (
        int(np.clip(round(14 - c), 0, 28 - n))
        for c, n in zip(ndimage.center_of_mass(scaled), scaled.shape, strict=True)
    )
    image[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return image
