"""A checkpoint's card as a Hugging Face model card: YAML between two lines of dashes, then Markdown for people.

The README.md of a model repository there is such a text; see https://huggingface.co/docs/hub/model-cards.
"""

import json
from collections.abc import Iterator
from typing import Any

from iwae import likelihoods
from iwae.bounds import OBJECTIVES
from iwae.checkpoints import Card
from iwae.data import datasets, own
from iwae.evaluation import surprise
from iwae.evaluation.activity import NOT_COUNTED
from iwae.evaluation.stats import plus_minus
from iwae.model import ModelConfig
from iwae.training import commands
from iwae.training.config import TrainConfig
from iwae.training.wake_sleep import Refit

HUB_DATASETS = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}  # others are not there
TASK = "unconditional-image-generation"

# name in evaluation.Metrics.summary(), title, definition; {S} is the number of draws
MEASURES = (
    ("nll", "NLL", "−L_S = −log (1/S) Σ wᵢ, S = {S}; in expectation not below the exact −log p(x)"),
    ("elbo", "ELBO", "mean of log wᵢ over the same draws"),
    (
        "reconstruction",
        "reconstruction loss",
        "−log p(x\\|h₁) of one draw; with more layers h₁ is drawn down from the top layer's",
    ),
    ("kl_prior", "D_KL(q(h\\|x) ‖ p(h))", "mean of log q(h\\|x) − log p(h) over the same draws"),
    ("kl_posterior", "D_KL(q(h\\|x) ‖ p(h\\|x))", "L_S − ELBO; too small where q misses a part of the posterior"),
    ("pruned_nll", "pruned NLL", "NLL of the model without its inactive units"),
    ("ess", "effective sample size", "(Σw)²/Σw², of S = {S} draws; no nats"),
)
UNITS = (
    ("active_units", "active units", "units with Var_x(E_q[h_u\\|x]) > {threshold}"),
    ("pca_active_units", "PCA active units", "eigenvalues of Cov_x(E_q[h\\|x]) above {threshold}"),
)


def text(card: Card, name: str, file: str, address: str | None = None) -> str:
    """The model card of a checkpoint called ``name`` that lies in ``file`` beside it, and on the Hub at ``address``.

    Raises ValueError for a card that no training run wrote.
    """
    config = TrainConfig.from_dict(card.training)
    binary = likelihoods.find(card.model.likelihood).binary
    history = card.progress.get("history", [])
    configs = [*(TrainConfig.from_dict(part["training"]) for part in history), config]
    files = [*(later.start for later in configs[1:]), file]
    made = []
    for part, settings, place in zip(card.parts, configs, files, strict=True):
        made += [commands.train(settings), *(commands.refit(place, refit) for refit in Refit.from_progress(part))]
    parts = [
        f"---\n{_yaml(_front(card, config, name))}\n---",
        f"# {name}\n\n{_summary(card, config)}",
        "## Training\n\n" + _training(card, config, made),
        "## Measures\n\n" + _measures(card.metrics, card.model),
        "## Use\n\n" + _use(file, card.model.pixels, binary, address),
        "## Limits\n\n" + LIMITS.format(data=_data_title(card, config), pixels=PIXELS[binary]),
    ]
    return "\n\n".join(parts) + "\n"


def _identity(card: Card) -> dict[str, Any]:
    """What it says of the data that it was trained on (``Dataset.identity``)."""
    data = card.progress.get("data")
    return data if isinstance(data, dict) else {}


def _data_title(card: Card, config: TrainConfig) -> str:
    """The title of the data set, which need not be here."""
    if own.is_full_name(config.dataset):
        return own.title(config.dataset, _identity(card).get("stochastic", True))
    return datasets.title(config.dataset)


def _front(card: Card, config: TrainConfig, name: str) -> dict[str, Any]:
    """The metadata, as the Hub expects them."""
    tags = ["variational-autoencoder", "latent-variable-model", "density-estimation", "pytorch", "image-generation"]
    if config.kind == "iwae":
        tags.insert(1, "importance-weighted-autoencoder")
    front = {"license": "mit", "library_name": "iwae", "pipeline_tag": TASK, "tags": tags}
    hub = HUB_DATASETS.get(config.dataset)
    if hub:
        front["datasets"] = [hub]
    results = list(_results(card.metrics))
    if results:
        front["metrics"] = [result["type"] for result in results]
        task = {"type": TASK, "name": "Density estimation"}
        data = {"type": hub or config.dataset, "name": _data_title(card, config), "split": "test"}
        front["model-index"] = [{"name": name, "results": [{"task": task, "dataset": data, "metrics": results}]}]
    return front


def _results(metrics: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, title, _ in MEASURES:
        if metrics.get(name) is None:
            continue
        how = {key: metrics[key] for key in ("images", "samples", "seed")}
        if metrics[f"{name}_se"] is not None:
            how = {"standard_error": round(metrics[f"{name}_se"], 4)} | how
        unit = "" if name == "ess" else ", nats per image"
        title = title.replace("\\", "")
        yield {"type": name, "name": f"{title}{unit}", "value": round(metrics[name], 4), "args": how}
    for name, title, _ in UNITS:
        for layer, units in enumerate(metrics.get(name) or (), 1):
            yield {"type": f"{name}_{layer}", "name": f"{title}, stochastic layer {layer}", "value": units}


def _summary(card: Card, config: TrainConfig) -> str:
    bound, data, layers = config.bound().title, _data_title(card, config), len(card.model.latent)
    what = OBJECTIVES[config.objective].summary
    likelihood = likelihoods.find(card.model.likelihood)
    values = "0 or 1" if likelihood.binary else "grey levels in [0, 1]"
    sizes = enumerate(zip(card.model.hidden, card.model.latent, strict=True), 1)
    maps = [
        f"{channels}×{rows}×{columns} {card.model.activation} (3×3 convolution, stride 2)"
        for channels, rows, columns in card.model.feature_maps[1:]
    ]
    path = maps + [
        " → ".join([*(f"{n} {card.model.activation}" for n in hidden), f"h{layer} ({units}, Gaussian)"])
        for layer, (hidden, units) in sizes
    ]
    return (
        f"A variational autoencoder with {layers} stochastic layer{'s' * (layers > 1)}, trained by {bound} with "
        f"k = {config.k} draws on {data}.\n\n"
        f"- Objective: {what}\n"
        f"- Encoder: x ({card.model.pixels} pixels, {values}) → {' → '.join(path)}.\n"
        f"- Decoder: the same backwards, ending in {card.model.pixels} {likelihood.title}."
    )


def _training(card: Card, config: TrainConfig, commands: list[str]) -> str:
    done = card.progress
    title = _data_title(card, config)
    if own.is_full_name(config.dataset):
        title, licence = f"{title} (`{config.dataset}`)", own.LICENCE
        match _identity(card).get("train"):
            case [int(count), int()]:
                title += f", {count:,} training images"
    else:
        source = datasets.source(config.dataset)
        title, licence = f"{title}, {source.sizes[0]:,} training images", source.licence
    rows = [("data", title), ("licence of the data", licence)]
    if digest := _identity(card).get("sha256"):
        rows.append(("SHA-256 of its images", f"`{digest}`"))
    rows.append(("seed", f"{config.seed}"))
    if done.get("epochs") is not None:
        rows.append(("epochs", f"{done['epochs']:g} ({done['steps']:,} steps of {config.batch_size})"))
    if done.get("seconds") is not None:
        rows.append(("minutes", f"{done['seconds'] / 60:.0f}, on {done['device']}"))
    if images := sum(refit.images for refit in Refit.from_progress(done)):
        rows.append(("encoder refitted", f"on {images:,} images generated by the model (sleep phase)"))
    if done.get("precision", config.precision) != config.precision:
        rows.append(("matmul precision", f"{done['precision']}: its processor had no use for {config.precision}"))
    if card.weights != "float32":
        rows.append(("weights", f"trained in float32, then rounded to {card.weights}, as which they were measured"))
    if done.get("valid_bound") is not None:
        rows.append(("bound on validation images", f"{done['valid_bound']:.2f} nats per image, of its own objective"))
    more = "" if len(commands) == 1 else "One after the other, each from the weights of the one before:\n\n"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    shell = "\n".join(commands)
    return f"{more}```sh\n{shell}\n```\n\n| | |\n|---|---|\n{table}"


def _measures(metrics: dict[str, Any], model: ModelConfig) -> str:
    if not metrics:
        return "Not evaluated yet."
    rows = []
    for name, title, definition in MEASURES:
        if metrics.get(name) is not None:
            value = plus_minus(metrics[name], metrics[f"{name}_se"])
            rows.append((title, value, definition.format(S=f"{metrics['samples']:,}")))
    if bits := likelihoods.find(model.likelihood).bits_per_pixel(metrics["nll"], model.pixels):
        rows.insert(1, ("NLL in bits per pixel", f"{bits:.4f}", "NLL / (pixels · log 2)"))
    for name, title, definition in UNITS:
        layers = [f"{active} of {units}" for active, units in zip(metrics[name] or (), model.latent, strict=False)]
        rows.append((title, " + ".join(layers) or NOT_COUNTED, definition.format(threshold=metrics["threshold"])))
    if quantiles := surprise.from_card(metrics):
        of = f"of −L_S over {quantiles.images:,} test images, S = {quantiles.samples:,}, seed {quantiles.seed}"
        rows.append(("quantiles of the NLL", quantiles.in_words(), of))
    if annealed := metrics.get("ais"):
        rows += _annealed(annealed)
    table = "\n".join(f"| {title} | {value} | {definition} |" for title, value, definition in rows)
    return (
        f"On {metrics['images']:,} test images with S = {metrics['samples']:,} draws h ~ q(h|x) each (seed "
        f"{metrics['seed']}), in nats per image; wᵢ = p(x, h)/q(h|x), ± is the standard error over images.\n\n"
        f"| measure | value | definition |\n|---|---|---|\n{table}"
    )


def _annealed(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """The rows of the NLL by annealing."""
    of = f"{found['chains']} chains from q of {found['temperatures']:,} temperatures, {found['images']:,} test images"
    rows = [
        ("nll", "NLL by AIS", f"−log p̂(x) by annealed importance sampling, {of}, seed {found['seed']}"),
        ("nll_draws", "NLL on these images", f"−L_S, S = {found['samples']:,}"),
        ("missed", "what L_S misses", "log p̂(x) − L_S, of the same images"),
        ("kl_posterior", "D_KL(q(h\\|x) ‖ p(h\\|x)) by AIS", "log p̂(x) − ELBO, of the same images"),
        ("gap", "gap (BDMC)", f"upper − lower bound on log p(x), {found['simulated']:,} images sampled from the model"),
    ]
    told = [(title, found[name], found[f"{name}_se"], definition) for name, title, definition in rows]
    return [(title, plus_minus(value, se), how) for title, value, se, how in told if value is not None]


def _use(file: str, pixels: int, binary: bool, address: str | None) -> str:
    load = LOAD_FROM_HUB.format(address=address) if address else LOAD.format(file=file)
    return f"""With the `iwae` package on the path:

```python
{load}
x = torch.zeros(1, {pixels})  # images of {"zeros and ones" if binary else "grey levels in [0, 1]"}
mean, log_std = model.encoder[0](x)  # q(h1|x)
pixels = model.decode(mean)  # {"probabilities" if binary else "means"}
log_w = model.sample(x, k=50, generator=torch.Generator().manual_seed(0)).log_w  # nats
```

`python -m iwae export {file} --out FOLDER` gives its encoder and decoder as ONNX or torch.export files."""


LOAD = """from pathlib import Path

import torch

from iwae import checkpoints

model, card = checkpoints.load(Path("{file}"))"""
LOAD_FROM_HUB = """import iwae
import torch

model, card = iwae.load("{address}")"""
PIXELS = {  # by whether they are binary
    True: "Pixels are zeros and ones; NLLs of grey images, or of another binarization, cannot be compared with these.",
    False: "Pixels are grey levels; NLLs of binary images, or of another likelihood, cannot be compared with these.",
}
LIMITS = """- A model for research and teaching. It knows {data} and nothing else; other images get poor codes.
- {pixels}
- The NLL is an estimate from draws of q(h|x), and in expectation an upper bound: the exact value is lower, the more so
  the larger D_KL(q(h|x) ‖ p(h|x)) is."""


def _yaml(value: Any, margin: str = "") -> str:
    """Dicts and lists in block style, other values as JSON writes them, which YAML reads alike."""
    if isinstance(value, dict):
        return "\n".join(f"{margin}{key}:{_below(entry, margin)}" for key, entry in value.items())
    if isinstance(value, list):
        return "\n".join(f"{margin}- {_yaml(entry, margin + '  ').lstrip()}" for entry in value)
    return json.dumps(value, ensure_ascii=False)


def _below(value: Any, margin: str) -> str:
    return f"\n{_yaml(value, margin + '  ')}" if isinstance(value, dict | list) else f" {_yaml(value)}"
