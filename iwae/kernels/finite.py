"""Whether numbers are finite: those of every training step, known on the device without waiting for it, and results."""

import torch
from torch import Tensor


class NonFiniteError(RuntimeError):
    """A value that is not finite; the message says where it arose."""


def check_finite(values: Tensor, what: str) -> None:
    """Raises NonFiniteError that names the first of ``values`` [images, …] that is not a finite number."""
    wrong = ~values.isfinite()
    if wrong.any():
        place = tuple(wrong.nonzero()[0].tolist())
        raise NonFiniteError(
            f"{what} of image {place[0]} is {values[place].item()}, not a finite number: the weights of this model are "
            "so large that float32 cannot hold what follows from them"
        )


class Health:
    """Looks at every step, and is asked now and then."""

    TERMS = ("log p(x|h)", "log p(h)", "log q(h|x)", "the bound", "the gradient")

    def __init__(self, device: torch.device):
        self.broken = torch.zeros(len(self.TERMS), device=device)  # 1 for a term that was not, at the first such step
        self.ill = torch.zeros((), device=device)  # 1 from the first such step on
        self.clean = torch.zeros((), device=device)  # steps without one since the last report

    @staticmethod
    def wrong(*terms: Tensor) -> Tensor:
        """Which terms of one step, in the order of TERMS, are not finite."""
        return ~torch.stack([term.detach().sum() for term in terms]).isfinite()

    def examine(self, wrong: Tensor) -> None:
        """Take note of one step."""
        self.broken += wrong * (1 - self.ill)
        self.ill.copy_(self.broken.amax())
        self.clean += 1 - self.ill

    def report(self) -> tuple[str | None, int]:
        """(the term that broke first or None, clean steps since the last report). Waits for the device."""
        clean, *broken = torch.cat([self.clean.view(1), self.broken]).tolist()
        self.clean.zero_()
        term = next((name for name, value in zip(self.TERMS, broken, strict=True) if value), None)
        return term, int(clean)
