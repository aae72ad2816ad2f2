"""The true posterior beside q, as far as the cached draws from q can tell, and how far that is."""

import streamlit as st
import torch

from iwae.catalog import Entry
from iwae.evaluation.stats import decimal
from iwae.figures.base import SampleCloud, posterior_cloud
from iwae.inference import pareto
from iwae.inference.posterior import Posterior
from iwae.model import Model
from pages.common import figure_card, image_rows, reading
from pages.common.evidence import Evidence
from pages.common.number_field import whole_number
from pages.common.server import cache
from pages.common.sidebar import View

RESAMPLED = 1000  # draws by weight
PROPOSED = 1000  # draws from q in the figure
STRIP = 10  # pictures from the heaviest draw to the lightest
DECODED = 10  # resampled draws shown as pictures
USUAL = "the two with the largest D_KL"


def what_q_misses(view: View, evidence: Evidence) -> None:
    """For each model its draws from the heaviest to the lightest, and where the annealed chains ended."""
    st.write(
        "q is only a guess at the posterior. Its draws by weight, and chains that walk from q to the true posterior, "
        "show what it misses."
    )
    evidence.chains()
    for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
        with column:
            image_rows.heading(name, entry)
            model = cache.model(entry, view.device)
            _of_q(model, evidence.drawn[name])
            evidence.end_states(name, model)
            _by_weight(model, evidence.drawn[name])
    reading.glossary("importance weight")


def resampled(view: View, evidence: Evidence) -> None:
    """For each model its draws resampled by weight, beside those of q."""
    units = _choose_units(view.pair)
    for column, (name, entry) in zip(st.columns(2, gap="large"), view.pair, strict=True):
        with column:
            image_rows.heading(name, entry)
            _resampled(name, entry, cache.model(entry, view.device), evidence.drawn[name], units[name])
    reading.glossary("importance weight", "k̂", "D_KL")


def _of_q(model: Model, drawn: Posterior) -> None:
    """Decoded draws from q, to be compared with those of the true posterior."""
    st.markdown("**Draws from q**", help="The first of the draws, each as likely as any other.")
    with torch.no_grad():
        images = model.decode(drawn.h[0][:STRIP].to(model.device)).cpu().numpy()
    image_rows.image_strip(images, image_rows.STRIP, f"{len(images)} draws from q(h|x).", "decoded draws from q")


def _by_weight(model: Model, drawn: Posterior) -> None:
    """Decoded draws from the heaviest to the lightest, ever more ranks apart."""
    order = drawn.weights.argsort(descending=True)
    ranks = torch.logspace(0, 1, STRIP, base=drawn.samples).round().long().unique()
    chosen = order[ranks - 1]
    with torch.no_grad():
        images = model.decode(drawn.h[0][chosen].to(model.device)).cpu().numpy()
    shares = [
        f"{rank:,}. {image_rows.percent(weight)}"
        for rank, weight in zip(ranks.tolist(), drawn.weights[chosen].tolist(), strict=True)
    ]
    st.markdown(
        "**From the heaviest draw to the lightest**",
        help="Rank and share of the weight. A draw is heavy where log p(x, h) − log q(h|x) is large: it explains the "
        "digit well, and q gave it too little.",
    )
    caption = f"Rank and weight: {', '.join(shares)}."
    image_rows.image_strip(images, image_rows.STRIP, caption, "decoded draws from the heaviest to the lightest")


def _choose_units(pair: tuple[tuple[str, Entry], ...]) -> dict[str, tuple[int, int] | None]:
    """For A and B the two units that the clouds are drawn in; None for those with the largest D_KL."""
    sizes = {name: entry.card.model.latent[0] for name, entry in pair}
    if max(sizes.values()) <= 2:
        return dict.fromkeys(sizes)
    with st.expander("Which units", icon=":material/tune:"):
        own = st.toggle("Choose the two units", key="own units", bind="query-params", help=f"Otherwise {USUAL}.")
        if not own:
            st.caption(f"For each model {USUAL} from the prior: those that say most of this digit.")
            return dict.fromkeys(sizes)
        left, right = st.columns(2)
        last = max(sizes.values()) - 1
        first = whole_number("Across: unit", 0, last, 0, key="unit.across", place=left)
        second = whole_number("Up: unit", 0, last, 1, key="unit.up", place=right)
    return {name: (min(first, size - 1), min(second, size - 1)) for name, size in sizes.items()}


def _resampled(name: str, entry: Entry, model: Model, drawn: Posterior, units: tuple[int, int] | None) -> None:
    """Draws resampled by weight beside those of q, how many of them are distinct, and Pareto k̂ in words."""
    st.markdown(
        "**The true posterior beside q**",
        help="Sampling-importance-resampling: of the draws from q, 1,000 are drawn again by weight. With many draws "
        "these come from p(h|x).",
    )
    chosen, times = drawn.resample(RESAMPLED, drawn.seed).unique(return_counts=True)
    k = drawn.k_hat
    word, meaning = pareto.reading(k)
    text = "−∞" if k == float("-inf") else "∞" if k == float("inf") else decimal(k)
    st.write(f"Pareto k̂ = **{text}**, {word}: {meaning}.")
    if len(drawn.mean) == 1:
        st.caption(f"{len(chosen):,} distinct draws among {RESAMPLED:,}. A single unit has no plane to draw.")
        return
    across, up = units or drawn.kl_units.argsort(descending=True)[:2].tolist()
    pick = torch.tensor([across, up])
    h, rows = drawn.h[0][:, pick].numpy(), chosen.numpy()  # NumPy takes a tensor of one index for a plain number
    cloud = SampleCloud(
        entry.kind, h[:PROPOSED], drawn.mean[pick].numpy(), drawn.std[pick].numpy(), h[rows], times.numpy()
    )
    titles = f"unit {across}", f"unit {up}"
    numbers = {titles[0]: h[rows, 0], titles[1]: h[rows, 1], "times": times, "weight": drawn.weights[chosen]}
    text = (
        f"{len(chosen):,} distinct draws among {RESAMPLED:,} resampled by weight. Modes of the posterior that q never "
        "proposes stay unseen, whatever the count."
    )
    figure_card.figure(posterior_cloud(cloud, titles), f"sir.{name}", text, numbers)
    heaviest = chosen[times.argsort(descending=True)][:DECODED]
    with torch.no_grad():
        images = model.decode(drawn.h[0][heaviest].to(model.device)).cpu().numpy()
    counts = [f"{count}×" for count in times.sort(descending=True).values[:DECODED].tolist()]
    caption = f"Drawn {', '.join(counts)}."
    image_rows.image_strip(images, image_rows.STRIP, caption, "the draws that were resampled most often")
