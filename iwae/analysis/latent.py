"""Latent space: where images lie under q(h₁|x), how far each posterior spreads, and two such spaces side by side.

In the first stochastic layer q(h₁|x) = N(mean, diag σ²) is an exact Gaussian for any number of layers. Above it
q(h_l|x) is a mixture over the layers below, known by its draws and by the mean and variance of each unit. A
``LinearProjection`` onto two axes maps posteriors as well as points.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.linalg is imported with the first map: a page without one saves 0.2 s
import torch
from torch import Tensor

from iwae.kernels.finite import check_finite
from iwae.model import LatentModel
from iwae.system import reprs

BLOCK = 500  # rows of a distance matrix at once
NEIGHBOURS = 15  # UMAP's own default, and of every neighbourhood here
MASS = 0.95  # of a posterior inside its ellipse
MOMENT_DRAWS = 20  # of the layers below, behind the mean and variance of a layer above the first
LOG_2PI_E = math.log(2 * math.pi * math.e)
ACTIVE = 0.01  # variance of the encoder's mean that makes a unit active (Burda et al. 2016)


@dataclass(frozen=True)
class Encoded:
    """q(h₁|x) of n images, float64: a diagonal Gaussian each. Of a layer above the first: the mean and standard
    deviation of its units."""

    mean: np.ndarray  # [n, latent]
    std: np.ndarray  # [n, latent]

    __repr__ = reprs.one_line

    def __len__(self) -> int:
        return len(self.mean)

    @property
    def size(self) -> int:
        """Units of the layer."""
        return self.mean.shape[1]

    @property
    def trace(self) -> np.ndarray:
        """tr Σ(x), the sum of the posterior variances, [n]."""
        return np.square(self.std).sum(1)

    @property
    def entropy(self) -> np.ndarray:
        """Entropy of q(h₁|x), nats, [n]."""
        return np.log(self.std).sum(1) + self.size / 2 * LOG_2PI_E

    @property
    def kl_standard(self) -> np.ndarray:
        """D_KL(q(h₁|x) ‖ N(0, I)), nats, [n]: exact for a model of one stochastic layer, whose prior that is."""
        return (np.square(self.std) + np.square(self.mean) - 1 - 2 * np.log(self.std)).sum(1) / 2

    @property
    def covariance(self) -> np.ndarray:
        """Covariance of the aggregated posterior, the mixture of all q(h₁|x), [latent, latent]: the mean of diag σ² and
        the covariance of the means."""
        centred = self.mean - self.mean.mean(0)
        return np.diag(np.square(self.std).mean(0)) + centred.T @ centred / len(self)

    @property
    def active(self) -> np.ndarray:
        """Units whose mean varies with the image by more than 0.01, [latent] of bool. Burda et al. 2016, section 5."""
        return self.mean.var(0) > ACTIVE

    def select(self, index: int) -> "Encoded":
        """One image alone."""
        return Encoded(self.mean[index : index + 1], self.std[index : index + 1])

    def average(self, members: np.ndarray) -> "Encoded":
        """The mean of some posteriors as one: the mean of their means, and of their variances. ``members``: indices or
        bools. Raises ValueError when there are none."""
        if not len(self.mean[members]):
            raise ValueError("there is no image to take the mean of")
        return Encoded(
            self.mean[members].mean(0, keepdims=True), np.sqrt(np.square(self.std[members]).mean(0, keepdims=True))
        )

    def draw(self, count: int, seed: int) -> np.ndarray:
        """``count`` draws from each q(h₁|x), [n · count, latent], image by image."""
        noise = np.random.default_rng(seed).standard_normal((len(self), count, self.size))
        return (self.mean[:, None] + self.std[:, None] * noise).reshape(-1, self.size)


@torch.no_grad()
def encode(model: LatentModel, x: Tensor, layer: int = 1) -> Encoded:
    """q(h_layer|x) of images x [n, pixels] of zeros and ones, ``layer`` from 1. Above the first it is no Gaussian: then
    the mean and standard deviation of each unit, by the law of total variance over ``MOMENT_DRAWS`` draws of the layers
    below, with the same noise for every image.

    Raises ValueError for images that the model does not take (``Model.check_images``) and for a layer that it has not,
    NonFiniteError where a mean, or the logarithm of a standard deviation, is not finite."""
    x = model.check_images(x)
    if not 1 <= layer <= len(model.encoder):
        raise ValueError(f"the model has the stochastic layers 1 to {len(model.encoder)}, not {layer}")
    noise = model.noise(MOMENT_DRAWS, 1, torch.Generator(model.device).manual_seed(0))
    parts = (
        [_moments(model, block, noise[: layer - 1]) for block in x.split(BLOCK)] if layer > 1 else [_first(model, x)]
    )
    mean, std = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    check_finite(mean, f"the mean of q(h{subscript(layer)}|x)")
    check_finite(std.log(), f"the log standard deviation of q(h{subscript(layer)}|x)")  # also where std rounds to 0
    return Encoded(mean.numpy(), std.numpy())


def _first(model: LatentModel, x: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = (part.cpu().double() for part in model.encode_first(x))
    return mean, log_std.exp()


def _moments(model: LatentModel, x: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    below = x
    for encoder, eps in zip(model.encoder, noise, strict=False):
        mean, log_std = encoder(below)
        below = mean + log_std.exp() * eps  # draws, batch, latent
    mean, log_std = (part.cpu().double() for part in model.encoder[len(noise)](below))
    return mean.mean(0), ((2 * log_std).exp().mean(0) + mean.var(0, correction=0)).sqrt()


@torch.no_grad()
def draw(model: LatentModel, x: Tensor, layer: int, seed: int = 0) -> np.ndarray:
    """A draw from q(h_layer|x) for each of the images x [n, pixels], [n, latent], through the layers below."""
    x = model.check_images(x)
    noise = model.noise(1, len(x), torch.Generator(model.device).manual_seed(seed))
    return model.sample_posterior(x, noise)[0][layer - 1][0].cpu().double().numpy()


@torch.no_grad()
def first_layer(model: LatentModel, h: Tensor, layer: int) -> Tensor:
    """h₁ [n, latent[0]] below h of ``layer`` [n, latent[layer − 1]], the layers between at their means."""
    for decoder in reversed(model.decoder[: layer - 1]):
        h = decoder(h)[0]
    return h


def subscript(layer: int) -> str:
    """``₂``."""
    return str(layer).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


@torch.no_grad()
def prior(model: LatentModel, count: int, seed: int, layer: int = 1) -> np.ndarray:
    """``count`` draws of h_layer from the model's prior, down through the layers above it, [count, latent], float64.
    Raises NonFiniteError where one is not finite."""
    generator = torch.Generator(model.device).manual_seed(seed)
    top = torch.randn(count, model.config.latent[-1], generator=generator, device=model.device)
    draws = model.ancestral_layers(top, generator)[layer - 1].cpu().double()
    check_finite(draws, f"h{subscript(layer)} from the prior")
    return draws.numpy()


@dataclass(frozen=True)
class LinearProjection:
    """A linear projection of the latent space onto a plane: h ↦ axes (h − centre)."""

    centre: np.ndarray  # [latent]
    axes: np.ndarray  # [2, latent], orthonormal where there are two units or more
    share: float | None = None  # of the variance of what it was made for that lies in its plane; None without any

    __repr__ = reprs.one_line

    def project(self, points: np.ndarray) -> np.ndarray:
        """Project points [n, latent] onto the plane, [n, 2]."""
        return (points - self.centre) @ self.axes.T

    def covariance(self, std: np.ndarray) -> np.ndarray:
        """W diag(σ²) Wᵀ, [2, 2]: the exact covariance on the plane of a Gaussian with standard deviations ``std``."""
        return (self.axes * np.square(std)) @ self.axes.T

    def lift(self, place: np.ndarray, point: np.ndarray) -> np.ndarray:
        """``point`` [latent] moved within the plane until it lies at ``place`` [2], [latent]."""
        return point + (place - self.project(point)) @ self.axes

    def rotated(self, rotation: np.ndarray) -> "LinearProjection":
        """The same plane, rotated by ``rotation`` [2, 2]."""
        return LinearProjection(self.centre, rotation @ self.axes, self.share)


def pca(points: np.ndarray) -> LinearProjection:
    """The two directions of largest variance of points [n, latent], largest first, each with its largest entry
    positive; of a single unit the second direction is 0. Raises ValueError for fewer than 2 points."""
    if len(points) < 2:
        raise ValueError(f"principal components need at least 2 points, not {len(points)}")
    covariance, size = np.atleast_2d(np.cov(points.T)), points.shape[1]
    variances, vectors = scipy.linalg.eigh(covariance, subset_by_index=[max(size - 2, 0), size - 1])
    axes, whole = np.zeros((2, size)), np.trace(covariance)
    largest = vectors[:, ::-1].T
    axes[: len(largest)] = largest * np.sign(largest[range(len(largest)), np.abs(largest).argmax(1)])[:, None]
    return LinearProjection(points.mean(0), axes, float(variances.sum() / whole) if whole > 0 else None)


def units(points: np.ndarray, first: int, second: int) -> LinearProjection:
    """The projection onto two units. Raises ValueError for a unit that points [n, latent] do not have."""
    size = points.shape[1]
    for unit in (first, second):
        if not 0 <= unit < size:
            raise ValueError(f"unit {unit} does not exist: there are 0 to {size - 1}")
    variances = points.var(0)
    whole, chosen = variances.sum(), variances[list({first, second})].sum()
    return LinearProjection(np.zeros(size), np.eye(size)[[first, second]], float(chosen / whole) if whole > 0 else None)


def ellipse(centre: np.ndarray, covariance: np.ndarray, mass: float = MASS, points: int = 97) -> np.ndarray:
    """The curve [points, 2] that holds ``mass`` of the Gaussian N(centre, covariance) on the plane.

    In two dimensions the squared Mahalanobis distance is exponential with mean 2, so its quantile is −2 log(1 − mass).
    """
    angle = np.linspace(0, 2 * np.pi, points)
    variances, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(variances.clip(0))
    return centre + math.sqrt(-2 * math.log1p(-mass)) * np.stack([np.cos(angle), np.sin(angle)], 1) @ root.T


def inside(points: np.ndarray, centre: np.ndarray, covariance: np.ndarray, mass: float = MASS) -> np.ndarray:
    """Which of points [n, 2] lie within that ellipse, [n] of 0 and 1."""
    away = points - centre
    distance = np.einsum("nu,uv,nv->n", away, np.linalg.pinv(covariance), away)
    return (distance <= -2 * math.log1p(-mass)).astype(np.float64)


def procrustes(onto: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, float]:
    """(rotation or reflection R [2, 2] that brings points [n, 2] closest to ``onto``, what remains: the share in
    [0, 1] of the variance that no turn and no scale explains). Nothing is stretched: R keeps lengths. Schönemann 1966.
    """
    a, b = onto - onto.mean(0), points - points.mean(0)
    left, singular, right = np.linalg.svd(a.T @ b)
    common = np.square(a).sum() * np.square(b).sum()
    return left @ right, float(max(1 - singular.sum() ** 2 / common, 0.0)) if common else 1.0


def neighbours(points: np.ndarray, k: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """(indices, distances), each [n, k]: the nearest other points of points [n, latent], nearest first.

    Raises ValueError unless there are more than k points.
    """
    if not 1 <= k < len(points):
        raise ValueError(f"{len(points)} points have 1 to {len(points) - 1} neighbours, not {k}")
    return _nearest(points, points, k, leave_out=True)


def nearest(points: np.ndarray, among: np.ndarray, k: int = NEIGHBOURS) -> tuple[np.ndarray, np.ndarray]:
    """(indices, distances), each [m, k]: those of ``among`` [n, latent] nearest to new points [m, latent]."""
    if not 1 <= k <= len(among):
        raise ValueError(f"{len(among)} points have 1 to {len(among)} nearest, not {k}")
    return _nearest(points, among, k, leave_out=False)


def _nearest(points, among, k, leave_out) -> tuple[np.ndarray, np.ndarray]:
    rows, all_of = torch.from_numpy(points).float(), torch.from_numpy(among).float()
    parts = []
    for start in range(0, len(rows), BLOCK):
        distance = _distance(rows[start : start + BLOCK], all_of)
        if leave_out:
            own = torch.arange(len(distance))
            distance[own, own + start] = math.inf
        parts.append(distance.topk(k, largest=False))
    index = torch.cat([part.indices for part in parts]).numpy()
    exact = np.empty(index.shape)  # the search itself may round
    for start in range(0, len(points), BLOCK):
        block = slice(start, start + BLOCK)
        exact[block] = np.linalg.norm(points[block, None] - among[index[block]], axis=2)
    return index, exact


def _distance(rows: Tensor, columns: Tensor) -> Tensor:
    return torch.cdist(rows, columns, compute_mode="use_mm_for_euclid_dist")


def overlap(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Share of each image's neighbours in one space, indices [n, k], that are its neighbours in the other, [n]."""
    return (one[:, :, None] == other[:, None, :]).any(2).mean(1)


def predict_labels(index: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The commonest label among each image's neighbours (indices [n, k]), [n]; of equal ones that of the nearest."""
    near = labels[index]  # n, k
    votes = (near[:, :, None] == near[:, None, :]).sum(2)
    return near[np.arange(len(near)), votes.argmax(1)]


@dataclass(frozen=True)
class MeanEstimate:
    """A mean over n images and its standard error."""

    value: float
    se: float | None
    n: int

    @classmethod
    def from_values(cls, values: np.ndarray) -> "MeanEstimate":
        """From one value for each image; the error of a single image is unknown, None."""
        n = len(values)
        return cls(float(values.mean()), float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else None, n)


def trustworthiness(
    points: np.ndarray, placed: np.ndarray, k: int = NEIGHBOURS, images: int = 1000, seed: int = 0
) -> MeanEstimate:
    """How far the neighbours on a map [n, 2] are neighbours in the space [n, latent]: 1 when all of them are.

    Venna & Kaski 2001. Averaged over at most ``images`` images, drawn from ``seed``, each among all n: the average of
    all is then known up to the standard error. Raises ValueError where it is not defined: k < n / 2 is needed.
    """
    n = len(points)
    if not 1 <= k < n / 2:
        raise ValueError(f"trustworthiness of {n} points needs 1 to {math.ceil(n / 2) - 1} neighbours, not {k}")
    chosen = np.random.default_rng(seed).permutation(n)[:images]
    space, plane = (torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (points, placed))
    lost = []
    for rows in torch.from_numpy(chosen).split(BLOCK):
        near = _distance(plane[rows], plane)
        near[torch.arange(len(rows)), rows] = math.inf
        near = near.topk(k, largest=False).indices
        far = _distance(space[rows], space)
        far[torch.arange(len(rows)), rows] = math.inf
        order = far.sort(1).values
        rank = torch.searchsorted(order, far.gather(1, near)) + 1  # 1 is the nearest
        lost.append((rank - k).clamp_min(0).sum(1))
    return MeanEstimate.from_values(1 - 2 / (k * (2 * n - 3 * k - 1)) * torch.cat(lost).double().numpy())


def place_on_map(draws: np.ndarray, points: np.ndarray, placed: np.ndarray, k: int = NEIGHBOURS) -> np.ndarray:
    """Draws [m, latent] on a map that has no formula, [m, 2]: the mean of the places ``placed`` [n, 2] of their k
    nearest points, weighted by UMAP's strength of membership exp(−d/s), with s such that the k strengths sum to log₂ k
    (McInnes et al. 2018, where ``transform`` starts). The points stay, so each draw's place depends on it alone."""
    k = min(k, len(points))
    index, distance = nearest(draws, points, k)
    low, high = np.full(len(draws), 1e-12), np.full(len(draws), 1e6)
    for _ in range(80):  # halves the logarithm of the range each time
        scale = np.sqrt(low * high)
        enough = np.exp(-distance / scale[:, None]).sum(1) > math.log2(max(k, 2))
        low, high = np.where(enough, low, scale), np.where(enough, scale, high)
    # relative to the nearest, so that a far draw's strengths do not all vanish
    weights = np.exp(-(distance - distance[:, :1]) / scale[:, None])
    return np.einsum("mk,mkd->md", weights / weights.sum(1, keepdims=True), placed[index])


def subset(total: int, count: int, seed: int = 0) -> np.ndarray:
    """Which of ``total`` images stand for all: at most ``count``, drawn without order from ``seed``, then sorted (some
    data sets lie sorted by label)."""
    return np.sort(np.random.default_rng(seed).permutation(total)[:count])


def shared_range(clouds: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Limits of x and y that hold all clouds [·, 2], with a margin of 4%: the same for every map."""
    everything = np.concatenate(clouds)
    low, high = everything.min(0), everything.max(0)
    margin = 0.04 * np.maximum(high - low, 1e-9)
    return [float(low[0] - margin[0]), float(high[0] + margin[0])], [
        float(low[1] - margin[1]),
        float(high[1] + margin[1]),
    ]
