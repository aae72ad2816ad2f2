"""Tuning of glibc's memory allocator, all of it. With another C library these functions do nothing."""

import ctypes
import sys
from contextlib import suppress

KEPT = 31 * 2**20  # bytes; glibc raises its threshold up to blocks of 32 MiB
HEAPS, LARGE = 2, 4 * 2**20
M_ARENA_MAX, M_MMAP_THRESHOLD = -8, -3  # of glibc's malloc.h


def keep_freed() -> None:
    """Let glibc keep some 60 MB of freed memory for the next block of draws, which would otherwise get it back from the
    system page by page: 2 to 4% of an evaluation.

    glibc keeps twice as much as the largest block that was ever freed (mallopt(3), M_MMAP_THRESHOLD), so one is freed
    here, which nobody has touched. After ``limit_heaps`` the threshold is fixed, and this changes nothing.
    """
    with suppress(OSError, AttributeError):
        glibc = _library()
        glibc.malloc.argtypes, glibc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
        glibc.free.argtypes, glibc.free.restype = [ctypes.c_void_p], None
        glibc.free(glibc.malloc(KEPT))


def limit_heaps() -> None:
    """For a server of many threads: two heaps for all of them, and pages of their own for blocks of 4 MB or more.

    By default glibc spreads threads over eight heaps for each core, none of which can use what is free in another, and
    puts ever larger blocks among the small ones there, where they leave holes.
    """
    with suppress(OSError, AttributeError):
        glibc = _library()
        glibc.mallopt(M_ARENA_MAX, HEAPS)
        glibc.mallopt(M_MMAP_THRESHOLD, LARGE)


def release() -> None:
    """Give freed memory back to the system (malloc_trim(3))."""
    with suppress(OSError, AttributeError):
        _library().malloc_trim(0)


def _library() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError("glibc is the C library of Linux alone")
    return ctypes.CDLL("libc.so.6")
