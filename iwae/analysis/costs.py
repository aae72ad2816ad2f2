"""The memory and time of an analysis, estimated from the sizes of the model before anything is computed.

A checkpoint of a few megabytes may have 100,000 latent units, and the cost of draws and covariances grows with their
number, its square and its cube. ``check`` rejects what would exceed LIMIT_BYTES or LIMIT_SECONDS. The shipped models
stay far below both.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from iwae.adapters import WrappedConfig
from iwae.evaluation.sampling import rows_at_once
from iwae.model import ModelConfig

LIMIT_BYTES = 600e6  # at the peak, beside the model itself
LIMIT_SECONDS = 8.0
MULTIPLY_ADDS = 2e10  # multiply-adds of matrix products in a second, of one core
DECOMPOSITION_RATE = (
    2.5e8  # size³ of a matrix in a second: its covariance, eigenvalues, inverse and determinant, some twice
)
THREADS = 2  # blocks of images at once
FLOAT, DOUBLE = 4, 8  # bytes


class CostError(ValueError):
    """An analysis that would exceed a limit; the message names the model's sizes, the analysis and the limit."""


@dataclass(frozen=True)
class Cost:
    """Estimated cost, conservative."""

    bytes: float  # at the peak, beside the model
    seconds: float  # of one core

    def __add__(self, other: "Cost") -> "Cost":
        """One after the other, the memory of both kept."""
        return Cost(self.bytes + other.bytes, self.seconds + other.seconds)


def check(config: ModelConfig, cost: Cost, what: str) -> None:
    """Raises CostError where ``what``, in words, would take more than the limits."""
    if cost.bytes <= LIMIT_BYTES and cost.seconds <= LIMIT_SECONDS:
        return
    units = " + ".join(f"{size:,}" for size in config.latent)
    hidden = _widths(config)
    if cost.bytes > LIMIT_BYTES:
        needs = f"about {cost.bytes / 1e6:,.0f} MB of memory, and {LIMIT_BYTES / 1e6:,.0f} MB is the limit"
    else:
        needs = f"about {cost.seconds:,.0f} seconds, and {LIMIT_SECONDS:.0f} seconds is the limit"
    raise CostError(f"a model of {units} latent and {hidden:,} hidden units is too large for {what}: it takes {needs}")


def encoder(config: ModelConfig) -> int:
    """Multiply-adds of q(h₁|x) of one image, once for all of its draws."""
    return _bottom(config, 2 * config.latent[0])


def proposal(config: ModelConfig) -> int:
    """Multiply-adds of one draw of q(h|x) above the first layer."""
    layers = zip(config.latent, config.hidden[1:], config.latent[1:], strict=False)
    return sum(_chain((below, *hidden, 2 * latent)) for below, hidden, latent in layers)


def decoder(config: ModelConfig) -> int:
    """Multiply-adds of log p(x, h) of one draw, all layers."""
    between = sum(
        _chain((top, *hidden[::-1], 2 * bottom))
        for bottom, hidden, top in zip(config.latent, config.hidden[1:], config.latent[1:], strict=False)
    )
    return between + _bottom(config, config.latent[0])


def posterior(config: ModelConfig, samples: int) -> Cost:
    """Draws from q(h|x) of one image, and their reconstructions (``posterior``)."""
    kept = 5 * samples * sum(config.latent)  # noise, draws, and what is between
    passing = 2 * rows_at_once(config, min(samples, 5000)) * (_widths(config) + config.pixels)
    return Cost(FLOAT * (kept + passing), samples * (proposal(config) + 2 * decoder(config)) / MULTIPLY_ADDS)


def occlusion(config: ModelConfig, samples: int) -> Cost:
    """p(h|x_visible) of one image (``occlusion.occluded``): draws of the prior, some 15 steps of 3 gradients, and the
    draws of the importance sampler."""
    units = sum(config.latent)
    population = 12 * 500 * units + 6 * 500 * (_widths(config) + config.pixels)
    gradients = 500 * 15 * 3 * 3
    return posterior(config, samples) + Cost(
        FLOAT * (4 * 5000 * units + population), (5000 + gradients) * decoder(config) / MULTIPLY_ADDS
    )


def report(config: ModelConfig, samples: int) -> Cost:
    """The draws of one image as text (``report.build``)."""
    return posterior(config, samples) + Cost(50 * samples * sum(config.latent), samples * sum(config.latent) / 2e6)


def latent_space(config: ModelConfig, images: int) -> Cost:
    """q(h₁|x) of ``images`` images, their map, and their spread (``latent``)."""
    units = config.latent[0]
    encoding = images * units * (2 * DOUBLE + 2 * FLOAT) + 1000 * FLOAT * 2 * _widths(config)
    map_ = DOUBLE * (6 * images * units + 6 * units**2)
    products = images * encoder(config) + 4 * images * units**2 + 3 * images**2 * units
    return Cost(encoding + map_, products / MULTIPLY_ADDS + units**3 / DECOMPOSITION_RATE)


def units(config: ModelConfig, images: int) -> Cost:
    """Means, covariances, KLs and bands of the units of every layer (``evaluation.unit_means``, ``units``)."""
    total, largest = sum(config.latent), max(config.latent)
    deep = len(config.latent) > 1
    above = total + sum(map(sum, config.hidden))  # 100 draws of 100 images pass these, the images alone convolutions
    block = FLOAT * 2 * ((10_000 if deep else 100) * above + 100 * _widths(config))
    bands = 200 * 3 * images * largest  # resampled images, each a few operations a unit
    products = images * (2 * encoder(config) + 110 * proposal(config) + 10 * (deep and decoder(config)))
    products += images * sum(size**2 for size in config.latent)
    covariances = sum(size**3 for size in config.latent) / (4 * DECOMPOSITION_RATE)
    memory = DOUBLE * (8 * images * largest + 4 * images * total + 6 * largest**2)
    return Cost(block + memory, products / MULTIPLY_ADDS + bands / 5e8 + covariances)


def draws(config: ModelConfig, images: int, samples: int, pictures: int = 0) -> Cost:
    """``samples`` draws for each of many images, block after block (``evaluation.evaluate``, ``reconstruction``), and
    so many ``pictures`` decoded of each draw."""
    rows = THREADS * rows_at_once(config, 5000)  # 50 draws of 100 images in a block
    block = FLOAT * rows * (4 * sum(config.latent) + _widths(config) + (2 + pictures) * config.pixels)
    each = proposal(config) + (1 + pictures) * decoder(config)
    return Cost(block, images * (encoder(config) + samples * each) / MULTIPLY_ADDS / THREADS)


def latents(config: ModelConfig, images: int, samples: int) -> Cost:
    """``draws``, kept with the mean and standard deviation of every unit, and all of it as text (``encode``)."""
    return draws(config, images, samples) + Cost(200 * images * sum(config.latent), images * sum(config.latent) / 1e6)


def generation(config: ModelConfig, images: int) -> Cost:
    """Images from the prior, and reconstructions of as many (``prior``)."""
    rows = FLOAT * images * 4 * (sum(config.latent) + _widths(config) + config.pixels)
    return Cost(rows, images * (encoder(config) + 2 * decoder(config)) / MULTIPLY_ADDS)


def _bottom(config: ModelConfig, outputs: int) -> int:
    """Between an image and so many numbers, in either direction."""
    if isinstance(config, WrappedConfig):
        return config.multiply_adds
    maps = config.feature_maps
    convolved = sum(
        9 * channels * wanted * rows * columns for (channels, *_), (wanted, rows, columns) in pairwise(maps)
    )
    return convolved + _chain((math.prod(maps[-1]), *config.hidden[0], outputs))


def _chain(sizes: tuple[int, ...]) -> int:
    return sum(a * b for a, b in pairwise(sizes))


def _widths(config: ModelConfig) -> int:
    """Hidden units of one pass through all layers."""
    return sum(map(sum, config.widths))
