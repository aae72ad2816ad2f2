"""glibc's allocator: freed memory is kept for the next block of draws, and given back when asked."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent
pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")

PROGRAM = """
import resource, sys
from iwae.system import malloc
for name in sys.argv[2:]:
    getattr(malloc, name)()
for _ in range(10):  # blocks of draws, each written to and freed
    bytearray(b"1") * int(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def page_faults(size: int, *calls: str) -> int:
    """Of a process that makes these calls and then ten blocks of so many bytes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC")}
    command = [sys.executable, "-c", PROGRAM, str(size), *calls]
    return int(subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, check=True).stdout)


def test_kept_memory_is_not_fetched_again():
    """Ten blocks of 8 MiB, 2,048 pages each. Without the call the first block goes back to the system, from which glibc
    learns to keep the next one; with it none does. A server that limits its heaps gives all of them back."""
    size, pages = 8 * 2**20, 2048
    none, kept, served = (page_faults(size, *calls) for calls in ((), ("keep_freed",), ("limit_heaps", "keep_freed")))
    assert kept < none - 0.9 * pages
    assert served > kept + 8 * pages
