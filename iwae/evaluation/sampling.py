"""Draws from q(h|x) of many images: IMAGES together, each such block from its own seed, DRAWS at a time.

So they depend on images, seed and number alone, the first k of more draws are k draws, and memory does not grow with
their number. Everything that measures a model over images goes through ``map_draws`` or ``map_blocks``.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from iwae.kernels import threads
from iwae.model import Model, Sample, UnitMask
from iwae.system import malloc

IMAGES = 100  # images sampled together
DRAWS = 50  # draws made at once for each of them, on a CPU
GPU_DRAWS = 1000  # on a GPU, which has memory for them and would wait for Python otherwise

Progress = Callable[[int, int], None]  # images done, images in all
T = TypeVar("T")


class Block(NamedTuple):
    """Images that are sampled together."""

    x: Tensor  # [batch, pixels]
    generator: torch.Generator  # its own


def blocks(x: Tensor, seed: int) -> list[Block]:
    """The images x [n, pixels] in blocks."""
    if len(x) == 0:
        raise ValueError("there is no image to evaluate")
    starts = range(0, len(x), IMAGES)
    return [Block(x[s : s + IMAGES], torch.Generator(x.device).manual_seed(seed * 1_000_003 + s)) for s in starts]


def map_blocks(function: Callable[[Block], T], x: Tensor, seed: int, progress: Progress | None = None) -> list[T]:
    """``function(block)`` of every block of the images x [n, pixels], in order; on a CPU on all threads. Without
    gradients."""
    done = 0

    def without_gradients(block: Block) -> T:
        with torch.no_grad():  # which only the calling thread knows of
            return function(block)

    def count(block: Block) -> None:
        nonlocal done
        done += len(block.x)
        if progress:
            progress(done, len(x))

    malloc.keep_freed()
    run = threads.parallel_map if x.device.type == "cpu" else threads.serial_map
    return run(without_gradients, blocks(x, seed), count)


def map_draws(
    function: Callable[[Block, Iterator[Sample]], T],
    model: Model,
    x: Tensor,
    samples: int,
    *,
    seed: int = 0,
    unit_masks: tuple[UnitMask, ...] | None = None,
    progress: Progress | None = None,
) -> list[T]:
    """``function(block, draws)`` of every block of the images x [n, pixels], which have been checked.

    ``draws`` goes once through ``samples`` draws for each image, some of them at a time, with ``unit_masks`` of the
    smaller model.
    """
    at_once = DRAWS if x.device.type == "cpu" else GPU_DRAWS

    def stream(block: Block) -> Iterator[Sample]:
        encoded = model.encode_first(block.x)
        for start in range(0, samples, at_once):
            noise = model.noise(at_once, len(block.x), block.generator)  # whole, so that fewer are a prefix of more
            noise = tuple(eps[: samples - start] for eps in noise)
            yield model.sample(block.x, noise=noise, unit_masks=unit_masks, encoded=encoded, checked=True)

    return map_blocks(lambda block: function(block, stream(block)), x, seed, progress)


def stages(progress: Progress | None, count: int) -> list[Progress | None]:
    """A callback for each of ``count`` passes over the same images, which together take ``progress`` to its end."""
    if progress is None:
        return [None] * count

    def stage(before: int) -> Progress:
        return lambda done, total: progress(before * total + done, count * total)

    return [stage(number) for number in range(count)]
