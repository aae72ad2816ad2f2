"""A page without the drawing surface."""

import streamlit as st

st.title("Elsewhere")
