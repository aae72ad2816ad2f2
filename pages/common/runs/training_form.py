"""The sidebar's form that starts a training run. It runs what was typed or nothing."""

import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import streamlit as st

from iwae.bounds import OBJECTIVES
from iwae.data import datasets
from iwae.evaluation import stats
from iwae.gradients import GRADIENTS
from iwae.kernels.layers import ACTIVATIONS
from iwae.likelihoods import LIKELIHOODS
from iwae.model import ModelConfig
from iwae.runs import estimate, store
from iwae.runs.loggers import LOGGERS
from iwae.runs.store import Run
from iwae.training import memory
from iwae.training.config import MAX_EPOCHS, MAX_K, MAX_SEED, TrainConfig
from pages.common.data.add_images import add_images_button, picked
from pages.common.figure_card import escape_markdown
from pages.common.number_field import number

LAYERS = {
    "1layer": "1 layer (50 units)",
    "2layer": "2 layers (100 + 50 units)",
    "2d": "1 layer, 2 units: a plane",
    "conv": "1 layer (50 units), convolutional",
}
AUTOMATIC = "automatic"  # the gradient that suits the objective
EPOCHS_AT_MOST = 10_000  # of a run that ends after some minutes


def form(estimates: bool) -> Run | None:
    """The form; the run that it has just started, if any. ``estimates``: say what the run will need."""
    here = [name for name in datasets.names() if datasets.available(name)]
    if (added := picked("train.dataset")) in here:
        st.session_state["train.dataset"] = added
    dataset = st.selectbox(
        "Training data", here, key="train.dataset", format_func=datasets.label,
        help="The images that the model learns. mnist-5k has 4,000 to train on, enough for digits that can be read; "
        "mnist has 59,000 and takes about 15 times as long.",
    )  # fmt: skip
    add_images_button("train.add")
    objective = st.selectbox(
        "Objective",
        list(OBJECTIVES),
        list(OBJECTIVES).index("iwae"),
        format_func=lambda name: OBJECTIVES[name].title,
        key="train.objective",
        help="The lower bound on log p(x) that training raises. VAE: the ELBO, where every sample counts alike. IWAE: "
        "tighter, where the best of k samples count most.",
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
        k = number(
            "Samples per image k", 1, MAX_K, usual, whole=True, key=f"train.k.{objective}",
            help="Codes h drawn from q(h|x) for each image in a step. With more of them an IWAE's bound is tighter and "
            "each step slower.",
        )  # fmt: skip
    layers = st.selectbox(
        "Layers", list(LAYERS), format_func=LAYERS.get, key="train.model",
        help="Stochastic layers, and the latent units of each. A plane can be looked at as it is, but is too small to "
        "describe digits well. Convolutions take several times as long as the same layers without.",
    )  # fmt: skip
    grey = datasets.is_stochastic(dataset)  # and not binarized by its authors
    likelihood = st.selectbox(
        "Pixels", [name for name, row in LIKELIHOODS.items() if row.binary or grey], key="train.likelihood",
        format_func=lambda name: LIKELIHOODS[name].label, help="What the decoder gives a probability to, p(x|h): zeros "
        "and ones, drawn from the grey levels in every epoch, or the grey levels themselves. NLLs of the two cannot "
        "be compared.",
    )  # fmt: skip
    activation = st.selectbox("Activation", list(ACTIVATIONS), key="train.activation", help="Of the hidden units.")
    model = str(replace(ModelConfig.parse(layers), likelihood=likelihood, activation=activation))
    length = st.segmented_control(
        "Length in", ["epochs", "minutes"], default="epochs", required=True, key="train.unit",
        help="An epoch goes once through all training images. In minutes, the learning rate stays as it is.",
    )  # fmt: skip
    if length == "epochs":
        settings["epochs"] = number(
            "Epochs", 1, MAX_EPOCHS, 30, whole=True, key="train.epochs",
            help="Times that each training image is seen. 30 give digits that can be read; shipped models have 200.",
        )  # fmt: skip
    else:
        settings["minutes"] = number(
            "Minutes", 0.1, 10_000, 1, key="train.minutes", help="Of training; the test at the end comes on top."
        )
        settings |= {"epochs": EPOCHS_AT_MOST, "schedule": "constant"}
    settings["kl_warmup"] = number(
        "KL warm-up, epochs", 0, settings["epochs"] or MAX_EPOCHS, 0, whole=True, key="train.kl_warmup",
        help="The weight of the KL term rises linearly from 0 over so many epochs, so that the encoder is not pulled "
        "towards the prior before it has learnt anything.",
    )  # fmt: skip
    settings["learning_rate"] = number(
        "Learning rate", 1e-6, 1, 2e-3, key="train.rate",
        help="How far Adam moves the weights in a step. Ten times more often diverges, ten times less is slow.",
    )  # fmt: skip
    unbiased = " and ".join(escape_markdown(each.title) for each in OBJECTIVES.values() if not each.k_matters)
    gradient = st.selectbox(
        "Gradient",
        [AUTOMATIC, *(name for name, row in GRADIENTS.items() if not row.parameters)],
        format_func=lambda name: GRADIENTS[name].title if name in GRADIENTS else name,
        key="train.gradient",
        help="How the encoder's gradient is estimated. The exact and the doubly reparameterized one are unbiased. "
        f"Sticking the landing is biased for k > 1, except for {unbiased}: it is not the gradient of the bound.",
    )
    settings["seed"] = number(
        "Seed", 0, MAX_SEED, 0, whole=True, key="train.seed",
        help="Of the weights, the order of the images and the draws. The same seed gives the same model.",
    )  # fmt: skip
    log_for = []
    if kinds := [kind for kind, logger in LOGGERS.items() if logger.available()]:
        log_for = st.pills(
            "Log for", kinds, selection_mode="multi", key="train.log", format_func=lambda kind: LOGGERS[kind].title,
            help="Also write the run's records for other programs, on this disk only. To see them: "
            + ", ".join(f"`{LOGGERS[kind].view.format(folder=store.logs_dir())}`" for kind in kinds),
        )  # fmt: skip
    numbers = {"k": k, **settings}
    if gradient != AUTOMATIC:
        numbers["gradient"] = gradient
    if estimates and None not in numbers.values():
        with suppress(ValueError):  # said once it is to start
            st.caption(needs(TrainConfig(dataset, model, objective, batch_size=50, **numbers)))
    if not st.button("Start training", icon=":material/play_arrow:", width="stretch"):
        return None
    if None in numbers.values():
        st.error("Nothing was started: one of the fields above has an invalid value.")
        return None
    try:
        config = TrainConfig(dataset, model, objective, batch_size=50, **numbers)
        return store.start(config, logs=store.logs_for(log_for))
    except (ValueError, OSError) as error:
        st.error(escape_markdown(error))
        return None


def needs(config: TrainConfig) -> str:
    """``About 56 s and 0.1 GB on this machine``, and how that is known."""
    size = f"{sum(memory.needed(config)) / 1e9:.2g} GB of memory"
    found = estimate.speed(config)
    if found is None:
        return f"About {size}. The time is not known beforehand: with so many samples even a trial would take long."
    seconds, images = estimate.seconds(config, found), datasets.source(config.dataset).sizes[0]
    epochs = f", about {seconds * found.images / images:,.3g} epochs" if config.minutes else ""
    return (
        f"About {stats.duration(seconds)} on this machine{epochs}, then some seconds for the test; {size}. "
        f"{found.images:,.0f} images a second: {found.basis}."
    )
