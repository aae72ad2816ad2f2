"""A picture of a handwritten digit → a 28×28 image as MNIST's, stage by stage.

MNIST was made so: black-and-white scans were cropped to the ink, scaled with antialiasing to fit 20×20 with
their aspect kept, and moved by whole pixels until the centre of mass lay at pixel (14, 14) of 28×28 (every one
of its images has it within 0.51 px of there). `prepare` does the same to a photo, a drawing or a scan, once it
has found the paper, its light and the ink.

Pixels are float32 in 0..1; axis order is [row, column] or [row, column, RGB].
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import scipy  # scipy.ndimage is imported with the first picture: a page without one saves 0.2 s
from PIL import Image

from iwae.images import ink
from iwae.images.decoding import PictureError
from iwae.images.doubts import doubts
from iwae.images.edits import Box, Edit, boxed, erased, turned
from iwae.images.ink import crop, stroke_width
from iwae.images.sheet import find as find_sheet
from iwae.images.uploads import Array, decode_picture, to_float

THIN_STROKE = 1.05  # px in 20×20: none of MNIST's 70,000 digits has thinner strokes
PEN_STROKE = 2.0  # what thinner ones are widened to: MNIST's quartiles are 2.0, 2.4 and 2.8
SHEET_ALONE = "Only the sheet of paper in the picture was used."


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
    doubtful: bool = False  # whether it may have been read wrongly; the note is then a warning
    boxes: tuple[Box, ...] = ()  # in the picture: of the digit, then of each large mark; none where the box was given


def prepare(
    picture: bytes | Image.Image | np.ndarray, *, invert: bool | None = None, name: str = "", edit: Edit | None = None
) -> Digit:
    """Turn a picture of one digit into a 28×28 image as MNIST's.

    `picture`: the bytes of a file, a PIL image, or an array [h, w], [h, w, 3] or [h, w, 4] of bool, uint8
    or float in 0..1. `invert`: True says that the ink is darker than the paper, False that it is lighter,
    None decides from the picture. `name` is that of the file, for the errors of `read_picture`. `edit`: what a
    person has changed first; its `dark_ink` is `invert`, where that is None.
    Raises PictureError where no ink is found.
    """
    image, edit = decode_picture(picture, name), edit or Edit()
    received = to_float(image)
    invert = edit.dark_ink if invert is None else invert
    seen = received
    if edit.erased:
        seen = erased(received, edit.erased, ink.is_dark(ink.grey_of(received)) if invert is None else invert)
    if edit.box is None:
        seen = turned(seen, edit.turn) if edit.turn else seen
        read = _read_sheet(seen, invert)
        middle = np.array(seen.shape[1::-1] * 2) / 2
        boxes = tuple(tuple((np.array(box) - middle).tolist()) for box in read.boxes)
    else:
        seen, within = boxed(seen, edit.turn, edit.box)
        read, boxes = _read(seen, invert, within), ()
    dark, light = ("ink", "paper") if read.dark_ink else ("paper", "ink")
    stages = (
        Stage("As received", f"Upright, {image.width}×{image.height} pixels.", received),
        Stage("Grey", "One brightness per pixel, from the colours in which ink and paper differ most.", read.grey),
        Stage(
            "Ink on paper", f"Dark {dark}, light {light}: the paper, its shadows and specks are removed.", read.coverage
        ),
    )
    if seen is not received:
        stages = (stages[0], Stage("As edited", "Turned, cut out or erased by hand.", seen), *stages[1:])
    return replace(_to_mnist(read.coverage, stages, read.dark_ink, read.notes), boxes=boxes)


@dataclass(frozen=True)
class _Reading(ink.Found):
    """The ink in a picture, and the picture of one brightness that it was found in."""

    grey: Array
    dark_ink: bool


def _read_sheet(colours: Array, invert: bool | None) -> _Reading:
    """As `_read`, restricted to the sheet of paper where the picture shows one."""
    sheet = find_sheet(colours)
    if sheet is None:
        return _read(colours, invert)
    alone, homography = sheet.flat(colours)
    if invert is None:
        invert = ink.is_dark(ink.grey_of(alone))
    whole = None if sheet.corners is not None else _read(colours, invert)
    if whole is None or sheet.holds(whole.coverage > 0):
        with suppress(PictureError):  # a blank sheet holds no digit
            read = _read(alone, invert)
            boxes = [_around(box, homography) for box in read.boxes]
            return replace(read, notes=[*read.notes, SHEET_ALONE], boxes=boxes)
    return whole or _read(colours, invert)


def _around(box: ink.Pixels, homography: np.ndarray) -> ink.Pixels:
    """The box around what a homography [3, 3] makes of a box."""
    left, top, right, bottom = box
    corners = homography @ np.array([(left, top, 1), (right, top, 1), (right, bottom, 1), (left, bottom, 1)]).T
    places = corners[:2] / corners[2]
    return *places.min(axis=1).round().astype(int).tolist(), *places.max(axis=1).round().astype(int).tolist()


def _read(colours: Array, invert: bool | None, within: np.ndarray | None = None) -> _Reading:
    grey = ink.grey_of(colours)
    dark_ink = ink.is_dark(grey) if invert is None else invert
    found = ink.find(grey, dark_ink, within)
    return _Reading(found.coverage, found.notes, found.boxes, grey, dark_ink)


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
    return _to_mnist(drawn, (Stage("As drawn", "Your strokes, on 28×28 pixels.", drawn),), False, [])


def _to_mnist(marks: Array, stages: tuple[Stage, ...], inverted: bool, notes: list[str]) -> Digit:
    cropped = crop(marks / marks.max())
    stroke = stroke_width(cropped)
    caption = "To the ink."
    if stroke < THIN_STROKE:
        cropped = _thicken(cropped, (PEN_STROKE - stroke) / 2 * max(cropped.shape) / 20)
        caption = "To the ink; its thin strokes are widened to a pen's as in MNIST."
    notes += [f"{doubt} Check the result." for doubt in doubts(cropped)]
    scaled = _scale(cropped)
    image = _centre(scaled)
    stages += (
        Stage("Cropped", caption, cropped),
        Stage("20×20", "Scaled to fit 20×20 pixels, its aspect kept.", scaled),
        Stage("Centred", "Its centre of mass in the middle of 28×28 pixels: what the models see.", image),
    )
    return Digit(image, stages, inverted, " ".join(notes) or None, any(note != SHEET_ALONE for note in notes))


def _thicken(ink: Array, radius: float) -> Array:
    """Grow the strokes by `radius` px on each side."""
    padded = np.pad(ink, int(np.ceil(radius)) + 1)
    distance = scipy.ndimage.distance_transform_edt(padded < 0.5)
    return crop(np.maximum(padded, np.clip(radius + 1 - distance, 0, 1)).astype(np.float32))


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
