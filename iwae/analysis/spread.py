"""How far posteriors spread, each and all of them together, with standard errors over images."""

from dataclasses import dataclass

import numpy as np

from iwae.analysis.latent import ACTIVE, Encoded, MeanEstimate, subscript


@dataclass(frozen=True)
class SpreadMeasure:
    """One line of the table of spread: the model's number, and what it is made of."""

    name: str
    description: str
    estimate: MeanEstimate
    values: np.ndarray  # what the mean is taken of, or for log det its influence on it, [n]
    size_dependent: bool  # whether it grows with the number of units, so that other sizes cannot be compared


def spread(encoded: Encoded, kl: np.ndarray, layer: int = 1) -> tuple[SpreadMeasure, ...]:
    """How far the posteriors, and all of them together, spread; ``kl`` [n] is D_KL(q‖p) of each image, nats. Above the
    first layer, whose posteriors are no Gaussians, the entropy is left out; C is then without what correlates the units
    of one posterior.

    The standard errors are over images; those of the aggregated covariance C come by the delta method from the
    influence of each image: log det C moves by tr(C⁻¹ Cᵢ) − latent with Cᵢ = diag σᵢ² + (μᵢ − μ̄)(μᵢ − μ̄)ᵀ. With fewer
    than ``latent`` images they are too small.
    """
    variance, centred = np.square(encoded.std), encoded.mean - encoded.mean.mean(0)
    covariance = encoded.covariance
    inverse = np.linalg.inv(covariance)
    pull = variance @ inverse.diagonal() + (centred @ inverse * centred).sum(1) - encoded.size
    log_det = np.linalg.slogdet(covariance)[1]
    around, active = np.square(centred).sum(1), encoded.active
    q = f"q(h{subscript(layer)}|x)"
    lines = [("mean posterior standard deviation", f"σ(x) of {q}, over all units", encoded.std.mean(1), False)]
    if active.any():
        description = f"over units whose mean varies with the image by more than {ACTIVE}"
        lines += [("the same, active units only", description, encoded.std[:, active].mean(1), False)]
    lines += [
        ("tr Σ(x), posterior", "sum of the posterior variances", encoded.trace, True),
        ("tr C, aggregated posterior", f"variance of the mixture of all {q}", encoded.trace + around, True),
        ("log det C, aggregated posterior", "log of the squared volume it fills", pull + log_det, True),
        *([("entropy of q, nats", f"of {q}", encoded.entropy, True)] if layer == 1 else []),
        ("D_KL(q ‖ prior), nats", "information of the code about the image; all layers", kl, False),
    ]  # fmt: skip
    return tuple(
        SpreadMeasure(name, description, MeanEstimate.from_values(values), values, size_dependent)
        for name, description, values, size_dependent in lines
    )


def difference(a: SpreadMeasure, b: SpreadMeasure) -> MeanEstimate:
    """b − a over the same images, the standard error paired."""
    return MeanEstimate.from_values(b.values - a.values)
