"""The machine's ceiling: how fast it multiplies float32 matrices of the sizes that a model with 50 draws meets."""

from collections.abc import Hashable

import torch

from benchmarks.timing import Contender, Rate
from iwae.kernels import precision

PRODUCTS = (  # [a, b] by [b, c]; 5,000 rows are 50 draws of 100 images
    (5000, 200, 784),  # to the pixels
    (500, 200, 784),  # the same, for a block of draws that stays in the cache
    (5000, 784, 200),  # back from the pixels
    (784, 5000, 200),  # the gradient of the weights between them
)


def contenders(device: str) -> list[Contender]:
    """One for each product, named by its sizes; a unit counts its operations."""
    return [_product(sizes, device) for sizes in PRODUCTS]


def best(rates: dict[Hashable, Rate]) -> float:
    """The fastest of the products, in operations per second."""
    return max(rates[sizes].median for sizes in PRODUCTS)


def describe(rates: dict[Hashable, Rate]) -> str:
    """A line for the report."""
    each = [
        f"{a}×{b} by {b}×{c}: {Rate(tuple(v / 1e9 for v in rates[a, b, c].values))} GFLOP/s" for a, b, c in PRODUCTS
    ]
    return f"Ceiling, float32 products in the same rounds: {'; '.join(each)}. The fastest counts."


def _product(sizes: tuple[int, int, int], device: str) -> Contender:
    a, b, c = sizes
    left, right = torch.randn(a, b, device=device), torch.randn(b, c, device=device)

    def work(n: int) -> None:
        for _ in range(n):
            precision.product(left, right)  # by the fastest library at hand

    return Contender(sizes, work, 2 * a * b * c)
