"""Draws from q(h|x) of many images: IMAGES together, each such block from its own seed, DRAWS at a time.

So they depend on images, seed and number alone, the first k of more draws are k draws, and memory does not grow with
their number. Everything that measures a model over images goes through ``map_draws`` or ``map_blocks``.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from iwae.data.drawn import DrawnImages
from iwae.kernels import threads
from iwae.model import LatentModel, ModelConfig, Sample, UnitMask
from iwae.system import malloc

IMAGES = 100  # images sampled together
DRAWS = 50  # draws made at once for each of them, on a CPU
GPU_DRAWS = 1000  # on a GPU, which has memory for them and would wait for Python otherwise
NUMBERS = 8_000_000  # hidden units and pixels of all draws that go through the network together, on a CPU

Progress = Callable[[int, int], None]  # images done, images in all
T = TypeVar("T")


class Block(NamedTuple):
    """Images that are sampled together."""

    x: Tensor  # [batch, pixels]
    generator: torch.Generator  # its own


class CheckedImages:
    """``DrawnImages`` for a model, checked block by block, so that no more of them are in memory."""

    def __init__(self, model: LatentModel, x: DrawnImages):
        self.model, self.x, self.device = model, x, torch.device(model.device)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, some: slice) -> Tensor:
        return self.model.check_images(self.x[some])


Checked = Tensor | CheckedImages  # [n, pixels], on the device of the model that they are for


def checked(model: LatentModel, x: Any) -> Checked:
    """Images x, in any form that ``Model.check_images`` takes or as ``DrawnImages``, for ``map_draws`` and
    ``map_blocks``. Raises ValueError for others; of ``DrawnImages``, when their block is reached."""
    if isinstance(x, CheckedImages):
        return x
    return CheckedImages(model, x) if isinstance(x, DrawnImages) else model.check_images(x)


def block(x: Checked, seed: int, start: int, first: int = 0) -> Block:
    """That which begins with x[start]; ``first`` of all images is x[0], where x is a part of them."""
    return Block(x[start : start + IMAGES], torch.Generator(x.device).manual_seed(seed * 1_000_003 + first + start))


def blocks(x: Tensor, seed: int) -> list[Block]:
    """The images x [n, pixels] in blocks."""
    return [block(x, seed, start) for start in range(0, len(x), IMAGES)]


def map_blocks(
    function: Callable[[Block], T], x: Checked, seed: int, progress: Progress | None = None, first: int = 0
) -> list[T]:
    """``function(block)`` of every block of the images x [n, pixels], in order; on a CPU on all threads. Without
    gradients. A part of some images gets the draws that it would get among all of them, where ``first``, the place of
    its first image, is a multiple of IMAGES."""
    if len(x) == 0:
        raise ValueError("there is no image to evaluate")

    def without_gradients(start: int) -> T:
        with torch.no_grad():  # which only the calling thread knows of
            return function(block(x, seed, start, first))

    def count(start: int) -> None:
        if progress:
            progress(min(start + IMAGES, len(x)), len(x))

    malloc.keep_freed()
    run = threads.parallel_map if x.device.type == "cpu" else threads.serial_map
    return run(without_gradients, range(0, len(x), IMAGES), count)


def map_draws(
    function: Callable[[Block, Iterator[Sample]], T],
    model: LatentModel,
    x: Checked,
    samples: int,
    *,
    seed: int = 0,
    unit_masks: tuple[UnitMask, ...] | None = None,
    progress: Progress | None = None,
    first: int = 0,
) -> list[T]:
    """``function(block, draws)`` of every block of the images x [n, pixels], which have been checked (``map_blocks``).

    ``draws`` goes once through ``samples`` draws for each image, some of them at a time, with ``unit_masks`` of the
    smaller model.
    """
    at_once = DRAWS if x.device.type == "cpu" else GPU_DRAWS

    def stream(block: Block) -> Iterator[Sample]:
        encoded = model.encode_first(block.x)
        together = at_once
        if x.device.type == "cpu":
            together = max(1, rows_at_once(model.config, at_once * len(block.x)) // len(block.x))
        for start in range(0, samples, at_once):
            noise = model.noise(at_once, len(block.x), block.generator)  # whole, so that fewer are a prefix of more
            for part in zip(*(eps[: samples - start].split(together) for eps in noise), strict=True):
                yield model.sample(block.x, noise=part, unit_masks=unit_masks, encoded=encoded, checked=True)

    return map_blocks(lambda block: function(block, stream(block)), x, seed, progress, first)


def rows_at_once(config: ModelConfig, rows: int) -> int:
    """How many of so many rows (draws × images) a CPU takes through the network together, for the memory of it."""
    return max(1, min(rows, NUMBERS // (sum(map(sum, config.widths)) + config.pixels)))


def stages(progress: Progress | None, count: int) -> list[Progress | None]:
    """A callback for each of ``count`` passes over the same images, which together take ``progress`` to its end."""
    if progress is None:
        return [None] * count

    def stage(before: int) -> Progress:
        return lambda done, total: progress(before * total + done, count * total)

    return [stage(number) for number in range(count)]
