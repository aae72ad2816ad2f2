"""The sheet of paper in a photo: found by its straight sides, and seen as from straight above.

Regions of a thumbnail that are brighter (or darker) than a threshold are tried at many thresholds. A sheet is a
large one without dents whose sides, off the picture's own border, are straight. With all four sides in view their
corners give the homography that undoes the perspective; with two or three the picture is turned upright and the
desk painted over.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iwae.images.decoding import reduced
from iwae.images.uploads import Array

THUMBNAIL = 128  # px; the sides are found to a fraction of one of these
THRESHOLDS = 12
ALIKE = 0.93  # of the largest area: what is the same sheet, at another threshold
LEAST_AREA = 0.06  # of the picture
FILLED = 0.94  # of the polygon through the sides: an ellipse of light fills π/4 of a rectangle
LEAST_SIDE = 0.15  # of the picture's shorter side; a shorter edge is a corner that something hides
SLENDER = 3.0  # the longest side over the shortest: a bar is a stroke of a pen
MOST_SLANT = 30.0  # degrees of a side from a right angle, in perspective
STRAIGHT = 0.5  # px: how far the pixels along a side lie from its line, root mean square
STEP = 0.03  # of the brightness, across a side
ABRUPT = 3.0  # times what the brightness changes by over the same distance inside
BRUSH = 3.0  # px: over what the paper is averaged that is painted over a desk
MARGIN = 0.015  # of the sheet, cut off on each side: the edge's own shadow

Points = NDArray[np.floating]  # [n, 2] as (x, y)


@dataclass(frozen=True)
class Sheet:
    """A sheet in a picture of px (x, y): its outline clockwise, and the corners if all four sides are in view."""

    outline: Points
    corners: Points | None  # from its top left
    turn: float  # radians; a positive one is clockwise

    def flat(self, colours: Array) -> tuple[Array, NDArray[np.float64]]:
        """The sheet alone, upright, cut out of its picture [h, w] or [h, w, 3]; and the homography [3, 3] that takes a
        place (x, y, 1) in it to one in the picture."""
        return _turned(colours, self) if self.corners is None else _rectified(colours, self.corners)

    def holds(self, mask: NDArray[np.bool_]) -> bool:
        """Whether everything that is marked in a picture lies on the sheet."""
        return not (mask & ~_drawn(self.outline, mask.shape)).any()


def find(colours: Array) -> Sheet | None:
    """The largest sheet in a picture [h, w] or [h, w, 3], if there is one."""
    if max(colours.shape[:2]) <= THUMBNAIL:  # a picture smaller than a thumbnail is not a photo
        return None
    small = _reduced(colours, THUMBNAIL)
    scale = np.array(colours.shape[1::-1]) / small.shape[1::-1]
    found: list[tuple[bool, int, Sheet]] = []
    for channel in _channels(small):
        low, high = np.percentile(channel, (2, 98))
        sizes: list[int] = []
        for threshold in np.linspace(low, high, THRESHOLDS + 2)[1:-1] if high - low > 0.05 else ():
            for region in (*_regions(channel > threshold), *_regions(channel <= threshold)):
                area = int(region.sum())
                if any(abs(area - size) < 0.005 * area for size in sizes):
                    continue
                sizes.append(area)
                if sheet := _sheet(region, channel):
                    found.append((sheet.corners is not None, area, sheet))
    if not found:
        return None
    whole, most = max(one[:2] for one in found)
    alike = sorted((one for one in found if one[0] == whole and one[1] > ALIKE * most), key=lambda one: one[1])
    best = alike[len(alike) // 2][2]  # in the middle of the thresholds that show it: not with its blurred rim
    corners = None if best.corners is None else best.corners * scale
    return Sheet(best.outline * scale, corners, best.turn)


def _reduced(colours: Array, side: int) -> Array:
    bands = colours[..., None] if colours.ndim == 2 else colours
    small = [
        np.asarray(reduced(Image.fromarray(np.ascontiguousarray(band)), side)) for band in np.moveaxis(bands, 2, 0)
    ]
    return small[0] if colours.ndim == 2 else np.stack(small, axis=-1)


def _channels(small: Array) -> list[Array]:
    """Brightness, the darkest colour (low where there is colour) and saturation (the same in light and shade)."""
    if small.ndim == 2:
        return [scipy.ndimage.median_filter(small, 3)]
    least, most = small.min(axis=2), small.max(axis=2)
    channels = (small.mean(axis=2), least, (most - least) / (most + 0.1))
    return [scipy.ndimage.median_filter(channel, 3) for channel in channels]


def _regions(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The large connected regions, with small holes and thin protrusions removed."""
    labels, _ = scipy.ndimage.label(scipy.ndimage.binary_opening(mask, np.ones((3, 3))))
    area = np.bincount(labels.ravel())
    large = [label for label in np.argsort(area[1:])[::-1][:2] + 1 if area[label] > 0.5 * LEAST_AREA * mask.size]
    filled = [scipy.ndimage.binary_fill_holes(labels == label) for label in large]
    return [region for region in filled if LEAST_AREA * mask.size < region.sum() < 0.98 * mask.size]


def _sheet(region: NDArray[np.bool_], channel: Array) -> Sheet | None:
    """The sheet that a region of a thumbnail is, if its sides are straight."""
    height, width = region.shape
    hull = _hull(region)
    if region.sum() < 0.9 * _area(hull):
        return None
    outline = _simple(hull)
    inner = (outline > 1.5) & (outline < np.array([width, height]) - 1.5)
    closed = [*outline, outline[0]]
    real = [
        not any((~a & ~b) & (np.abs(p - q) < 1.5))  # both ends on the same border of the picture
        for (p, q), (a, b) in zip(pairwise(closed), pairwise([*inner, inner[0]]), strict=True)
    ]
    long = [np.hypot(*(q - p)) > LEAST_SIDE * min(height, width) for p, q in pairwise(closed)]
    sides = [i for i in range(len(outline)) if real[i] and long[i]]
    hidden = sum(real) - len(sides)
    if not 2 <= len(sides) <= 4 or hidden > 1 or (len(sides) < 4 and all(real)) or _filled(region, outline) < FILLED:
        return None
    rim = region & ~scipy.ndimage.binary_erosion(region)
    edge = np.argwhere(rim)[:, ::-1] + 0.5
    lines = [_fitted(edge, closed[i], closed[i + 1]) for i in sides]
    if not all(lines) or not all(_steps(channel, closed[i], closed[i + 1]) for i in sides):
        return None
    turns = np.array([np.arctan2(*(closed[i + 1] - closed[i])[::-1]) for i in sides])
    weight = np.array([np.hypot(*(closed[i + 1] - closed[i])) for i in sides])
    turn = np.angle((weight * np.exp(4j * turns)).sum()) / 4
    slant = np.angle(np.exp(4j * (turns - turn))) / 4
    if np.abs(slant).max() > np.radians(MOST_SLANT if len(sides) == 4 else MOST_SLANT / 2):
        return None
    corners = None
    if len(sides) == 4:
        corners = np.array([_crossing(lines[i - 1], lines[i]) for i in range(4)])
        if not np.isfinite(corners).all() or _filled(region, corners) < FILLED:
            return None
        lengths = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
        if lengths.max() > SLENDER * lengths.min():
            return None
        middle = corners.mean(axis=0)
        corners = np.roll(corners, -int(np.argmin((corners - middle) @ _spin(turn) @ (1, 1))), axis=0)
    return Sheet(outline, corners, turn)


def _hull(region: NDArray[np.bool_]) -> Points:
    """The convex hull of a region's pixels (their corners), clockwise as seen."""
    rows = np.flatnonzero(region.any(axis=1))
    first = region[rows].argmax(axis=1)
    last = region.shape[1] - region[rows, ::-1].argmax(axis=1)
    points = sorted(
        {(int(x), int(y) + d) for xs in (first, last) for x, y in zip(xs, rows, strict=True) for d in (0, 1)}
    )
    half = []
    for run in (points, points[::-1]):
        chain: list[tuple[int, int]] = []
        for x, y in run:
            while len(chain) > 1 and _cross(chain[-2], chain[-1], (x, y)) <= 0:
                chain.pop()
            chain.append((x, y))
        half += chain[:-1]
    return np.array(half, dtype=float)


def _cross(a, b, c) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _simple(hull: Points) -> Points:
    """The polygon round a convex one that has the fewest sides for at most 1% more area each."""
    points, whole = list(hull), _area(hull)
    while len(points) > 4:
        n, best = len(points), (0.01 * whole, 0, None)
        for i in range(n):  # leave out the side from i to i + 1: its neighbours are drawn out till they meet
            before, a, b, after = points[i - 1], points[i], points[(i + 1) % n], points[(i + 2) % n]
            tip = _crossing((before, a), (b, after))
            if np.isfinite(tip).all() and np.dot(tip - a, a - before) >= 0 and np.dot(tip - b, b - after) >= 0:
                more = abs(_cross(a, tip, b)) / 2
                if more < best[0]:
                    best = (more, i, tip)
        more, i, tip = best
        if tip is None:
            break
        points[i] = tip
        del points[(i + 1) % n]
    return np.array(points)


def _area(polygon: Points) -> float:
    x, y = polygon.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2))


def _crossing(one, other) -> Points:
    (a, b), (c, d) = one, other
    u, v = b - a, d - c
    across = u[0] * v[1] - u[1] * v[0]
    if abs(across) < 1e-9 * np.hypot(*u) * np.hypot(*v):
        return np.full(2, np.nan)
    return a + u * ((c[0] - a[0]) * v[1] - (c[1] - a[1]) * v[0]) / across


def _fitted(edge: Points, a: Points, b: Points) -> tuple[Points, Points] | None:
    """The line through the pixels of the edge near the middle eight tenths of a side, moved out to their rim.

    None where they do not lie on a line.
    """
    along = (b - a) / np.hypot(*(b - a))
    out = np.array([along[1], -along[0]])
    place, off = (edge - a) @ along / np.hypot(*(b - a)), (edge - a) @ out
    near = edge[(place > 0.1) & (place < 0.9) & (np.abs(off) < 4)]
    if len(near) < max(5, 0.7 * np.abs(b - a).max()):
        return None
    middle = near.mean(axis=0)
    _, spread, axes = np.linalg.svd(near - middle, full_matrices=False)
    if spread[1] > STRAIGHT * np.sqrt(len(near)):
        return None
    direction = axes[0]
    direction = direction * np.sign(direction @ along)
    out = np.array([direction[1], -direction[0]])
    middle = middle + 0.5 * out
    return middle, middle + direction


def _steps(channel: Array, a: Points, b: Points) -> bool:
    """Whether the brightness changes in a step across a side, rather than gradually."""
    along = (b - a) / np.hypot(*(b - a))
    out = np.array([along[1], -along[0]])
    middle = a + np.linspace(0.1, 0.9, 40)[:, None] * (b - a)
    deep, inside, outside = (
        scipy.ndimage.map_coordinates(channel, (middle + d * out - 0.5).T[::-1], order=1, mode="nearest")
        for d in (-6, -2, 2)
    )
    step, fall = inside - outside, deep - inside
    step = step * np.sign(np.median(step))
    return bool(np.median(step) > max(STEP, ABRUPT * abs(np.median(fall))) and np.mean(step > STEP / 2) > 0.8)


def _filled(region: NDArray[np.bool_], polygon: Points) -> float:
    """How much of a polygon, within the picture, its region fills."""
    drawn = _drawn(4 * polygon, tuple(4 * n for n in region.shape))  # fine, as the polygon's rim is drawn as well
    rim = 0.4 * np.hypot(*(np.roll(polygon, -1, axis=0) - polygon).T).sum()  # a hull runs round whole pixels
    return float((region.sum() + rim) / max(1.0, drawn.sum() / 16))


def _drawn(polygon: Points, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    image = Image.new("1", (shape[1], shape[0]))
    ImageDraw.Draw(image).polygon([tuple(p - 0.5) for p in polygon], fill=1)
    return np.asarray(image)


def _spin(turn: float) -> NDArray[np.float64]:
    """Row vectors times this are turned back by `turn`."""
    return np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])


def _rectified(colours: Array, corners: Points) -> tuple[Array, NDArray[np.float64]]:
    """What lies between four corners, as a rectangle of their mean sides; an upright one is cut out as it is."""
    top, left, bottom, right = (
        corners[:2, 1].mean(),
        corners[[0, 3], 0].mean(),
        corners[2:, 1].mean(),
        corners[1:3, 0].mean(),
    )
    upright = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    if np.abs(corners - upright).max() < 0.01 * max(bottom - top, right - left):
        rim = MARGIN * max(bottom - top, right - left)
        rows, columns = (slice(max(0, round(a + rim)), round(b - rim)) for a, b in ((top, bottom), (left, right)))
        return colours[rows, columns], _homography((1, 0, columns.start, 0, 1, rows.start))
    sides = np.hypot(*(np.roll(corners, -1, axis=0) - corners).T)
    width, height = (sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2
    size = (max(8, round(width * (1 - 2 * MARGIN))), max(8, round(height * (1 - 2 * MARGIN))))
    cut = MARGIN * np.array([width, height])
    rectangle = np.array([(0, 0), (width, 0), (width, height), (0, height)]) - cut
    rows, values = [], []
    for (x, y), (u, v) in zip(rectangle, corners, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        values += [u, v]
    matrix = np.linalg.solve(np.array(rows), np.array(values))
    return transformed(colours, size, Image.Transform.PERSPECTIVE, matrix), _homography(matrix)


def _homography(matrix) -> NDArray[np.float64]:
    """The 6 numbers of an affine map, or the 8 of a perspective, as [3, 3]."""
    return np.append(np.resize(np.append(matrix, (0, 0)), 8), 1).reshape(3, 3)


def _turned(colours: Array, sheet: Sheet) -> tuple[Array, NDArray[np.float64]]:
    """The picture turned upright about its middle, its desk painted over with the paper beside it."""
    height, width = colours.shape[:2]
    rim = max(1, round(MARGIN * max(height, width)))
    inside = scipy.ndimage.minimum_filter(_drawn(sheet.outline, (height, width)), 2 * rim + 1, mode="nearest")
    middle = np.array([width, height]) / 2
    spin = _spin(sheet.turn)
    box = (np.array([(0, 0), (width, 0), (width, height), (0, height)]) - middle) @ spin
    seen = (sheet.outline - middle) @ spin
    low, high = np.maximum(seen.min(axis=0), box.min(axis=0)), np.minimum(seen.max(axis=0), box.max(axis=0))
    across, down = (max(8, round(n)) for n in high - low)
    start = low @ spin.T + middle
    matrix = (spin[0, 0], spin[0, 1], start[0], spin[1, 0], spin[1, 1], start[1])
    flat = transformed(_painted(colours, inside), (across, down), Image.Transform.AFFINE, matrix)
    return flat, _homography(matrix)


def _painted(colours: Array, inside: NDArray[np.bool_]) -> Array:
    """The picture with the paper's brightness near the rim spread over all that is not `inside`."""
    if not inside.any():
        return colours
    nearest = scipy.ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    weight = scipy.ndimage.gaussian_filter(inside.astype(np.float32), BRUSH)[..., None] + 1e-6
    bands = colours[..., None] if colours.ndim == 2 else colours
    paper = scipy.ndimage.gaussian_filter(bands * inside[..., None], (BRUSH, BRUSH, 0)) / weight
    painted = np.where(inside[..., None], bands, paper[tuple(nearest)])
    return painted.reshape(colours.shape)


def transformed(colours: Array, size: tuple[int, int], how: Image.Transform, matrix) -> Array:
    """Pillow's transform of every band; beyond the picture its border is repeated."""
    height, width = colours.shape[:2]
    u, v = np.array([(0, 0), (size[0], 0), size, (0, size[1])], dtype=float).T
    a, b, c, d, e, f, g, h = (*matrix, 0, 0)[:8]
    w = g * u + h * v + 1
    x, y = (a * u + b * v + c) / w, (d * u + e * v + f) / w
    beyond = max(0, *-x, *-y, *(x - width), *(y - height))
    pad = min(int(beyond) + 2, max(width, height))
    a, b, c, d, e, f = a + pad * g, b + pad * h, c + pad, d + pad * g, e + pad * h, f + pad
    matrix = (a, b, c, d, e, f, g, h)[: len(matrix)]
    bands = colours[..., None] if colours.ndim == 2 else colours
    padded = np.pad(bands, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    made = [
        np.asarray(Image.fromarray(np.ascontiguousarray(b)).transform(size, how, matrix, Image.Resampling.BILINEAR))
        for b in np.moveaxis(padded, 2, 0)
    ]
    return made[0] if colours.ndim == 2 else np.stack(made, axis=-1)
