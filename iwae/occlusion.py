"""Parts of an image that a model is not shown, as the pixels that stay visible."""

import numpy as np
import torch
from torch import Tensor

SIDE = 28
HALF = SIDE // 2
Box = tuple[int, int, int, int]  # first row, row after the last, first column, column after the last

PARTS: dict[str, Box | None] = {
    "left half": (0, SIDE, 0, HALF),
    "right half": (0, SIDE, HALF, SIDE),
    "top half": (0, HALF, 0, SIDE),
    "bottom half": (HALF, SIDE, 0, SIDE),
    "a box": None,  # of one's own
}


def visible(box: Box) -> Tensor:
    """[784] of bool: False inside the box. Raises ValueError for a box that does not lie in the picture."""
    top, bottom, left, right = box
    if not (0 <= top <= bottom <= SIDE and 0 <= left <= right <= SIDE):
        raise ValueError(f"a box is (top ≤ bottom, left ≤ right) within 0 to {SIDE}, not {box}")
    seen = torch.ones(SIDE, SIDE, dtype=torch.bool)
    seen[top:bottom, left:right] = False
    return seen.reshape(-1)


def veiled(image: Tensor | np.ndarray, seen: Tensor) -> np.ndarray:
    """The picture [784] with its hidden pixels in grey."""
    return np.where(seen.numpy(), np.asarray(image), 0.5)
