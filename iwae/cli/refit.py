"""``python -m iwae refit``."""

import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import Positional

from iwae import checkpoints, cli
from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.evaluation.stats import plus_minus
from iwae.results import comparison
from iwae.system import files
from iwae.training.wake_sleep import Refit as Settings

IMAGES, SAMPLES = 1000, 1000  # of the validation set, and draws for each: what the new encoder is judged by


@dataclass(frozen=True)
class RefitCommand:
    """Train the encoder alone further, on images that the model generates (the sleep phase of wake-sleep).

    An encoder trained on the same images for hundreds of epochs fits other images less well; generated images are
    unlimited. The decoder, and with it p(x), is unchanged: what changes is q(h|x), and how close the NLL estimate
    comes to the exact value. The NLL of validation images before and after says whether it helped.

    Examples:
      python -m iwae refit model.safetensors --out refitted.safetensors
      python -m iwae refit model.safetensors --out refitted.safetensors --images 2000000 --learning-rate 0.001
    """

    checkpoint: Positional[Path]  # a .safetensors file that train has written
    out: Path  # where to write the model with its new encoder, a .safetensors file
    settings: Annotated[Settings, tyro.conf.arg(name="")] = field(default_factory=Settings)
    device: cli.Device = "auto"  # where to compute; auto is the first available of cuda, mps and cpu

    def run(self) -> int:
        device = cli.find_device(self.device)
        if not self.checkpoint.is_file():
            raise cli.UsageError(f"there is no file {self.checkpoint}")
        if self.out.suffix != checkpoints.SUFFIX:
            raise cli.UsageError(f"--out must name a {checkpoints.SUFFIX} file, not {self.out}")
        cli.check_output("--out", self.out)
        model, card = checkpoints.load(self.checkpoint, device)
        name: str = card.training.get("dataset", "")
        cli.check_dataset(name, self.checkpoint, card.model.shape)
        x = datasets.load(name, progress=sys.stderr.isatty()).x("valid", model.likelihood.binary)[:IMAGES]
        started = time.perf_counter()
        with cli.image_bar() as progress:
            refitted = self.settings(model, progress)
        seconds = time.perf_counter() - started
        card = checkpoints.refitted(card, asdict(self.settings), seconds)
        files.write_or_rescue(self.out, lambda path: checkpoints.save(path, refitted, card))
        made = f"{self.settings.images:,} generated images in {seconds / 60:.1f} minutes"
        print(f"{self.out}: {made}", flush=True)
        before, after = (metrics.evaluate(each, x, samples=SAMPLES, prune=False).nll for each in (model, refitted))
        change, error = comparison.paired_difference(after, before)
        print(
            f"NLL of {len(x):,} validation images, {SAMPLES:,} draws each: {before.mean():.2f} → {after.mean():.2f} "
            f"nats per image, {plus_minus(change, error, sign=True)}{'' if error is None else ' (paired)'}"
        )
        return 0


def parse(words: list[str]) -> RefitCommand:
    return cli.parse(RefitCommand, words)
