"""Active units: how much each latent unit depends on the image (Burda et al. 2016, section 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.data.drawn import DrawnImages
from iwae.evaluation.sampling import Block, Checked, checked, map_blocks
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel, UnitMask
from iwae.system import reprs

ACTIVITY_DRAWS = 100  # draws behind E_q[h|x] above the first stochastic layer
NOT_COUNTED = "not counted: a variance over images needs at least 2"  # what to say of the units of a single image
THRESHOLD = 0.01  # of the variance that makes a unit active


@dataclass(frozen=True)
class Activity:
    """How much each unit of one stochastic layer tells of the image: Cov_x(E_q[h|x]) over ``images`` images."""

    mean: Tensor  # [latent], the mean over images of E_q[h|x]; these tensors lie on the CPU, in float64
    covariance: Tensor  # [latent, latent]
    threshold: float

    __repr__ = reprs.one_line

    @property
    def variance(self) -> Tensor:
        """Var_x(E_q[h_u|x]) of each unit, [latent]."""
        return self.covariance.diagonal()

    @property
    def active(self) -> Tensor:
        """The units whose variance lies above the threshold, [latent] of bool. Burda et al. 2016, section 5."""
        return self.variance > self.threshold

    @property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of the covariance, largest first, [latent]."""
        return torch.linalg.eigvalsh(self.covariance).flip(0)

    @property
    def pca_active(self) -> int:
        """Number of eigenvalues above the threshold. Arnal, Lee & Pezzotti 2021."""
        return int((self.eigenvalues > self.threshold).sum())


@torch.no_grad()
def active_units(
    model: LatentModel,
    x: Checked | DrawnImages,
    *,
    draws: int = ACTIVITY_DRAWS,
    seed: int = 0,
    threshold: float = THRESHOLD,
) -> tuple[Activity, ...]:
    """Activity of every stochastic layer over images x [n, pixels].

    The first layer's E_q[h|x] is the encoder's own mean. Above it, E_q[h|x] is a mean over ``draws``, whose
    variance holds the draws' own noise as well, E[Var]/draws; so the covariance is taken between the means of two
    independent halves of the draws, which is unbiased. Raises as ``unit_means`` does.
    """
    return tuple(activity_of(*halves, threshold) for halves in unit_means(model, x, draws=draws, seed=seed))


@torch.no_grad()
def unit_means(
    model: LatentModel, x: Checked | DrawnImages, *, draws: int = ACTIVITY_DRAWS, seed: int = 0
) -> tuple[tuple[Tensor, Tensor], ...]:
    """E_q[h|x] of every stochastic layer for images x [n, pixels]: two estimates, [n, latent] each, with independent
    errors; those of the first layer are exact and the same. On the CPU, in float64.

    Raises ValueError for images that the model does not take (``Model.check_images``), and for fewer than 2 images or
    draws, which have no variance; NonFiniteError where a mean is not finite.
    """
    images = checked(model, x)
    if len(images) < 2 or draws < 2:
        raise ValueError(f"active units need at least 2 images and 2 draws, not {len(images)} and {draws}")

    def measure(block: Block) -> list[tuple[Tensor, Tensor]]:
        mean = model.encode_first(block.x)[0]
        layers = [(mean, mean)]
        if len(model.encoder) > 1:
            below, _ = model.sample_posterior(block.x, model.noise(draws, len(block.x), block.generator))
            means = [encoder(h)[0] for encoder, h in zip(model.encoder[1:], below, strict=False)]
            layers += [(mean[0::2].mean(0), mean[1::2].mean(0)) for mean in means]  # draws, batch, latent
        return layers

    halves = map_blocks(measure, images, seed)
    means = []
    for layer in zip(*halves, strict=True):
        first, second = zip(*layer, strict=True)
        whole = torch.cat(first).cpu().double()
        means.append((whole, torch.cat(second).cpu().double() if means else whole))  # the first layer's are exact
    for number, layer in enumerate(means, 1):
        for half in layer:
            check_finite(half, f"E_q[h|x] in layer {number}")
    return tuple(means)


def activity_of(first: Tensor, second: Tensor, threshold: float = THRESHOLD) -> Activity:
    """Activity of a layer from two independent estimates of E_q[h|x], [n, latent] each."""
    a = first - first.mean(0)
    b = a if second is first else second - second.mean(0)
    cross = a.T @ b / (len(a) - 1)
    return Activity((first.mean(0) + second.mean(0)) / 2, (cross + cross.T) / 2, threshold)


def mask_units(
    activity: tuple[Activity, ...], kept: Sequence[Tensor], device: torch.device | str
) -> tuple[UnitMask, ...]:
    """For ``Model.sample(unit_masks=…)``: only the units ``kept`` ([latent] of bool for each layer) stay. The others
    are held at a constant: the top layer's at their prior mean 0, those below at their mean over images and draws.
    """
    values = [*(layer.mean for layer in activity[:-1]), torch.zeros_like(activity[-1].mean)]
    return tuple(
        UnitMask(mask.float().to(device), value.float().to(device)) for mask, value in zip(kept, values, strict=True)
    )
