"""Convolutions between the image and the hidden units, on flat features, so that they stand in line with linear layers.

All have kernels of 3×3 and a stride of 2: n rows become ⌈n/2⌉, and on the way back n again.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

Map = tuple[int, int, int]  # channels, rows, columns


def feature_maps(shape: tuple[int, int], channels: Sequence[int]) -> tuple[Map, ...]:
    """The image of this shape (rows, columns), and what each convolution makes of the map before."""
    rows, columns = shape
    maps = [(1, rows, columns)]
    for count in channels:
        rows, columns = (rows + 1) // 2, (columns + 1) // 2
        maps.append((count, rows, columns))
    return tuple(maps)


class Convolutions(nn.Module):
    """Layers of feature maps as a function of flat features, [..., channels · rows · columns] in and out."""

    def __init__(self, given: Map, layers: Sequence[nn.Module]):
        super().__init__()
        self.given, self.layers = given, nn.Sequential(*layers)

    def forward(self, below: Tensor) -> Tensor:
        return self.layers(below.reshape(-1, *self.given)).reshape(*below.shape[:-1], -1)


class Pixels(Convolutions):
    """The last one of a decoder, with a bias for every output instead of one for each channel."""

    def __init__(self, given: Map, wanted: Map):
        super().__init__(given, [_transposed(given, wanted, bias=False)])
        self.bias = nn.Parameter(nn.init.zeros_(next(self.parameters()).new_empty(math.prod(wanted))))

    def forward(self, below: Tensor) -> Tensor:
        return super().forward(below) + self.bias


def down(maps: Sequence[Map], activation: type[nn.Module]) -> Convolutions:
    """Convolution → activation from each map to the next."""
    layers = []
    for (given, *_), (wanted, *_) in pairwise(maps):
        layers += [nn.Conv2d(given, wanted, 3, stride=2, padding=1), activation()]
    return Convolutions(maps[0], layers)


def up(maps: Sequence[Map], activation: type[nn.Module]) -> Convolutions:
    """Transposed convolution → activation from the last map to the one before, and so on to the first."""
    layers = []
    for given, wanted in pairwise(maps[::-1]):
        layers += [_transposed(given, wanted), activation()]
    return Convolutions(maps[-1], layers)


def _transposed(given: Map, wanted: Map, bias: bool = True) -> nn.ConvTranspose2d:
    """n rows become 2n − 1, and one more where an even number is wanted."""
    more = (1 - wanted[1] % 2, 1 - wanted[2] % 2)
    return nn.ConvTranspose2d(given[0], wanted[0], 3, stride=2, padding=1, output_padding=more, bias=bias)
