"""Two maps of latent space, and what is selected on them."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import streamlit as st
from torch import Tensor

from iwae.analysis import latent
from iwae.analysis.latent import Encoded, MeanEstimate
from iwae.data import columns
from iwae.figures.latent import Classes, MapAxes, PosteriorOverlay, Values, latent_map
from iwae.inference.ais import Annealed
from pages.common import figure_card, image_rows
from pages.common.input.digit import ChosenDigit, hold_image
from pages.common.input.received import received, show_refusal
from pages.common.sections import beside
from pages.common.server import cache
from pages.frame.links import page_link
from pages.latent import own_columns
from pages.latent.controls import SAMPLES, Images, MapSide, divergence, image_metrics, neighbours, of_digit, plus_minus
from pages.latent.live_map import live_map

DRAWS = 200  # of one posterior on a UMAP map
ENDS = 50  # draws from the true posterior
MOVED = 12  # pictures in a row
NARROWEST = 300  # CSS pixels of a map: where two have no room, one is above the other
MEASURED = {"NLL": "nll", "ESS": "ess"}


def colours(both: Sequence[MapSide], images: Images, by: str) -> list[Classes | Values | None]:
    """The colours of both maps, on one scale."""
    if by == "nothing":
        return [None, None]
    if by == "label":
        return [Classes(images.labels, images.names)] * 2
    if by == "predicted digit":
        near = [neighbours(side, images) for side in both]
        return [Classes(latent.predict_labels(index, images.labels), images.names) for index in near]
    if column := own_columns.choices(images.dataset).get(by):
        return [own_columns.colours(column, by, images.numbers)] * 2
    values = [_values(side, images, by) for side in both]
    low, high = np.quantile(np.concatenate(values), [0.01, 0.99])
    unit = {"ESS": f"ESS of {SAMPLES}", "posterior spread": "tr Σ(x)"}.get(by, f"{by}, nats")
    return [Values(value, unit, (float(low), float(high))) for value in values]


def _values(side: MapSide, images: Images, by: str) -> np.ndarray:
    if by == "posterior spread":
        return side.encoded.trace
    if by == "D_KL":
        return divergence(side, images)
    return getattr(image_metrics(side.entry, side.device, images), MEASURED[by]).cpu().double().numpy()


def focus(side: MapSide, images: Images, whose: int | str | None, digit: ChosenDigit) -> Encoded | None:
    """The posterior that is on the map: of the digit in hand, or the mean of a class."""
    if whose is None:
        return None
    if whose == "digit":
        return of_digit(side, digit.x)
    return side.encoded.average(images.labels == whose)


def show_maps(
    both: Sequence[MapSide], images: Images, by: str, whose: int | str | None, digit: ChosenDigit,
    chains: Mapping[str, Annealed], shown: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Both maps, one above the other where there is no room for two, and the digit in hand beside them; a lasso or a
    click in one holds for both.

    ``chains`` to the true posterior of the digit end on the maps of the models that they are of. ``shown`` [n] of bool:
    the images whose points are there, by default all.
    """
    selected = selection(images)
    posteriors = [focus(side, images, whose, digit) for side in both]
    clouds = [
        None if one is None else _overlay(side, one, _inputs(side, images, whose, digit))
        for side, one in zip(both, posteriors, strict=True)
    ]
    centres = [_project(side, of_digit(side, digit.x).mean) for side in both]
    truths = [_ends(side, chains.get(side.name)) for side in both]
    everything = [*(side.places for side in both), *centres, *(one.points for one in (*clouds, *truths) if one)]
    x, y = latent.shared_range(everything)
    left, right = st.columns([7, 2], gap="small")
    left.caption(
        "Click a point to take its digit in hand. With the lasso or the box above a map, select images in both."
    )
    with left:
        columns = beside(NARROWEST, "small")
    for column, side, colour, cloud, truth, one, centre in zip(
        columns, both, colours(both, images, by), clouds, truths, posteriors, centres, strict=True
    ):
        with column:
            image_rows.heading(side.name, side.entry)
            frame = MapAxes(tuple(x), tuple(y), _titles(side))
            drawn = latent_map(
                side.places, images.numbers, frame, kind=side.entry.kind, colour=colour, cloud=cloud, truth=truth,
                selected=selected if selected.any() else None, shown=shown, chosen=centre[0],
            )  # fmt: skip
            key = f"map.{side.name.lower()}"
            figure_card.figure(
                drawn, key, _caption(side, images, by, one, whose, chains), _numbers(side, images, by, colour),
                on_select=partial(_on_select, key, images.dataset), selection_mode=("points", "box", "lasso"),
            )  # fmt: skip
            show_refusal(key)
    with right, st.container(key="beside-maps"):
        # the pictures of the pointer's place stay on the screen where the page scrolls to the lower map
        st.html("<style>:has(> .st-key-beside-maps) { position: sticky; top: 4rem; }</style>")
        live_map(both, images, digit.x, (x, y))
        show_digit(digit)


def _titles(side: MapSide) -> tuple[str, str]:
    if side.projection is None:
        return "UMAP 1", "UMAP 2"
    rows = np.abs(side.projection.axes)
    if (rows.max(1) == 1).all() and not side.projection.centre.any():
        return tuple(f"unit {unit}" for unit in rows.argmax(1))
    return ("PC 1", "PC 2") if side.name == "A" else ("PC plane of B, turned to A", "")


def _project(side: MapSide, points: np.ndarray) -> np.ndarray:
    if side.projection is not None:
        return side.projection.project(points)
    return latent.place_on_map(points, side.encoded.mean, side.places)


def _inputs(side: MapSide, images: Images, whose: int | str, digit: ChosenDigit) -> Tensor:
    """``DRAWS`` images [·, pixels], one for each draw: the digit in hand, or those of a class in turn."""
    if whose == "digit":
        return digit.x.expand(DRAWS, -1)
    members = images.numbers[images.labels == whose]
    return cache.test_images(images.dataset, side.entry.binary)[members[np.arange(DRAWS) % len(members)]]


def _overlay(side: MapSide, one: Encoded, inputs: Tensor) -> PosteriorOverlay:
    """The exact ellipse of a Gaussian on a plane; elsewhere draws: placed among the images on UMAP, which has no
    formula, and drawn layer by layer above the first, where q is no Gaussian."""
    if side.projection is not None and side.layer == 1:
        curve = latent.ellipse(side.projection.project(one.mean)[0], side.projection.covariance(one.std[0]))
        return PosteriorOverlay(curve, True, f"{latent.MASS:.0%} of q(h|x)")
    if side.layer == 1:
        draws = one.draw(DRAWS, seed=0)
    else:
        with cache.stop_on_model_error(side.entry):
            draws = latent.draw(cache.model(side.entry, side.device), inputs.to(side.device), side.layer)
    return PosteriorOverlay(_project(side, draws), False, f"{DRAWS} draws from q(h|x)")


def _ends(side: MapSide, found: Annealed | None) -> PosteriorOverlay | None:
    """Draws from the true posterior: where the chains ended, by weight."""
    if found is None:
        return None
    ends = found.draws(ENDS)[side.layer - 1][:, 0].double().numpy()
    return PosteriorOverlay(_project(side, ends), False, f"{ENDS} draws from the true posterior")


def _caption(
    side: MapSide, images: Images, by: str, one: Encoded | None, whose: int | str | None,
    chains: Mapping[str, Annealed],
) -> str:  # fmt: skip
    coloured = figure_card.escape_markdown(by)
    if column := own_columns.choices(images.dataset).get(by):
        known = sum(value is not None for value in columns.as_text(column, images.numbers))
        coloured += "" if known == len(images.numbers) else f", which {known:,} of them have"
    parts = [f"{len(images.numbers):,} test images under {side.title}, coloured by {coloured}"]
    if not np.ptp(side.encoded.mean, axis=0).any():
        parts[0] += f"; the mean of q({side.h}|x) is the same for all of them, so they lie in one place"
    elif side.projection is not None:
        parts[0] += f"; {side.projection.share:.0%} of the variance of the means lies in this plane"
    if len(side.places) > 2 * latent.NEIGHBOURS:  # it is not defined for fewer
        trust = _trustworthiness(side.encoded.mean, side.places)
        parts.append(f"Trustworthiness {plus_minus(trust)} ({latent.NEIGHBOURS} neighbours, 1 is best)")
    if one is not None:
        what = "the digit in hand" if whose == "digit" else f"class {images.names[whose]}, the mean of its posteriors"
        true = f"true tr Σ = {one.trace[0]:.3g} over {one.size} units"
        if side.projection is None:
            parts.append(
                f"Dots: {DRAWS} draws from q({side.h}|x) of {what}, each placed among its {latent.NEIGHBOURS} nearest "
                f"images, which stay fixed. Areas on a UMAP map are not variances: {true}"
            )
        elif side.layer > 1:
            parts.append(f"Dots: {DRAWS} draws from q({side.h}|x) of {what}; {true}")
        else:
            plane = np.trace(side.projection.covariance(one.std[0]))
            parts.append(f"Curve: {latent.MASS:.0%} of q(h₁|x) of {what}, exact; {true}, {plane:.3g} in this plane")
    if side.layer > 1:
        parts.append(
            f"q({side.h}|x) is no Gaussian: a point is its mean over {latent.MOMENT_DRAWS} draws of the layers below"
        )
    if (found := chains.get(side.name)) is not None:
        parts.append(
            f"Crosses: {ENDS} draws from the true posterior p({side.h}|x), by weight from {found.chains} annealed "
            f"chains, which are worth {found.ess.item():.0f} independent draws"
        )
    return ". ".join(parts) + "."


def _numbers(side: MapSide, images: Images, by: str, colour: Classes | Values | None) -> dict[str, Sequence]:
    table = {"image": images.numbers, "x": side.places[:, 0], "y": side.places[:, 1], "tr Σ(x)": side.encoded.trace}
    if images.labels is not None:
        table["label"] = [images.names[code] for code in images.labels]
    if column := own_columns.choices(images.dataset).get(by):
        table[by] = columns.as_text(column, images.numbers)
        return table
    if isinstance(colour, Classes) and by != "label":
        table[by] = [colour.names[code] for code in colour.codes]
    if isinstance(colour, Values):
        table[colour.title] = colour.values
    return table


def _on_select(key: str, dataset: str) -> None:
    """Handle a selection in one map: one point becomes the chosen image; several, or none, are selected in both."""
    chosen = received(key, "selection", partial(_images_of, cache.count_images(dataset)))
    if chosen is None:
        return
    if len(chosen) == 1:
        hold_image(chosen[0])
    else:
        select(dataset, chosen)


def _images_of(count: int, event: Any) -> list[int]:
    """The numbers, below ``count``, of the images whose points are in plotly's selection; ellipses and marks have none.
    Raises ValueError for what is no selection."""
    match event:
        case {"points": list(points)} if all(isinstance(point, Mapping) for point in points):
            held = [point.get("customdata") for point in points]
        case _:
            raise ValueError("a selection has a list of points")
    numbers = [value[0] if isinstance(value, list) and len(value) == 1 else value for value in held]
    for value in numbers:
        if value is not None and (type(value) is not int or not 0 <= value < count):
            raise ValueError(f"there is no test image {value!r:.40}; they are 0 to {count - 1:,}")
    return [value for value in numbers if value is not None]


def select(dataset: str, chosen: Sequence[int]) -> None:
    """These images are selected in both maps."""
    st.session_state["latent.selected"] = dataset, [int(number) for number in chosen]


def selection(images: Images) -> np.ndarray:
    """Which of the images on the maps are selected, [n] of bool."""
    dataset, chosen = st.session_state.get("latent.selected", (None, []))
    return np.isin(images.numbers, chosen if dataset == images.dataset else [])


def show_digit(digit: ChosenDigit) -> None:
    """The digit in hand, and the way to its posterior."""
    image_rows.image_row([digit.thumbnail], None, [digit.source], width=112)
    st.caption(figure_card.escape_markdown(digit.source))
    page_link("pages/1_Posterior.py", "Its posterior", "blur_on")


@st.cache_resource(max_entries=32, show_spinner="Measuring the map's trustworthiness …")
def _trustworthiness(points: np.ndarray, places: np.ndarray) -> MeanEstimate:
    return latent.trustworthiness(points, places)


def show_selection(images: Images, both: Sequence[MapSide]) -> None:
    """What is selected, in words and pictures."""
    selected = selection(images)
    if not selected.any():
        return
    with st.container(border=True):
        text = f"**{selected.sum():,} of {len(selected):,} images selected**"
        if images.labels is not None:
            codes, counts = np.unique(images.labels[selected], return_counts=True)
            order = counts.argsort()[::-1][:10]
            text += ": " + ", ".join(f"{counts[i]} × {images.names[codes[i]]}" for i in order)
        st.markdown(text)
        spreads = [f"{side.name} {plus_minus(MeanEstimate.from_values(side.encoded.trace[selected]))}" for side in both]
        st.caption(f"Their mean tr Σ(x): {', '.join(spreads)}")
        _row(images, np.flatnonzero(selected)[:MOVED])
        st.button("Clear the selection", key="latent.clear", on_click=select, args=(images.dataset, []))


def _row(images: Images, places: np.ndarray) -> None:
    """Pictures of some of the images, their numbers below."""
    grey = cache.dataset(images.dataset).test.images
    numbers = images.numbers[places]
    alts = [f"test image {number}" for number in numbers]
    pictures = [grey[number].numpy() / 255 for number in numbers]
    image_rows.image_row(pictures, [str(number) for number in numbers], alts, 56)


def show_moved(images: Images, both: Sequence[MapSide]) -> None:
    """The images whose neighbourhoods the two models agree on least."""
    if len(images.numbers) < 3:
        st.info("With fewer than three test images there are no neighbourhoods to compare.")
        return
    near = [neighbours(side, images) for side in both]
    shared_part = latent.overlap(*near)
    mean = plus_minus(MeanEstimate.from_values(shared_part))
    order = shared_part.argsort(kind="stable")
    st.write(
        f"Of an image's {near[0].shape[1]} nearest images in the latent space of A, on average "
        f"**{mean}** are also among its nearest in that of B (n = {len(order):,}). "
        f"The models agree least on these, which keep {shared_part[order[0]]:.0%} to "
        f"{shared_part[order[:MOVED][-1]]:.0%} of their neighbours:"
    )
    _row(images, order[:MOVED])
    moved = images.numbers[order]
    st.pills(
        "Look at", moved[:MOVED].tolist(), key="moved", on_change=_open_moved,
        help="Opens the digit beside the maps, and marks it on both.",
    )  # fmt: skip
    st.button("Select 100 on the maps", key="moved.select", on_click=select, args=(images.dataset, moved[:100]))
    labels = {} if images.labels is None else {"label": [images.names[code] for code in images.labels[order]]}
    figure_card.data_table({"image": moved, "overlap": shared_part[order]} | labels, "moved")


def _open_moved() -> None:
    if st.session_state["moved"] is not None:
        hold_image(st.session_state["moved"])
