"""``python -m iwae findings``."""

import sys
from dataclasses import dataclass
from pathlib import Path

from iwae import catalog, checkpoints, cli
from iwae.data import datasets
from iwae.results import findings, measured, measuring
from iwae.results import rows as results
from iwae.results.measuring import ImageFigures
from iwae.results.rows import Row
from iwae.system import files
from iwae.system.paths import CHECKOUT
from iwae.training.config import TrainConfig


@dataclass(frozen=True)
class FindingsCommand:
    """The poster's claims about VAE and IWAE, each with the measured figure, its standard error and a verdict.

    From the cards of the shipped models and from measurements that are kept beside the code: no data is needed.

    Examples:
      python -m iwae findings
      python -m iwae findings --json
      python -m iwae findings --measure
      python -m iwae findings --seeds sweeps/seeds
    """

    json: bool = False  # every value as JSON
    measure: bool = False  # re-measure the pairs of models on their test images, and keep that
    seeds: Path | None = None  # measure the runs that `sweep docs/seeds.toml` has left in this folder, and keep that
    images: int = 500  # for --measure and --seeds: test images, chosen by the seed, where draws are needed; else all
    samples: int = 5000  # for --measure and --seeds: draws from q(h|x) for each image
    seed: int = 0  # for --measure and --seeds: of the choice of images, and of the draws

    def run(self) -> int:
        self._check()
        found = {key: entry for key, entry in (catalog.entries()[0] | catalog.cards()).items() if entry.shipped}
        rows, refused = results.collect(found)
        for reason in refused.values():
            print(f"left out: {reason}", file=sys.stderr)
        if self.measure:
            self._measure(rows)
        if self.seeds:
            self._measure_seeds(self.seeds)
        shown = findings.findings(rows)
        print(findings.json_text(shown).rstrip() if self.json else findings.text(shown))
        return 0

    def _check(self) -> None:
        cli.check_seed(self.seed)
        cli.check_samples(self.samples)
        if self.images < 2:
            raise cli.UsageError(f"--images must be at least 2, not {self.images}")
        if (self.measure or self.seeds) and CHECKOUT is None:
            raise cli.UsageError(
                "--measure and --seeds write into a checkout of the project; this package is installed"
            )
        if self.seeds and not self.seeds.is_dir():
            raise cli.UsageError(f"--seeds must name the folder of a sweep, not {self.seeds}")

    def _measure(self, rows: list[Row]) -> None:
        """Each model once, then the pairs."""
        pairs = findings.pairs(rows)
        models: dict[str, ImageFigures] = {}
        for row in {row.name: row for pair in pairs for row in pair}.values():
            assert row.path
            print(f"measuring {row.name} …", file=sys.stderr, flush=True)
            models[row.name] = self._figures(row.path)
        lines = [
            line
            for a, b in pairs
            for line in measuring.pair(
                models[a.name], models[b.name], (a.name, b.name), (a.metrics["nll"], b.metrics["nll"]), self.seed
            )
        ]
        files.write(measured.PAIRED, measured.text(lines))
        measured.load.cache_clear()
        print(f"wrote {measured.PAIRED}", file=sys.stderr)

    def _measure_seeds(self, folder: Path) -> None:
        trainings = []
        for path in sorted(folder.glob(f"*/checkpoint{checkpoints.SUFFIX}")):
            card = checkpoints.read_card(path)
            if not card.progress.get("finished"):
                print(f"left out: {path.parent.name} is not finished", file=sys.stderr)
                continue
            print(f"measuring {path.parent.name} …", file=sys.stderr, flush=True)
            trainings.append((TrainConfig.from_dict(card.training), self._figures(path)))
        if not trainings:
            raise cli.UsageError(f"--seeds: there is no finished training in {folder}")
        files.write(measured.SEEDS, measured.text(measuring.over_seeds(trainings, measured.load_seeds())))
        measured.load_seeds.cache_clear()
        print(f"wrote {measured.SEEDS}", file=sys.stderr)

    def _figures(self, path: Path) -> ImageFigures:
        model, card = checkpoints.load(path, "cpu")
        config = TrainConfig.from_dict(card.training)
        x = datasets.load(config.dataset).binary("test")
        options = {"images": self.images, "samples": self.samples, "seed": self.seed}
        with cli.image_bar() as progress:
            return measuring.measure(model, config, x, **options, progress=progress)


def parse(words: list[str]) -> FindingsCommand:
    return cli.parse(FindingsCommand, words)
