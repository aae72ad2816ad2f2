"""Section of Home: three steps for a first visit, which point at the real controls."""

import streamlit as st

from pages.common.input.canvas import source

STEPS = (  # what is said, and the CSS selector of what it points at
    ("Draw a digit on the paper, or upload one: what both models make of it follows each stroke.", ".st-key-canvas"),
    ("Choose in the sidebar which two models meet: a VAE as A and an IWAE as B, to begin with.", ".st-key-a"),
    ("Each of these cards leads to the page that shows why. The digit comes along.", ".st-key-claims"),
)

_tour = st.components.v2.component(
    "tour", html=source("home/tour.html"), css=source("home/tour.css"), js=source("home/tour.js")
)


def tour() -> None:
    """A line above the page, until the visitor has come to its end or dismissed it: the browser remembers."""
    _tour(key="tour", data={"steps": [{"text": text, "target": target} for text, target in STEPS]})
