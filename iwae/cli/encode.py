"""``python -m iwae encode``."""

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from tqdm import tqdm
from tyro.conf import Positional

from iwae import cli
from iwae.analysis import encode, ray_encode
from iwae.data import datasets
from iwae.export import latents
from iwae.model import Model
from iwae.system import optional, ray_cluster


@dataclass(frozen=True)
class EncodeCommand:
    """Write the latents of images to a file, a row each.

    Its columns: index (the row of the image in its split), label, log p̂(x), effective sample size and Pareto k̂ of the
    draws, and the mean and standard deviation of every unit of q(h|x), in nats where it is a log-probability. The
    suffix of the file says what it is: .parquet, .npz, .csv, .h5ad (AnnData), or .tsv for TensorFlow's embedding
    projector. docs/latents.md describes each.

    Examples:
      python -m iwae encode checkpoints/mnist-5k-1layer-iwae-k50.safetensors --out latents.parquet
      python -m iwae encode model.safetensors --split train --samples 100 --map umap --out latents.h5ad
      python -m iwae encode model.safetensors --images 500 --draws 20 --out latents.npz
      python -m iwae encode model.safetensors --split train --ray auto --out latents.parquet
      IWAE_ADAPTERS=module:function python -m iwae encode adapter:NAME --dataset mnist-5k --out latents.parquet
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written, or adapter:NAME of IWAE_ADAPTERS
    out: Path  # the file to write: .parquet, .npz, .csv, .tsv or .h5ad
    dataset: str | None = None  # encode this data set instead of the model's own, see `python -m iwae data list`
    split: Literal["train", "valid", "test"] = "test"  # which of its images
    images: int | None = None  # number of images, those that the explorer's maps show; by default all
    samples: int = encode.SAMPLES  # draws from q(h|x) behind log p̂(x) of each image
    seed: int = 0  # of the draws
    draws: int = 0  # how many draws of each image to write, with their log-weights
    map: Literal["none", "pca", "umap"] = "none"  # also places on a map of the means of the first layer
    device: cli.Device = "auto"  # where to compute; auto is the first available of cuda, mps and cpu
    ray: str | None = None  # use this Ray cluster instead: its address, or auto for the one this machine belongs to

    def run(self) -> int:
        if self.ray is not None and self.device != "auto":
            raise cli.UsageError("--device is for this machine; with --ray, every core of the cluster computes")
        device = "cpu" if self.ray is not None else cli.find_device(self.device)
        cli.check_seed(self.seed)
        cli.check_samples(self.samples)
        if not 0 <= self.draws <= self.samples:
            raise cli.UsageError(f"--draws must lie between 0 and the {self.samples:,} --samples, not {self.draws:,}")
        if self.draws and self.out.suffix.lower() == ".tsv":
            raise cli.UsageError("--draws: the projector's .tsv has no place for draws; choose another suffix")
        cli.check_checkpoint(self.checkpoint, *["--ray"] * (self.ray is not None))
        try:
            latents.check(self.out)
        except (ValueError, OSError) as error:
            raise cli.UsageError(f"--out: {error}") from None
        if self.map == "umap":
            optional.require("--map umap", "umap", extra="umap")
        loaded = cli.load(self.checkpoint, device)
        model, card = loaded.model, loaded.card
        name = loaded.dataset(self.dataset)
        data = datasets.load(name, progress=sys.stderr.isatty(), only_test=self.split == "test")
        try:
            numbers = encode.rows(data, self.split, self.images)
            if self.map != "none":
                encode.check_map(self.map, len(numbers))
            at_once = len(numbers) if latents.is_whole(self.out) else min(encode.PART, len(numbers))
            encode.check_draws(card.model, at_once, self.draws)
        except ValueError as error:
            raise cli.UsageError(f"--{error}") from None
        settings = {"samples": self.samples, "seed": self.seed, "draws": self.draws}
        on_map = "" if self.map == "none" else self.map
        named = loaded.name, loaded.fingerprint, str(card.model)
        described = latents.about(*named, data.name, self.split, on_map=on_map, **settings)
        pictures = None
        if latents.has_sprite(self.out, len(numbers), data.shape):
            pictures = data.split(self.split).images[numbers].view(-1, *data.shape).numpy()
        place = _map(model, data, self.split, on_map, self.images).place if on_map else lambda part: part
        with self._encoder() as encode_split, cli.image_bar() as progress:
            parts = encode_split(model, data, self.split, images=self.images, progress=progress, **settings)
            written = latents.write(self.out, map(place, parts), described, pictures)
        print(f"{len(numbers):,} {self.split} images of {data.name}, {self.samples:,} draws each, seed {self.seed}:")
        for path in written:
            print(f"{path}: {path.stat().st_size:,} bytes")
        if self.out.suffix.lower() == ".tsv" and not any(path.suffix == ".png" for path in written):
            side = f"{latents.LARGEST_SPRITE:,} pixels"
            print(f"note: a sprite of all these images would be larger than the projector's {side}", file=sys.stderr)
        return 0

    @contextlib.contextmanager
    def _encoder(self) -> Iterator[Callable[..., Iterator[encode.Latents]]]:
        """``encode_split`` of this machine, or of the cluster."""
        if self.ray is None:
            yield encode.encode_split
        else:
            with ray_cluster.joined(self.ray) as ray:
                yield partial(ray_encode.encode_split, ray)


def _map(model: Model, data: datasets.Dataset, split: str, kind: str, images: int | None) -> encode.SampleMap:
    """The map, and a bar while it is computed, on a terminal only."""
    silent = contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore")  # UMAP says a lot
    with silent[0], silent[1], tqdm(total=100, unit="%", leave=False, disable=None) as bar:

        def report(message: str, share: float) -> None:
            bar.set_description(message)
            bar.update(round(100 * share) - bar.n)

        return encode.map_of_split(model, data, split, kind, images, report)


def parse(words: list[str]) -> EncodeCommand:
    return cli.parse(EncodeCommand, words)
