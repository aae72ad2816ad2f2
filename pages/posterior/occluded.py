"""Hide a part of the digit, and see the posterior widen."""

from typing import Any

import numpy as np
import streamlit as st
from torch import Tensor

from iwae.inference.occlusion import HALVES, Box, half, veiled, visible_pixels
from iwae.inference.posterior import Reconstructions
from iwae.inference.tempering import PARTICLES, START
from pages.common import image_rows, reading
from pages.common.figure_card import escape_markdown
from pages.common.server import cache
from pages.common.sidebar import View

BOX = "a box"


def occluded(view: View, x: Tensor, samples: int, seed: int) -> None:
    """The choice of the part, and for each model the posterior with and without it."""
    st.write(
        "The models are asked again, with some pixels unknown. What the rest of the picture leaves open, the posterior "
        "fills in every way it knows."
    )
    part = st.segmented_control(
        "Hidden", [*HALVES, BOX], default="bottom half", required=True, key="hidden", bind="query-params"
    )
    pixel_mask = visible_pixels(_box(view.shape) if part == BOX else half(part, view.shape), view.shape)
    hidden = part if part == BOX else f"the {part}"
    numbers, doubts = [], []
    for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
        with column:
            image_rows.heading(name, entry)
            whole, of_whole = cache.posterior(entry, view.device, x, samples, seed)
            found, of_rest = cache.occluded(entry, view.device, x, pixel_mask, samples, seed)
            _pictures("The whole digit", x.numpy(), of_whole)
            _pictures(f"Without {hidden}", veiled(x, pixel_mask), of_rest)
            model = f"{name} · {entry.short}"
            numbers.append(
                _row(
                    model,
                    "all pixels",
                    "draws from q(h|x)",
                    whole.log_p,
                    whole.log_p_se,
                    whole.ess,
                    of_whole,
                    pixel_mask,
                )
            )
            given = f"{int(pixel_mask.sum())} of {len(pixel_mask)} pixels"
            numbers.append(
                _row(model, given, found.way, found.log_p, found.log_p_se, found.effective, of_rest, pixel_mask)
            )
            if found.doubt:
                doubts.append(f"**{name}**, without {hidden}: {escape_markdown(found.doubt)}")
    hidden = [row["spread where hidden"] for row in numbers]
    st.markdown(
        f"**Where pixels are hidden, the spread goes from {hidden[0]:.3f} to {hidden[1]:.3f} under A, and from "
        f"{hidden[2]:.3f} to {hidden[3]:.3f} under B.**"
    )
    if not reading.simple():
        st.dataframe(numbers, hide_index=True, key="occlusion", column_config=_columns(), placeholder="–")
    for doubt in doubts:
        st.warning(doubt)
    st.caption(
        "Spread: root mean square over pixels of the standard deviation of the decoded draws under their weights. It "
        "comes out too small where few effective draws are left. An exact grid has no standard error, and draws from "
        "q(h|x) have none where k̂ is above 0.5: there log p̂ is a lower bound."
    )
    reading.formulas(
        "The formula",
        (
            r"p(h \mid x_{\text{visible}}) \propto p(h)\, p(x_{\text{visible}} \mid h),\qquad"
            r"p_\beta(h) \propto p(h)\, p(x_{\text{visible}} \mid h)^\beta,\quad \beta: 0 \to 1"
        ),
        text=(
            "Given h the pixels are independent, so the hidden ones integrate to 1 and drop out. The encoder does not "
            f"help, as it takes hidden pixels for dark ones. So {START:,} draws of the prior are tempered: β rises in "
            f"steps, and at each the {PARTICLES} draws that go on are resampled and moved by Hamiltonian dynamics. "
            "A mixture of Gaussians fitted to them, with a tenth of the draws from the prior, is the proposal of an "
            "importance sampler; where its weighted draws are worth less than the tempered ones, those are shown. "
            "With two latent units a grid gives the exact posterior."
        ),
    )


def _pictures(title: str, given: np.ndarray, pictured: Reconstructions) -> None:
    st.caption(title)
    shown = {
        "given": given,
        "mean of the posterior": pictured.weighted,
        "its spread": 2 * pictured.spread,  # a probability deviates by at most 1/2: white is that
    }
    image_rows.image_row(list(shown.values()), list(shown), [f"{title}: {what}" for what in shown])


def _row(
    model: str, given: str, way: str, log_p: float, se: float | None, effective: float | None,
    pictured: Reconstructions, pixel_mask: Tensor,
) -> dict[str, Any]:  # fmt: skip
    hidden, rest = (pictured.spread[which].square().mean().sqrt().item() for which in (~pixel_mask, pixel_mask))
    return {
        "model": model,
        "given": given,
        "log p̂ of the pixels, nats": log_p,
        "s.e.": se,
        "spread where hidden": hidden,
        "spread elsewhere": rest,
        "effective draws": effective,
        "computed by": way,
    }


def _box(shape: tuple[int, int]) -> Box:
    ranges = []
    for column, name, side in zip(st.columns(2), ("rows", "columns"), shape, strict=True):
        key = f"hidden.{name}"
        if max(st.session_state.get(key, (0,))) > side:
            del st.session_state[key]  # of a model of larger images
        middle = (side // 4, side - side // 4)
        ranges.append(column.slider(f"{name.capitalize()} hidden", 0, side, middle, key=key, bind="query-params"))
    (top, bottom), (left, right) = ranges
    return top, bottom, left, right


def _columns() -> dict:
    number = st.column_config.NumberColumn
    forms = {"log p̂ of the pixels, nats": "%.2f", "s.e.": "%.2f", "effective draws": "%.1f"}
    forms |= {"spread where hidden": "%.3f", "spread elsewhere": "%.3f"}
    return {name: number(format=form) for name, form in forms.items()}
