"""What a person changes before their picture is read: which part of it, how far it is turned, and what is erased."""

import math
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from iwae.images import ink
from iwae.images.decoding import WORK_SIDE
from iwae.images.sheet import transformed
from iwae.images.uploads import Array

Box = tuple[float, float, float, float]  # left, top, right, bottom; px from the middle of the turned picture
BRUSH = 0.05  # of the picture's longer side: the width of what a stroke erases
PAPER = 0.2  # of the longer side: wider than a stroke of ink, for a closing to find the paper under it
CONTEXT = 0.5  # of a box's longer side: how much around it is looked at, for its paper to be known
LEAST_SIDE = 4.0  # px of a box
MOST_POINTS = 5_000  # of all strokes that erase


@dataclass(frozen=True)
class Edit:
    """How a picture is to be read. Raises ValueError where a number is out of range. ``Edit()`` changes nothing."""

    turn: float = 0.0  # degrees clockwise, −360 to 360
    box: Box | None = None  # where the digit lies; None: it is found
    dark_ink: bool | None = None  # whether the ink is darker than the paper; None: decide from the picture
    erased: tuple[tuple[float, ...], ...] = ()  # strokes x, y, x, y, … in px from the middle, before it is turned

    @classmethod
    def from_browser(cls, sent: Any) -> "Edit":
        """What an editor in a browser sends, {turn, box, dark_ink, erased}; raises ValueError for anything else."""
        try:
            turn, box, dark_ink, erased = (sent[name] for name in ("turn", "box", "dark_ink", "erased"))
            if dark_ink not in (None, True, False):
                raise ValueError(f"dark_ink is true, false or null, not {dark_ink!r:.40}")
            box = None if box is None else cast(Box, tuple(map(float, box)))
            return cls(float(turn), box, dark_ink, tuple(tuple(map(float, stroke)) for stroke in erased))
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError("an edit has a turn, a box, dark_ink, and what is erased, in numbers") from error

    def __post_init__(self):
        if not abs(self.turn) <= 360:
            raise ValueError(f"a picture is turned by −360 to 360 degrees, not by {self.turn}")
        if self.box is not None:
            if len(self.box) != 4:
                raise ValueError(f"a box has four sides, not {len(self.box)}")
            left, top, right, bottom = self.box
            if not all(abs(side) <= 2 * WORK_SIDE for side in self.box) or min(right - left, bottom - top) < LEAST_SIDE:
                raise ValueError(f"a box is left, top, right, bottom, at least {LEAST_SIDE:g} pixels wide: {self.box}")
        numbers = [value for stroke in self.erased for value in stroke]
        even = all(len(stroke) % 2 == 0 and stroke for stroke in self.erased)
        if not even or len(numbers) > 2 * MOST_POINTS or not all(abs(value) <= 2 * WORK_SIDE for value in numbers):
            raise ValueError(f"what is erased are strokes of x and y, together at most {MOST_POINTS:,} points")


def turned(colours: Array, degrees: float) -> Array:
    """The picture [h, w] or [h, w, 3] turned clockwise about its middle, whole; its border fills the corners. Exact
    where degrees are a multiple of 90."""
    quarters = round(degrees / 90)
    straight = np.rot90(colours, -quarters)
    rest = math.radians(degrees - 90 * quarters)
    if not rest:
        return np.ascontiguousarray(straight)
    across, down = (math.ceil(2 * half) / 2 for half in _reach(straight, rest))
    return _window(straight, math.degrees(rest), (-across, -down, across, down))


def boxed(colours: Array, degrees: float, box: Box) -> tuple[Array, NDArray[np.bool_]]:
    """What lies in and around a box of the turned picture, and a mask [h, w] of what lies in it."""
    left, top, right, bottom = box
    margin = CONTEXT * max(right - left, bottom - top)
    around = [(low - margin, high + margin) for low, high in ((left, right), (top, bottom))]
    (x0, x1), (y0, y1) = (
        (round(max(low, min(-half, high - 8))), round(min(high, max(half, low + 8))))
        for (low, high), half in zip(around, _reach(colours, math.radians(degrees)), strict=True)
    )
    seen = _window(colours, degrees, (x0, y0, x1, y1))
    rows, columns = (np.arange(n) + 0.5 + start for n, start in zip(seen.shape[:2], (y0, x0), strict=True))
    return seen, np.outer((rows > top) & (rows < bottom), (columns > left) & (columns < right))


def _reach(colours: Array, spin: float) -> tuple[float, float]:
    """How far the picture reaches from its middle after a turn in radians: across and down."""
    height, width = colours.shape[:2]
    cos, sin = abs(math.cos(spin)), abs(math.sin(spin))
    return (width * cos + height * sin) / 2, (width * sin + height * cos) / 2


def _window(colours: Array, degrees: float, window: Box) -> Array:
    """A window, of whole pixels, onto the picture turned about its middle."""
    height, width = colours.shape[:2]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    left, top, right, bottom = window
    x, y = cos * left + sin * top + width / 2, cos * top - sin * left + height / 2
    size = round(right - left), round(bottom - top)
    return transformed(colours, size, Image.Transform.AFFINE, (cos, sin, x, -sin, cos, y))


def erased(colours: Array, strokes: tuple[tuple[float, ...], ...], dark_ink: bool) -> Array:
    """The picture with paper where the strokes went."""
    if not strokes:
        return colours
    height, width = colours.shape[:2]
    brush, drawn = BRUSH * max(height, width), Image.new("1", (width, height))
    pen = ImageDraw.Draw(drawn)
    for stroke in strokes:
        points = [(x + width / 2, y + height / 2) for x, y in zip(stroke[::2], stroke[1::2], strict=True)]
        pen.line(points, fill=1, width=round(brush))
        for x, y in points:
            pen.ellipse((x - brush / 2, y - brush / 2, x + brush / 2, y + brush / 2), fill=1)
    bands = colours[..., None] if colours.ndim == 2 else colours
    smooth = scipy.ndimage.gaussian_filter(bands, (2, 2, 0))
    paper = np.stack([ink.paper(band, dark_ink, PAPER) for band in np.moveaxis(smooth, 2, 0)], axis=2)
    return np.where(np.asarray(drawn)[..., None], paper, bands).reshape(colours.shape).astype(np.float32)
