"""The sidebar of every page: the pair of models, the data set, the device, and a form to train a small model."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st
import torch

from iwae import catalog
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.system import paths
from pages.common import figure_card, links, query_params, reading
from pages.common.input.digit import ChosenDigit
from pages.common.input.digit_input import card
from pages.common.links import one_step_a_page, page_link
from pages.common.models.add_model import add_model
from pages.common.models.model_picker import pick_models
from pages.common.runs.training_panel import alive_runs, training_panel
from pages.common.server.polling import set_in_dialog

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
    def binary(self) -> bool:
        """Whether both models take images of zeros and ones; else both take grey levels."""
        return self.a.binary

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
    set_in_dialog(False)
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
        reading.switch()
        st.divider()
        hand = st.container()
        pair = pick_models(found)
        dataset = _pick_dataset(pair)
        st.session_state["binary"] = pair is None or pair[0].binary
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
        one_step_a_page()
    if view is None:
        st.info("There is no model yet. Train a small one in the sidebar; it takes under a minute.")
        st.stop()
    if view.a.binary != view.b.binary:
        kinds = {True: "pixels of zeros and ones", False: "grey levels"}
        st.warning(f"Model A takes {kinds[view.a.binary]}, model B {kinds[view.b.binary]}: choose two of one kind.")
        st.stop()
    return view


def _pick_dataset(pair: tuple[Entry, Entry] | None) -> str:
    here = [name for name in datasets.NAMES if datasets.available(name)]
    trained_on = pair[0].config.dataset if pair else here[0]
    usual = trained_on if trained_on in here else here[0]
    wanted = st.query_params.get("data", usual)
    asked = {} if wanted == usual else {"data": wanted}
    before, st.session_state["data of A"] = st.session_state.get("data of A", trained_on), trained_on
    moved = links.asked("data", asked) or st.session_state.get("models asked")
    if moved or st.session_state.get("data") not in here:
        st.session_state["data absent"] = "" if wanted in here else wanted
        chosen = wanted if wanted in here else usual
    elif trained_on != before and trained_on in here:
        chosen = trained_on  # another model A brings its data set along
    else:
        chosen = st.session_state["data"]
    st.session_state["data"] = chosen  # each time: else the next page begins with the first of its list
    name = st.selectbox(
        "Data set",
        here,
        key="data",
        persist_state="session",
        on_change=_data_changed,
        help="Where example digits come from; another model A brings its own along. Others: "
        "`python -m iwae data download mnist`.",
    )
    if absent := st.session_state["data absent"]:
        st.warning(
            figure_card.escape_markdown(f"The link asks for the data set {absent[:80]}, which is not on this machine.")
        )
    links.wrote("data", {} if name == usual else {"data": name}, ("data",))
    if pair and datasets.family(name) != datasets.family(trained_on):
        st.warning(f"Model A was trained on {trained_on}: the images of {name} are new to it.")
    if trained_on not in here and st.button(f"Download {trained_on}", help="Once; kept on this machine."):
        _download(trained_on)
    return name


def _data_changed() -> None:
    links.changed("data")
    st.session_state["data absent"] = ""


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
