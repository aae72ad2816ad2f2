"""Cheap checks of whether what was found is a digit, each calibrated on MNIST: see docs/experiments.md."""

import numpy as np
import scipy
from numpy.typing import NDArray

from iwae.images.ink import stroke_width
from iwae.images.uploads import Array

BLOCK = 8.0  # px in 20×20: wider than any stroke (MNIST's 99th percentile is 4.3)
BLOB = 2.5  # the widest place over the mean width of the strokes: of 1,107 photos that were read well 0.1% have more
APART = 0.4  # the second largest piece over the largest, of pieces side by side
WIDE = 1.45  # width over height: of 1,107 photos that were read well 1% have more
SOFT = 0.5  # pixels at the edge of the ink over those of the ink, where a pen's stroke is many wide: none has more
FINE = 60  # px: of a smaller box every pixel is at an edge


def doubts(digit: Array) -> list[str]:
    """What is odd about ink cropped to its box, float [h, w] in 0..1: a sentence each."""
    height, width = digit.shape
    stroke = stroke_width(digit)
    if stroke > BLOCK:
        return ["This is a block, not strokes: if the paper was taken for the ink, change the inversion."]
    mask = np.pad(digit > 0.5, 1)
    found = []
    widest = 2 * float(scipy.ndimage.distance_transform_edt(mask).max()) * 20 / max(height, width)
    if widest > BLOB * stroke:
        found.append("Its strokes are of very different widths: paper or shadow may have been taken for ink.")
    if _side_by_side(mask):
        found.append("It is in pieces side by side: there may be more than one digit.")
    if width > WIDE * height:
        found.append("It is wider than digits are: it may lie on its side, or be more than one.")
    edge = ((digit > 0.1) & (digit < 0.9)).sum()
    if max(height, width) > FINE and edge > SOFT * mask.sum():
        found.append("Its edges are not clear.")
    return found


def _side_by_side(mask: NDArray[np.bool_]) -> bool:
    labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
    if count < 2:
        return False
    area = np.bincount(labels.ravel())[1:]
    second, first = np.argsort(area)[-2:]
    (_, a), (_, b) = (scipy.ndimage.find_objects(labels)[label] for label in (first, second))
    shared = min(a.stop, b.stop) - max(a.start, b.start)
    return bool(area[second] > APART * area[first] and shared < 0.5 * min(a.stop - a.start, b.stop - b.start))
