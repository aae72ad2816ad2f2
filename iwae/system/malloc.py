"""Freed memory that is kept for the next block of draws."""

import torch

KEPT = 31 * 2**20  # bytes; glibc counts no block of 32 MiB or more


def keep() -> None:
    """Let the C library keep freed memory, some 60 MB of it, instead of giving it back to the system, from which every
    block of draws would get it again page by page: 2 to 4 % of an evaluation.

    glibc keeps twice as much as the largest block that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so one is freed
    here, which nobody has touched. Elsewhere this does nothing.
    """
    torch.empty(KEPT, dtype=torch.uint8)
