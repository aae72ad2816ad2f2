"""The ink of a digit on its paper: the paper's light, its shadows, its lines and other marks are taken away."""

from dataclasses import dataclass

import numpy as np
import scipy  # scipy.ndimage is imported with the first picture: a page without one saves 0.2 s
from numpy.typing import NDArray
from PIL import Image

from iwae.images.decoding import PictureError, reduced
from iwae.images.uploads import BLANK, Array

MIN_CONTRAST = 0.03  # of ink against paper, 8 of 255 grey levels; anything fainter is not ink
LOW_CONTRAST = 0.15  # below it the user is warned
NOISE_FLOOR = 5.0  # a pixel of ink exceeds the paper's noise by so many standard deviations
CLEAR_OF_NOISE = 8.0  # and the ink's core by so many: of pure noise 2 pictures in 500 did
BLACK_LEVEL = 0.05  # what a camera or a drawing shows where no light falls: no shading is read from below it
REACHES = (0.1, 0.2, 0.35)  # of the longer side, widths of the closing that finds the paper: the least that will do
TINY = 60  # px: a smaller picture is not a photo, and has no shadows
LEAST_INSIDE = 0.02  # of the largest mark: one off the border that is smaller is not preferred to it
COMPLETE = 0.15  # of the ink: what a wider closing must add to be used
MOST_HOLES = 4  # of a digit, its pen's splutter included
ACROSS = 0.85  # of the picture
MESH = 1.3  # times as dark as the lines of its paper is ink
AS_DARK = 0.75  # of the ink: how dark that must be
SMOOTH = 1.0  # px of blur before the closing
CHOICE = 0.15  # of the digit's area: a smaller mark is not another digit
PART = 0.03  # of the digit's area: a smaller mark beside it is a speck, not a stroke


Pixels = tuple[int, int, int, int]  # left, top, right, bottom of a box


def _small(image: Array, side: int = 64) -> Array:
    return np.asarray(reduced(Image.fromarray(image), side))


def _enlarge(small: Array, shape: tuple[int, int]) -> Array:
    return np.asarray(Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def grey_of(colours: Array) -> Array:
    """Luminance, or the colour channel in which the ink stands out half as much again (yellow on white: blue)."""
    if colours.ndim == 2:
        return colours
    luminance = colours @ np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601, as Pillow's "L"
    channels = [luminance, *(np.ascontiguousarray(colours[..., c]) for c in range(3))]
    details = [np.abs(small - scipy.ndimage.gaussian_filter(small, 6)).max() for small in map(_small, channels)]
    best = int(np.argmax(details))
    return channels[best] if details[best] > 1.5 * details[0] else luminance


def is_dark(grey: Array) -> bool:
    """Whether the ink is darker than the paper.

    A closing fills dark strokes as soon as it is wider than they are, an opening the gaps between them only once
    it is wider than these; neither sees the edge of a shadow. So widths are tried from narrow to wide.
    """
    small = scipy.ndimage.gaussian_filter(_small(grey, 128), 0.7)
    if max(grey.shape) > TINY:
        small = np.log(small + 2 * BLACK_LEVEL)  # ink stands out by as much in the shade
    rim = min(small.shape) // 16  # where a scanner's lid or a table shows
    inner = tuple(slice(rim, n - rim) for n in small.shape)
    balance = 0.0
    for part in (0.03, 0.05, 0.08, 0.12, 0.18, 0.27):
        width = round(part * max(small.shape))
        dark, light = _closed(small, width) - small, _closed(-small, width) + small
        balance += float((dark[inner] ** 3).sum() - (light[inner] ** 3).sum()) / max(1, width) ** 2
    return balance > 0


def _closed(level: Array, width: int) -> Array:
    """The grey closing by a square, as if the picture's border went on for ever."""
    radius = max(1, width // 2)
    padded = np.pad(level, radius, mode="edge")
    for of in (scipy.ndimage.maximum_filter, scipy.ndimage.minimum_filter):
        padded = of(padded, 2 * radius + 1, mode="nearest")
    return padded[radius:-radius, radius:-radius]


def paper(grey: Array, dark: bool, reach: float) -> Array:
    """The brightness of the paper under ink whose strokes are narrower than `reach` of the longer side."""
    level = _closed(grey if dark else -grey, round(reach * max(grey.shape)))
    return level if dark else -level


def _lift(grey: Array, dark: bool, reach: float) -> Array:
    """Ink as a positive signal on paper of zero, as if all of the paper lay in the same light.

    The paper under dark ink is a closing by a square wider than any stroke: it fills what is narrow and keeps a
    step, however hard, so that the edge of a shadow leaves nothing behind.
    """
    bare = paper(scipy.ndimage.gaussian_filter(grey, min(SMOOTH, max(grey.shape) / 400)), dark, reach)
    difference = bare - grey if dark else grey - bare
    bare = np.maximum(bare, 0) + BLACK_LEVEL
    signal = difference * (np.median(bare) / bare)  # ink in the shade stands out by less
    return signal - _enlarge(_offset(_small(signal)), grey.shape)


def _offset(small: Array) -> Array:
    """How far the closing rises above the paper's mean by its noise and its texture, in a thumbnail without the ink."""
    limit = np.median(small) + 3 * 1.4826 * np.median(np.abs(small - np.median(small))) + 0.01
    bare = (~scipy.ndimage.binary_dilation(small > limit, np.ones((3, 3)))).astype(np.float32)
    offset = np.full_like(small, np.median(small))
    for sigma in (0.25 * max(small.shape), 0.06 * max(small.shape)):  # the wide one fills what the narrow one cannot
        total, weight = (scipy.ndimage.gaussian_filter(values, sigma) for values in (bare * small, bare))
        offset = (total + 0.01 * offset) / (weight + 0.01)
    return offset


@dataclass(frozen=True)
class Found:
    """The digit's ink in a picture [h, w]."""

    coverage: Array  # [h, w], how much of each pixel is its ink, 0..1
    notes: list[str]  # warnings about it
    boxes: list[Pixels]  # of the digit, then of each large mark in the picture


def find(grey: Array, dark: bool, within: NDArray[np.bool_] | None = None) -> Found:
    """The digit's ink.

    `dark`: is the ink darker than its paper? `within`: a mask of where the digit lies; else it is chosen among the
    marks. Raises PictureError where nothing stands out.
    """
    found: Found | None = None
    for reach in REACHES if max(grey.shape) > TINY else REACHES[-1:]:
        signal = _lift(grey, dark, reach)
        try:
            wider = _find(signal, within)
        except PictureError:
            if reach == REACHES[-1] and found is None:
                raise
            continue
        if found and not _completes(wider.coverage, found.coverage, signal, round(reach * max(grey.shape))):
            return found
        found = wider
    assert found is not None  # or the last reach has raised
    return found


def _completes(wider: Array, found: Array, signal: Array, reach: int) -> bool:
    """Whether a wider closing finds more of the same digit, because its strokes filled the narrower one.

    More of the digit is as dark as what was found; a shadow that it lies in is not.
    """
    rows, columns = (np.flatnonzero(found.max(axis=axis) > 0) for axis in (1, 0))
    around = tuple(slice(max(0, int(line[0]) - reach), int(line[-1]) + reach) for line in (rows, columns))
    more, old = wider[around] > 0.5, found[around] > 0.5
    added = more & ~old
    if (more & old).sum() < 0.5 * old.sum() or added.sum() < COMPLETE * old.sum():
        return False
    return bool(signal[around][added].mean() > AS_DARK * signal[around][old].mean())


def _find(signal: Array, within: NDArray[np.bool_] | None) -> Found:
    widest = max(0.7, min(signal.shape) / 60)  # px of blur: leaves 300 independent patches to know the noise by
    for blur in (0.0, 0.7, 1.4, 2.8):  # the least that lifts the ink clear of the noise
        ink, noise, core = _levels(scipy.ndimage.gaussian_filter(signal, blur))
        if blur <= widest and core > max(MIN_CONTRAST, CLEAR_OF_NOISE * noise):
            break
    else:
        raise PictureError(BLANK)
    mark, others, boxes = _mark(ink > core / 2, within)
    if _is_mesh(mark):  # the lines of squared paper: the ink is what is darker
        darker = ink[ink > max(0.75 * core, NOISE_FLOOR * noise)]
        level = float(np.percentile(darker[darker >= _otsu(darker)], 75))
        if level > MESH * core:
            core = level
            mark, others, boxes = _mark(ink > core / 2, within)
    cropped = crop(mark.astype(np.float32))
    zoom = max(1.0, max(cropped.shape) / 20)  # px here to a pixel of the result: edges finer than that may go
    smooth = scipy.ndimage.gaussian_filter(ink, min(0.15 * (zoom - 1), 0.25 * stroke_width(cropped) * zoom)) / core
    low = max(0.5 - 0.5 / min(zoom, 4), min(0.4, NOISE_FLOOR * noise / core / zoom), 0.5 / 255)
    coverage = np.clip((smooth - low) / (1 - 2 * low), 0, 1)
    labels, _ = scipy.ndimage.label(coverage > 0, np.ones((3, 3)))
    digit = np.isin(labels, labels[mark & (labels > 0)])
    if within is not None and not mark[~within].any():
        digit &= within
    if not digit.any():
        raise PictureError(BLANK)
    notes = []
    if core < LOW_CONTRAST:
        notes.append(f"The ink stands out from the paper by only {core:.0%}: check the result.")
    if others:
        notes.append("There are other marks: the largest one was taken for the digit.")
    return Found(coverage * digit, notes, boxes)


def _is_mesh(mark: NDArray[np.bool_]) -> bool:
    """Whether a mark is made of lines on the paper: it has more holes than a digit, or reaches across the picture."""
    _, holes = scipy.ndimage.label(scipy.ndimage.binary_erosion(~mark))
    reach = (np.ptp(np.flatnonzero(mark.any(axis=axis))) for axis in (1, 0))
    return holes > 1 + MOST_HOLES or any(r > ACROSS * n for r, n in zip(reach, mark.shape, strict=True))


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


def _mark(mask: NDArray[np.bool_], within: NDArray[np.bool_] | None) -> tuple[NDArray[np.bool_], bool, list[Pixels]]:
    """The digit among the connected marks: the largest off the border, with its parts; whether others were left out;
    and `Found.boxes`."""
    if within is not None:
        return _marks_within(mask, within), False, []
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    area = np.bincount(labels.ravel())
    area[0] = 0
    border = np.concatenate([labels[0], labels[-1], labels[1:-1, 0], labels[1:-1, -1]])
    contact = np.bincount(border, minlength=area.size)
    inside = np.where(contact, 0, area)
    unframed = np.where(contact > border.size / 4, 0, area)  # the edge of a table around the paper is not a digit
    eligible = unframed if unframed.max() >= PART * area.max() else area
    main = int(np.argmax(inside if inside.max() >= LEAST_INSIDE * eligible.max() else eligible))

    boxes = scipy.ndimage.find_objects(labels)
    reach = 0.3 * max(side.stop - side.start for side in boxes[main - 1])

    def near(label: int) -> bool:
        pairs = zip(boxes[label - 1], boxes[main - 1], strict=True)
        return max(max(a.start - b.stop, b.start - a.stop) for a, b in pairs) <= reach

    large = np.flatnonzero(eligible >= PART * area[main]).tolist()
    parts = [label for label in large if label == main or ((inside[label] or contact[main]) and near(label))]
    digit = np.isin(labels, parts)
    each = [label for label in large if area[label] >= CHOICE * area[main] and (inside[label] or label in parts)]
    sizes = [scipy.ndimage.find_objects(digit.astype(int))[0], *(boxes[label - 1] for label in each)]
    pixels = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in sizes]
    return digit, any(inside[label] for label in set(large) - set(parts)), list(dict.fromkeys(pixels))


def _marks_within(mask: NDArray[np.bool_], within: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Marks of which more than half lies within; where there is none, what of them lies there."""
    labels, _ = scipy.ndimage.label(mask, np.ones((3, 3)))
    area = np.bincount(labels.ravel())
    inside = np.bincount(labels[within], minlength=area.size)
    inside[0] = 0
    whole = inside > area / 2
    if not whole.any():
        if not (mask & within).any():
            raise PictureError("Nothing in the box stands out from the paper: move it, or make it larger.")
        return mask & within
    return np.isin(labels, np.flatnonzero(whole & (area >= PART * area[whole].max())))


def crop(ink: Array) -> Array:
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def stroke_width(cropped: Array) -> float:
    """Mean width of the strokes, in px of the 20×20 to come.

    A line of length l and width w has area l·w and edges of length 2·l: the total variation.
    """
    padded = np.pad(cropped, 1)
    edges = np.hypot(np.diff(padded, axis=0)[:, 1:], np.diff(padded, axis=1)[1:]).sum()
    return float(2 * cropped.sum() / edges * 20 / max(cropped.shape))
