"""The shape of an image: its rows and columns. Loads no torch."""

from collections.abc import Sequence
from typing import Any


def checked_shape(shape: Any, largest: int | None = None) -> tuple[int, int]:
    """The shape of an image as (rows, columns). Raises ValueError for what is not two whole numbers above 0, and for
    more than ``largest`` rows or columns."""
    if not isinstance(shape, Sequence) or len(shape) != 2 or not all(type(side) is int and side > 0 for side in shape):
        raise ValueError(f"the shape of an image is its rows and columns, whole numbers above 0, not {shape!r}")
    if largest is not None and max(shape) > largest:
        raise ValueError(f"images have at most {largest}×{largest} pixels, not {shape[0]}×{shape[1]}")
    return shape[0], shape[1]


def shape_text(shape: tuple[int, int]) -> str:
    """``28×28``: rows, then columns."""
    return f"{shape[0]}×{shape[1]}"


def check_same_shape(first: tuple[int, int], one: str, second: tuple[int, int], other: str) -> None:
    """Raise ValueError with both shapes where they differ; ``one`` and ``other`` say what is of each."""
    if first != second:
        raise ValueError(
            f"{one} is for images of {shape_text(first)} pixels; those of {other} have {shape_text(second)}"
        )
