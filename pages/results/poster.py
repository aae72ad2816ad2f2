"""Section of the page of results: the poster's claims, each with its figures, a verdict and a page that shows why."""

from collections.abc import Sequence
from pathlib import PurePath

import streamlit as st

from iwae.results import claim_figures, findings
from iwae.results.findings import Finding
from iwae.results.rows import Row
from pages.common import figure_card, reading
from pages.frame.links import page_link

COLUMNS = 2  # of cards; one on a phone
LESS = "\u00a0−\u00a0"  # where a line may break
ICONS = {
    claim_figures.HOLDS: "check_circle", claim_figures.FAILS: "cancel", claim_figures.WITHIN: "help",
    claim_figures.UNJUDGED: "pending", findings.PARTLY: "contrast",
}  # fmt: skip
LINKS = {  # by claim: the page, a name of its own for screen readers, an icon, and the section there
    "bound": ("pages/1_Posterior.py", "See the bound against k", "stacked_line_chart", "Bound against k"),
    "constraint": ("pages/1_Posterior.py", "See what q misses", "blur_on", "What q misses"),
    "spread": ("pages/2_Latent_space.py", "See how far q spreads", "scatter_plot", "Does B spread more?"),
    "units": ("pages/3_Active_units.py", "See the units", "bar_chart", "Which are active"),
    "small-k": ("pages/4_Reconstructions.py", "See pictures, k = 5", "compare", "Image by image"),
    "large-k": ("pages/4_Reconstructions.py", "See pictures, k = 50", "compare", "Image by image"),
    "power-mean": ("pages/6_Bounds.py", "See every bound", "stacked_line_chart", "Every bound"),
    "layers": ("pages/5_Samples.py", "See samples of both", "grid_view", "From the prior"),
    "omniglot": ("pages/4_Reconstructions.py", "See characters", "compare", "Image by image"),
    "dimension": ("pages/3_Active_units.py", "See the directions", "bar_chart", "How sure is the count"),
}


def poster_checked(rows: Sequence[Row]) -> None:
    """A card for each claim, the rule, and every figure in a table."""
    st.write(
        "What the poster by Arnal, Lee and Pezzotti (2021) claims, in brief, and what models that were trained alike "
        "show here."
    )
    found = findings.findings(rows)
    for row in range(0, len(found), COLUMNS):
        for column, finding in zip(st.columns(COLUMNS), found[row : row + COLUMNS], strict=False):
            with column.container(border=True, height="stretch", gap="xsmall"):
                _card(finding)
    reading.formulas("How a verdict is reached", text=claim_figures.RULE)
    figure_card.data_table(findings.records(found), "findings", "Every figure")
    reading.glossary("nats", "NLL", "D_KL", "active unit", "standard error")


def _card(finding: Finding) -> None:
    """Its verdict, its first figure, and a link."""
    figure = finding.figures[0]
    tally = f" · {finding.tally}" if finding.tally else ""
    value, what = (text.replace(" ", "\u00a0") for text in (reading.without_errors(figure.text), figure.what))
    st.markdown(
        f"**{finding.title}**  \n{finding.claim}  \n"
        f":material/{ICONS[finding.verdict]}: **{finding.verdict.capitalize()}**{tally}  \n"
        f"**{value}** {figure.title}, {what.replace(LESS, ' − ')}"
    )
    if not reading.simple():
        st.caption(figure.basis)
    file, label, icon, section = LINKS[finding.key]
    page = PurePath(file).stem.partition("_")[2].lower()
    models = dict(zip("ab", finding.models, strict=True)) if finding.models else {}
    page_link(file, label, icon, **models, **{f"{page}_section": section})
