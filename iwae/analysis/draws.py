"""What draws from a posterior decode to: how far their pictures vary, and which classes they are."""

from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.analysis import generation, latent
from iwae.evaluation import stats
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel
from iwae.system import reprs

VOTERS = 5  # labelled images that name a picture's class


@dataclass(frozen=True)
class DecodedDraws:
    """Pictures E[x|h₁] of draws from a posterior, on the CPU, each with its share of the weight."""

    pictures: Tensor  # [n, pixels] in [0, 1]
    weights: Tensor  # [n], float64, summing to 1

    __repr__ = reprs.one_line

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def effective(self) -> float:
        """How many equally weighted draws they are worth, 1/Σw²."""
        return 1 / self.weights.square().sum().item()

    @property
    def spread(self) -> Tensor:
        """Standard deviation of each pixel over the draws, [pixels], at most 1/2: what the posterior leaves open. The
        noise of the pixels given h is no part of it."""
        pictures = self.pictures.double()
        mean = self.weights @ pictures
        return (self.weights @ (pictures - mean).square()).sqrt()

    def shares(self, labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
        """(share of the weight in each class, its standard error), each [classes]; ``labels`` [n] are the draws'.

        The error is the standard deviation of the share's Beta posterior from Jeffreys' prior, for as many draws as
        these are worth: that of a share of 0 or 1 is not 0.
        """
        share = torch.zeros(classes, dtype=torch.float64).index_add(0, labels, self.weights)
        inside, outside = self.effective * share + 0.5, self.effective * (1 - share) + 0.5
        return share, (inside * outside / (self.effective + 2)).sqrt() / (self.effective + 1)


@torch.no_grad()
def decode(model: LatentModel, h1: Tensor, weights: Tensor | None = None) -> DecodedDraws:
    """Draws h₁ [n, latent[0]] decoded; ``weights`` [n], by default all the same. Raises NonFiniteError where a pixel is
    not finite."""
    pictures = model.decode(h1.to(model.device)).cpu()
    check_finite(pictures, "a pixel")
    weights = torch.ones(len(h1)) if weights is None else weights
    return DecodedDraws(pictures, weights.double() / weights.double().sum())


def nearest_class(pictures: Tensor, images: Tensor, labels: Tensor) -> Tensor:
    """The class of each picture [n, pixels] in [0, 1], [n]: the commonest among the labels of the ``VOTERS`` nearest of
    the images, uint8 [m, pixels], by Euclidean distance of their pixels; of equally common ones that of the nearest."""
    near = generation.nearest(pictures, images, min(VOTERS, len(images))).index
    return torch.from_numpy(latent.predict_labels(near.numpy(), labels.numpy()))


def accuracy(pictures: Tensor, truth: Tensor, images: Tensor, labels: Tensor) -> tuple[float, float | None]:
    """How often ``nearest_class`` is right about pictures whose class is known, and the standard error."""
    return stats.mean_se((nearest_class(pictures, images, labels) == truth).double())
