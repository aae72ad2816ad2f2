"""Section of Home: three steps for a first visit, which point at the real controls."""

import streamlit as st

from pages.common.input.canvas import source

STEPS = (  # what is said, and the CSS selector of what it points at
    ("Draw a digit on the paper: both models follow each stroke.", ".st-key-canvas"),
    ("Choose the two models in the sidebar: a VAE as A, an IWAE as B.", ".st-key-a"),
    ("Each card leads to the page that shows why.", ".st-key-claims"),
)

_tour = st.components.v2.component(
    "tour", html=source("home/tour.html"), css=source("home/tour.css"), js=source("home/tour.js")
)


def tour() -> None:
    """A line above the page, until the visitor has come to its end or dismissed it: the browser remembers."""
    _tour(key="tour", data={"steps": [{"text": text, "target": target} for text, target in STEPS]})
