"""The ``repr`` of objects that hold arrays: one line, with the type and shape of an array instead of its numbers."""

import dataclasses
import reprlib
from typing import Any


class _Short(reprlib.Repr):
    def __init__(self):
        super().__init__()
        self.maxstring, self.maxother = 60, 120  # characters

    def repr1(self, x: Any, level: int) -> str:
        if hasattr(x, "dtype") and hasattr(x, "shape"):
            return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}"
        return super().repr1(x, level)


_short = _Short()


def one_line(self: Any) -> str:
    """``__repr__`` of a dataclass or named tuple that assigns it: ``Split(images=uint8[4000, 784], labels=None)``."""
    named = hasattr(self, "_fields")
    names = self._fields if named else [one.name for one in dataclasses.fields(self) if one.repr]
    return f"{type(self).__name__}({', '.join(f'{name}={_short.repr(getattr(self, name))}' for name in names)})"
