"""The development of a run: the same images under the model at several points of its training, on the same axes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from iwae.evaluation.activity import Activity, active_units
from iwae.kernels.finite import check_finite
from iwae.model import LatentModel

IMAGES = 500  # for the map and the active units


@dataclass(frozen=True)
class ModelState:
    """Posterior means, unit activity and reconstructions of one model, on the CPU."""

    means: Tensor  # [images, latent[0]], of q(h₁|x)
    activity: tuple[Activity, ...]  # of every stochastic layer
    images: Tensor  # [shown, pixels]
    pictures: Tensor  # the same, decoded from their means


@dataclass(frozen=True)
class TimelineAxes:
    """Two directions of the latent space onto which all snapshots are projected, so that they can be compared."""

    centre: Tensor  # [latent]
    axes: Tensor  # [latent, 2]
    titles: tuple[str, str]
    reach: float  # half the side of the square that holds the frame's own images

    def project(self, means: Tensor) -> Tensor:
        """Means [images, latent] → [images, 2]."""
        return (means - self.centre) @ self.axes


@torch.no_grad()
def describe_model(model: LatentModel, x: Tensor, shown: Tensor) -> ModelState:
    """``model`` on images x [images, pixels] and on those to show [shown, pixels].

    Raises ValueError for other images, NonFiniteError where what comes out is not finite.
    """
    means = model.encode_first(model.check_images(x))[0].cpu()
    shown = model.check_images(shown)
    pictures = model.decode(model.encode_first(shown)[0]).cpu()
    check_finite(means, "the mean of q(h₁|x)")
    check_finite(pictures, "the reconstruction")
    return ModelState(means, active_units(model, x), shown.cpu(), pictures)


def timeline_axes(state: ModelState) -> TimelineAxes:
    """The latent plane itself where the first layer has two units, else the two main directions of its means.

    The directions are eigenvectors of Cov_x(E_q[h₁|x]); each points where its largest entry is positive.
    """
    activity = state.activity[0]
    size = len(activity.mean)
    if size == 1:
        axes, titles = torch.tensor([[1.0, 0.0]]), ("h₁", "nothing: the layer has one unit")
    elif size == 2:
        axes, titles = torch.eye(2), ("unit 0", "unit 1")
    else:
        values, vectors = torch.linalg.eigh(activity.covariance)
        axes = vectors[:, [-1, -2]].float()
        axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
        first, second = (values[[-1, -2]] / values.sum()).tolist()
        titles = f"PCA 1 ({first:.0%} of the variance)", f"PCA 2 ({second:.0%} of the variance)"
    centre = activity.mean.float() if size > 2 else torch.zeros(size)
    placed = TimelineAxes(centre, axes, titles, 0.0).project(state.means)
    return TimelineAxes(centre, axes, titles, 1.1 * placed.abs().max().item())
