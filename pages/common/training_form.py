"""The sidebar's form that starts a training run. It runs what was typed or nothing."""

import math
from typing import Any

import streamlit as st

from iwae.bounds import OBJECTIVES
from iwae.data import datasets
from iwae.gradients import GRADIENTS
from iwae.runs import store, tensorboard
from iwae.runs.store import Run
from iwae.training.config import MAX_EPOCHS, MAX_K, MAX_SEED, TrainConfig
from pages.common.figure_card import escape_markdown
from pages.common.number_field import number

LAYERS = {"1layer": "1 layer (50 units)", "2layer": "2 layers (100 + 50 units)", "2d": "1 layer, 2 units: a plane"}
AUTOMATIC = "automatic"  # the gradient that suits the objective
EPOCHS_AT_MOST = 10_000  # of a run that ends after some minutes


def form() -> Run | None:
    """The form; the run that it has just started, if any."""
    here = [name for name in datasets.NAMES if datasets.available(name)]
    dataset = st.selectbox("Training data", here, key="train.dataset")
    objective = st.selectbox(
        "Objective",
        list(OBJECTIVES),
        list(OBJECTIVES).index("iwae"),
        format_func=lambda name: OBJECTIVES[name].title,
        key="train.objective",
    )
    row = OBJECTIVES[objective]
    settings: dict[str, Any] = {
        name: number(p.label, p.low, p.high, p.default, whole=p.whole, key=f"train.{objective}.{name}", help=p.help)
        for name, p in row.parameters.items()
    }
    if row.factors:
        factors = [settings[name] for name in row.factors]
        k = None if None in factors else math.prod(factors)
        product = "·".join(row.parameters[name].symbol for name in row.factors)
        st.caption(f"k = {product}{'' if k is None else f' = {k:,}'} samples per image")
    else:
        usual = 20 if row.k_matters else 1
        k = number("Samples per image k", 1, MAX_K, usual, whole=True, key=f"train.k.{objective}")
    model = st.selectbox("Layers", list(LAYERS), format_func=LAYERS.get, key="train.model")
    length = st.segmented_control("Length in", ["epochs", "minutes"], default="epochs", required=True, key="train.unit")
    if length == "epochs":
        settings["epochs"] = number("Epochs", 1, MAX_EPOCHS, 30, whole=True, key="train.epochs")
    else:
        settings["minutes"] = number("Minutes", 0.1, 10_000, 1, key="train.minutes")
        settings |= {"epochs": EPOCHS_AT_MOST, "schedule": "constant"}
    settings["kl_warmup"] = number(
        "KL warm-up, epochs", 0, settings["epochs"] or MAX_EPOCHS, 0, whole=True, key="train.kl_warmup",
        help="The weight of the KL term rises linearly from 0 over so many epochs, so that the encoder is not pulled "
        "towards the prior before it has learnt anything.",
    )  # fmt: skip
    settings["learning_rate"] = number("Learning rate", 1e-6, 1, 2e-3, key="train.rate")
    unbiased = " and ".join(escape_markdown(each.title) for each in OBJECTIVES.values() if not each.k_matters)
    gradient = st.selectbox(
        "Gradient",
        [AUTOMATIC, *(name for name, row in GRADIENTS.items() if not row.parameters)],
        format_func=lambda name: GRADIENTS[name].title if name in GRADIENTS else name,
        key="train.gradient",
        help="How the encoder's gradient is estimated. The exact and the doubly reparameterized one are unbiased. "
        f"Sticking the landing is biased for k > 1, except for {unbiased}: it is not the gradient of the bound.",
    )
    settings["seed"] = number("Seed", 0, MAX_SEED, 0, whole=True, key="train.seed")
    log = store.runs_dir() / "tensorboard"  # no run: it holds no config.json
    logs = tensorboard.available() and st.checkbox(
        "Log for TensorBoard", key="train.tensorboard", help=f"To see it: `tensorboard --logdir {log}`"
    )
    if not st.button("Start training", icon=":material/play_arrow:", width="stretch"):
        return None
    numbers = {"k": k, **settings}
    if None in numbers.values():
        st.error("Nothing was started: one of the fields above has an invalid value.")
        return None
    if gradient != AUTOMATIC:
        numbers["gradient"] = gradient
    try:
        config = TrainConfig(dataset, model, objective, batch_size=50, **numbers)
        return store.start(config, log=log if logs else None)
    except (ValueError, OSError) as error:
        st.error(escape_markdown(error))
        return None
