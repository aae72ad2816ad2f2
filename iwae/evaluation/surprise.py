"""How surprising one image is to a model: its −L_S among those of the test images.

A card holds quantiles of −L_S over test images. The −L_S of another image, of as many draws, has a place among them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

FEWEST_IMAGES = 20  # of which quantiles are kept
TOLD = (0.01, 0.05, 0.5, 0.95, 0.99)  # levels of the quantiles that are shown in words


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of −L_S over test images, nats."""

    nll: Sequence[float]  # ascending, at evenly spaced levels from 0 to 1
    images: int  # test images that they are of
    samples: int  # S, draws from q(h|x) for each image
    seed: int  # of the draws, and of the choice of images

    @property
    def levels(self) -> np.ndarray:
        return np.linspace(0, 1, len(self.nll))

    def share_below(self, nll: float) -> float:
        """The share of the test images whose −L_S is smaller than ``nll``, in [0, 1], interpolated linearly."""
        return float(np.interp(nll, self.nll, self.levels))

    def in_words(self) -> str:
        """``1% 30.07, 5% 42.51, 50% 85.30, 95% 129.88, 99% 146.02``."""
        return ", ".join(f"{level:.0%} {np.interp(level, self.levels, self.nll):.2f}" for level in TOLD)


def quantiles(nll: Tensor, samples: int, seed: int) -> dict[str, Any] | None:
    """For a card: 101 quantiles of nll [images], the −L_samples of test images; None of fewer than FEWEST_IMAGES."""
    if len(nll) < FEWEST_IMAGES:
        return None
    values = np.quantile(nll.cpu().double().numpy(), np.linspace(0, 1, 101)).round(3).tolist()
    return asdict(Quantiles(values, len(nll), samples, seed))


def from_card(metrics: dict[str, Any]) -> Quantiles | None:
    """What ``quantiles`` has put into the metrics of a card, which ``checkpoints`` has checked; None if it has not."""
    kept = metrics.get("quantiles")
    return kept and Quantiles(kept["nll"], kept["images"], kept["samples"], kept["seed"])
