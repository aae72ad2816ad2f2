"""Grey levels → the zeros and ones of x, and the images of a split as a model takes them, a few at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor

from iwae.data.arrays import AT_ONCE

BINARIZATION_SEED = 1509_00519  # of the one draw that evaluations use: the number of the IWAE paper, 1509.00519


def binarize(images: Tensor, generator: Generator) -> Tensor:
    """One Bernoulli draw: uint8 grey levels, any shape → float32 zeros and ones, on with probability images/255.

    Grey 0 is never on and 255 always. `generator` lives on the device of `images`.
    """
    return (thresholds(images, generator) < images).float()


def thresholds(images: Tensor, generator: Generator) -> Tensor:
    """What `binarize` compares these uint8 images with: uint8 of the same shape, uniform on 0…254."""
    return torch.empty_like(images).random_(0, 255, generator=generator)


def undrawn(images: Tensor, binary: bool) -> Tensor:
    """uint8 grey levels, any shape → float32 in [0, 1]; or ``binary``, of grey 0 and 255 alone, zeros and ones."""
    if not binary:
        return images.float().div_(255)
    return images.clamp(max=1).float()  # (images > 0).float() takes nine times as long


class DrawnImages:
    """Images [n, pixels] as a model takes them, of which only those that are asked for become float32.

    ``drawn[index]`` is a tensor float32 for an index of any kind that a tensor takes: [m, pixels], or [pixels] for one
    number. Zeros and ones are drawn once from ``BINARIZATION_SEED``, and kept as bits: a million images of 28×28 take
    98 MB, where float32 would take 3.1 GB.
    """

    def __init__(self, grey: Tensor, *, stochastic: bool, binary: bool):
        """
        Args:
            grey: uint8 [n, pixels], in memory or in a mapped file; it is not copied.
            stochastic: whether a pixel is drawn with its grey level as probability; else grey is 0 and 255 alone.
            binary: whether x is of zeros and ones; else of grey levels in [0, 1].
        """
        self.grey, self.binary, self.bits = grey, binary, None
        if binary and stochastic:
            generator = Generator().manual_seed(BINARIZATION_SEED)
            self.bits = grey.new_empty(len(grey), -(-grey.shape[1] // 8))
            for part, bits in zip(grey.split(AT_ONCE), self.bits.split(AT_ONCE), strict=True):
                on = (thresholds(part, generator) < part).numpy()  # as ``binarize``
                bits.copy_(torch.from_numpy(np.packbits(on, axis=-1)))

    def __len__(self) -> int:
        return len(self.grey)

    @property
    def shape(self) -> torch.Size:
        """[n, pixels]."""
        return self.grey.shape

    def __getitem__(self, index: Any) -> Tensor:
        if self.bits is None:
            return undrawn(self.grey[index], self.binary)
        bits = np.unpackbits(self.bits[index].numpy(), axis=-1, count=self.grey.shape[1])
        return torch.from_numpy(bits).float()

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self[start : start + size]
