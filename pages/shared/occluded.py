"""Hide a part of the digit, and see the posterior widen."""

import streamlit as st
from torch import Tensor

from iwae import pareto
from iwae.occlusion import FILLINGS, PARTS, SIDE, Box, veiled, visible
from pages.shared import cached, pictures
from pages.shared.sidebar import View

NOTHING = "nothing"


def occluded(view: View, x: Tensor, samples: int, seed: int) -> None:
    """The choice of the part, and for each model the posterior with and without it."""
    st.subheader("Hide a part of the digit", anchor=False)
    st.write(
        "The models are asked again, with some pixels unknown. What the rest of the picture leaves open, the posterior "
        "fills in every way it knows."
    )
    part = st.segmented_control(
        "Hidden", [NOTHING, *PARTS], default=NOTHING, required=True, key="hidden", bind="query-params"
    )
    if part == NOTHING:
        return
    seen = visible(PARTS[part] or _box())
    numbers = []
    for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
        with column:
            pictures.heading(name, entry)
            for title, mask in (("The whole digit", None), (f"Without {part}", seen)):
                drawn, pictured = cached.posterior(entry, view.device, x, samples, seed, mask)
                st.caption(title)
                shown = {
                    "given": x.numpy() if mask is None else veiled(x, seen),
                    "mean of the posterior": pictured.weighted,
                    "its spread": 2 * pictured.spread,  # a probability deviates by at most 1/2: white is that
                }
                pictures.strip(list(shown.values()), list(shown), [f"{title}: {what}" for what in shown])
                hidden, rest = (pictured.spread[which].square().mean().sqrt().item() for which in (~seen, seen))
                numbers.append(
                    {
                        "model": f"{name} · {entry.short}",
                        "given": "all pixels" if mask is None else f"{int(seen.sum())} of {len(seen)} pixels",
                        "log p̂ of the pixels, nats": drawn.log_p,
                        "s.e.": drawn.log_p_se,
                        "spread where hidden": hidden,
                        "spread elsewhere": rest,
                        "effective draws": drawn.ess,
                        "k̂": drawn.k_hat,
                        "k̂ in words": pareto.reading(drawn.k_hat)[0],
                    }
                )
    st.dataframe(numbers, hide_index=True, key="occlusion", column_config=_columns())
    st.caption(
        "Spread: root mean square over pixels of the standard deviation of the decoded draws under their weights. It "
        "comes out too small where few effective draws are left."
    )
    with st.expander("The formula"):
        st.latex(
            r"w_i = \frac{p(x_{\text{visible}} \mid h_i)\, p(h_i)}{\frac{1}{J}\sum_{j=1}^{J} q(h_i \mid x^{(j)})},"
            r"\qquad x^{(j)}_{\text{visible}} = x_{\text{visible}}"
        )
        st.write(
            f"Given h the pixels are independent, so the hidden ones integrate to 1 and drop out. Any q is a proposal: "
            f"here the even mixture of the encoder's for J = {FILLINGS} fillings of the hidden pixels, one of them all "
            "dark, the others drawn from the model in turn with h. The weights make up for the rest, as far as k̂ says."
        )


def _box() -> Box:
    left, right = st.columns(2)
    rows = left.slider("Rows hidden", 0, SIDE, (7, 21), key="hidden.rows", bind="query-params")
    columns = right.slider("Columns hidden", 0, SIDE, (7, 21), key="hidden.columns", bind="query-params")
    return *rows, *columns


def _columns() -> dict:
    number = st.column_config.NumberColumn
    forms = {"log p̂ of the pixels, nats": "%.2f", "s.e.": "%.2f", "k̂": "%.2f", "effective draws": "%.1f"}
    forms |= {"spread where hidden": "%.3f", "spread elsewhere": "%.3f"}
    return {name: number(format=form) for name, form in forms.items()}
