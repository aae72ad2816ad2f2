"""How exactly matrices are multiplied in training.

With ``bfloat16`` the factors are rounded to eight binary digits and their products summed in float32. Processors with
instructions for it (AMX, AVX-512 BF16) then multiply several times faster; others go on in float32. What it does to a
model is in docs/design.md.
"""

from collections.abc import Iterator
from contextlib import contextmanager

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
