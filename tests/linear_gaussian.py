"""A model whose every quantity is known in closed form, in the shape of ``iwae.model.Model``.

    h ~ N(0, I),  x|h ~ N(W h, s² I),  so  log p(x) = log N(x; 0, W Wᵀ + s² I)  and the posterior is Gaussian.

q(h|x) = N(a·m(x) + b, diag) with m(x) the true posterior mean; at a = 1, b = 0 and the true covariance (W with
orthogonal columns makes it diagonal) q is the posterior and every log-weight equals log p(x).
"""

import numpy as np
import torch
from torch import Tensor, nn

from iwae.bounds import Bound
from iwae.model import Sample, log_normal, log_standard


class LinearGaussian(nn.Module):
    def __init__(self, pixels: int = 6, latent: int = 3, noise: float = 0.7, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        basis = torch.linalg.qr(torch.randn(pixels, latent, generator=generator, dtype=torch.float64))[0]
        self.weight = nn.Parameter(basis * torch.tensor([2.0, 1.0, 0.5], dtype=torch.float64)[:latent])
        self.noise_std, self.latent = noise, latent
        precision = 1 + self.weight.detach().square().sum(0) / noise**2
        self.gain = nn.Parameter(self.weight.detach().T / (precision[:, None] * noise**2))
        self.shift = nn.Parameter(torch.zeros(latent, dtype=torch.float64))
        self.log_std = nn.Parameter(-0.5 * precision.log())
        self.encoder_names = ("gain", "shift", "log_std")

    def encode_first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.gain.T + self.shift, self.log_std.expand(len(x), -1)

    def check_images(self, x: Tensor, count: int | None = None) -> Tensor:
        return x  # of real numbers

    def noise(self, k: int, batch: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        return (torch.randn(k, batch, self.latent, generator=generator, dtype=torch.float64),)

    def sample_posterior(self, x, noise, unit_masks=None, encoded=None):
        mean, log_std = encoded or self.encode_first(x)
        h = mean + log_std.exp() * noise[0]
        return (h,), log_normal(h, mean, log_std)

    def log_q(self, x, h, *, detached=False, encoded=None):
        mean, log_std = encoded or self.encode_first(x)
        return log_normal(h[0], mean.detach(), log_std.detach()) if detached else log_normal(h[0], mean, log_std)

    def log_joint(self, x, h, unit_masks=None, pixel_mask=None, checked=False):
        log_px = log_normal(x, h[0] @ self.weight.T, torch.full_like(x, self.noise_std).log())
        return log_px, log_standard(h[0])

    def sample(
        self, x, k=1, *, generator=None, noise=None, unit_masks=None, encoder_input=None, encoded=None, checked=False
    ):
        noise = noise or self.noise(k, len(x), generator)
        h, log_qh = self.sample_posterior(x if encoder_input is None else encoder_input, noise, unit_masks, encoded)
        return Sample(*self.log_joint(x, h), log_qh, h)

    def ancestral_layers(self, top, generator=None):
        return (top,)

    def log_p(self, x: Tensor) -> Tensor:
        """The true log p(x), [batch]."""
        covariance = self.weight @ self.weight.T + self.noise_std**2 * torch.eye(len(self.weight), dtype=x.dtype)
        return torch.distributions.MultivariateNormal(torch.zeros_like(x[0]), covariance).log_prob(x)


def expectation(model: LinearGaussian, x: Tensor, bound: Bound, k: int, kl_weight: float, nodes: int = 48) -> Tensor:
    """E[bound of k draws], [batch], of a model with one latent unit, by Gauss–Hermite quadrature over the k draws'
    noise. Differentiable: its gradient is the exact one. The log-weights' KL part has ``kl_weight``."""
    z, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(nodes))
    grid = torch.cartesian_prod(*[z] * k).view(-1, k)  # every choice of k nodes
    mass = torch.cartesian_prod(*[weights / weights.sum()] * k).view(-1, k).prod(1)
    noise = grid.T[:, :, None, None].expand(-1, -1, len(x), -1).reshape(k, -1, 1)
    log_w = model.sample(x.repeat(len(grid), 1), noise=(noise,)).log_weights(kl_weight)
    return (bound(log_w).view(len(grid), len(x)) * mass[:, None]).sum(0)
