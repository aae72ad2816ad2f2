"""Hard photos of one handwritten digit, drawn from MNIST's: perspective, shadows, blur, squared paper, thin pens.

A sheet of paper is drawn flat, laid on a desk by a homography, lit, blurred, grained and saved as JPEG. The digit
stands upright on its sheet; everything else is drawn at random, as wide as phones make it.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from PIL import Image, ImageDraw, ImageFilter

FINE = 448  # px of a digit's 28×28 as it is drawn onto the sheet


@dataclass(frozen=True)
class Scene:
    """What one photo is of; lengths are shares of the sheet's or the picture's shorter side."""

    desk: bool = False  # a sheet on a desk, all four corners in view; else the paper fills the picture
    tilt: float = 4.0  # degrees at most, either way
    skew: float = 0.0  # how far each corner moves at most, of the sheet's side
    shift: float = 0.0  # how far the sheet may leave the picture
    size: tuple[float, float] = (0.3, 0.75)  # of the 28×28, of the sheet's shorter side
    pen: float | None = None  # width of the strokes in px of 28×28; None: as they are
    contrast: tuple[float, float] = (0.75, 0.95)  # of the ink against the paper
    lines: str = ""  # "squared" or "ruled"
    shadow: str = ""  # "hard" or "soft"
    blur: tuple[float, float] = (0.0, 0.05)  # standard deviation, of 28×28's pixel
    noise: float = 0.01
    corners: float = 0.1  # how much darker the corners are
    fall: float = 0.2  # how much the light falls off across the picture
    quality: tuple[int, int] = (80, 95)
    coloured: bool = False
    finger: bool = False
    border: bool = False  # a dark frame on one to four sides, as of a scanner's lid


KINDS = {
    "plain": Scene(),
    "perspective": Scene(desk=True, tilt=8, skew=0.14),
    "tilted sheet": Scene(desk=True, tilt=30, skew=0.03, shadow="soft", size=(0.3, 0.7)),
    "hard shadow": Scene(shadow="hard", noise=0.015),
    "blur": Scene(blur=(0.4, 1.1), noise=0.02),
    "squared": Scene(lines="squared", tilt=15, skew=0.06, pen=1.3, size=(0.25, 0.6)),
    "squared, edge, shadow": Scene(
        lines="squared", tilt=8, shift=0.12, pen=1.1, size=(0.22, 0.5), shadow="soft", skew=0.03
    ),
    "ruled": Scene(lines="ruled", tilt=10, skew=0.04, pen=1.6, size=(0.25, 0.6)),
    "thin pen": Scene(pen=0.6, size=(0.2, 0.6)),
    "small": Scene(size=(0.12, 0.2), pen=1.6),
    "pencil": Scene(contrast=(0.16, 0.35), pen=1.4, noise=0.02),
    "vignette": Scene(corners=0.6, fall=0.4),
    "coloured": Scene(coloured=True, contrast=(0.4, 0.8)),
    "jpeg": Scene(quality=(8, 20)),
    "noise": Scene(noise=0.09),
    "edge of the desk": Scene(shift=0.25, tilt=15),
    "finger": Scene(finger=True, shadow="soft"),
    "dark border": Scene(border=True),
    "sheet, hard shadow": Scene(desk=True, tilt=20, skew=0.06, shadow="hard"),
}


def photo(digit: np.ndarray, scene: Scene, rng: np.random.Generator) -> bytes:
    """A JPEG of `digit` (uint8 [28, 28]) written on paper."""
    width, height = (int(n) for n in rng.integers(480, 1000, 2))
    shape = (900, int(900 * rng.choice([1 / 1.414, 1.414, 1, 0.8]))) if scene.desk else (900 * height // width, 900)
    corners = _corners(scene, (width, height), shape[1] / shape[0], rng)
    matrix = _homography(np.array([(0, 0), (shape[1], 0), (shape[1], shape[0]), (0, shape[0])]), corners)
    flat, unit = _sheet(digit, scene, shape, matrix, (width, height), rng)
    paper, mask = _lay(flat, corners, np.linalg.inv(matrix), (width, height))
    picture = paper if mask.all() else _desk((height, width), scene, paper, rng) * (1 - mask) + paper * mask
    picture *= _light((height, width), scene, rng)[..., None]
    if scene.finger:
        picture = _finger(picture, rng)
    if scene.border:
        picture = _border(picture, rng)
    side = np.sqrt(abs(_area(corners)) / (flat.shape[0] * flat.shape[1]))  # px of the photo to a px of the sheet
    radius = rng.uniform(*scene.blur) * unit * side
    grey, colour = (rng.standard_normal((height, width, n), np.float32) for n in (1, 3))
    noise = rng.uniform(0.3, 1) * scene.noise + 1e-3
    picture = scipy.ndimage.gaussian_filter(picture, (radius, radius, 0))
    grain = np.float32(noise) * (grey + 0.5 * colour)
    levels = np.clip(255 * (picture + grain) + 0.5, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=int(rng.integers(*scene.quality)))
    return file.getvalue()


def strokes(digit: np.ndarray, pen: float | None) -> np.ndarray:
    """Ink in 0..1 on FINE×FINE: the digit with crisp edges, or its midline drawn with a pen of `pen` px of 28×28."""
    fine = np.asarray(Image.fromarray(digit).resize((FINE, FINE), Image.Resampling.BICUBIC), np.float32) / 255
    if pen is None:
        return np.clip(4 * fine - 1.5, 0, 1)
    distance = scipy.ndimage.distance_transform_edt(~midline(fine[::2, ::2] > 0.4)) * 2
    grown = np.asarray(Image.fromarray(distance.astype(np.float32)).resize((FINE, FINE), Image.Resampling.BILINEAR))
    return np.clip(pen / 2 * FINE / 28 - scipy.ndimage.gaussian_filter(grown, 2) + 0.5, 0, 1)


def midline(mask: np.ndarray) -> np.ndarray:
    """The skeleton of a mask by Zhang and Suen's thinning (1984)."""
    mask = np.pad(mask, 1)
    while True:
        before = mask.sum()
        for first in (True, False):
            n, ne, e, se, s, sw, w, nw = (
                np.roll(mask, (-y, -x), (0, 1))
                for y, x in ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
            )
            ring = (n, ne, e, se, s, sw, w, nw)
            count = sum(p.astype(int) for p in ring)
            turns = sum((~a & b).astype(int) for a, b in zip(ring, (*ring[1:], n), strict=True))
            ends = ~(n & e & s) & ~(e & s & w) if first else ~(n & e & w) & ~(n & s & w)
            mask = mask & ~((count >= 2) & (count <= 6) & (turns == 1) & ends)
        if mask.sum() == before:
            return mask[1:-1, 1:-1]


def _homography(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3×3 matrix that takes four points (x, y) to four others."""
    rows: list[tuple[float, ...]] = []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
    return np.append(np.linalg.solve(np.array(rows), target.ravel()), 1).reshape(3, 3)


def _seen(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    there = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return there[:, :2] / there[:, 2:]


def _sheet(digit, scene: Scene, shape: tuple[int, int], matrix, size: tuple[int, int], rng) -> tuple[np.ndarray, float]:
    """The flat sheet, RGB in 0..1, and the px of it that a pixel of the digit's 28×28 takes."""
    height, width = shape
    short = min(width, height)
    pale = 0.75 + 0.24 * rng.uniform(0, 1) + rng.uniform(-0.04, 0.02, 3)
    ink_colour = rng.uniform(0, 0.25, 3)
    if scene.coloured:
        pale = rng.permutation([rng.uniform(0.8, 1), 0.85, rng.uniform(0.55, 0.8)])
        ink_colour = rng.permutation([0, rng.uniform(0, 0.4), rng.uniform(0.3, 0.9)])
    contrast = rng.uniform(*scene.contrast)
    if not scene.coloured:
        ink_colour = pale * (1 - contrast) * (0.7 + 0.3 * ink_colour / ink_colour.max())
    sheet = np.empty((height, width, 3), np.float32)
    sheet[:] = np.clip(pale, 0, 1)
    if scene.lines:
        strength = rng.uniform(0.12, 0.4)
        colour = rng.choice([0.0, 1.0]) * np.array([0.25, 0.1, -0.35]) + 0.7
        lines = _lines((height, width), scene.lines, short * rng.uniform(0.03, 0.07), rng)
        sheet *= 1 - strength * lines[..., None] * colour
    side = round(short * rng.uniform(*scene.size))
    pen = None if scene.pen is None else scene.pen * rng.uniform(0.8, 1.3)
    ink = Image.fromarray((255 * strokes(digit, pen)).astype(np.uint8)).resize((side, side), Image.Resampling.BOX)
    box = np.array([(4, 4), (24, 4), (24, 24), (4, 24)]) / 28 * side  # the digit's 20×20
    for _ in range(2000):
        left, top = (
            int(rng.uniform(0.1 * short - 4 / 28 * side, n - 24 / 28 * side - 0.1 * short)) for n in (width, height)
        )
        there = _seen(matrix, box + np.array([left, top]))
        if (there > 0.07 * min(size)).all() and (there < np.array(size) - 0.07 * min(size)).all():
            break
    else:
        raise AssertionError("no place for the digit")
    page = Image.new("L", (width, height))
    page.paste(ink, (left, top))
    cover = np.asarray(page, np.float32)[..., None] / 255
    return sheet * (1 - cover) + np.clip(ink_colour, 0, 1).astype(np.float32) * cover, side / 28


def _lines(shape: tuple[int, int], kind: str, step: float, rng) -> np.ndarray:
    y, x = (np.arange(n) for n in shape)
    wide = rng.uniform(1.2, 2.2)
    if kind == "ruled":
        step *= 1.6
    rows, columns = (
        np.clip(wide / 2 + 0.5 - np.abs((a + rng.uniform(0, step)) % step - step / 2), 0, 1) for a in (y, x)
    )
    if kind == "ruled":
        columns = np.clip(wide / 2 + 0.5 - np.abs(x - 0.1 * shape[1]), 0, 1) if rng.random() < 0.5 else 0 * columns
    return np.maximum(rows[:, None], columns[None]).astype(np.float32)


def _corners(scene: Scene, size: tuple[int, int], aspect: float, rng) -> np.ndarray:
    """Where the sheet's corners lie in the picture: clockwise from the top left, [4, 2] as (x, y)."""
    width, height = size
    unit = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    turn = np.radians(rng.uniform(-scene.tilt, scene.tilt))
    spin = np.array([(np.cos(turn), np.sin(turn)), (-np.sin(turn), np.cos(turn))])
    if scene.desk:
        for _ in range(1000):
            whole = np.array([min(width, height * aspect), min(height, width / aspect)])
            sheet = unit * whole * rng.uniform(0.6, 0.98) * rng.uniform(0.9, 1.0, 2)
            sheet = sheet + rng.uniform(-1, 1, (4, 2)) * scene.skew * np.ptp(sheet, 0)
            sheet = sheet @ spin + np.array([width, height]) * rng.uniform(0.4, 0.6, 2)
            if (sheet > 4).all() and (sheet < np.array(size) - 4).all():
                return sheet
        raise AssertionError("no place for the sheet")
    grown = 1.05 + np.tan(abs(turn)) + 2 * scene.skew if not scene.shift else 1.0
    sheet = unit * np.array([width, height]) * grown
    sheet = sheet + rng.uniform(-1, 1, (4, 2)) * scene.skew * np.ptp(sheet, 0)
    return sheet @ spin + np.array(size) * (0.5 + rng.uniform(-1, 1, 2) * scene.shift)


def _area(corners: np.ndarray) -> float:
    x, y = corners.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def _lay(
    flat: np.ndarray, corners: np.ndarray, matrix: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The sheet as the camera sees it, and where it is."""
    image = Image.fromarray((255 * flat).astype(np.uint8))
    seen = image.transform(
        size, Image.Transform.PERSPECTIVE, tuple((matrix / matrix[2, 2]).ravel()[:8]), Image.Resampling.BICUBIC
    )
    mask = Image.new("L", (2 * size[0], 2 * size[1]))
    ImageDraw.Draw(mask).polygon([tuple(2 * c) for c in corners], fill=255)
    mask = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32)[..., None] / 255
    # Bicubic fades to black along the sheet's rim: there the paper's colour goes on
    paper = np.asarray(seen, np.float32) / 255
    rim = scipy.ndimage.binary_erosion(mask[..., 0] > 0.99, iterations=3)[..., None]
    return np.where(rim, paper, np.median(flat[::8, ::8], axis=(0, 1))), mask


def _desk(shape: tuple[int, int], scene: Scene, paper: np.ndarray, rng) -> np.ndarray:
    if not scene.desk and rng.random() < 0.3:  # another sheet, or a light table: little darker or brighter
        colour = np.clip(np.median(paper[::8, ::8], axis=(0, 1)) * rng.uniform(0.75, 0.92), 0, 1)
    else:
        colour = rng.uniform(0.08, 0.42) * (1 + rng.uniform(-0.35, 0.35, 3))
    wood = scipy.ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), (1, 15)) * np.float32(
        rng.uniform(0, 0.4)
    )
    desk = np.clip(np.float32(colour) * (1 + wood[..., None]), 0, 1)
    if scene.desk and rng.random() < 0.5:  # a pencil beside the sheet
        image = Image.fromarray((255 * desk).astype(np.uint8))
        y, x = shape[0] * rng.uniform(0, 1, 2), shape[1] * rng.choice([0.03, 0.97]) * np.ones(2)
        colour = tuple(int(c) for c in rng.integers(20, 255, 3))
        ImageDraw.Draw(image).line([(x[0], y[0]), (x[1], y[1])], fill=colour, width=max(4, shape[1] // 60))
        desk = np.asarray(image, np.float32) / 255
    return desk


def _light(shape: tuple[int, int], scene: Scene, rng) -> np.ndarray:
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    turn = rng.uniform(0, 2 * np.pi)
    fall, corners = scene.fall * rng.uniform(0.2, 1), scene.corners * rng.uniform(0.3, 1)
    light = (1 - fall * (0.5 + 0.35 * (np.cos(turn) * x + np.sin(turn) * y))) * (1 - corners * (x * x + y * y) / 2)
    if scene.shadow:
        if rng.random() < 0.5:
            turn, at = rng.uniform(0, 2 * np.pi), rng.uniform(-0.6, 0.6)
            depth = np.cos(turn) * x + np.sin(turn) * y - at
        else:  # the round shadow of a head
            centre, radius = rng.uniform(-1.2, 1.2, 2), rng.uniform(0.6, 1.2)
            depth = radius - np.hypot(x - centre[0], y - centre[1])
        width = 0.003 if scene.shadow == "hard" else rng.uniform(0.03, 0.15)
        light = light * (1 - rng.uniform(0.3, 0.55) * np.clip(0.5 + depth / width, 0, 1))
    return light.astype(np.float32)


def _finger(picture: np.ndarray, rng) -> np.ndarray:
    """A fingertip over a corner of the picture."""
    height, width = picture.shape[:2]
    mask = Image.new("L", (width, height))
    short, side = min(width, height), rng.integers(4)
    radius = short * rng.uniform(0.06, 0.1)
    x, y = [(0, 0), (width, 0), (width, height), (0, height)][side]
    x, y = (x * 0.92 + 0.04 * width, y * 0.92 + 0.04 * height)
    ImageDraw.Draw(mask).ellipse((x - radius, y - radius * 1.4, x + radius, y + radius * 1.4), fill=255)
    cover = np.asarray(mask.filter(ImageFilter.GaussianBlur(2)), np.float32)[..., None] / 255
    skin = np.array([0.75, 0.55, 0.45]) * rng.uniform(0.5, 1.1)
    return picture * (1 - cover) + skin * cover


def _border(picture: np.ndarray, rng) -> np.ndarray:
    height, width = picture.shape[:2]
    dark = picture.copy()
    sides = rng.permutation(4)[: rng.integers(1, 5)]
    rim = round(min(width, height) * rng.uniform(0.01, 0.06))
    cuts: list[Callable] = [lambda a: a[:rim], lambda a: a[-rim:], lambda a: a[:, :rim], lambda a: a[:, -rim:]]
    for side in sides:
        cuts[side](dark)[:] *= rng.uniform(0.05, 0.3)
    return dark
