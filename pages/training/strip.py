"""What the running models can do by now: pictures of each run's newest snapshot, which follow the training."""

from pathlib import Path

import numpy as np
import streamlit as st
import torch
from torch import Tensor

from iwae import checkpoints, likelihoods
from iwae.analysis import costs, generation, timeline
from iwae.analysis.costs import CostError
from iwae.evaluation.activity import active_units
from iwae.kernels.finite import NonFiniteError
from iwae.runs import store, summary
from iwae.runs.store import Run, RunError
from iwae.runs.summary import Snapshot
from pages.common import image_rows, reading
from pages.common.figure_card import escape_markdown
from pages.common.input.digit import ChosenDigit, test_image
from pages.common.server import cache
from pages.common.server.polling import poll

POLL_SECONDS = 3.0
RUNS, SAMPLES, MOMENTS = 2, 8, 8  # shown at most
WIDTH = 56


def growing(digit: ChosenDigit) -> None:
    """For each running run: the digit as it was decoded again and again, samples, and active units, live."""
    alive = any(run.status().alive for run in store.list_runs())
    poll(lambda: _strips(digit), lambda: False, POLL_SECONDS if alive else None)


def _strips(digit: ChosenDigit) -> None:
    running = [run for run in store.list_runs() if run.status().phase in ("running", "evaluating")][:RUNS]
    if running:
        st.subheader("While they train", anchor=False)
    for run in running:
        _strip(run, digit)


def _strip(run: Run, digit: ChosenDigit) -> None:
    try:
        config = run.config.model_config
        shown = digit if digit.shape == config.shape else test_image(run.config.dataset, 0)
        x = shown.as_input(likelihoods.find(config.likelihood).binary).x
        title, dataset = f"{run.config.bound().title} k = {run.config.k}", run.config.dataset
        found = summary.snapshots(run)[0]
        if not found:
            st.caption(f"{title}: no snapshot yet.")
            return
        chosen = [found[i] for i in sorted({*np.linspace(0, len(found) - 1, MOMENTS).round().astype(int).tolist()})]
        moments = [_moment(one, dataset, x) for one in chosen]
    except (RunError, ValueError, CostError, NonFiniteError, OSError) as error:  # deleted, or damaged
        st.caption(escape_markdown(error))
        return
    _, samples, active = moments[-1]
    epochs = [f"{one.epochs:.4g}" for one in chosen]
    st.markdown(f"**{title}** after {reading.epochs(chosen[-1].epochs)}: **{active}** active units")
    left, right = st.columns(2)
    with left:
        what = "The digit in hand" if shown is digit else "Test image 0, as the digit in hand has other pixels"
        st.caption(f"{what}, from the mean of q, after so many epochs")
        pictures = [picture.reshape(config.shape) for picture in (x.numpy(), *(moment[0] for moment in moments))]
        image_rows.image_row(
            pictures, ["input", *epochs], ["input", *(f"after {reading.epochs(one.epochs)}" for one in chosen)], WIDTH
        )
    with right:
        st.caption("Samples from the prior, the same codes each time")
        image_rows.image_row(
            samples.reshape(-1, *config.shape), None, [f"sample {i}" for i in range(1, SAMPLES + 1)], WIDTH
        )


def _moment(snapshot: Snapshot, dataset: str, x: Tensor) -> tuple[np.ndarray, np.ndarray, str]:
    config = checkpoints.read_card(snapshot.path).model
    costs.check(config, costs.units(config, timeline.IMAGES), "pictures while it trains")
    return _pictured(snapshot.path, snapshot.path.stat().st_mtime_ns, dataset, x.float().numpy().tobytes())


@st.cache_resource(max_entries=100, show_spinner=False)
def _pictured(path: Path, written: int, dataset: str, pixels: bytes) -> tuple[np.ndarray, np.ndarray, str]:
    """(reconstruction [pixels] from the mean of q, samples [SAMPLES, pixels], active units of each layer)."""
    model = checkpoints.load(path)[0]
    x = torch.frombuffer(bytearray(pixels), dtype=torch.float32)[None]
    with torch.no_grad():
        picture = model.decode(model.encode_first(model.check_images(x))[0])[0].numpy()
    layers = active_units(model, cache.test_images(dataset, model.likelihood.binary)[: timeline.IMAGES])
    active = " + ".join(f"{int(layer.active.sum())} of {len(layer.mean)}" for layer in layers)
    return picture, generation.sample_images(model, SAMPLES).numpy(), active
