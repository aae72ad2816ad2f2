"""A VAE and an IWAE trained alike, to be compared: both start at one click and open as A and B at another."""

from dataclasses import replace

import streamlit as st

from iwae import catalog
from iwae.evaluation import stats
from iwae.runs import estimate, queue, store
from iwae.runs.store import Run, RunError
from iwae.training.config import TrainConfig
from pages.common.figure_card import escape_markdown
from pages.common.models.model_picker import pick
from pages.frame.links import reveal

MINUTES = 2.0  # in all, without the tests
OBJECTIVES = {"vae": 1, "iwae": 20}  # and their k
FEWEST_EPOCHS, MOST_EPOCHS = 5, 100  # fewer show nothing, and more only overfit mnist-5k
RUNNING = "running"  # the sidebar's container of the runs
_PAIR = "pair in training"  # in the session: names of the runs, A and B


def configs() -> dict[str, TrainConfig]:
    """Both trainings: the same data, layers, seed and epochs, of which there are as many as fit on this machine."""
    alike = {name: TrainConfig(objective=name, k=k, epochs=1, batch_size=50) for name, k in OBJECTIVES.items()}
    epoch = [estimate.seconds(config, estimate.speed(config)) for config in alike.values()]
    seconds = max(epoch) if queue.max_running() > 1 else sum(epoch)  # beside each other, or in turn
    epochs = min(max(round(60 * MINUTES / seconds), FEWEST_EPOCHS), MOST_EPOCHS)
    return {name: replace(config, epochs=epochs) for name, config in alike.items()}


def side_by_side(suffix: str = "") -> None:
    """The button that starts both; ``suffix`` distinguishes its key in several places."""
    started = st.button(
        f"VAE and IWAE side by side, about {MINUTES:g} minutes",
        icon=":material/compare_arrows:",
        key=f"train.pair{suffix}",
        width="stretch" if not suffix else "content",
        help="Trains both on mnist-5k with the same layers, seed and epochs, beside each other where there are cores "
        "for it and otherwise in turn; then opens them as A and B at a click. How many epochs fit is measured first.",
    )
    if not started:
        return
    try:
        runs = [store.start(config) for config in configs().values()]
    except (ValueError, OSError) as error:
        st.error(escape_markdown(error))
        return
    st.session_state[_PAIR] = [run.name for run in runs]
    reveal(RUNNING)
    st.rerun()


def offer_pair() -> None:
    """How far the pair is that this visitor has started, and the button that opens both."""
    try:
        runs = [store.get(name) for name in st.session_state.get(_PAIR, [])]
    except RunError:  # deleted
        runs = []
    if not runs:
        st.session_state.pop(_PAIR, None)
        return
    phases = {run.status().phase for run in runs}
    if phases == {"finished"}:
        if st.button("Open your VAE and IWAE as A and B", type="primary", key="pair.open", width="stretch"):
            pick(**{slot: f"run:{run.name}" for slot, run in zip("ab", runs, strict=True)})
            del st.session_state[_PAIR]
            st.rerun()
    elif any(run.status().alive for run in runs):
        left = [run.progress()[1] for run in runs if run.status().phase == "running"]
        known = [seconds for seconds in left if seconds is not None]
        more = f", {stats.duration(max(known))} of this part left" if known else ""
        st.caption(f"Your VAE and IWAE are in training{more}. You can open them here as soon as both are finished.")


def compare(run: Run) -> None:
    """Choose a run's model as B, or as A if it is a VAE, and beside it the newest one that differs in its objective
    alone, if there is one."""
    mine, other = ("a", "b") if run.config.kind == "vae" else ("b", "a")
    pair = {mine: f"run:{run.name}"}
    if partners := _partners(run):
        pair[other] = partners[0]
    pick(**pair)


def _partners(run: Run) -> list[str]:
    """Keys of models of the other kind on the same data with the same layers, runs before shipped ones."""
    found = catalog.entries()[0]
    alike = [
        key
        for key, entry in found.items()
        if entry.kind != run.config.kind
        and entry.dataset == run.config.dataset
        and entry.config.model == run.config.model
    ]
    return sorted(alike, key=lambda key: not key.startswith("run:"))
