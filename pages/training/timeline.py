"""A slider over the snapshots of one run, and what the model was at each of them."""

import streamlit as st

from iwae.analysis import timeline
from iwae.data import datasets
from iwae.evaluation.activity import THRESHOLD
from iwae.evaluation.stats import decimal
from iwae.figures.training import activity_bars, latent_map
from iwae.kernels.finite import NonFiniteError
from iwae.runs import summary
from iwae.runs.store import Run, RunError
from iwae.runs.summary import Snapshot
from pages.common import figure_card, image_rows, reading
from pages.common.figure_card import escape_markdown
from pages.common.server import cache

SHOWN = 10  # digits that are reconstructed


def scrubber(run: Run) -> None:
    """The whole of it: slider, map, active units, reconstructions."""
    st.write("The model at earlier points of this run: how its latent space unfolds and its units become active.")
    try:
        dataset, kind = run.config.dataset, run.config.kind
    except RunError as error:
        st.error(escape_markdown(error))
        return
    if not datasets.available(dataset):
        st.info(f"Its images, {escape_markdown(dataset)}, are not on this machine: {datasets.how_to_get(dataset)}.")
        return
    found, refused = summary.snapshots(run)
    for reason in refused:
        st.warning(escape_markdown(reason))
    if not found:
        st.caption("Nothing is saved yet.")
        return
    if len(found) == 1:
        st.caption(
            "It has only one model: snapshots are taken by runs of this version that are started in the app or with "
            "`python -m iwae train`, where the model is not too large for at least four of them."
        )
    st.fragment(_show_snapshot)(found, dataset, kind)


def _show_snapshot(found: list[Snapshot], dataset: str, kind: str) -> None:
    snapshot = _choose(found)
    data = cache.dataset(dataset)
    labels = data.test.labels
    shown = (
        _one_of_each(labels[: timeline.IMAGES].tolist()) if labels is not None else range(min(SHOWN, len(data.test)))
    )
    shown = tuple(shown)
    try:
        now, last = (cache.model_state(one.path, dataset, shown) for one in (snapshot, found[-1]))
    except (ValueError, NonFiniteError, OSError) as error:  # a file is damaged, or has just gone
        st.error(escape_markdown(error))
        return
    frame = timeline.timeline_axes(last)
    placed = frame.project(now.means).numpy()
    count = len(placed)

    valid_bound = snapshot.valid_bound
    bound = "" if valid_bound is None else f" · validation bound {decimal(valid_bound)} nats per image"
    epochs = reading.epochs(snapshot.epochs)
    st.markdown(f"**After {epochs}**, {snapshot.step:,} steps{bound}")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(
            "**Posterior means**",
            help="The encoder's mean of q(h₁|x) for each test image. With more than two units the two main "
            "directions of the last snapshot are used for all, so that positions can be compared.",
        )
        names = data.label_names or tuple(map(str, range(1 + int(labels.max())))) if labels is not None else ()
        chosen = None if labels is None else labels[:count].tolist()
        drawn = latent_map(placed, chosen, names, frame.titles, max(frame.reach, 1.1 * abs(placed).max()))
        records = {frame.titles[0]: placed[:, 0], frame.titles[1]: placed[:, 1]}
        records |= {"test image": range(count)} | ({"label": chosen} if chosen else {})
        caption = f"{count} test images of {data.title} by their posterior means, after {epochs}."
        figure_card.figure(drawn, "timeline.map", caption, records)
    with right:
        st.markdown(
            "**Activity of the units**", help="Var_x(E_q[h_u|x]); a unit above the dotted line, 0.01, is active."
        )
        variances = [layer.variance.tolist() for layer in now.activity]
        active = " + ".join(f"{int(layer.active.sum())} of {len(layer.mean)}" for layer in now.activity)
        caption = f"{active} units are active on {count} test images; filled above the threshold of {THRESHOLD:g}."
        numbers = [
            {"layer": layer, "unit": unit, "variance": value}
            for layer, values in enumerate(variances, 1)
            for unit, value in enumerate(values, 1)
        ]
        figure_card.figure(activity_bars(variances, THRESHOLD, kind), "timeline.units", caption, numbers)
    st.markdown("**Reconstructions** from the mean of q")
    rows = {"Test images": now.images, f"After {epochs}": now.pictures, "At the last": last.pictures}
    for title, row in rows.items():
        st.caption(title)
        image_rows.image_row(
            row.view(-1, *datasets.shape(dataset)).numpy(), None, [f"{title}: image {index}" for index in shown], 56
        )


def _choose(found: list[Snapshot]) -> Snapshot:
    names = [f"{snapshot.epochs:.4g}" for snapshot in found]
    if len(found) == 1:
        return found[0]
    if st.session_state.get("moment", names[-1]) not in names:
        del st.session_state["moment"]  # of another run
    name = st.select_slider(
        "Epochs", names, names[-1], key="moment", bind="query-params", help="Left and right keys move it."
    )
    return found[names.index(name)]


def _one_of_each(labels: list[int]) -> list[int]:
    """The first image of each of the first classes."""
    first = {label: labels.index(label) for label in sorted(set(labels))}
    return list(first.values())[:SHOWN]
