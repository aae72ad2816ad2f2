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
import scipy  # its ndimage comes with the first picture: 0.2 s that a page without one need not wait
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

MIN_CONTRAST = 0.03  # of ink against paper: 8 of 255 grey levels; less is no ink
LOW_CONTRAST = 0.15  # below it the person is told
NOISE_FLOOR = 5.0  # a pixel of ink exceeds the paper's noise by so many standard deviations
CLEAR_OF_NOISE = 8.0  # and the ink's core by so many: of pure noise 2 pictures in 500 did
BLACK_LEVEL = 0.05  # what a camera or a drawing shows where no light falls: no shading is read from below it
PART = 0.03  # of the digit's area: a smaller mark beside it is a speck, not a stroke

THIN_STROKE = 1.05  # px in 20×20: none of MNIST's 70,000 digits has thinner strokes
PEN_STROKE = 2.0  # what thinner ones are widened to: MNIST's quartiles are 2.0, 2.4 and 2.8
BLOCK = 8.0  # px in 20×20: wider than any stroke (MNIST's 99th percentile is 4.3)
BLANK = "The picture is blank: nothing stands out from the paper, and one digit should."


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


def prepare(picture: bytes | Image.Image | np.ndarray, *, invert: bool | None = None, name: str = "") -> Digit:
    """Turn a picture of one digit into a 28×28 image as MNIST's.

    `picture`: the bytes of a file, a PIL image, or an array [h, w], [h, w, 3] or [h, w, 4] of bool, uint8
    or float in 0..1. `invert`: True says that the ink is darker than the paper, False that it is lighter,
    None decides from the border of the picture. `name` is that of the file, for the errors of `read_picture`.
    Raises PictureError where no ink is found.
    """
    if isinstance(picture, bytes):
        image = read_picture(picture, name=name)
    else:
        image = picture if isinstance(picture, Image.Image) else _from_array(picture)
        _check_size(image, "The picture")
        image = _load(image, "The picture")
    received = _pixels(image)
    grey = _grey(received)
    sheet = _sheet(grey)
    if sheet:
        grey = grey[sheet]
    small = _small(grey)
    light = _light(small)
    inverted = bool(((small - light) ** 3).sum() < 0) if invert is None else invert  # what stands out is ink
    ink, notes = _coverage(_flatten(grey, small, light, inverted))
    if sheet:
        notes.append("Only the sheet of paper in the picture was used.")
    dark, light = ("ink", "paper") if inverted else ("paper", "ink")
    stages = (
        Stage("As received", f"Upright, {image.width}×{image.height} pixels.", received),
        Stage("Grey", "One brightness per pixel, from the colours in which ink and paper differ most.", grey),
        Stage("Ink on paper", f"Dark {dark}, light {light}: the paper, its shadows and specks are removed.", ink),
    )
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
        return ImageOps.exif_transpose(_reduce(image, WORK_SIDE))
    except Exception as error:  # decoders raise nearly every type on hostile bytes
        raise PictureError(f"{label} is damaged or cut short: it cannot be decoded to its end.") from error


def _reduce(image: Image.Image, side: int) -> Image.Image:
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


def _pixels(image: Image.Image) -> Array:
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


def _small(image: Array) -> Array:
    return np.asarray(_reduce(Image.fromarray(image), 64))


def _enlarge(small: Array, shape: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BILINEAR))


def _grey(pixels: Array) -> Array:
    """Luminance, or the colour channel in which the ink stands out half as much again (yellow on white: blue)."""
    if pixels.ndim == 2:
        return pixels
    luminance = pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's "L"
    channels = [luminance, *(np.ascontiguousarray(pixels[..., c]) for c in range(3))]
    details = [np.abs(small - scipy.ndimage.gaussian_filter(small, 6)).max() for small in map(_small, channels)]
    best = int(np.argmax(details))
    return channels[best] if details[best] > 1.5 * details[0] else luminance


def _sheet(grey: Array) -> tuple[slice, slice] | None:
    """The sheet of paper where one lies on a table: a box of another brightness, large, filled, off the border."""
    small = _small(grey)
    scale = max(grey.shape) / max(small.shape)
    bright = small > _otsu(small)
    for mask in (bright, ~bright) if scale > 1 else ():  # a picture smaller than a thumbnail is no photo
        labels, _ = scipy.ndimage.label(mask)
        for label, box in enumerate(scipy.ndimage.find_objects(labels), 1):
            sides = zip(box, small.shape, strict=True)
            large = all(s.start > 0 and s.stop < n and s.stop - s.start > 0.4 * n for s, n in sides)
            if large and (labels[box] == label).mean() > 0.8:  # an ellipse of light fills π/4, a digit less
                return tuple(slice(round((s.start + 2) * scale), round((s.stop - 2) * scale)) for s in box)
    return None


def _light(small: Array) -> Array:
    """The light on the paper: the quadratic surface through the border of a thumbnail, where the paper lies bare."""
    y, x = (np.linspace(-1, 1, n)[:, None] for n in small.shape)
    basis = np.stack(np.broadcast_arrays(1, x.T, y, x.T**2, y**2, x.T * y), axis=-1)
    border = np.ones(small.shape, dtype=bool)
    border[2:-2, 2:-2] = False
    weight = np.ones((border.sum(), 1))
    for _ in range(10):  # least absolute deviations, so that ink which reaches the border has no say
        surface = np.linalg.lstsq(basis[border] * weight, small[border] * weight[:, 0], rcond=None)[0]
        weight = 1 / np.sqrt(np.abs(basis[border] @ surface - small[border]) + 0.01)[:, None]
    return (basis @ surface).astype(np.float32)


def _paper(detail: Array) -> Array:
    """The paper under bright ink in a thumbnail, with the shadows that the smooth light leaves.

    An opening wider than any stroke tells ink from paper; the paper is then averaged across the ink.
    """
    side = max(detail.shape)
    marks = detail - scipy.ndimage.grey_opening(scipy.ndimage.median_filter(detail, 5), size=max(3, round(0.4 * side)))
    bare = (~scipy.ndimage.binary_dilation(marks > marks.max() / 2, np.ones((3, 3)))).astype(np.float32)
    paper = np.zeros_like(detail)
    for sigma in (0.25 * side, 0.04 * side):  # the wide average fills what the narrow one cannot reach
        total, weight = (scipy.ndimage.gaussian_filter(values, sigma) for values in (bare * detail, bare))
        paper = (total + 0.01 * paper) / (weight + 0.01)
    return paper


def _flatten(grey: Array, small: Array, light: Array, inverted: bool) -> Array:
    """Remove the paper and even out its light (both from the thumbnail): ink becomes a positive signal."""
    sign = -1 if inverted else 1
    paper = _enlarge(light + sign * _paper(sign * (small - light)), grey.shape)
    light = _enlarge(np.maximum(light, 0) + BLACK_LEVEL, grey.shape)
    return sign * (grey - paper) * (np.median(light) / light)  # ink in the shade stands out by less


def _coverage(signal: Array) -> tuple[Array, list[str]]:
    """How much of each pixel is the digit's ink, 0..1, and what to tell of it."""
    widest = max(0.7, min(signal.shape) / 60)  # px of blur: leaves 300 independent patches to know the noise by
    for blur in (0.0, 0.7, 1.4, 2.8):  # the least that lifts the ink clear of the noise
        ink, noise, core = _levels(scipy.ndimage.gaussian_filter(signal, blur))
        if blur <= widest and core > max(MIN_CONTRAST, CLEAR_OF_NOISE * noise):
            break
    else:
        raise PictureError(BLANK)
    mark, others = _mark(ink > core / 2)
    cropped = _crop(mark.astype(np.float32))
    zoom = max(1.0, max(cropped.shape) / 20)  # px here to a pixel of the result: edges finer than that may go
    smooth = scipy.ndimage.gaussian_filter(ink, min(0.15 * (zoom - 1), 0.25 * _stroke(cropped) * zoom)) / core
    low = max(0.5 - 0.5 / min(zoom, 4), min(0.4, NOISE_FLOOR * noise / core / zoom), 0.5 / 255)
    coverage = np.clip((smooth - low) / (1 - 2 * low), 0, 1)
    labels, _ = scipy.ndimage.label(coverage > 0, np.ones((3, 3)))
    digit = np.isin(labels, labels[mark & (labels > 0)])
    if not digit.any():
        raise PictureError(BLANK)
    notes = []
    if core < LOW_CONTRAST:
        notes.append(f"The ink stands out from the paper by only {core:.0%}: check the result.")
    if others:
        notes.append("There are other marks: the largest one was taken for the digit.")
    return coverage * digit, notes


def _levels(ink: Array) -> tuple[Array, float, float]:
    """Ink with the paper's mean at 0, the paper's noise (standard deviation), and the level of the ink's core."""
    ink = ink - np.median(ink)
    noise = 1.4826 * float(np.median(-ink[ink <= 0]))
    candidates = ink[ink > max(NOISE_FLOOR * noise, 0.5 / 255)]
    core = float(np.percentile(candidates[candidates >= _otsu(candidates)], 75)) if candidates.size else 0.0
    return ink, noise, core


def _otsu(values: Array) -> float:
    """Otsu's threshold: the split with the largest variance between its two classes (of one grey level: itself)."""
    if np.ptp(values) < 1 / 255:
        return float(values.min())
    counts, edges = np.histogram(values, 128)
    below, total = np.cumsum(counts), np.cumsum(counts * (edges[1:] + edges[:-1]) / 2)
    below, total, n, whole = below[:-1], total[:-1], below[-1], total[-1]
    between = below * (n - below) * (total / below - (whole - total) / (n - below)) ** 2
    return float(edges[1 + int(np.argmax(between))])


def _mark(mask: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], bool]:
    """The digit among the connected marks: the largest off the border, with its parts; were others left out?"""
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    area = np.bincount(labels.ravel())
    area[0] = 0
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    contact = np.bincount(border, minlength=area.size)
    inside = np.where(contact, 0, area)
    unframed = np.where(contact > border.size / 4, 0, area)  # a table's edge round the paper is no digit
    eligible = unframed if unframed.max() >= PART * area.max() else area
    main = int(np.argmax(inside if inside.max() >= 0.2 * eligible.max() else eligible))

    boxes = scipy.ndimage.find_objects(labels)
    reach = 0.3 * max(side.stop - side.start for side in boxes[main - 1])

    def near(label: int) -> bool:
        pairs = zip(boxes[label - 1], boxes[main - 1], strict=True)
        return max(max(a.start - b.stop, b.start - a.stop) for a, b in pairs) <= reach

    large = np.flatnonzero(eligible >= PART * area[main])
    parts = [label for label in large if label == main or ((inside[label] or contact[main]) and near(label))]
    return np.isin(labels, parts), len(parts) < len(large)


def _finish(ink: Array, stages: tuple[Stage, ...], inverted: bool, notes: list[str]) -> Digit:
    cropped = _crop(ink / ink.max())
    stroke = _stroke(cropped)
    caption = "To the ink."
    if stroke < THIN_STROKE:
        cropped = _thicken(cropped, (PEN_STROKE - stroke) / 2 * max(cropped.shape) / 20)
        caption = "To the ink; its thin strokes are widened to a pen's as in MNIST."
    if stroke > BLOCK:
        notes.append("This is a block, not strokes: if the paper was taken for the ink, change the inversion.")
    scaled = _scale(cropped)
    image = _centre(scaled)
    stages += (
        Stage("Cropped", caption, cropped),
        Stage("20×20", "Scaled to fit 20×20 pixels, its aspect kept.", scaled),
        Stage("Centred", "Its centre of mass in the middle of 28×28 pixels: what the models see.", image),
    )
    return Digit(image, stages, inverted, " ".join(notes) or None)


def _crop(ink: Array) -> Array:
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _stroke(cropped: Array) -> float:
    """Mean width of the strokes, in px of the 20×20 to come.

    A line of length l and width w has area l·w and edges of length 2·l: the total variation.
    """
    padded = np.pad(cropped, 1)
    edges = np.hypot(np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]).sum()
    return float(2 * cropped.sum() / edges * 20 / max(cropped.shape))


def _thicken(ink: Array, radius: float) -> Array:
    """Grow the strokes by `radius` px on each side."""
    padded = np.pad(ink, int(np.ceil(radius)) + 1)
    distance = scipy.ndimage.distance_transform_edt(padded < 0.5)
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
        int(np.clip(round(14 - round(c, 3)), 0, 28 - n))
        for c, n in zip(scipy.ndimage.center_of_mass(scaled), scaled.shape, strict=True)
    )
    image[top : top + scaled.shape[0], left : left + scaled.shape[1]] = scaled
    return image
