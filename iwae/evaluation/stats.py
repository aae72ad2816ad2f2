"""Numbers with their standard errors: how they are computed and how they are written."""

import math
from typing import Any

import torch
from torch import Tensor

from iwae.model import to_float64


def mean_se(values: Tensor) -> tuple[float, float | None]:
    """(mean, its standard error over images); the error of a single image is unknown, None."""
    values = values.cpu().double()
    se = (values.std() / math.sqrt(len(values))).item() if len(values) > 1 else None
    return values.mean().item(), se


def decimal(value: float, digits: int = 2, sign: bool = False) -> str:
    """``0.12`` or ``−0.12``, with a minus and not a hyphen; ``sign``: also ``+0.12``."""
    return f"{value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def plus_minus(value: float, se: float | None, digits: int | None = 2, sign: bool = False) -> str:
    """``−87.20 ± 0.24``, or ``−87.20`` where the standard error is unknown.

    Args:
        digits: after the point; None for so many that two digits of the standard error count, three without an error.
        sign: write also a plus.
    """
    if digits is None:
        digits = max(1 - math.floor(math.log10(se)), 0) if se else 3
    return decimal(value, digits, sign) + ("" if se is None else f" ± {se:.{digits}f}")


def duration(seconds: float) -> str:
    """``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class RunningWeights:
    """The mean and the effective number of each image's importance weights in a stream of log-weights."""

    def __init__(self, images: int, device: torch.device):
        self.total, self.squared = torch.full((2, images), -math.inf, device=device)  # log Σw and log Σw²
        self.draws = 0

    def add(self, log_w: Tensor) -> None:
        """Take the next draws, log_w [any number, images]."""
        self.total = torch.logaddexp(self.total, log_w.logsumexp(0))
        self.squared = torch.logaddexp(self.squared, (2 * log_w).logsumexp(0))
        self.draws += len(log_w)

    def log_mean(self) -> Tensor:
        """log p̂(x) = L_draws [images], nats."""
        return to_float64(self.total) - math.log(self.draws)

    def ess(self) -> Tensor:
        """Effective sample size (Σw)²/Σw² [images]."""
        return (2 * self.total - self.squared).exp()


class RunningBound:
    """Mean of L_k over the disjoint groups of k in a stream of log-weights, however the stream is cut."""

    def __init__(self, k: int):
        self.k, self.groups = k, 0
        self.sum: Any = 0.0  # then [batch]
        self.open, self.count = None, 0  # logsumexp and size of the group being filled

    def add(self, log_w: Tensor) -> None:
        """Take the next draws, log_w [any number, batch]."""
        if self.count:
            room = self.k - self.count
            self._fill(log_w[:room])
            log_w = log_w[room:]
        whole = len(log_w) // self.k
        if whole:
            groups = log_w[: whole * self.k].view(whole, self.k, -1).logsumexp(1)
            self._close(to_float64(groups).sum(0), whole)
        self._fill(log_w[whole * self.k :])

    def _fill(self, log_w: Tensor) -> None:
        if not len(log_w):
            return
        part = log_w.logsumexp(0)
        self.open = part if self.open is None else torch.logaddexp(self.open, part)
        self.count += len(log_w)
        if self.count == self.k:
            self._close(to_float64(self.open), 1)
            self.open, self.count = None, 0

    def _close(self, total: Tensor, groups: int) -> None:
        self.sum = self.sum + total
        self.groups += groups

    def mean(self) -> Tensor:
        """L_k [batch], averaged over the whole groups."""
        return self.sum / self.groups - math.log(self.k)
