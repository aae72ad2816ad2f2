"""A bound in bytes for a cache, beside Streamlit's own bound in entries."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any

import numpy as np
from torch import Tensor


def bounded(megabytes: float) -> Callable[[Callable], Callable]:
    """Over an ``st.cache_…`` decorator: what was used longest ago is cleared where all together take more.

    The newest result stays, however large it is. Arguments are given by place.
    """

    def decorate(cached: Callable) -> Callable:
        kept: OrderedDict[tuple, int] = OrderedDict()  # bytes by arguments, the latest used last
        lock = threading.Lock()

        @wraps(cached)
        def call(*args: Any) -> Any:
            result = cached(*args)
            with lock:
                kept.pop(args, None)
                kept[args] = size(result)
                while len(kept) > 1 and sum(kept.values()) > 1e6 * megabytes:
                    cached.clear(*kept.popitem(last=False)[0])
            return result

        return call

    return decorate


def size(held: Any) -> int:
    """Bytes of all arrays and tensors in a result: a dataclass, tuple, list or dict, or one of them."""
    if isinstance(held, Tensor):
        return held.untyped_storage().nbytes()
    if isinstance(held, np.ndarray):
        return held.nbytes
    if is_dataclass(held):
        return sum(size(getattr(held, field.name)) for field in fields(held))
    if isinstance(held, dict):
        held = list(held.values())
    if isinstance(held, tuple | list):
        return sum(size(part) for part in held)
    return 0
