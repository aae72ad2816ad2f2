"""Do active directions tell the true latent dimension? python -m benchmarks.dimension [FILE.csv]

MNIST's own dimension is not known. So the images here are drawn from the decoder of a shipped VAE in which all latent
units but its 2 or 5 most active ones are held at 0: images of that many dimensions. A VAE and an IWAE with 50 units
learn them, and their active units and PCA active directions are counted on test images. Nothing is downloaded. A line
is written, or printed, after each training.
"""

import csv
import os
import sys
import tempfile
from dataclasses import asdict, fields
from pathlib import Path

import torch

from iwae import TrainConfig, Training, checkpoints
from iwae.catalog import SHIPPED
from iwae.data import datasets
from iwae.data.datasets import Dataset
from iwae.evaluation import metrics
from iwae.evaluation.activity import active_units
from iwae.results.measured import KnownDimension
from iwae.system import paths

GENERATOR = "mnist-1layer-vae-k1"
DIMENSIONS, SEEDS, OBJECTIVES = (2, 5), (0, 1), (("vae", 1), ("iwae", 5))
TRAIN, REST = 20_000, 1_000  # images drawn for training; for validation and for the test each
EPOCHS, BATCH = 20, 20  # 20,000 steps: units that are not needed die slowly
SAMPLES = 500


@torch.no_grad()
def generated(dimension: int) -> Dataset:
    """Images on ``dimension`` latent units of the generator."""
    model, _ = checkpoints.load(SHIPPED / f"{GENERATOR}{checkpoints.SUFFIX}")
    activity = active_units(model, datasets.load("mnist-5k").binary("test"))[0]
    chosen = activity.variance.argsort(descending=True)[:dimension]
    h = torch.zeros(TRAIN + 2 * REST, len(activity.mean))
    h[:, chosen] = torch.randn(len(h), dimension, generator=torch.Generator().manual_seed(0))
    grey = (255 * model.decode(h)).round().byte().view(-1, *model.config.shape).numpy()
    parts = grey[:TRAIN], grey[TRAIN : TRAIN + REST], grey[TRAIN + REST :]
    return Dataset.from_arrays(*parts, name=f"dimension-{dimension}")


def learned(data: Dataset, dimension: int, objective: str, k: int, seed: int) -> KnownDimension:
    """Train a model with 50 units on the images, and count."""
    config = TrainConfig(
        dataset=data.name, objective=objective, k=k, epochs=EPOCHS, batch_size=BATCH, validate_every=5, seed=seed
    )
    training = Training(config, data)
    for _ in training.run():
        pass
    found = metrics.evaluate(training.kept_model(), data.binary("test"), samples=SAMPLES, prune=False).summary()
    counts = found["active_units"][0], found["pca_active_units"][0]
    return KnownDimension(dimension, objective, k, seed, TRAIN, EPOCHS, REST, *counts, found["nll"])


def main(file: Path | None) -> None:
    """Measure all, and write each line as it is known."""
    out = file.open("w", newline="", encoding="utf-8") if file else sys.stdout
    writer = csv.DictWriter(out, [field.name for field in fields(KnownDimension)], lineterminator="\n")
    writer.writeheader()
    with tempfile.TemporaryDirectory() as folder:  # a training finds its images by their name
        os.environ[paths.DATA] = folder
        images = {dimension: generated(dimension) for dimension in DIMENSIONS}
        for data in images.values():
            datasets.add(data)
        for seed in SEEDS:
            for dimension, data in images.items():
                for objective, k in OBJECTIVES:
                    writer.writerow(asdict(learned(data, dimension, objective, k, seed)))
                    out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else None)
