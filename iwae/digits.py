"""A picture of a handwritten digit → a 28×28 image as MNIST's, stage by stage.

MNIST was made so: black-and-white scans were cropped to the ink, scaled with antialiasing to fit 20×20 with
their aspect kept, and moved by whole pixels until the centre of mass lay at pixel (14, 14) of 28×28 (every one
of its images has it within 0.51 px of there). `prepare` does the same to a photo, a drawing or a scan, once it
has found the paper, its light and the ink.

Pixels are float32 in 0..1; axis order is [row, column] or [row, column, RGB].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # its ndimage comes with the first picture: 0.2 s that a page without one need not wait
from numpy.typing import NDArray
from PIL import Image

from iwae.decoding import PictureError, reduced
from iwae.uploads import BLANK, Array, decoded, pixels

MIN_CONTRAST = 0.03  # of ink against paper: 8 of 255 grey levels; less is no ink
LOW_CONTRAST = 0.15  # below it the person is told
NOISE_FLOOR = 5.0  # a pixel of ink exceeds the paper's noise by so many standard deviations
CLEAR_OF_NOISE = 8.0  # and the ink's core by so many: of pure noise 2 pictures in 500 did
BLACK_LEVEL = 0.05  # what a camera or a drawing shows where no light falls: no shading is read from below it
PART = 0.03  # of the digit's area: a smaller mark beside it is a speck, not a stroke

THIN_STROKE = 1.05  # px in 20×20: none of MNIST's 70,000 digits has thinner strokes
PEN_STROKE = 2.0  # what thinner ones are widened to: MNIST's quartiles are 2.0, 2.4 and 2.8
BLOCK = 8.0  # px in 20×20: wider than any stroke (MNIST's 99th percentile is 4.3)


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


def prepare(picture: bytes | Image.Image | np.ndarray, *, invert: bool | None = None, name: str = "") -> Digit:
    """Turn a picture of one digit into a 28×28 image as MNIST's.

    `picture`: the bytes of a file, a PIL image, or an array [h, w], [h, w, 3] or [h, w, 4] of bool, uint8
    or float in 0..1. `invert`: True says that the ink is darker than the paper, False that it is lighter,
    None decides from the border of the picture. `name` is that of the file, for the errors of `read_picture`.
    Raises PictureError where no ink is found.
    """
    image = decoded(picture, name)
    received = pixels(image)
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


def _small(image: Array) -> Array:
    return np.asarray(reduced(Image.fromarray(image), 64))


def _enlarge(small: Array, shape: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(small).resize(shape[::-1], Image.Resampling.BILINEAR))


def _grey(colours: Array) -> Array:
    """Luminance, or the colour channel in which the ink stands out half as much again (yellow on white: blue)."""
    if colours.ndim == 2:
        return colours
    luminance = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's "L"
    channels = [luminance, *(np.ascontiguousarray(colours[..., c]) for c in range(3))]
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
