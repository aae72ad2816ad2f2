"""Whether every term of every training step was finite, known on the device without waiting for it."""

import torch
from torch import Tensor


class Health:
    """Looks at every step, and is asked now and then."""

    TERMS = ("log p(x|h)", "log p(h)", "log q(h|x)", "the bound", "the gradient")

    def __init__(self, device: torch.device):
        self.broken = torch.zeros(len(self.TERMS), device=device)  # 1 for a term that was not, at the first such step
        self.ill = torch.zeros((), device=device)  # 1 from the first such step on
        self.clean = torch.zeros((), device=device)  # steps without one since the last report

    def examine(self, *terms: Tensor) -> None:
        """Take the terms of one step, in the order of TERMS."""
        finite = torch.stack([term.detach().sum().isfinite() for term in terms]).float()
        self.broken += (1 - finite) * (1 - self.ill)
        self.ill.copy_(self.broken.amax())
        self.clean += 1 - self.ill

    def report(self) -> tuple[str | None, int]:
        """(the term that broke first or None, clean steps since the last report). Waits for the device."""
        clean, *broken = torch.cat([self.clean.view(1), self.broken]).tolist()
        self.clean.zero_()
        term = next((name for name, value in zip(self.TERMS, broken, strict=True) if value), None)
        return term, int(clean)
