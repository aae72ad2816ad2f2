"""The sidebar of every page: the pair of models, the data set, the device, and a form to train a small model."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st
import torch

from iwae import catalog
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.system import paths
from pages.common import figure_card, query_params
from pages.common.add_model import add_model
from pages.common.digit import ChosenDigit
from pages.common.digit_input import card
from pages.common.links import page_link
from pages.common.training_panel import alive_runs, training_panel

ICON = Path(__file__).with_name("icon.png")  # a file, because Streamlit fetches named icons from another host
ROOT = Path(__file__).parents[2]
ICONS = {
    "Home": "home", "Posterior": "blur_on", "Latent space": "scatter_plot", "Active units": "bar_chart",
    "Reconstructions": "compare", "Samples": "grid_view", "Bounds": "stacked_line_chart",
    "Training": "model_training", "Results": "table_chart",
}  # fmt: skip


def _pages() -> list[tuple[str, str]]:
    """(file, title) of every page, in the order of the numbers in the files' names."""
    files = sorted((ROOT / "pages").glob("[0-9]*_*.py"), key=lambda path: int(path.name.partition("_")[0]))
    titles = [path.stem.partition("_")[2].replace("_", " ") for path in files]
    return [("app.py", "Home"), *((f"pages/{path.name}", title) for path, title in zip(files, titles, strict=True))]


PAGES = _pages()  # Streamlit's own list would call the home page "app" (.streamlit/config.toml hides it)


@dataclass(frozen=True)
class View:
    """The choices in the sidebar, shared by all pages."""

    a: Entry
    b: Entry
    dataset: str
    device: str
    digit: ChosenDigit

    @property
    def pair(self) -> tuple[tuple[str, Entry], ...]:
        """The two models with the names they go by."""
        return ("A", self.a), ("B", self.b)

    @property
    def training_overlap(self) -> str:
        """A sentence where a model was trained on the very images that are shown; empty otherwise."""
        names = [name for name, entry in self.pair if entry.trained_on & set(datasets.part_of(self.dataset))]
        if not names:
            return ""
        models = "Models A and B were" if len(names) == 2 else f"Model {names[0]} was"
        return f"{models} trained on these digits too: all of {self.dataset} are MNIST training images."


def sidebar(title: str) -> View:
    """Set the page up and draw the sidebar; ends the page with advice when there is no model at all."""
    figure_card.reset()
    st.session_state["title"] = title
    st.set_page_config(f"{title} · IWAE explorer", ICON, layout="wide")
    query_params.check(next(file for file, label in PAGES if label == title))
    try:
        paths.check()
    except paths.FolderError as error:
        st.error(figure_card.escape_markdown(error))
        st.stop()
    alive = alive_runs()
    found, refused = catalog.entries()
    with st.sidebar:
        navigation = st.container()
        st.divider()
        hand = st.container()
        pair = _pick_models(found)
        dataset = _pick_dataset(pair)
        with hand:
            digit = card(dataset)
        with navigation:
            for file, label in PAGES:
                page_link(file, label, ICONS.get(label, "article"))
        view = View(*pair, dataset, _pick_device(), digit) if pair else None
        if view and view.training_overlap:
            st.caption(view.training_overlap)
        if refused:
            with st.expander(f"{len(refused)} files or runs could not be used"):
                for reason in refused.values():
                    st.text(reason)
        add_model()
        training_panel(alive)
    if view is None:
        st.info("There is no model yet. Train a small one in the sidebar; it takes under a minute.")
        st.stop()
    return view


def _pick_models(found: dict[str, Entry]) -> tuple[Entry, Entry] | None:
    if not found:
        return None
    keys, chosen = list(found), []
    slot, wanted = st.session_state.pop("pick", (None, None))  # by a button that came after the pickers
    if wanted in found:
        st.session_state[slot] = wanted
    for name, default in zip("AB", catalog.default_pair(found), strict=True):
        slot = name.lower()
        held = st.session_state.get(slot)
        if held not in found:  # a new session, or a model that is gone
            asked = st.query_params.get(slot)
            held = asked if asked in found else default
            if asked and asked != held:
                st.session_state[f"absent.{slot}"] = asked
        st.session_state[slot] = held  # each time: else the next page begins with the first of its list
        key = st.selectbox(
            f"Model {name}",
            keys,
            format_func=lambda key: found[key].label,
            key=slot,
            persist_state="session",
            on_change=lambda slot=slot: st.session_state.pop(f"absent.{slot}", None),
            help="Shipped models and your own finished or stopped runs. NLL: −log p̂(x) on test images, in nats per "
            "image ± standard error; lower is better.",
        )
        st.caption(f"{found[key].nll} on {found[key].config.dataset}")
        if absent := st.session_state.get(f"absent.{slot}"):
            st.warning(figure_card.escape_markdown(f"The link asks for the model {absent[:80]}, which is not here."))
        if key == default:
            st.query_params.pop(slot, None)
        else:
            st.query_params[slot] = key  # set explicitly: a bound selectbox would put the label into the address
        chosen.append(found[key])
    return chosen[0], chosen[1]


def _pick_dataset(pair: tuple[Entry, Entry] | None) -> str:
    here = [name for name in datasets.NAMES if datasets.available(name)]
    trained_on = pair[0].config.dataset if pair else here[0]
    name = st.selectbox(
        "Data set",
        here,
        index=here.index(trained_on) if trained_on in here else 0,
        key="data",
        bind="query-params",
        help="Where example digits come from. Others: `python -m iwae data download mnist`.",
    )
    if trained_on not in here and st.button(f"Download {trained_on}", help="Once; kept on this machine."):
        _download(trained_on)
    return name


def _download(name: str) -> None:
    try:
        with st.spinner(f"Downloading {name} …"):
            datasets.load(name, progress=False)
    except datasets.DataError as error:
        st.error(figure_card.escape_markdown(error))
    else:
        st.rerun()


def _pick_device() -> str:
    devices = ["cpu"] + ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available()
    if len(devices) == 1:
        st.caption("Device: CPU")
        return devices[0]
    return st.selectbox("Device", devices, index=1, key="device", bind="query-params")
