"""What the posterior of one digit leaves open: how its draws differ from pixel to pixel, and which digits they are."""

from dataclasses import dataclass

import streamlit as st

from iwae.analysis import draws
from iwae.analysis.draws import DecodedDraws
from iwae.catalog import Entry
from iwae.data import datasets
from iwae.figures.pixels import Shares, class_shares, pixel_maps
from pages.common import figure_card, image_rows, reading
from pages.common.evidence import Evidence
from pages.common.figure_card import escape_markdown
from pages.common.sections import beside
from pages.common.server import cache
from pages.common.sidebar import View

DRAWS = 500  # of q
TESTED = 500  # test images that say how often the vote is right
Q, TRUE = "q(h|x)", "true posterior"


@dataclass(frozen=True)
class _Open:
    """Decoded draws of one model, by where they come from."""

    name: str
    entry: Entry
    draws: dict[str, DecodedDraws]


def left_open(view: View, evidence: Evidence) -> None:
    """Both models' pixel maps and the classes of their draws; those of the true posterior once they are there."""
    st.write(
        "Each draw of the posterior is a picture that the model thinks the digit could have come from. Where these "
        "pictures differ, the model is unsure."
    )
    chains, both = evidence.chains(), []
    for name, entry in view.pair:
        model = cache.model(entry, view.device)
        with cache.stop_on_model_error(entry):
            found = {Q: draws.decode(model, evidence.drawn[name].h[0][:DRAWS])}
            if name in chains:
                found[TRUE] = draws.decode(model, chains[name].h[0][:, 0], chains[name].weights[:, 0])
        both.append(_Open(name, entry, found))
    _pixels(view, both)
    _classes(view, both)


def _pixels(view: View, both: list[_Open]) -> None:
    spreads = [{source: part.spread for source, part in one.draws.items()} for one in both]
    top = max(spread.max().item() for one in spreads for spread in one.values())
    st.markdown(
        "**Which pixels are open**",
        help="The standard deviation over the draws of each pixel's decoded probability, at most ½: of draws from q, "
        "and of the chains that walked to the true posterior, by their weight. One scale for both models.",
    )
    means = [f"{spread.square().mean().sqrt():.3f} under {one.name}"
             for one, found in zip(both, spreads, strict=True) for spread in [found[Q]]]  # fmt: skip
    st.write(f"Over draws of q a pixel deviates by {means[0]} and {means[1]}, in the root mean square over all pixels.")
    for column, one, found in zip(beside(), both, spreads, strict=True):
        with column:
            st.markdown(image_rows.in_its_colour(one.name, one.entry))
            drawn = pixel_maps({source: spread.view(view.shape).numpy() for source, spread in found.items()}, top, "sd")
            amounts = " and ".join(
                f"{len(part):,} weighted chains to the {source}, worth {part.effective:.0f} independent draws"
                if source == TRUE else f"{len(part):,} draws of {source}"
                for source, part in one.draws.items()
            )  # fmt: skip
            numbers = {"pixel": range(len(found[Q]))} | {source: spread.tolist() for source, spread in found.items()}
            figure_card.figure(
                drawn, f"open.{one.name.lower()}", f"Standard deviation of each pixel over {amounts}.", numbers
            )


def _classes(view: View, both: list[_Open]) -> None:
    st.markdown(
        "**Which digits the draws are**",
        help=f"Each decoded draw gets the commonest label among the {draws.VOTERS} training images nearest to it, by "
        "Euclidean distance of the pixels.",
    )
    try:
        data = cache.whole_dataset(view.dataset)
    except datasets.DataError as error:
        st.error(escape_markdown(error))
        return
    if data.train.labels is None:
        st.info(f"The images of {view.dataset} have no labels, by which draws could be told apart.")
        return
    parts, numbers = [], []
    for one in both:
        for source, part in one.draws.items():
            labels = draws.nearest_class(part.pictures, data.train.images, data.train.labels)
            share, se = part.shares(labels, len(data.label_names))
            name = f"{one.name} · {one.entry.short}, {source}"
            parts.append(Shares(name, one.entry.kind, share.numpy(), se.numpy(), source == TRUE))
            numbers += [
                {"model": one.name, "draws of": source, "class": data.label_names[code], "share": share[code].item(),
                 "s.e.": se[code].item(), "draws": len(part), "effective draws": part.effective}
                for code in range(len(share))
            ]  # fmt: skip
    right, error = _accuracy(view.dataset)
    leading = "; ".join(
        f"{part.name}: {data.label_names[part.share.argmax()]} with {part.share.max():.0%}" for part in parts
    )
    named = reading.plus_minus(100 * right, error and 100 * error, 1)
    caption = (
        f"Share of the draws by class, by weight, ± standard error. {leading}. The vote of the {draws.VOTERS} nearest "
        f"of {len(data.train):,} training images names {named} % of "
        f"{min(TESTED, len(data.test)):,} test images rightly, so a few percent of a class may be its mistakes."
    )
    figure_card.figure(class_shares(parts, data.label_names), "classes", caption, numbers)
    reading.glossary("ESS", "standard error")


@st.cache_resource(max_entries=4, show_spinner="Testing the vote …")
def _accuracy(dataset: str) -> tuple[float, float | None]:
    data = cache.whole_dataset(dataset)
    pictures = data.test.images[:TESTED].float() / 255
    return draws.accuracy(pictures, data.test.labels[:TESTED].long(), data.train.images, data.train.labels)
