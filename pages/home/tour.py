"""Section of Home: three steps for a first visit, which point at the real controls."""

import streamlit as st

from pages.common.input.canvas import source

OPEN_SIDEBAR = '[data-testid="stExpandSidebarButton"]'
STEPS = (  # what is said, and the CSS selectors of what it points at: the first that is on the screen
    ("Draw a digit on the paper: both models follow each stroke.", [".st-key-canvas"]),
    ("Choose the two models in the sidebar: a VAE as A, an IWAE as B.", [".st-key-a", OPEN_SIDEBAR]),
    ("Each card leads to the page that shows why.", [".st-key-claims"]),
)

_tour = st.components.v2.component(
    "tour", html=source("home/tour.html"), css=source("home/tour.css"), js=source("home/tour.js")
)


def tour() -> None:
    """A line above the page, until the visitor has come to its end or dismissed it: the browser remembers."""
    st.html("<style>.st-key-tour { position: sticky; top: 4rem; z-index: 1; }</style>")  # beside what it points at
    _tour(key="tour", data={"steps": [{"text": text, "targets": targets} for text, targets in STEPS]})
