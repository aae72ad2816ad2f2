"""Two models' latent spaces: which images, which map, and the calls into the engine behind them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st
from torch import Tensor

from iwae.analysis import costs, latent, umap_maps
from iwae.analysis.latent import Encoded, LinearProjection, MeanEstimate
from iwae.catalog import AdapterEntry, Entry
from iwae.evaluation import metrics
from iwae.evaluation.metrics import Metrics
from iwae.inference.ais import Annealed
from iwae.system import optional
from pages.common import reading
from pages.common.evidence import Evidence, draws_in_use
from pages.common.figure_card import escape_markdown
from pages.common.number_field import whole_number
from pages.common.server import cache
from pages.common.server.polling import poll
from pages.common.sidebar import View as Chosen
from pages.latent import own_columns

MAPS = ("UMAP", "PCA", "Two units")
MOST = 10_000  # images on a map
USUAL = 2_000
MOST_CLASSES = 10  # with a colour each
SAMPLES = 50  # draws behind each image's NLL and ESS
FILE = {kind: lambda entry: entry.identity for kind in (Entry, AdapterEntry)}  # a rewritten file is read again
SETTINGS = umap_maps.UmapSettings()
COLOURED = ("label", "predicted digit", "NLL", "ESS", "D_KL", "posterior spread", "nothing")
COLOUR_HELP = (
    f"Predicted digit: the commonest label among the image's {latent.NEIGHBOURS} nearest others in the whole latent "
    f"space. NLL and ESS: from {SAMPLES} draws for each image. D_KL: from q(h|x) to the prior. Posterior spread: "
    "tr Σ(x), the sum of the variances of q(h|x)."
)


@dataclass(frozen=True)
class Images:
    """The test images that are on the maps."""

    dataset: str
    numbers: np.ndarray  # [n], ascending
    labels: np.ndarray | None  # [n]
    names: tuple[str, ...]  # of the labels


@dataclass(frozen=True)
class MapSide:
    """One model, its space, and where the images lie on its map."""

    name: str  # "A" or "B"
    entry: Entry
    device: str
    encoded: Encoded
    places: np.ndarray  # [n, 2]
    projection: LinearProjection | None  # None: UMAP, which has no formula
    layer: int = 1

    @property
    def h(self) -> str:
        """``h₁``."""
        return f"h{latent.subscript(self.layer)}"

    @property
    def title(self) -> str:
        return f"{self.name} · {self.entry.short}"


def pick_images(dataset: str) -> Images:
    """A field for how many test images are on the maps."""
    cache.need_images(dataset, 2, "Maps")
    data = cache.dataset(dataset)
    most = min(MOST, len(data.test))
    count = whole_number(
        "Images", min(100, most), most, min(USUAL, most), 100, key="images",
        help=f"Test images on both maps: the same for A and B, drawn once from all {len(data.test):,}.",
    )  # fmt: skip
    numbers = latent.subset(len(data.test), count)
    labels = None if data.test.labels is None else data.test.labels.numpy()[numbers]
    return Images(dataset, numbers, labels, data.label_names)


def pick_map() -> str:
    """A choice of maps."""
    return st.segmented_control(
        "Map", MAPS, default="UMAP", required=True, key="map", bind="query-params",
        help="UMAP: keeps neighbours together; it is there for pairs that ship, and computed for others. PCA: the "
        "plane of largest variance of the encoder's means. Two units: as they are, which for a latent space of two is "
        "the whole of it.",
    )  # fmt: skip


def pick_layers(view: Chosen) -> tuple[int, int]:
    """The stochastic layer of A and of B that is on the maps: a choice where one of them has several."""
    depths = [len(entry.card.model.latent) for _, entry in view.pair]
    if max(depths) == 1:
        return 1, 1
    known = [f"h{latent.subscript(layer)}" for layer in range(1, max(depths) + 1)]
    chosen = st.segmented_control(
        "Layer", known, default=known[0], required=True, key="latent_layer", bind="query-params",
        help="h₁ is next to the pixels, and q(h₁|x) is a Gaussian. A layer above it is drawn through those below: its "
        f"q(h|x) is no Gaussian, so a point is its mean over {latent.MOMENT_DRAWS} draws of them, and dots are draws. "
        "A model without that layer shows its last.",
    )  # fmt: skip
    return tuple(min(known.index(chosen) + 1, depth) for depth in depths)


def pick_colour(images: Images) -> str:
    """A choice of what colours the points."""
    known = [name for name in COLOURED if images.labels is not None or name not in ("label", "predicted digit")]
    known += own_columns.choices(images.dataset)
    if st.session_state.get("colour", known[0]) not in known:  # a column of a file that is gone
        st.session_state["colour"] = known[0]
    with st.container(horizontal=True, vertical_alignment="bottom", gap="xsmall"):
        by = st.selectbox("Colour by", known, key="colour", bind="query-params", help=COLOUR_HELP)
        own_columns.pick_table(images.dataset, cache.count_images(images.dataset))
    return by


def pick_classes(images: Images) -> np.ndarray | None:
    """Which of the images are on the maps, [n] of bool, by their class; None: all, where they have no classes, or more
    than have colours of their own."""
    if images.labels is None or len(images.names) > MOST_CLASSES:
        return None
    known = [images.names[code] for code in np.unique(images.labels)]
    chosen = st.pills(
        "Classes", known, selection_mode="multi", default=known, key="classes", bind="query-params",
        help="Click a class to take its images off both maps, and again to put them back.",
    )  # fmt: skip
    return np.isin(images.labels, [images.names.index(name) for name in chosen])


def pick_spread(images: Images) -> int | str | None:
    """Whose posterior is on the maps: "digit", a class by its code, or None."""
    known = ["the digit", "a class", "none"] if images.labels is not None else ["the digit", "none"]
    whose = st.segmented_control(
        "Posterior of", known, default="the digit", required=True, key="spread", bind="query-params",
        help="q(h|x) of the digit in hand, or the mean of those of a class: their mean place and mean variances.",
    )  # fmt: skip
    if whose != "a class":
        return "digit" if whose == "the digit" else None
    there = [images.names[code] for code in np.unique(images.labels)]
    return images.names.index(st.selectbox("Class", there, key="class", bind="query-params"))


def true_posterior(view: Chosen) -> dict[str, Annealed]:
    """A switch for draws from the true posterior of the digit: its chains by the name of the model, once they end."""
    wanted = st.toggle(
        "True posterior of the digit", key="truth", bind="query-params",
        help="Draws from p(h|x) by annealed importance sampling, some seconds behind the page: where q(h|x) is "
        "narrower or lies elsewhere, it misses a part of the posterior.",
    )  # fmt: skip
    if not wanted:
        return {}
    return Evidence(view, view.digit.x, *draws_in_use()).chains()


def encoded(entry: Entry, device: str, images: Images, layer: int) -> Encoded:
    """q(h|x) of the images in that layer."""
    with cache.stop_on_model_error(entry):
        return _encoded(entry, device, images.dataset, len(images.numbers), layer)


@st.cache_resource(max_entries=6, show_spinner="Encoding the images …", hash_funcs=FILE)
def _encoded(entry: Entry, device: str, dataset: str, count: int, layer: int) -> Encoded:
    x = cache.test_images(dataset, entry.binary)[latent.subset(cache.count_images(dataset), count)]
    return latent.encode(cache.model(entry, device), x.to(device), layer)


def neighbours(side: MapSide, images: Images) -> np.ndarray:
    """Each image's neighbours in the whole latent space, as indices [n, k] into the images on the map."""
    return _neighbours(side.entry, side.device, images.dataset, len(images.numbers), side.layer)


@st.cache_resource(max_entries=8, show_spinner="Finding each image's neighbours …", hash_funcs=FILE)
def _neighbours(entry: Entry, device: str, dataset: str, count: int, layer: int) -> np.ndarray:
    means = _encoded(entry, device, dataset, count, layer).mean
    return latent.neighbours(means, min(latent.NEIGHBOURS, len(means) - 1))[0]


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=FILE)
def _metrics_store(entry: Entry, device: str, dataset: str, count: int) -> dict[str, Metrics]:
    return {}


def image_metrics(entry: Entry, device: str, images: Images) -> Metrics:
    """NLL, ESS and D_KL of each image, with progress on the page while they are computed."""
    store = _metrics_store(entry, device, images.dataset, len(images.numbers))
    if "metrics" not in store:
        count = len(images.numbers)
        cache.check_cost(entry, costs.draws(entry.card.model, count, SAMPLES), f"the NLL of {count:,} images")
        bar = st.progress(0.0, "Sampling each image's posterior …")
        x = cache.test_images(images.dataset, entry.binary)[images.numbers].to(device)

        def progress(done: int, total: int) -> None:
            bar.progress(done / total, f"Sampling each image's posterior: {done:,} of {total:,}")

        model = cache.model(entry, device)
        with cache.stop_on_model_error(entry):
            store["metrics"] = metrics.evaluate(model, x, samples=SAMPLES, prune=False, progress=progress)
        bar.empty()
    return store["metrics"]


def divergence(side: MapSide, images: Images) -> np.ndarray:
    """D_KL(q‖prior) of each image, nats: exact for one stochastic layer, by draws for more."""
    if len(side.entry.card.model.latent) == 1:
        return side.encoded.kl_standard
    return image_metrics(side.entry, side.device, images).kl_prior.cpu().double().numpy()


def sides(view: Chosen, images: Images, kind: str, layers: tuple[int, int]) -> tuple[MapSide, MapSide] | None:
    """Both models' maps on shared axes; None, with its progress on the page, while UMAP is being computed."""
    shown = len(images.numbers)
    for _, entry in view.pair:
        cache.check_cost(entry, costs.latent_space(entry.card.model, shown), f"a map of {shown:,} images")
    spaces = [encoded(entry, view.device, images, layer) for (_, entry), layer in zip(view.pair, layers, strict=True)]
    if kind == "Two units":
        projections = [
            _pick_units(name, space, layer) for (name, _), space, layer in zip(view.pair, spaces, layers, strict=True)
        ]
    else:
        projections = [latent.pca(space.mean) for space in spaces]
        a, b = (projection.project(space.mean) for projection, space in zip(projections, spaces, strict=True))
        projections[1] = projections[1].rotated(latent.procrustes(a, b)[0])
    places = [projection.project(space.mean) for projection, space in zip(projections, spaces, strict=True)]
    if kind == "UMAP":
        places, projections = _umap(view, images, spaces, places[0], layers), (None, None)
        if places is None:
            return None
    return tuple(
        MapSide(name, entry, view.device, space, place, projection, layer)
        for (name, entry), space, place, projection, layer in zip(
            view.pair, spaces, places, projections, layers, strict=True
        )
    )


def _pick_units(name: str, space: Encoded, layer: int) -> LinearProjection:
    """Two fields for the units on a model's axes: in order for a plane, else those that vary most first."""
    order = np.arange(2) if space.size == 2 else space.mean.var(0).argsort()[::-1]
    chosen = []
    for column, axis, place in zip(st.columns(2), "xy", (0, min(1, space.size - 1)), strict=True):
        key = f"{name.lower()}_{axis}" + (str(layer) if layer > 1 else "")
        unit = whole_number(
            f"Unit of {name} on {axis}, 0 to {space.size - 1}", 0, space.size - 1, int(order[place]), key=key,
            help="By default the two whose means vary most from image to image.", place=column,
        )  # fmt: skip
        chosen.append(unit)
    return latent.units(space.mean, *chosen)


def _umap(
    view: Chosen, images: Images, spaces: Sequence[Encoded], start: np.ndarray, layers: tuple[int, int]
) -> list[np.ndarray] | None:
    """Both maps from disk; None, with an offer to compute them, or polled progress, while they are not there."""
    if (count := len(images.numbers)) <= SETTINGS.neighbours:
        st.info(f"UMAP needs at least {SETTINGS.neighbours + 1} test images on the maps, and there are {count}.")
        return None
    models = [(entry.fingerprint, str(entry.card.model)) for _, entry in view.pair]
    a, b = umap_maps.pair_of_maps(SETTINGS, models, images.dataset, len(images.numbers), layers)
    found = [one.coordinates() for one in (a, b)]
    if all(one is not None for one in found):
        return found
    if b.status().phase == "missing":
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.info("There is no UMAP of these images under this pair yet. It takes up to half a minute, and is kept.")
        if not right.button("Compute UMAP", key="umap.start", width="stretch"):
            return None
        try:
            if b is not a:
                a.prepare(spaces[0].mean, start, SETTINGS)
            b.start(spaces[1].mean, start if b is a else a, SETTINGS)
        except (ValueError, OSError, optional.MissingError) as error:
            st.error(f"UMAP cannot be computed: {escape_markdown(error)}.")
            return None
    poll(lambda: _show_progress(b), lambda: b.status().phase == "finished", 1.0)
    return None


def _show_progress(one: umap_maps.Map) -> None:
    """Show the progress of the map."""
    status = one.status()
    if status.phase in ("running", "finished"):
        st.progress(status.share, f"UMAP of both models, computed in the background: {escape_markdown(status.message)}")
        st.caption("You can use the other maps meanwhile; the result is saved.")
        return
    st.error(f"UMAP did not finish: {escape_markdown(escape_markdown(status.message))}")
    if st.button("Try again", key="umap.again"):
        one.delete()
        st.rerun()


def of_digit(side: MapSide, x: Tensor) -> Encoded:
    """q(h|x) of one binary image x [pixels], on the map or not, in the layer of the map."""
    with cache.stop_on_model_error(side.entry):
        return latent.encode(cache.model(side.entry, side.device), x[None].to(side.device), side.layer)


def plus_minus(estimate: MeanEstimate, sign: bool = False) -> str:
    """``0.911 ± 0.003``: the standard error with two digits that count, or the value with three decimals."""
    return reading.plus_minus(estimate.value, estimate.se, digits=None, sign=sign)
