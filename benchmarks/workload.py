"""What is measured on: one architecture, one data set, one trained model."""

import torch
from torch import Tensor

from iwae import catalog, checkpoints
from iwae.data import datasets
from iwae.model import Model, ModelConfig

MODEL = ModelConfig()  # 784 → 200 → 200 → 50 and back, tanh
DATASETS = ("mnist-fixed", "digits")  # the first one at hand; both have 784 pixels


def dataset(name: str | None = None) -> datasets.Dataset:
    """``name``, or the first of DATASETS that needs no download."""
    return datasets.load(name or next(filter(datasets.available, DATASETS)))


def trained(device: str = "cpu") -> Model:
    """The IWAE (k = 50) that ships."""
    model, _ = checkpoints.load(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[1]}{checkpoints.SUFFIX}", device)
    return model


def test_images(data: datasets.Dataset, n: int) -> Tensor:
    """float32 [n, 784]: the first n test images, from the start again where there are fewer."""
    return data.binary("test")[torch.arange(n) % len(data.test)]
