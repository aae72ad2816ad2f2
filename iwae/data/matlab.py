"""MATLAB's old `rand('state', 0)` and `randperm`: they gave the fixed binarization of MNIST its order.

The generator (MATLAB 5 to 7.3) subtracts with borrow, z[i] ← z[i+20] − z[i+5] − borrow (mod 1, indices mod 32:
Marsaglia and Zaman, 1991), and blurs the low digits of the result with a 32-bit xorshift (Marsaglia, 2003).
Numbers are kept here as integers, in units of 2⁻⁵³.
"""

import numpy as np

_ONE = 2**53
_SEED = 2**31  # what state 0 stands for


def rand(n: int) -> np.ndarray:
    """float64 [n]: the first n numbers of `rand('state', 0); rand(1, n)`, bit for bit."""
    table, word = [], _SEED
    for _ in range(32):
        entry = 0
        for _ in range(53):
            word = _xorshift(word)
            entry = 2 * entry + (word >> 19 & 1)
        table.append(entry)
    borrow, word, numbers = 0, _SEED, []
    for i in range(n):
        value = table[(i + 20) % 32] - table[(i + 5) % 32] - borrow
        borrow = int(value < 0)
        table[i % 32] = value = value % _ONE
        shift = 53 - value.bit_length()  # the blur acts on the 52 digits after the leading one
        low, word = word, _xorshift(word)
        mantissa = (value << shift) ^ ((word & 0xFFFFF) << 32 | low)
        numbers.append(mantissa / _ONE * 0.5**shift)
    return np.array(numbers)


def randperm(n: int) -> np.ndarray:
    """int64 [n], 0-based: `rand('state', 0); randperm(n)`, the order that sorts `rand(n)`."""
    return np.argsort(rand(n), kind="stable")


def _xorshift(word: int) -> int:
    word ^= word << 13 & 0xFFFFFFFF
    word ^= word >> 17
    return word ^ word << 5 & 0xFFFFFFFF
