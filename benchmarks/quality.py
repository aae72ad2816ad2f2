"""Time to quality: how soon a run of the fast schedule is as good as the published model, read from finished runs.

python -m iwae train --dataset mnist-fixed --epochs 200                       # ours, an IWAE with k = 50
python -m iwae train --dataset mnist-fixed --schedule paper --minutes 20      # the paper's, as far as that goes
python -m benchmarks quality --runs NAME NAME

A run that went on from another's model counts that one's epochs and minutes, too.
"""

from dataclasses import replace

from benchmarks.report import Section, SpeedTarget, table
from benchmarks.settings import BenchmarkSettings
from iwae import checkpoints
from iwae.checkpoints import Card
from iwae.runs import store
from iwae.training.loop import Record

GOAL = 87.13  # test NLL of the poster's IWAE, k = 50, one layer, mnist-fixed, in nats
PAPER_EPOCHS = 3280
MINUTES = (1, 2, 3, 5, 7, 10, 15, 20, 30, 45, 60, 90, 120, 180)


def measure(settings: BenchmarkSettings) -> Section:
    """The curves of the runs named by ``--runs``, and what the first of them reached."""
    if not settings.runs:
        raise ValueError("quality needs --runs NAME …: runs of `python -m iwae train` on this machine")
    chosen = [store.get(name) for name in settings.runs]
    curves = {_title(run): _validated(run) for run in chosen}
    header = ["minutes", *(f"{title}: epochs, validation bound" for title in curves)]
    rows = []
    for minutes in MINUTES:
        cells = [_at(records, 60 * minutes) for records in curves.values()]
        if any(cells):
            rows.append((f"{minutes}", *(cell or "–" for cell in cells)))
    rows.append(
        ("end", *(_point(records[-1]) + f" at {records[-1].seconds / 60:.0f} min" for records in curves.values()))
    )
    ends = [f"- {title}: {_end(run)}" for title, run in zip(curves, chosen, strict=True)]
    body = f"""The validation bound L_k (the run's own objective, nats per image, 1,000 validation images) against
minutes of training, validation included, and what the kept weights reach on the test images. The aim is the poster's
{GOAL} nats.

{table(header, rows)}

{chr(10).join(ends)}"""
    return Section(body, (_target(chosen[0]),))


def _total(card: Card, what: str) -> float:
    return sum(part[what] for part in card.parts)


def _title(run: store.Run) -> str:
    epochs = " + ".join(f"{part['epochs']:,.0f}" for part in checkpoints.read_card(run.checkpoint).parts)
    return f"{run.config.schedule}, {epochs} epochs"


def _validated(run: store.Run) -> list[Record]:
    """Its records with a validation bound, counted from the first model's beginning."""
    *before, _ = checkpoints.read_card(run.checkpoint).parts
    epochs, seconds = (sum(part[what] for part in before) for what in ("epochs", "seconds"))
    records = (record for record in run.records() if record.valid_bound is not None)
    return [replace(r, epochs=r.epochs + epochs, seconds=r.seconds + seconds) for r in records]


def _at(records: list, seconds: float) -> str | None:
    """The last validated point before so many seconds; None after the end."""
    before = [record for record in records if record.seconds <= seconds]
    return _point(before[-1]) if before and records[-1].seconds >= seconds else None


def _point(record) -> str:
    return f"{record.epochs:.0f}, {record.valid_bound:.2f}"


def _end(run: store.Run) -> str:
    card = checkpoints.read_card(run.checkpoint)
    metrics = card.metrics
    took = f"{_total(card, 'epochs'):.0f} epochs in {_total(card, 'seconds') / 60:.0f} minutes"
    if not metrics:
        return f"{took}, not evaluated"
    nll = f"NLL {metrics['nll']:.2f} ± {metrics['nll_se']:.2f}"
    return f"{took}, {nll} ({metrics['images']:,} test images, {metrics['samples']:,} draws)"


def _target(run: store.Run) -> SpeedTarget:
    card = checkpoints.read_card(run.checkpoint)
    epochs, nll = _total(card, "epochs"), card.metrics.get("nll")
    what = f"NLL ≤ {GOAL} within 1/5 of the paper's {PAPER_EPOCHS:,} epochs"
    measured = None if nll is None else f"{nll:.2f} after {epochs:.0f} epochs"
    return SpeedTarget(what, measured, nll is not None and nll <= GOAL and epochs <= PAPER_EPOCHS / 5)
