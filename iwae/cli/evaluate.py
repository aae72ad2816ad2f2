"""``python -m iwae evaluate``."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tyro.conf import Positional

from iwae import checkpoints, cli, likelihoods
from iwae.data import datasets
from iwae.evaluation import metrics, surprise
from iwae.evaluation.activity import NOT_COUNTED
from iwae.evaluation.stats import plus_minus
from iwae.inference import annealed_nll
from iwae.model import Model, ModelConfig
from iwae.results import comparison
from iwae.system import files
from iwae.training.config import MAX_K


@dataclass(frozen=True)
class EvaluateCommand:
    """Measure a trained model on the test images of its data set.

    All measures come from the same draws h ~ q(h|x), in nats per image with their standard errors over images.

    Examples:
      python -m iwae evaluate checkpoints/mnist-1layer-iwae-k50.safetensors
      python -m iwae evaluate model.safetensors --samples 1000 --images 500 --json
      python -m iwae evaluate model.safetensors --samples 500 --images 2000 --quantiles --save
      python -m iwae evaluate model.safetensors --ais 500 --save
      IWAE_ADAPTERS=module:function python -m iwae evaluate adapter:NAME --dataset mnist-5k
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written, or adapter:NAME of IWAE_ADAPTERS
    samples: int = 5000  # draws from q(h|x) for each image
    images: int | None = None  # number of test images, chosen at random by the seed; by default all, 1,000 for --ais
    seed: int = 0  # of the draws, and of the choice of images
    dataset: str | None = None  # measure it on this data set instead of its own, see `python -m iwae data list`
    device: cli.Device = "auto"  # where to compute; auto is the first available of cuda, mps and cpu
    json: bool = False  # print one JSON object instead of a table
    save: bool = False  # also store the result in the checkpoint's card, which the app reads
    quantiles: bool = False  # measure only the quantiles of the NLL; with --save the card keeps its other measures
    ais: int | None = None  # the NLL by annealing in so many temperatures, with --save beside the card's other measures
    chains: int = annealed_nll.CHAINS  # for --ais: of each image
    simulated: int = annealed_nll.SIMULATED  # for --ais: images sampled from the model, on which its bias is bounded
    half: bool = False  # round the weights to float16 first; with --save they are stored so, in half the bytes

    def run(self) -> int:
        device = cli.find_device(self.device)
        self._check()
        loaded = cli.load(self.checkpoint, device)
        model, card = loaded.model, loaded.card
        own, name = card.training.get("dataset", ""), loaded.dataset(self.dataset)
        if self.save and name != own:
            raise cli.UsageError(f"--save keeps results on the model's own data set, {own}, not on {name}")
        if self._alone and self.save and not card.metrics:
            raise cli.UsageError(
                f"{self._alone} adds to the measures in a card, and this one has none: evaluate it with --save first"
            )
        data = datasets.load(name, progress=sys.stderr.isatty())
        trained = card.progress.get("data", {}).get("sha256")
        if name == own and trained not in (None, data.identity["sha256"]):
            print(f"note: the images of {name} here are not those that this model was trained on", file=sys.stderr)
        x = self._images(data, model.likelihood.binary)
        if self.quantiles and len(x) < surprise.FEWEST_IMAGES:
            raise cli.UsageError(f"--quantiles needs at least {surprise.FEWEST_IMAGES} images, not {len(x)}")
        kept = card.metrics
        if self.half:
            kept = kept if card.weights == "float16" else {}
            model, card = checkpoints.halved(model, card)
        summary = self._measure(model, x)
        if self.json:
            bits = None if self._alone else bits_per_pixel(summary, card.model)
            more = {"bits_per_pixel": bits} if bits else {}
            print(json.dumps({"checkpoint": str(self.checkpoint), "dataset": name} | summary | more))
        elif self.ais is not None:
            print(f"{self.checkpoint}: {describe(card)}")
            print(annealed_table(summary["ais"], name))
        elif found := surprise.from_card(summary) if self.quantiles else None:
            head = f"−L_{found.samples} of {found.images:,} test images of {name}, seed {found.seed}, nats"
            print(f"{self.checkpoint}: quantiles of {head}: {found.in_words()}")
        else:
            print(f"{self.checkpoint}: {describe(card)}")
            print(table(summary, name, card.model))
        if self.save:
            if not self._alone:
                kept = {name: value for name, value in kept.items() if name == "ais"}  # of the same weights
            measured = replace(card, metrics=kept | summary)
            files.write_or_rescue(self.checkpoint, lambda path: checkpoints.save(path, model, measured))
        return 0

    @property
    def _alone(self) -> str | None:
        """The option that asks for one measure instead of all."""
        return "--quantiles" if self.quantiles else "--ais" if self.ais is not None else None

    def _check(self) -> None:
        cli.check_seed(self.seed)
        cli.check_samples(self.samples)
        if self.quantiles and self.ais is not None:
            raise cli.UsageError("--quantiles and --ais each measure one thing alone; run them one after the other")
        if self._alone and self.half and self.save:
            raise cli.UsageError(f"--half would round the weights, and {self._alone} keep measures of those before")
        for option, value, default in (
            ("--chains", self.chains, annealed_nll.CHAINS),
            ("--simulated", self.simulated, annealed_nll.SIMULATED),
        ):
            if self.ais is None and value != default:
                raise cli.UsageError(f"{option} needs --ais")
        for option, value, least in (("--ais", self.ais, 2), ("--chains", self.chains, 2)):
            if value is not None and not least <= value <= MAX_K:
                raise cli.UsageError(f"{option} must lie between {least} and {MAX_K:,}, not {value}")
        if self.simulated != 0 and not 2 <= self.simulated <= MAX_K:
            raise cli.UsageError(f"--simulated must be 0 or lie between 2 and {MAX_K:,}, not {self.simulated}")
        cli.check_checkpoint(self.checkpoint, *["--save"] * self.save, *["--half"] * self.half)
        cli.check_output("--save", self.checkpoint if self.save else None)

    def _measure(self, model: Model, x: Tensor | datasets.DrawnImages) -> dict[str, Any]:
        """What a card keeps of it."""
        with cli.image_bar() as progress:
            given: dict[str, Any] = {"samples": self.samples, "seed": self.seed, "progress": progress}
            if self.ais is not None:
                path = {"temperatures": self.ais, "chains": self.chains, "simulated": self.simulated}
                return {"ais": annealed_nll.measure(model, x[:], **path, **given).summary()}
            if self.quantiles:
                nll = -metrics.log_evidence(model, x, **given)
                return {"quantiles": surprise.quantiles(nll, self.samples, self.seed)}
            return metrics.evaluate(model, x, **given).summary()

    def _images(self, data: datasets.Dataset, binary: bool) -> Tensor | datasets.DrawnImages:
        x = data.x("test", binary)
        if self.images is None:
            return x if self.ais is None else comparison.choose(x, annealed_nll.IMAGES, self.seed)
        if not 1 <= self.images <= len(x):
            raise cli.UsageError(f"--images must lie between 1 and {len(x)}, all of {data.name}, not {self.images}")
        return comparison.choose(x, self.images, self.seed)


def describe(card: checkpoints.Card) -> str:
    """What a model is, in one line: ``iwae, k = 50, 1layer, trained on digits``."""
    if not card.training:
        return f"{card.model}, trained elsewhere"
    objective, k, dataset = (card.training.get(name, "unknown") for name in ("objective", "k", "dataset"))
    return f"{objective}, k = {k}, {card.model}, trained on {dataset}"


def bits_per_pixel(summary: dict[str, Any], model: ModelConfig) -> float | None:
    """The NLL so, where the model's pixels are 8-bit grey levels; else None."""
    return likelihoods.find(model.likelihood).bits_per_pixel(summary["nll"], model.pixels)


def table(summary: dict[str, Any], dataset: str, model: ModelConfig) -> str:
    """evaluation.Metrics.summary() as text."""
    k, rows = summary["samples"], []
    for name, title in (
        ("nll", f"NLL, −L_{k}"),
        ("elbo", "ELBO, E[log w]"),
        ("reconstruction", "reconstruction loss, −log p(x|h)"),
        ("kl_prior", "KL(q(h|x) ‖ p(h))"),
        ("kl_posterior", "KL(q(h|x) ‖ p(h|x))"),
        ("pruned_nll", "NLL without the inactive units"),
    ):
        if summary[name] is not None:
            rows.append((title, f"{plus_minus(summary[name], summary[name + '_se'], 3)} nats"))
    if per_pixel := bits_per_pixel(summary, model):
        rows.insert(1, ("the same NLL", f"{per_pixel:.4f} bits per pixel"))
    rows.append(("effective sample size", f"{plus_minus(summary['ess'], summary['ess_se'], 1)} of {k:,} draws"))
    for name, title in (("active_units", "active units"), ("pca_active_units", "active directions (PCA)")):
        layers = [f"{active} of {units}" for active, units in zip(summary[name] or (), model.latent, strict=False)]
        rows.append((title, ", ".join(layers or [NOT_COUNTED])))
    return _lines(summary, dataset, f"{k:,} draws", rows)


def annealed_table(summary: dict[str, Any], dataset: str) -> str:
    """inference.annealed_nll.AnnealedNLL.summary() as text."""
    k, rows = summary["samples"], []
    for name, title in (
        ("nll", "NLL by AIS, −log p̂(x)"),
        ("nll_draws", f"NLL, −L_{k}"),
        ("missed", f"what L_{k} misses"),
        ("elbo", "ELBO, E[log w]"),
        ("kl_posterior", "KL(q(h|x) ‖ p(h|x)), by AIS"),
    ):
        rows.append((title, f"{plus_minus(summary[name], summary[name + '_se'], 3)} nats"))
    rows.insert(1, ("of its error, that of the chains", f"{summary['nll_mc_se']:.3f} nats"))
    if summary["simulated"]:
        gap = f"{plus_minus(summary['gap'], summary['gap_se'], 3)} nats, {summary['simulated']} images sampled from it"
        rows.append(("gap to the upper bound (BDMC)", gap))
    rows.append(("scatter of the log-weights", f"{summary['scatter']:.2f} nats"))
    rows.append(("accepted", f"{summary['acceptance']:.0%}"))
    of = f"{summary['chains']} chains of {summary['temperatures']:,} temperatures and {k:,} draws"
    return _lines(summary, dataset, of, rows)


def _lines(summary: dict[str, Any], dataset: str, of: str, rows: list[tuple[str, str]]) -> str:
    """A table below a line that says what it is of."""
    images = f"{summary['images']:,} test images" if summary["images"] > 1 else "1 test image"
    head = f"{images} of {dataset}, {of} each, seed {summary['seed']}"
    head += "; mean ± s.e. over images" if summary["images"] > 1 else "; of one image there is no standard error"
    return "\n".join([head, *(f"{title:34}{value}" for title, value in rows)])


def parse(words: list[str]) -> EvaluateCommand:
    return cli.parse(EvaluateCommand, words)
