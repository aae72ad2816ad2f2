"""How exactly matrices are multiplied in training.

With ``bfloat16`` the factors are rounded to eight binary digits and their products summed in float32. Processors with
instructions for it (AMX) then multiply several times faster; others go on in float32, which ``used`` tells. What it
does to a model is in docs/design.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

PRODUCTS = {"float32": "ieee", "bfloat16": "bf16"}  # and what oneDNN calls them


@contextmanager
def of(precision: str) -> Iterator[None]:
    """Products of float32 matrices on a CPU at this precision, in all threads of the process until the end."""
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = PRODUCTS[precision]
    try:
        yield
    finally:
        matmul.fp32_precision = before


@cache
def used(precision: str) -> str:
    """The precision that products asked for at this one have here, on a CPU: seen in a product."""
    just_above_one = torch.full((64, 64), 1 + 2**-12)  # eight binary digits cannot tell it from 1
    with of(precision):
        product = just_above_one @ just_above_one
    return "bfloat16" if product[0, 0] == 64 else "float32"
