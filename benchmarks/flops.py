"""Floating-point operations of the matrix products of a model with one stochastic layer, counted from its sizes.

A product of [a, b] by [b, c] is 2·a·b·c operations; a backward pass through a layer is two such products, for the
weights and for what lies below. (For the pixels the second one is not needed; it is 0.3 MFLOP per image, counted
here all the same.) Everything else, such as tanh, is left out: these are floors.
"""

from itertools import pairwise

from iwae.model import ModelConfig

FORWARD, BACKWARD = 2, 4  # operations for each weight and row


def weights(config: ModelConfig) -> tuple[int, int]:
    """Multiplications of one row through the encoder and through the decoder; biases are left out."""
    if len(config.latent) != 1:
        raise ValueError(f"operations are counted for one stochastic layer, not for {len(config.latent)}")
    (hidden,), (latent,) = config.hidden, config.latent
    trunk = sum(a * b for a, b in pairwise((config.pixels, *hidden)))
    return trunk + 2 * hidden[-1] * latent, trunk + hidden[-1] * latent


def exact(config: ModelConfig, k: int) -> int:
    """Of one image in a training step where all k draws go backward."""
    encoder, decoder = weights(config)
    return (FORWARD + BACKWARD) * (encoder + k * decoder)


def resampled(config: ModelConfig, k: int) -> int:
    """Of one image in a training step with k draws forward and one of them backward."""
    return nll(config, k) + exact(config, 1)


def nll(config: ModelConfig, k: int) -> int:
    """Of one image's log-weights for k draws: the encoder once, the decoder k times."""
    encoder, decoder = weights(config)
    return FORWARD * (encoder + k * decoder)
