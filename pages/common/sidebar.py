"""The sidebar of every page: the pair of models, the data set, the device, and a form to train a small model."""

from dataclasses import dataclass
from typing import NoReturn

import streamlit as st
import torch

from iwae import catalog
from iwae.adapters import environment
from iwae.catalog import Entry
from iwae.data import datasets, own
from iwae.data.sources import SOURCES
from iwae.export import model_card
from iwae.shapes import shape_text
from iwae.system import paths
from pages.common import figure_card, image_rows, query_params, reading
from pages.common.data.add_images import add_images_button, picked, remove_images_button
from pages.common.input.digit import ChosenDigit
from pages.common.input.digit_input import card
from pages.common.models.add_model import add_model
from pages.common.models.model_picker import pick, pick_models
from pages.common.runs.training_panel import alive_runs, open_form_button, training_panel
from pages.common.server.polling import end_page, set_in_dialog
from pages.frame import links
from pages.frame.links import one_step_a_page, page_link
from pages.frame.navigation import ICONS, PAGES, Navigation


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
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the images of both models."""
        return self.a.card.model.shape

    @property
    def fits(self) -> bool:
        """Whether the data set's images have this shape: those of any can be chosen."""
        return datasets.shape(self.dataset) == self.shape

    @property
    def misfit(self) -> str:
        """A sentence where the data set's images have another shape; empty otherwise."""
        if self.fits:
            return ""
        sizes = shape_text(datasets.shape(self.dataset)), shape_text(self.shape)
        name = figure_card.escape_markdown(datasets.label(self.dataset))
        return f"The images of {name} have {sizes[0]} pixels, and models A and B take {sizes[1]}."

    @property
    def training_overlap(self) -> str:
        """A sentence where a model was trained on the very images that are shown; empty otherwise."""
        names = [name for name, entry in self.pair if entry.trained_on & set(datasets.part_of(self.dataset))]
        if not names:
            return ""
        models = "Models A and B were" if len(names) == 2 else f"Model {names[0]} was"
        return f"{models} trained on these digits too: all of {self.dataset} are MNIST training images."


def sidebar(navigation: Navigation, *, images: bool = True) -> View:
    """Draw the sidebar, below the links of ``begin``; ends the page with advice when there is no model at all, and
    where the page needs ``images`` but the data set has none for these models."""
    figure_card.reset()
    set_in_dialog(False)
    query_params.check(next(file for file, label in PAGES if label == st.session_state["title"]))
    try:
        paths.check()
    except paths.FolderError as error:
        st.error(figure_card.escape_markdown(error))
        end_page()
    alive = alive_runs()
    found, refused = catalog.entries()
    with st.sidebar:
        reading.switch()
        figure_card.vector_switch()
        st.divider()
        hand = st.container()
        pair = pick_models(found)
        dataset = _pick_dataset(pair)
        add_images_button("data.add")
        remove_images_button(dataset, alive)
        image_rows.set_shape(pair[0].card.model.shape if pair else datasets.shape(dataset))
        st.session_state["binary"] = pair is None or pair[0].binary
        with hand:
            digit = card(dataset)
        navigation.draw()
        view = View(*pair, dataset, _pick_device(), digit) if pair else None
        if view and view.training_overlap:
            st.caption(view.training_overlap)
        for place in [place for place in refused if place.startswith(environment.VARIABLE)]:
            st.warning(figure_card.escape_markdown(refused.pop(place)))
        if refused:
            with st.expander(f"{len(refused)} files or runs could not be used"):
                for reason in refused.values():
                    st.text(reason)
        if paths.read_only():
            st.caption("A public demo: nothing is trained or added here. On your own computer it can do both.")
        else:
            add_model()
            training_panel(alive)
        one_step_a_page()
    if view is None:
        st.info("There is no model yet. Train a small one in the sidebar; it takes under a minute.")
        if not paths.read_only():
            open_form_button("none.train")
        end_page()
    if view.a.binary != view.b.binary:
        kinds = {True: "pixels of zeros and ones", False: "grey levels"}
        st.warning(f"Model A takes {kinds[view.a.binary]}, model B {kinds[view.b.binary]}: choose two of one kind.")
        end_page()
    if view.b.card.model.shape != view.shape:
        sizes = [shape_text(entry.card.model.shape) for _, entry in view.pair]
        st.warning(f"Model A takes images of {sizes[0]} pixels, model B of {sizes[1]}: choose two of one size.")
        end_page()
    if images and not view.fits:
        _misfit(view, found)
    return view


def _misfit(view: View, found: dict[str, Entry]) -> NoReturn:
    """End the page where the data set has images of another size than the models: say what to do, and show what needs
    no images."""
    size = shape_text(datasets.shape(view.dataset))
    name = figure_card.escape_markdown(datasets.label(view.dataset))
    st.warning(f"{view.misfit} Choose a data set or models of one size.")
    others = [key for key, entry in found.items() if entry.card.model.shape == datasets.shape(view.dataset)]
    others.sort(key=lambda key: found[key].dataset != view.dataset)  # those of the data set first
    if others:
        a, b = (next((key for key in others if found[key].kind == kind), others[0]) for kind in ("vae", "iwae"))
        if st.button(f"Show models of {size} pixels", icon=":material/swap_horiz:", key="misfit.models"):
            pick(a=a, b=b)
            st.session_state["data added"] = view.dataset
            st.rerun()
    elif not paths.read_only():
        st.info(f"No model takes {size} pixels yet. Train one on {name} in the sidebar, under “Train a small model”.")
        open_form_button("misfit.train", view.dataset)
    page_link("pages/5_Samples.py", "The samples of models A and B need no images", ICONS["Samples"])
    for side, entry in [(side, entry) for side, entry in view.pair if entry.dataset]:
        with st.expander(f"Model card of {side} · {entry.short}"):
            st.code(model_card.text(entry.card, entry.short, entry.path.name), language="markdown", wrap_lines=True)
    end_page()


def _pick_dataset(pair: tuple[Entry, Entry] | None) -> str:
    here = [name for name in datasets.names() if datasets.available(name)]
    fitting = [name for name in here if pair and datasets.shape(name) == pair[0].card.model.shape]
    trained_on = pair[0].dataset if pair else here[0]
    usual = trained_on if trained_on in here else (fitting or here)[0]
    wanted = st.query_params.get("data", usual)
    asked = {} if wanted == usual else {"data": wanted}
    before, st.session_state["data of A"] = st.session_state.get("data of A", trained_on), trained_on
    moved = links.asked("data", asked) or st.session_state.get("models asked")
    if (added := picked("data")) in here:
        _data_changed()
        chosen = added
    elif moved or st.session_state.get("data") not in here:
        st.session_state["data absent"] = "" if wanted in here else wanted
        chosen = wanted if wanted in here else usual
    elif trained_on != before and (trained_on in here or st.session_state["data"] not in fitting):
        chosen = usual  # another model A brings its data set along, or one of its size
    else:
        chosen = st.session_state["data"]
    st.session_state["data"] = chosen  # each time: else the next page begins with the first of its list
    name = st.selectbox(
        "Data set",
        here,
        format_func=lambda name: _label(name, fitting),
        key="data",
        persist_state="session",
        on_change=_data_changed,
        help="Where example images come from; choosing another model A also chooses its data set. Others: "
        "`python -m iwae data download mnist`.",
    )
    if absent := st.session_state["data absent"]:
        st.warning(
            figure_card.escape_markdown(f"The link asks for the data set {absent[:80]}, which is not on this machine.")
        )
    links.wrote("data", {} if name == usual else {"data": name}, ("data",))
    if trained_on and name in fitting and datasets.family(name) != datasets.family(trained_on):
        st.warning(
            figure_card.escape_markdown(f"Model A was trained on {trained_on}: the images of {name} are new to it.")
        )
    if (
        trained_on not in here
        and not paths.read_only()
        and trained_on in SOURCES
        and st.button(f"Download {trained_on}", help="Once; kept on this machine.")
    ):
        _download(trained_on)
    if pair:
        _note_absent(pair)
    return name


def _label(name: str, fitting: list[str]) -> str:
    """What the picker calls a data set: with its size where models of another are chosen."""
    label = datasets.label(name)
    return label if name in fitting or not fitting else f"{label} · {shape_text(datasets.shape(name))}"


def _note_absent(pair: tuple[Entry, Entry]) -> None:
    """Say of models whose data were added elsewhere that these are not here."""
    sides: dict[str, list[str]] = {}
    for side, entry in zip("AB", pair, strict=True):
        data = entry.dataset
        if data and data not in SOURCES and not datasets.available(data):
            sides.setdefault(data, []).append(side)
    for data, which in sides.items():
        whose = "models A and B were" if len(which) > 1 else f"model {which[0]} was"
        st.warning(
            figure_card.escape_markdown(
                f"The images that {whose} trained on, {data}, are not on this machine. Samples and model cards need "
                f"none of them. To have them here, {own.how_to_add(data)}."
            )
        )


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
