"""The latents of the images on the maps as a file."""

from collections.abc import Sequence
from dataclasses import replace

import streamlit as st

from iwae import catalog
from iwae.analysis import costs, encode
from iwae.analysis.encode import Latents
from iwae.catalog import Entry
from iwae.export import latents
from iwae.system import optional
from pages.common.download import download_button
from pages.common.figure_card import escape_markdown
from pages.common.server import cache
from pages.latent.controls import FILE, Images, MapSide

FORMATS = {
    ".csv": "CSV and its settings (ZIP)", ".parquet": "Parquet", ".npz": "NumPy (.npz)", ".h5ad": "AnnData (.h5ad)",
    ".tsv": "Embedding projector (ZIP)",
}  # fmt: skip
DRAWS = (100, 200, 500, 1000)  # behind log p̂(x) of each image


@st.fragment
def download_latents(both: Sequence[MapSide], images: Images, kind: str) -> None:
    """A field for the model, format and number of draws, and the file once it is computed."""
    with st.expander("Download latents", icon=":material/download:", key="latents", on_change="rerun") as box:
        if not box.open:
            return
        st.write(
            f"A row for each of the {len(images.numbers):,} images on the maps: number, label, log p̂(x), effective "
            "sample size and Pareto k̂, place on the map, and mean and standard deviation of every unit of q(h|x) in "
            "all layers. `python -m iwae encode` writes the same of any split."
        )
        one, two, three = st.columns(3)
        names = [side.name for side in both]
        chosen = one.segmented_control("Model", names, default=names[0], required=True, key="latents.model")
        side = both[names.index(chosen)]
        there = [suffix for suffix in FORMATS if not _missing(suffix)]
        suffix = two.selectbox("Format", there, format_func=FORMATS.__getitem__, key="latents.format")
        samples = three.selectbox("Draws per image", DRAWS, key="latents.draws", help="Behind log p̂(x), ESS and k̂.")
        _offer(side, images, kind, suffix, samples)


def _missing(suffix: str) -> bool:
    return bool(optional.missing(*(package for package, _ in latents.PACKAGES.get(suffix, ()))))


def _offer(side: MapSide, images: Images, kind: str, suffix: str, samples: int) -> None:
    """A button that computes, or the download of what was computed."""
    count = len(images.numbers)
    store = _store(side.entry, side.device, images.dataset, count, samples)
    try:
        cost = costs.latents(side.entry.card.model, count, samples)
        costs.check(side.entry.card.model, cost, f"{samples:,} draws for each of {count:,} images")
    except costs.CostError as error:
        st.error(escape_markdown(f"{error}. Choose fewer draws or images, or use `python -m iwae encode`."))
        return
    if "latents" not in store:
        if not st.button(f"Encode {count:,} images", key="latents.encode"):
            return
        store["latents"] = _encoded(side, images, samples)
    download_button(
        f"Download {FORMATS[suffix]}", lambda: _content(side, images, kind, suffix, store["latents"]),
        _name(side.entry, suffix), "application/octet-stream", key="latents.download", icon=":material/download:",
    )  # fmt: skip


@st.cache_resource(max_entries=4, show_spinner=False, hash_funcs=FILE)
def _store(entry: Entry, device: str, dataset: str, count: int, samples: int) -> dict[str, Latents]:
    return {}


def _encoded(side: MapSide, images: Images, samples: int) -> Latents:
    bar = st.progress(0.0, "Sampling each image's posterior …")

    def progress(done: int, total: int) -> None:
        bar.progress(done / total, f"Sampling each image's posterior: {done:,} of {total:,}")

    x = cache.test_images(images.dataset, side.entry.binary)[images.numbers].to(side.device)
    with cache.stop_on_model_error(side.entry):
        found = encode.encode(
            cache.model(side.entry, side.device), x, index=images.numbers, labels=images.labels,
            label_names=images.names, samples=samples, progress=progress,
        )  # fmt: skip
    bar.empty()
    return found


def _content(side: MapSide, images: Images, kind: str, suffix: str, found: Latents) -> bytes:
    on_map = kind.lower() + (f" of h{side.layer}" if side.layer > 1 else "")
    entry, settings = side.entry, {"samples": found.samples, "seed": found.seed, "on_map": on_map}
    named = entry.key, entry.fingerprint, str(entry.card.model)
    described = latents.about(*named, images.dataset, "test", **settings)
    data = cache.dataset(images.dataset)
    pictures = data.test.images[images.numbers].view(-1, *data.shape).numpy()
    placed = replace(found, places=side.places)
    return latents.package(suffix, _stem(side.entry), placed, described, pictures)[1]


def _stem(entry: Entry) -> str:
    return f"latents-{catalog.clean_name(entry.key.partition(':')[2] or entry.key)}"


def _name(entry: Entry, suffix: str) -> str:
    """Of the file, or of the ZIP of several."""
    return f"{_stem(entry)}{suffix}" + (".zip" if suffix in (".csv", ".tsv") else "")
