"""``python -m iwae table``."""

import shutil
import sys
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from tqdm import tqdm

from iwae import catalog, checkpoints, cli, likelihoods
from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.evaluation.stats import plus_minus
from iwae.results import comparison, grid, tables
from iwae.results import readme as documents
from iwae.results import rows as results
from iwae.results.rows import Row
from iwae.system import files
from iwae.system.paths import CHECKOUT

FILES = ("markdown", "latex", "csv", "json")
USED = {  # the options that each way of the command uses
    "compare": {"compare", "images", "samples", "seed", "device"},
    "verify": {"verify", "dataset", "models", "readme", "seed", "device"},
    "table": {"dataset", "models", "readme", "wide", "all", *FILES},
}
FAILED = 1  # exit status when a second measurement disagrees


@dataclass(frozen=True)
class TableCommand:
    """Every shipped or finished model, measured against published values.

    NLL and the rest in nats per image ± standard error over test images, from the cards of the models. A narrow
    terminal shows the columns that fit.

    Examples:
      python -m iwae table
      python -m iwae table --all --markdown table.md --csv table.csv --json table.json
      python -m iwae table --verify 200
      python -m iwae table --compare mnist-1layer-vae-k1 mnist-1layer-iwae-k50 --images 1000
    """

    dataset: str | None = None  # only models of this data set
    models: tuple[str, ...] = ()  # only these models, by their names in the table
    wide: bool = False  # show every column, whatever the width of the terminal
    all: bool = False  # also published cells without a trained model, with each one's command and training time
    markdown: Path | None = None  # write the whole table to this file, as Markdown
    latex: Path | None = None  # write what is measured to this file, as a LaTeX table for booktabs
    csv: Path | None = None  # the whole table as CSV, every value
    json: Path | None = None  # the same as JSON, every value and the sources in full
    readme: bool = False  # write the table of the shipped models into README.md and checkpoints/README.md
    verify: int | None = None  # re-measure every listed model on this number of the images of its card
    compare: tuple[str, str] | None = None  # measure two models on the same test images, and pair them by image
    images: int | None = None  # for --compare: number of test images, chosen by the seed; by default all
    samples: int = 5000  # for --compare: draws from q(h|x) for each image
    seed: int = 0  # for --verify and --compare: of the choice of images, and of the draws
    device: cli.Device = "auto"  # for --verify and --compare: auto is the first available of cuda, mps and cpu

    def run(self) -> int:
        device, dataset = self._check(), self.dataset and cli.check_name(self.dataset)
        found, unusable = catalog.entries()
        if self.compare:
            return self._compare(found, self.compare, device)
        found |= catalog.cards()
        rows, refused = results.collect(self._wanted(found, dataset))
        for reason in (unusable | refused).values():
            print(f"left out: {reason}", file=sys.stderr)
        if self.readme:
            shipped, _ = results.collect({key: entry for key, entry in found.items() if entry.shipped})
            for path in documents.rewrite(catalog.SHIPPED, shipped):
                print(f"wrote {path}")
        if self.verify is not None:
            return self._verify(rows, self.verify, device)
        missing = grid.not_run(results.collect(found)[0], dataset)
        if self.all:
            missing = grid.with_costs(tqdm(missing, "measuring steps", unit="cell", leave=False, disable=None))
        self._print(rows, missing)
        self._write(rows + missing if self.all else rows)
        return 0

    def _check(self) -> str:
        cli.check_seed(self.seed)
        if self.verify is not None and self.verify < 2:
            raise cli.UsageError(f"--verify must be at least 2 images, not {self.verify}")
        cli.check_samples(self.samples)
        if self.images is not None and self.images < 2:
            raise cli.UsageError(f"--images must be at least 2, not {self.images}")
        way = "compare" if self.compare else "verify" if self.verify is not None else "table"
        for field in fields(self):
            if field.name not in USED[way] and getattr(self, field.name) != field.default:
                needed = [f"--{other}" for other, used in USED.items() if field.name in used]
                rule = f"needs {' or '.join(needed)}" if way == "table" else f"does not go with --{way}"
                raise cli.UsageError(f"--{field.name} {rule}")
        named: dict[Path, str] = {}
        for option in FILES:
            if path := getattr(self, option):
                cli.check_output(f"--{option}", path)
                if (other := named.setdefault(path.resolve(), option)) != option:
                    raise cli.UsageError(f"--{other} and --{option} name the same file, {path}")
        if self.readme:
            if CHECKOUT is None:
                raise cli.UsageError("--readme writes into a checkout of the project, and this package is installed")
            for path in documents.paths(catalog.SHIPPED):
                cli.check_output("--readme", path)
        return cli.find_device(self.device)

    def _wanted(self, found: dict[str, catalog.Entry], dataset: str | None) -> dict[str, catalog.Entry]:
        for name in self.models:
            _find(found, name)
        return {
            key: entry
            for key, entry in found.items()
            if (not self.models or key in self.models) and dataset in (None, entry.dataset)
        }

    def _print(self, rows: list[Row], missing: list[Row]) -> None:
        if rows:
            table = tables.text(rows, None if self.wide else shutil.get_terminal_size((120, 24)).columns)
            print(table)
            print("\nnats per image ± standard error over test images; --wide shows every column")
            for letter, source in tables.sources(table).items():
                print(f"published ({letter}): {source.citation}")
        else:
            print("no such model is trained to its end: `python -m iwae train` makes one")
        for difference in comparison.seed_differences(rows):
            print(difference.text)
        if not missing:
            return
        if not self.all:
            print(f"{len(missing)} published cells are not run: --all lists them with the commands that train them")
            return
        print(f"\nnot run, {len(missing)} published cells, with the time that each would take on this machine's CPU:")
        for row in missing:
            print(f"{tables.not_run(row)}\n    {row.command}")

    def _write(self, rows: list[Row]) -> None:
        texts = {
            self.markdown: tables.document,
            self.latex: tables.latex,
            self.csv: tables.csv_text,
            self.json: tables.json_text,
        }
        for path, text in {path: text(rows) for path, text in texts.items() if path is not None}.items():
            files.write_or_rescue(path, partial(files.write, content=text))
            print(f"wrote {path}")

    def _verify(self, rows: list[Row], count: int, device: str) -> int:
        wrong = []
        print("NLL again, with other draws, against the card: nats per image, difference ± its standard error")
        for row in rows:
            if row.status != "measured" or row.path is None:
                continue
            if not row.metrics:
                print(f"{row.name}: not evaluated yet")
                continue
            if row.metrics["images"] < 2:
                print(f"{row.name}: measured on one image, so without a standard error to compare with")
                continue
            model, _ = checkpoints.load(row.path, device)
            x = _test_images(row.cell.dataset, model.likelihood.binary)
            with cli.image_bar() as progress:
                checks = comparison.verify(model, row.metrics, x, count, seed=self.seed, progress=progress)
            nll = checks.pop("nll")
            if not nll.agrees:
                wrong.append(row.name)
            images = min(count, row.metrics["images"])
            worst = max(checks, key=lambda name: abs(checks[name].ratio))
            print(
                f"{row.name}: {nll.measured:.3f} on {images:,} images, card {nll.stored:.3f}, "
                f"{plus_minus(nll.measured - nll.stored, nll.se, 3, sign=True)} ({abs(nll.ratio):.1f} s.e.): "
                f"{'agrees' if nll.agrees else 'DISAGREES'}; "
                f"of the others {worst} differs most, {abs(checks[worst].ratio):.1f} s.e.",
                flush=True,
            )
        if wrong:
            print(f"more than {comparison.AGREE} standard errors from its card: {', '.join(wrong)}", file=sys.stderr)
        return FAILED if wrong else 0

    def _compare(self, found: dict[str, catalog.Entry], names: tuple[str, str], device: str) -> int:
        entries = [_find(found, name) for name in names]
        known = sorted({entry.dataset for entry in entries} - {""})
        if len(known) != 1:
            wrong = f"not of {' and '.join(known)}" if known else "and of neither is it known"
            raise cli.UsageError(f"--compare needs models of one data set, {wrong}")
        (data,) = known
        kinds = {entry.card.model.likelihood for entry in entries}
        if len(kinds) > 1:
            raise cli.UsageError(f"NLLs of different likelihoods cannot be compared: {' and '.join(sorted(kinds))}")
        x = _test_images(data, likelihoods.find(*kinds).binary)
        x = comparison.choose(x, self.images or len(x), self.seed)
        measured = []
        for entry in entries:
            model = entry.load(device)
            with cli.image_bar() as progress:
                options = {"samples": self.samples, "seed": self.seed, "prune": False, "progress": progress}
                measured.append(metrics.evaluate(model, x, **options))
        print(f"A: {entries[0].label}\nB: {entries[1].label}")
        print(f"the same {len(x):,} test images of {data}, {self.samples:,} draws each, seed {self.seed}; nats")
        print(f"{'':16}{'A':>18}{'B':>18}{'A − B, paired':>20}{'unpaired':>12}")
        for name, pair in comparison.compare(*measured).items():
            a, b = plus_minus(pair.a, pair.a_se, 3), plus_minus(pair.b, pair.b_se, 3)
            difference = plus_minus(pair.difference, pair.se, 3, sign=True)
            print(f"{name:16}{a:>18}{b:>18}{difference:>20}{f'± {pair.unpaired_se:.3f}':>12}")
        return 0


def _find(found: dict[str, catalog.Entry], name: str) -> catalog.Entry:
    if name not in found:
        raise cli.UsageError(f"there is no model {name!r}; there are {', '.join(found) or 'none'}")
    return found[name]


def _test_images(dataset: str, binary: bool) -> datasets.DrawnImages:
    return datasets.load(dataset, progress=sys.stderr.isatty()).x("test", binary)


def parse(words: list[str]) -> TableCommand:
    return cli.parse(TableCommand, words)
