"""The pair of models: two boxes in the sidebar, and a dialog with all models in one table."""

from collections.abc import Callable
from typing import Any

import streamlit as st

from iwae import catalog
from iwae.catalog import CatalogError, Entry
from iwae.runs.store import RunError
from iwae.system import paths
from pages.common import reading
from pages.common.figure_card import escape_markdown
from pages.common.server.polling import set_in_dialog
from pages.frame import links

NLL_HELP = "NLL: −log p̂(x) on test images, in nats per image ± standard error; lower is better."

CHOOSE_PLANE = "Choose a 2-D model in the sidebar, or train one there: Layers → “1 layer, 2 units: a plane”."


def pick(**slots: str) -> None:
    """Choose models by key from a button below the boxes: ``pick(a=…, b=…)``. The page must be rerun."""
    st.session_state["pick"] = slots


def offer_plane(name: str, entry: Entry, page: str) -> None:
    """A button that chooses a model with one layer of two units instead of model ``name``, ``entry``, if there is one
    for images of its size: of its kind and its data set first."""
    flat = [
        other
        for other in catalog.entries()[0].values()
        if tuple(other.card.model.latent) == (2,) and other.card.model.shape == entry.card.model.shape
    ]
    best = sorted(flat, key=lambda other: (other.kind != entry.kind, other.dataset != entry.dataset))
    if best and st.button(f"Show {best[0].short} with 2 units as {name}", key=f"{page}.show.{name}"):
        pick(**{name.lower(): best[0].key})
        st.rerun()


def pick_models(found: dict[str, Entry]) -> tuple[Entry, Entry] | None:
    """The boxes and the button of the dialog, for the sidebar; None where there is no model."""
    if not found:
        return None
    names = catalog.names(found)
    keys, chosen = list(found), []
    usual = dict(zip("ab", catalog.default_pair(found), strict=True))
    picked = {slot: key for slot, key in st.session_state.pop("pick", {}).items() if key in found}
    asked = {slot: st.query_params[slot] for slot in "ab" if st.query_params.get(slot, usual[slot]) != usual[slot]}
    moved = st.session_state["models asked"] = not picked and links.asked("models", asked)
    if picked or moved:
        _changed(**(usual | asked if moved else picked))
    for name in "AB":
        slot = name.lower()
        held = st.session_state.get(slot)
        if held not in found:  # a new session, a link from elsewhere, or a model that is gone
            if held and slot in asked:
                st.session_state[f"absent.{slot}"] = held
            held = usual[slot]
        st.session_state[slot] = held  # each time: else the next page begins with the first of its list
        key = st.selectbox(
            f"Model {name}",
            keys,
            format_func=names.__getitem__,
            key=slot,
            persist_state="session",
            on_change=_changed,
            kwargs={slot: None},
            help=f"Shipped models and your own finished or stopped runs. {NLL_HELP}",
        )
        entry = found[key]
        st.caption(
            escape_markdown(" · ".join(filter(None, (entry.layers, entry.dataset, reading.without_errors(entry.nll)))))
        )
        if absent := st.session_state.get(f"absent.{slot}"):
            st.warning(escape_markdown(f"The link asks for the model {absent[:80]}, which is not here."))
        chosen.append(entry)
    address = {slot: entry.key for slot, entry in zip("ab", chosen, strict=True) if entry.key != usual[slot]}
    links.wrote("models", address, ("a", "b"))  # explicitly: a bound selectbox would put the label into the address
    if chosen[0] is chosen[1]:
        st.caption("A and B are the same model: the two sides show the same.")
    if st.button("Compare models", icon=":material/table_rows:", key="models", width="stretch"):
        _dialog(found, names)
    return chosen[0], chosen[1]


def _changed(**slots: str | None) -> None:
    """Note that these models were chosen, and hold them; None for one that its box holds already."""
    links.changed("models")
    for slot, key in slots.items():
        st.session_state.pop(f"absent.{slot}", None)
        if key:
            st.session_state[slot] = key


@st.dialog("Choose two models", width="large", on_dismiss="rerun")
def _dialog(found: dict[str, Entry], names: dict[str, str]) -> None:
    set_in_dialog(True)
    pairs = {title: pair for title, pair in catalog.FAVOURITES.items() if found.keys() >= set(pair)}
    with st.container(horizontal=True, vertical_alignment="center"):
        for title, (a, b) in pairs.items():
            about = f"A: {names[a]}; B: {names[b]}"
            if st.button(title, key=f"favourite.{title}", help=about, on_click=pick, kwargs={"a": a, "b": b}):
                st.rerun()
    left, right = st.columns(2)
    words = left.text_input("Search", key="models.search", placeholder="such as 2 layers, omniglot, dropout").split()
    sets = list(dict.fromkeys(entry.dataset for entry in found.values() if entry.dataset))
    data = right.multiselect("Data", sets, key="models.data", placeholder="all")
    shown = [key for key, entry in found.items() if _matches(entry, names[key], words, data)]
    event = st.dataframe(
        [_row(found[key], names[key]) for key in shown],
        column_config=_columns(),
        hide_index=True,
        key="models.table",
        on_select="rerun",
        selection_mode="single-row",
        height=330,
        placeholder="–",
    )
    rows = [row for row in event.selection.rows if row in range(len(shown))]
    if not rows:
        st.caption(f"{len(shown)} of {len(found)} models. Select a row to use it as A or B. {NLL_HELP}")
        return
    key = shown[rows[0]]
    st.markdown(
        f"**{escape_markdown(names[key])}** · {escape_markdown(reading.without_errors(found[key].nll))} · `{key}`"
    )
    with st.container(horizontal=True):
        for slot in "ab":
            if st.button(f"Use as {slot.upper()}", key=f"models.{slot}", on_click=pick, kwargs={slot: key}):
                st.rerun()
    if found[key].changeable and not paths.read_only():
        _manage(found[key])


def _manage(entry: Entry) -> None:
    """Name or remove a model of your own."""
    field = f"name.{entry.key}"
    one, two, three = st.columns([3, 1, 1], vertical_alignment="bottom")
    one.text_input("Your name for it", entry.given, max_chars=catalog.LONGEST_NAME, key=field)
    renamed = two.button(
        "Rename", key="models.rename", width="stretch", help="An empty name restores the usual one.",
        on_click=lambda: _try(lambda: catalog.rename(entry, st.session_state[field])),
    )  # fmt: skip
    with three.popover("Remove …", width="stretch"):
        st.write("Its file is deleted, of a run also its curves and snapshots. This cannot be undone.")
        removed = st.button("Remove it", key="models.remove", on_click=_try, args=(lambda: catalog.remove(entry),))
    if error := st.session_state.pop("models.error", None):
        st.error(escape_markdown(error))
    elif renamed or removed:
        st.rerun()


def _try(action: Callable[[], None]) -> None:
    try:
        action()
    except (CatalogError, RunError, OSError) as error:
        st.session_state["models.error"] = str(error)


def _matches(entry: Entry, name: str, words: list[str], data: list[str]) -> bool:
    """Whether the model is of these data sets (none: of any), and each of the words is somewhere in its row."""
    text = " ".join(map(str, [*_row(entry, name).values(), entry.key])).lower()
    return (not data or entry.dataset in data) and all(word.lower() in text for word in words)


def _row(entry: Entry, name: str) -> dict[str, Any]:
    metrics = entry.card.metrics
    return {
        "name": name,
        "data": entry.dataset or None,
        "architecture": entry.layers,
        "objective": entry.objective or None,
        "k": entry.k,
        "epochs": entry.epochs or None,
        "regularised": entry.regularisation or None,
        "continued from": entry.continued_from or None,
        "NLL": metrics.get("nll"),
        "± s.e.": metrics.get("nll_se"),
    }


def _columns() -> dict[str, Any]:
    number = st.column_config.NumberColumn
    return {
        "name": st.column_config.TextColumn(pinned=True),
        "k": number(help="samples per image in training"),
        "epochs": number(format="%.4g", help="over the training data, with those of the models it continued from"),
        "regularised": st.column_config.TextColumn(help="what was used against overfitting"),
        "continued from": st.column_config.TextColumn(help="the objective of the model whose weights it began with"),
        "NLL": number(format="%.2f", help=NLL_HELP),
        "± s.e.": number(format="%.2f", help="standard error over the test images, nats"),
    }
