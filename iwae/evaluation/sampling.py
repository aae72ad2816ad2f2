"""Draws from q(h|x) of many images, block after block: IMAGES together, each block from its own seed, DRAWS at a time.

So they depend on images, seed and number alone, the first k of more draws are k draws, and memory does not grow with
their number.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from iwae.model import Keep, Model, Sample

IMAGES = 100  # images sampled together
DRAWS = 50  # draws made at once for each of them, on a CPU
GPU_DRAWS = 1000  # on a GPU, which has memory for them and would wait for Python otherwise


def blocks(x: Tensor, seed: int) -> list[tuple[Tensor, torch.Generator]]:
    """Blocks of images, each with its own generator."""
    if len(x) == 0:
        raise ValueError("there is no image to evaluate")
    starts = range(0, len(x), IMAGES)
    return [(x[s : s + IMAGES], torch.Generator(x.device).manual_seed(seed * 1_000_003 + s)) for s in starts]


class Draws:
    """``samples`` draws for each of the images x [n, pixels], which have been checked, by the units ``keep`` alone if
    given. Several threads may ask at once, each for those of a block."""

    def __init__(self, model: Model, x: Tensor, samples: int, keep: tuple[Keep, ...] | None = None):
        self.model, self.samples, self.keep = model, samples, keep
        self.at_once = DRAWS if x.device.type == "cpu" else GPU_DRAWS

    def of(self, x: Tensor, generator: torch.Generator) -> Iterator[Sample]:
        """Those of one block of images, DRAWS at a time."""
        first = self.model.first(x)
        for start in range(0, self.samples, self.at_once):
            noise = self.model.noise(self.at_once, len(x), generator)  # whole, so that fewer are a prefix of more
            noise = tuple(eps[: self.samples - start] for eps in noise)
            yield self.model.sample(x, noise=noise, keep=self.keep, first=first, checked=True)
