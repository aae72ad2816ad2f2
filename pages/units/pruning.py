"""Cached calls into ``iwae.analysis.units``, and the parts of the page of active units."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae.analysis import costs, units
from iwae.catalog import Entry
from iwae.evaluation import activity, stats
from iwae.evaluation.activity import Activity
from iwae.figures.units import Band, Units, counts_against_images, sorted_units
from pages.common import figure_card, image_rows, reading
from pages.common.sections import beside
from pages.common.server import cache
from pages.common.server.bounded import bounded
from pages.common.sidebar import View

BAND_SIZES = (30, 100, 300, 1000, 3000, 10_000)
LOSS_IMAGES, LOSS_DRAWS = 200, 50  # behind ΔL_k and the pruned bound, 0.2 s
STEPS = np.linspace(-3, 3, 9)  # of a traversal, in standard deviations of the prior


@dataclass(frozen=True)
class Measured:
    """The units of one model, layer by layer."""

    name: str
    entry: Entry
    halves: tuple[tuple[Tensor, Tensor], ...]  # of E_q[h|x], as ``evaluation.unit_means``
    kl: tuple[Tensor, ...]  # of each unit, [n, latent]
    dashed: bool
    of: tuple[str, int, str, str, int]  # the model's file and when it was written, device, data set, images

    def layers(self, threshold: float) -> tuple[Activity, ...]:
        """The activity of every layer at a threshold."""
        return tuple(activity.activity_of(*halves, threshold) for halves in self.halves)

    def units(self, values: Tensor, what: str = "unit") -> Units:
        """A measure of the units of a layer, for a figure."""
        labels = [f"{what} {unit}" for unit in range(len(values))]
        return Units(f"{self.name} · {self.entry.short}", self.entry.kind, values.numpy(), labels, self.dashed)


def measure(view: View, images: int) -> list[Measured]:
    """Both models on the first ``images`` test images."""
    same = view.a.kind == view.b.kind
    out = []
    for name, entry in view.pair:
        cache.check_cost(entry, costs.units(entry.card.model, images), f"the units on {images:,} images")
        of = *entry.identity, view.device, view.dataset, images
        with cache.stop_on_model_error(entry):
            out.append(Measured(name, entry, *_measure(*of), dashed=same and name == "B", of=of))
    return out


@bounded(megabytes=60)
@st.cache_resource(max_entries=8, show_spinner="Measuring the units …")
def _measure(path: str, written: int, device: str, dataset: str, images: int):
    model = cache.model_at(path, written, device)
    x = cache.test_images(dataset, model.likelihood.binary)[:images].to(device)
    return activity.unit_means(model, x), units.unit_kl(model, x)


@st.cache_resource(max_entries=64, show_spinner=False)
def _bands(path: str, written: int, device: str, dataset: str, images: int, layer: int, threshold: float):
    halves, _ = _measure(path, written, device, dataset, images)
    sizes = [size for size in BAND_SIZES if size < images] + [images]
    return units.count_bands(*halves[layer], sizes, threshold=threshold)


@st.cache_data(max_entries=64, show_spinner="Measuring the loss without the unit …")
def _loss(path: str, written: int, device: str, dataset: str, kept: tuple[tuple[bool, ...], ...], images: int):
    model = cache.model_at(path, written, device)
    halves, _ = _measure(path, written, device, dataset, images)
    x = cache.test_images(dataset, model.likelihood.binary)[:LOSS_IMAGES].to(device)
    layers = tuple(activity.activity_of(*part) for part in halves)
    loss = units.pruning_loss(model, x, layers, [torch.tensor(layer) for layer in kept], samples=LOSS_DRAWS)
    return loss.full.mean().item(), loss.pruned.mean().item(), loss.mean, loss.se, len(x)


def which_are_active(view: View, models: Sequence[Measured], layer: int, threshold: float, images: int) -> None:
    """How many units of each model are active, how active each is, and what is lost without the others."""
    for column, model in zip(st.columns(2, gap="large"), models, strict=True):
        with column:
            image_rows.heading(model.name, model.entry)
            counts(model, model.layers(threshold))
    variance_and_kl(models, layer, threshold)
    st.markdown("**Without the inactive units**")
    for model in models:
        pruned(view, model, threshold, images)
    reading.glossary("active unit", "nats", "D_KL", "NLL", "standard error")
    _formulas()


def one_at_a_time(view: View, models: Sequence[Measured], layer: int, threshold: float, images: int) -> None:
    """What a single unit of each model does for the digit in hand."""
    for column, model in zip(st.columns(2, gap="large"), models, strict=True):
        with column:
            image_rows.heading(model.name, model.entry)
            switch_off(view, model, layer, threshold, view.digit.x, images)
    _formulas()


def _formulas() -> None:
    reading.formulas(
        "The formulas",
        r"A_u = \mathrm{Var}_x\big(\mathbb{E}_{q(h|x)}[h_u]\big) > \text{threshold}",
        r"\mathrm{KL}_u = \mathbb{E}_{x}\,\mathbb{E}_{q(h|x)}\big[\log q(h_u|x) - \log p(h_u)\big]",
        r"\Delta L_k = L_k(\text{all units}) - L_k(\text{without } u), \quad \text{the same draws for both}",
    )


def counts(measured: Measured, layers: Sequence[Activity]) -> None:
    """How many units are active, by both definitions, layer by layer."""
    for number, (layer, halves) in enumerate(zip(layers, measured.halves, strict=True), 1):
        left, right = st.columns(2)
        left.metric(
            "active" + (f", layer {number}" if len(layers) > 1 else ""),
            f"{int(layer.active.sum())} of {len(layer.mean)}",
            help="Units whose variance over images of E_q[h_u|x] lies above the threshold (Burda et al. 2016, section "
            f"5), over {len(halves[0]):,} test images.",
        )
        right.metric(
            "PCA active",
            layer.pca_active,
            help="Eigenvalues of the covariance over images of E_q[h|x] above the threshold (Arnal, Lee & Pezzotti "
            "2021): directions rather than units.",
        )


Here = Sequence[tuple[Measured, Activity]]  # the models that have the layer, with its activity


def _with_layer(models: Sequence[Measured], layer: int, threshold: float) -> Here:
    return [(model, model.layers(threshold)[layer]) for model in models if layer < len(model.halves)]


def variance_and_kl(models: Sequence[Measured], layer: int, threshold: float) -> None:
    """The variance and the KL of each unit of one layer."""
    here = _with_layer(models, layer, threshold)
    above = " and ".join(f"{int(a.active.sum())} of {len(a.mean)} units of {m.name}" for m, a in here)
    largest = " and ".join(f"{m.kl[layer].mean(0).max():.2f} nats under {m.name}" for m, _ in here)
    left, right = beside()
    with left:
        values = [(model, activity.variance) for model, activity in here]
        _curve("variance", layer, values, f"Above the threshold lie {above}.", threshold)
    with right:
        values = [(model, model.kl[layer].mean(0)) for model, _ in here]
        _curve("kl", layer, values, f"The unit that says most carries {largest}.", None)


def eigenvalues_and_bands(models: Sequence[Measured], layer: int, threshold: float) -> None:
    """The eigenvalues of the covariance of one layer's means, and the number of active units against that of images."""
    here = _with_layer(models, layer, threshold)
    directions = " and ".join(f"{activity.pca_active} directions of {model.name}" for model, activity in here)
    left, right = beside()
    with left:
        values = [(model, activity.eigenvalues) for model, activity in here]
        _curve("eigenvalues", layer, values, f"Above the threshold lie {directions}.", threshold)
    with right:
        _bands_figure(here, layer, threshold)


def _curve(
    key: str, layer: int, values: Sequence[tuple[Measured, Tensor]], takeaway: str, threshold: float | None
) -> None:  # fmt: skip
    title, what, help = MEASURES[key]
    drawn = [model.units(value, what) for model, value in values]
    n = len(values[0][0].halves[0][0])
    caption = f"{title}, layer {layer + 1}, over {n:,} test images; values below 10⁻⁶ are drawn there."
    numbers = [
        {"model": part.name, "unit": label, title: value}
        for part in drawn
        for label, value in zip(part.labels, part.values.tolist(), strict=True)
    ]
    st.markdown(f"**{title}**", help=help)
    figure_card.figure(sorted_units(drawn, title, threshold, what), f"units.{key}", caption, numbers, takeaway)


def _bands_figure(here: Here, layer: int, threshold: float) -> None:
    found = [(model.units(a.variance), _bands(*model.of, layer, threshold)) for model, a in here]
    numbers = [
        {"model": part.name, "images": b.images, "mean": b.mean, "2.5 %": b.low, "97.5 %": b.high}
        for part, bands in found
        for b in bands
    ]
    st.markdown(
        "**Their number depends on how many images are measured**",
        help="Few images blur the line between active and inactive; a count is worth as much as its band is narrow.",
    )
    ends = " and ".join(f"{_range(bands[0])} of {part.name}" for part, bands in found)
    takeaway = f"With {found[0][1][0].images:,} images, 95% of the counts are {ends}."
    caption = f"Active units against the number of images: mean and 95% band of {units.RESAMPLES} random sets."
    figure_card.figure(counts_against_images(found), "units.band", caption, numbers, takeaway)


def _range(band: Band) -> str:
    low, high = f"{band.low:.0f}", f"{band.high:.0f}"
    return low if low == high else f"{low} to {high}"


MEASURES = {  # title, what is counted, help
    "variance": (
        "Variance over images of E_q[h_u|x]",
        "unit",
        "A unit without information about the image has the same mean for all: its variance is nearly 0.",
    ),
    "eigenvalues": (
        "Eigenvalues of the covariance",
        "direction",
        "The same for directions: units that always move together count once.",
    ),
    "kl": (
        "Mean KL of each unit, nats",
        "unit",
        "The second definition: the information, in nats, that q(h|x) spends on each unit beyond the prior. An unused "
        "unit costs 0. With several layers the prior of a lower layer is p(h|layer above), and the mean is over draws.",
    ),
}


def switch_off(view: View, model: Measured, layer: int, threshold: float, x: Tensor, images: int) -> None:
    """Choose a unit; what the pictures and the bound are without it, and what it draws."""
    layers = model.layers(threshold)
    if layer >= len(layers):
        st.info(f"This model has no layer {layer + 1}.")
        return
    kl = model.kl[layer].mean(0)
    order = kl.argsort(descending=True).tolist()
    variance = layers[layer].variance
    unit = st.selectbox(
        "Switch this unit off",
        order,
        format_func=lambda u: f"unit {u} · {kl[u]:.2f} nats · variance {variance[u]:.2g}",
        key=f"unit.{model.name.lower()}",
        bind="query-params",
        help="Greatest KL first. It is held at its prior mean, and left out of log p and log q.",
    )
    engine = cache.model(model.entry, view.device)
    kept = units.all_but(layers, layer, unit)
    with cache.stop_on_model_error(model.entry):
        _, _, lost, se, count = _loss(*model.entry.identity, view.device, view.dataset, _key(kept), images)
    st.metric(
        f"L_{LOSS_DRAWS} lost without it, nats per image",
        stats.decimal(lost),
        f"± {se:.2f} standard error" if se is not None and not reading.simple() else None,
        delta_color="off",
        delta_arrow="off",
        help=f"L_{LOSS_DRAWS} with all units minus that of the smaller model, over the first {count:,} test images; "
        "the same draws for both, seed 0.",
    )
    h = _means(engine, x)[layer]
    whole, off = units.traverse(engine, h, layer, unit, [h[unit].item(), 0.0])
    names = ["input", "all units", f"without unit {unit}"]
    image_rows.image_row([x.numpy(), whole.numpy(), off.numpy()], names, names)
    st.markdown("**What the top units draw**", help="The mean of q(h|x) with one unit moved, from −3 to 3.")
    for top in order[:5]:
        row = units.traverse(engine, h, layer, top, STEPS)
        strip = np.hstack(row.view(-1, *view.shape).numpy())
        st.image(
            strip.repeat(2, 0).repeat(2, 1).clip(0, 1),
            caption=f"unit {top}, −3 … 3",
            alt=f"decoded pictures as unit {top} moves from −3 to 3",
        )


def pruned(view: View, model: Measured, threshold: float, images: int) -> None:
    """The bound of the model without its inactive units, at this threshold."""
    kept = [layer.active for layer in model.layers(threshold)]
    with cache.stop_on_model_error(model.entry):
        whole, without, lost, se, count = _loss(*model.entry.identity, view.device, view.dataset, _key(kept), images)
    left = sum(int(layer.sum()) for layer in kept)
    nll, cut = (model.entry.card.metrics.get(name) for name in ("nll", "pruned_nll"))
    full = "" if nll is None or cut is None else f" The card: NLL {nll:.2f} nats, and {cut:.2f} when pruned at 0.01."
    st.write(
        f"**{model.name}**, only its {left} active units: L_{LOSS_DRAWS} = {stats.decimal(without)} nats instead of "
        f"{stats.decimal(whole)}, a loss of **{reading.plus_minus(lost, se, digits=None)} nats** over {count:,} test "
        f"images.{full}"
    )


def _key(kept: Sequence[Tensor]) -> tuple[tuple[bool, ...], ...]:
    return tuple(tuple(layer.tolist()) for layer in kept)


@torch.no_grad()
def _means(model, x: Tensor) -> list[Tensor]:
    """The mean of q of every layer for one image, each given the mean of the one below."""
    below, out = x.to(model.device).unsqueeze(0), []
    for encoder in model.encoder:
        below = encoder(below)[0]
        out.append(below[0])
    return out
