"""The smallest app around the drawing surface; test_canvas.py drives it."""

import json

import numpy as np
import streamlit as st

from pages.common.input import canvas

st.title("Canvas")
st.page_link("pages/1_Elsewhere.py", label="Elsewhere")
pixels = canvas.draw_digit("digit")
st.button("Clear from Python", on_click=canvas.clear_digit, args=("digit",))
if st.button("Another widget"):
    st.write("another widget answered")

st.subheader("Started from a picture")
ramp = [(i // 28) * 9 for i in range(784)]
initial = canvas.draw_digit("initial", size=140, initial=ramp)

for name, values in {"digit": pixels, "initial": initial}.items():
    ink = np.array(values or [])
    st.write(f"{name}: sum {ink.sum():.0f}, inked pixels {np.count_nonzero(ink)}")
    with st.container(key=f"pixels-{name}"):
        st.text(json.dumps(values))
if pixels:
    st.image(np.array(pixels, np.uint8).reshape(28, 28), width=140)
