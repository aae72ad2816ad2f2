"""A page without the drawing surface."""

import streamlit as st

st.title("Elsewhere")
st.page_link("canvas_app.py", label="Back to the canvas")
