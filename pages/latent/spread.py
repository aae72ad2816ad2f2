"""How far two models' posteriors spread, each and all together, in numbers and against the prior."""

from collections.abc import Sequence

import numpy as np
import streamlit as st

from iwae.analysis import latent
from iwae.analysis.latent import MeanEstimate
from iwae.analysis.spread import difference, spread
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.figures.latent import MapAxes, aggregated
from pages.common import figure_card, reading
from pages.common.sections import beside
from pages.common.server import cache
from pages.latent.controls import FILE, Images, MapSide, divergence, plus_minus

PRIOR = 2_000  # draws


def show_aggregated(both: Sequence[MapSide], images: Images) -> None:
    """The mixture of all posteriors against the prior, in each model's own PCA plane."""
    projections = [latent.pca(side.encoded.mean) for side in both]
    posteriors, priors = (
        [projection.project(drawn(side)) for projection, side in zip(projections, both, strict=True)]
        for drawn in (lambda side: _aggregated(side, images), lambda side: _prior(side.entry, side.device, side.layer))
    )
    x, y = latent.shared_range([*posteriors, *priors])
    frame = MapAxes(tuple(x), tuple(y), ("PC 1", "PC 2"))
    for column, side, projection, posterior, prior in zip(beside(), both, projections, posteriors, priors, strict=True):
        caption = (
            f"One draw from q({side.h}|x) of each of {len(posterior):,} images in the PCA plane of {side.name}, over "
        )
        if len(side.entry.card.model.latent) > side.layer:
            drawn = aggregated(posterior, frame, kind=side.entry.kind, prior=prior)
            caption += f"{len(prior):,} draws from the prior of {side.h}, down through the layers above it."
        else:
            origin, ones = (
                projection.project(np.zeros((1, side.encoded.size)))[0],
                projection.covariance(np.ones(side.encoded.size)),
            )
            circles = [latent.ellipse(origin, ones, mass) for mass in (0.5, latent.MASS)]
            drawn = aggregated(posterior, frame, kind=side.entry.kind, circles=circles)
            within = [
                MeanEstimate.from_values(latent.inside(posterior, origin, ones, mass)) for mass in (0.5, latent.MASS)
            ]
            caption += (
                f"the circles that hold 0.50 and {latent.MASS:.2f} of the prior: they hold {plus_minus(within[0])} and "
                f"{plus_minus(within[1])} of the draws."
            )
        with column:
            st.markdown(f"**{side.title}**")
            clouds = np.concatenate([posterior, prior])
            source = ["posterior"] * len(posterior) + ["prior"] * len(prior)
            numbers = {"x": clouds[:, 0], "y": clouds[:, 1], "draw from the": source}
            figure_card.figure(drawn, f"aggregated.{side.name.lower()}", caption, numbers)


def _aggregated(side: MapSide, images: Images) -> np.ndarray:
    """One draw from q(h|x) of each image."""
    if side.layer == 1:
        return side.encoded.draw(1, seed=0)
    with cache.stop_on_model_error(side.entry):
        x = cache.test_images(images.dataset, side.entry.binary)[images.numbers].to(side.device)
        return latent.draw(cache.model(side.entry, side.device), x, side.layer)


@st.cache_resource(max_entries=6, show_spinner=False, hash_funcs=FILE)
def _prior(entry: Entry, device: str, layer: int) -> np.ndarray:
    with cache.stop_on_model_error(entry):
        return latent.prior(cache.model(entry, device), PRIOR, seed=0, layer=layer)


def show_spread(both: Sequence[MapSide], images: Images) -> None:
    """The table that answers whether B spreads wider than A."""
    a, b = ({line.name: line for line in spread(side.encoded, divergence(side, images), side.layer)} for side in both)
    one_size = both[0].encoded.size == both[1].encoded.size
    shown, numbers = [], []
    for name in dict.fromkeys([*a, *b]):
        first, second = a.get(name), b.get(name)
        comparable = first and second and (one_size or not first.size_dependent)
        estimates = {
            both[0].title: first and first.estimate,
            both[1].title: second and second.estimate,
            "B − A": difference(first, second) if comparable else None,
        }
        description = (first or second).description
        shown.append(
            {"measure": f"**{name}**: {description}"}
            | {who: plus_minus(e) if e else "–" for who, e in estimates.items()}
        )
        record = {"measure": name, "n": len(images.numbers)}
        for who, estimate in estimates.items():
            record |= {who: estimate and estimate.value, f"{who}, s.e.": estimate and estimate.se}
        numbers.append(record)
    st.write(_verdict(both, a, b))
    st.table(shown, hide_index=True)
    active = " and ".join(f"{side.encoded.active.sum()} of {side.encoded.size} in {side.name}" for side in both)
    st.caption(
        reading.without_errors(f"Mean ± standard error over n = {len(images.numbers):,} images")
        + ", the differences paired; entropy, D_KL and log det in nats. "
        + "The error is that of these two models' numbers, not the scatter from one training seed to the next. "
        * (not reading.simple())
        + f"Active units: {active}. Were the aggregated posterior the prior N(0, I), tr C would be the number of units "
        "and log det C zero."
    )
    figure_card.data_table(numbers, "spread")


def _verdict(both: Sequence[MapSide], a: dict, b: dict) -> str:
    """The claim in numbers: of one posterior, then of all together."""
    line, mixture = "mean posterior standard deviation", "log det C, aggregated posterior"
    one = difference(a[line], b[line])
    text = (
        f"A single posterior is {_wider(one)} under B: its standard deviation differs by {plus_minus(one, sign=True)}. "
    )
    if both[0].encoded.size != both[1].encoded.size:
        return text + "How far all of them together spread cannot be compared: the latent sizes differ."
    all_of = difference(a[mixture], b[mixture])
    return text + (
        f"All of them together, the aggregated posterior, fill {_wider(all_of, 'a larger', 'a smaller', 'an equal')} "
        f"volume under B: log det C differs by {plus_minus(all_of, sign=True)}."
    )


def _wider(estimate: MeanEstimate, more: str = "wider", less: str = "narrower", equal: str = "as wide") -> str:
    """In words, at two standard errors."""
    if estimate.se is None or abs(estimate.value) <= 2 * estimate.se:
        return equal
    return more if estimate.value > 0 else less


def incomparable(both: Sequence[MapSide], images: Images) -> list[str]:
    """What of this pair cannot be compared, and why."""
    (a, b), notes = both, []
    if a.encoded.size != b.encoded.size:
        notes.append(
            f"A has {a.encoded.size} latent units and B {b.encoded.size}: tr, log det and entropy grow with their "
            "number, so their difference says nothing and is left out."
        )
    layers = [len(side.entry.card.model.latent) for side in both]
    if max(layers) > 1:
        notes.append(
            f"Stochastic layers: {layers[0]} in A, {layers[1]} in B. Maps and spread are those of {a.h} in A and "
            f"{b.h} in B. Only q(h₁|x) is a Gaussian, and only the last layer's prior is standard normal."
        )
    others: dict[str, list[str]] = {}
    for side in both:
        data = side.entry.dataset
        if data and datasets.family(data) != datasets.family(images.dataset):
            others.setdefault(data, []).append(side.name)
    for dataset, names in others.items():
        notes.append(
            f"{' and '.join(names)}: trained on {dataset}. The images here are of {images.dataset}, and NLL, D_KL and "
            "spread are those of images of a kind that was not learned."
        )
    return notes
