"""The pages, and how each begins: with its heading, and links to all of them in the sidebar."""

from dataclasses import dataclass
from pathlib import Path

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from pages.frame import fragments
from pages.frame.links import page_link

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
    return [("home.py", "Home"), *((f"pages/{path.name}", title) for path, title in zip(files, titles, strict=True))]


PAGES = _pages()  # Streamlit's own list would call the home page "app" (.streamlit/config.toml hides it)


@dataclass(frozen=True)
class Navigation:
    """The links to all pages, at the top of the sidebar."""

    place: DeltaGenerator
    first: bool  # whether this is the first run of a visit

    def draw(self, **query: str) -> None:
        """Draw them, again where what they bring along is known by now; ``query``: what else their addresses say."""
        with self.place.container() if self.first else self.place:
            for file, label in PAGES:
                page_link(file, label, ICONS.get(label, "article"), **query)


def begin(title: str, heading: str) -> Navigation:
    """Set the page ``title`` up and show its heading. On a visitor's first page also the links in the sidebar, so that
    the page has its shape while the rest is imported, which takes seconds when the server has just started."""
    if st.session_state.get("title") != title:
        fragments.forget()  # of the page that was left
    first = "a" not in st.session_state  # no model is chosen yet: the address says which are asked for
    st.session_state["title"] = title
    st.set_page_config(f"{title} · IWAE explorer", ICON, layout="wide")
    st.title(heading, anchor=False)
    # links that are drawn twice need an empty place, which would blink if every run began with it
    navigation = Navigation(st.sidebar.empty() if first else st.sidebar.container(), first)
    if first:
        navigation.draw(**{key: st.query_params[key] for key in ("a", "b", "data") if key in st.query_params})
    return navigation
