"""Whether numbers are finite: those of results, and those of every training step, checked on the device itself."""

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """A value that is not finite; the message says where it arose."""


def check_finite(values: Tensor, what: str) -> None:
    """Raise NonFiniteError that names the first of ``values`` [images, …] that is not a finite number."""
    non_finite = ~values.isfinite()
    if non_finite.any():
        place = tuple(non_finite.nonzero()[0].tolist())
        raise NonFiniteError(
            f"{what} of image {place[0]} is {values[place].item()}, not a finite number: the weights of this model are "
            "so large that float32 cannot hold what follows from them"
        )


class NonFiniteMonitor:
    """Observes every training step without waiting for the device, and reports when asked."""

    TERMS = ("log p(x|h)", "log p(h)", "log q(h|x)", "the bound", "the gradient")

    def __init__(self, device: torch.device):
        self.first = torch.zeros(len(self.TERMS), device=device)  # 1 for the terms that were not finite first
        self.diverged = torch.zeros((), device=device)  # 1 from that step on
        self.finite_steps = torch.zeros((), device=device)  # before it, since the last report

    @staticmethod
    def non_finite(*terms: Tensor) -> Tensor:
        """Which terms of one step, in the order of TERMS, are not finite, [terms]."""
        return ~torch.stack([term.detach().sum() for term in terms]).isfinite()

    def observe(self, non_finite: Tensor) -> None:
        """Take note of one step."""
        self.first += non_finite * (1 - self.diverged)
        self.diverged.copy_(self.first.amax())
        self.finite_steps += 1 - self.diverged

    def report(self) -> tuple[str | None, int]:
        """(the first term that was not finite or None, finite steps since the last report). Waits for the device."""
        finite_steps, *first = torch.cat([self.finite_steps.view(1), self.first]).tolist()
        self.finite_steps.zero_()
        term = next((name for name, value in zip(self.TERMS, first, strict=True) if value), None)
        return term, int(finite_steps)
