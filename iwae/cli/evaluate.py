"""``python -m iwae evaluate``."""

import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tyro.conf import Positional

from iwae import checkpoints, cli, comparison, datasets, evaluation, files


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained model on the test images of its data set.

    All measures come from the same draws h ~ q(h|x), in nats per image with their standard errors over images.

    Examples:
      python -m iwae evaluate checkpoints/mnist-1layer-iwae-k50.safetensors
      python -m iwae evaluate model.safetensors --samples 1000 --images 500 --json
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written
    samples: int = 5000  # draws from q(h|x) for each image
    images: int | None = None  # only so many test images, chosen at random by the seed; all without it
    seed: int = 0  # of the draws, and of the choice of images
    dataset: str | None = None  # measure it on another data set than its own, see `python -m iwae data list`
    device: cli.Device = "auto"  # where to compute; auto is the first there is of cuda, mps and cpu
    json: bool = False  # print one JSON object instead of a table
    save: bool = False  # also keep the result in the checkpoint's card, where the app finds it
    half: bool = False  # round the weights to float16 before; with --save they stay so, in half the bytes

    def run(self) -> int:
        device = cli.find_device(self.device)
        cli.check_seed(self.seed)
        cli.check_samples(self.samples)
        if not self.checkpoint.is_file():
            raise cli.UsageError(f"there is no file {self.checkpoint}")
        cli.check_output("--save", self.checkpoint if self.save else None)
        model, card = checkpoints.load(self.checkpoint, device)
        own = card.training.get("dataset")
        name = self.dataset or own
        cli.check_dataset(name)
        if self.save and name != own:
            raise cli.UsageError(f"--save keeps results on the model's own data set, {own}, not on {name}")
        x = self._images(name)
        if card.model.pixels != x.shape[1]:
            raise cli.UsageError(f"{self.checkpoint} is for images of {card.model.pixels} pixels, not {x.shape[1]}")
        x = x.to(model.device)
        if self.half:
            model, card = checkpoints.halved(model, card)
        with cli.image_bar() as progress:
            summary = evaluation.evaluate(model, x, samples=self.samples, seed=self.seed, progress=progress).summary()
        if self.json:
            print(json.dumps({"checkpoint": str(self.checkpoint), "dataset": name} | summary))
        else:
            print(f"{self.checkpoint}: {describe(card)}")
            print(table(summary, name, card.model.latent))
        if self.save:
            measured = replace(card, metrics=summary)
            files.deliver(self.checkpoint, lambda path: checkpoints.save(path, model, measured))
        return 0

    def _images(self, name: str) -> torch.Tensor:
        x = datasets.load(name, progress=sys.stderr.isatty()).binary("test")
        if self.images is None:
            return x
        if not 2 <= self.images <= len(x):
            raise cli.UsageError(f"--images must lie between 2 and {len(x)}, all of {name}, not {self.images}")
        return comparison.choose(x, self.images, self.seed)


def describe(card: checkpoints.Card) -> str:
    """What a model is, in one line: ``iwae, k = 50, 1layer, trained on digits``."""
    objective, k, dataset = (card.training.get(name, "unknown") for name in ("objective", "k", "dataset"))
    return f"{objective}, k = {k}, {card.model}, trained on {dataset}"


def table(summary: dict[str, Any], dataset: str, latent: tuple[int, ...]) -> str:
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
        rows.append((title, f"{summary[name]:10.3f} ± {summary[name + '_se']:.3f} nats"))
    rows.append(("effective sample size", f"{summary['ess']:10.1f} ± {summary['ess_se']:.1f} of {k:,} draws"))
    for name, title in (("active_units", "active units"), ("pca_active_units", "active directions (PCA)")):
        layers = [f"{active} of {units}" for active, units in zip(summary[name], latent, strict=True)]
        rows.append((title, " " * 10 + ", ".join(layers)))
    head = f"{summary['images']:,} test images of {dataset}, {k:,} draws each, seed {summary['seed']}"
    return "\n".join([f"{head}; mean ± s.e. over images", *(f"{title:34}{value}" for title, value in rows)])


def parse(words: list[str]) -> Evaluate:
    return cli.parse(Evaluate, words)
