"""Measured against published: the cell of a run, differences and verdicts, seeds together, and what is not run."""

import math
import shlex

import pytest

from iwae import catalog, checkpoints
from iwae.cli import train
from iwae.results import grid, published, tables
from iwae.results import rows as results
from iwae.results.published import Cell
from iwae.results.rows import against_k, collect
from iwae.runs import estimate
from iwae.training.config import TrainConfig
from tests.cards import catalogue, entry, measured


def rows_of(*found):
    rows, refused = collect(catalogue(*found))
    assert not refused
    return rows


def row_of(**settings):
    metrics, progress = settings.pop("metrics", None), settings.pop("progress", None)
    (row,) = rows_of(entry("model", metrics, progress, **settings))
    return row


def before(epochs: float = 30.0, **settings) -> dict:
    return {"training": {"dataset": "mnist-fixed"} | settings, "epochs": epochs, "seconds": 60.0}


@pytest.mark.parametrize(
    ("settings", "title", "start"),
    [
        ({}, "IWAE k = 50", ""),
        ({"objective": "power-mean", "p": 2.0, "gradient": "dreg", "resample": 1}, "Power mean p = 2, k = 50", ""),
        ({"objective": "miwae", "k1": 10, "k2": 5}, "MIWAE k1 = 10, k2 = 5, k = 50", ""),
        ({"gradient": "piwae", "k1": 8, "k2": 8, "k": 64}, "PIWAE k1 = 8, k2 = 8, k = 64", ""),
        ({"progress": {"history": [before(objective="vae", k=1)]}}, "IWAE k = 50", "VAE k = 1"),
        ({"progress": {"history": [before()]}}, "IWAE k = 50", ""),  # it went on as before
        ({"progress": {"history": [before(objective="vae", k=1), before()]}}, "IWAE k = 50", "VAE k = 1"),
    ],
)
def test_the_cell_of_a_run(settings, title, start):
    cell = row_of(**settings).cell
    assert (cell.title, cell.start, cell.dataset, cell.model) == (title, start, "mnist-fixed", "1layer")
    if "history" not in settings.get("progress", {}):
        assert (cell in published.cells()) == (cell.objective != "miwae" and cell.objective != "piwae")


def test_passes_and_minutes_count_what_came_before():
    row = row_of(progress={"history": [before(30.0), before(5.0)]})
    assert (row.epochs, row.minutes, row.device) == (45.0, 12.0, "cpu")


@pytest.mark.parametrize(
    ("nll", "se", "difference", "verdict"),
    [
        (86.21, 0.10, -0.50, "−0.50, lower"),
        (87.21, 0.50, 0.50, "+0.50, higher"),
        (86.41, 0.01, -0.30, "−0.30"),  # a small error over images does not make a small difference a sure one
        (87.01, 0.30, 0.30, "+0.30"),
        (86.41, None, -0.30, "−0.30"),
    ],
)
def test_the_verdict_on_iwae_50(nll, se, difference, verdict):
    """Against 86.71, the lowest of four sources: called lower or higher beyond 0.4 nats, whatever our s.e."""
    row = row_of(metrics=measured(nll, se))
    assert row.published().source == "N" and row.difference() == pytest.approx(difference)
    assert row.verdict() == verdict and row.seed_count == "one seed"


def test_a_change_of_objective_is_not_judged():
    """Beside the report's own change, which went on for longer; a power mean from scratch is another cell."""
    after = {"progress": {"history": [before(objective="vae", k=1)]}}
    row = row_of(metrics=measured(87.0), **after)
    assert row.verdict() == "−1.70, not judged" and "note on R: went on for 2,187 epochs" in row.comparison
    assert row_of(metrics=measured(87.0), objective="power-mean", p=3.0, **after).verdict() == ""
    assert row_of(metrics=measured(87.2), objective="power-mean", p=3.0).verdict() == "+0.50, higher"


def test_the_comparison_in_full():
    row = row_of(metrics=measured(86.0, 0.1, reconstruction=78.5, kl_posterior=10.87))
    assert row.comparison == (
        "NLL −0.71, lower; reconstruction +0.14; D_KL(q‖p(h|x)) −1.89, lower; "
        "active units 25, published 25 (R) or 24 (B) or 24 (R); PCA active units 24, published 25 (R) or 24 (R); "
        "note on N: in an earlier version of its README; ours is one seed"
    )


def test_a_note_on_the_published_value_is_said():
    row = row_of(dataset="mnist")
    assert row.comparison.endswith("; note on N: DReG gradient; ours is one seed")


def test_nothing_is_published_for_other_sizes_and_data():
    for settings in ({"model": "2d"}, {"dataset": "digits"}, {"k": 7}, {"dataset": "omniglot"}):
        row = row_of(**settings)
        assert (row.difference(), row.verdict(), row.comparison) == (None, "", "")


def test_a_model_without_metrics_is_listed():
    row = row_of(metrics={})
    assert row.metrics == {} and row.difference() is None and row.record()["nll"] is None


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "plain"),
        ({"ema": 0.999}, "EMA 0.999"),
        ({"weight_decay": 1e-3, "patience": 5}, "weight decay 0.001, early stopping (5)"),
    ],
)
def test_regularisation_is_said(settings, told):
    assert row_of(**settings).regularisation == told


def test_finished_models_count_once():
    shipped, copy = entry("model"), entry("run:1")
    stopped = entry("run:2", progress={"finished": False}, seed=1)
    assert [row.name for row in rows_of(shipped, copy, stopped)] == ["model"]
    assert [row.name for row in rows_of(copy, stopped)] == ["run:1"]


def test_seeds_are_put_together():
    """Mean and standard deviation of 86, 87, 89: 87⅓ and √(7/3)."""
    models = [entry(f"s{seed}", measured(nll, 0.2), seed=seed) for seed, nll in enumerate((86.0, 87.0, 89.0))]
    other = entry("ema", measured(85.0), seed=4, ema=0.99)
    fewer = entry("quick", measured(85.0, images=1000), seed=5)
    twice = entry("again", measured(86.0, 0.2), {"seconds": 1.0}, seed=0)
    rows = rows_of(*models, other, fewer, twice)
    (row,) = [row for row in rows if row.status == "seeds"]
    assert row.seeds == (0, 1, 2) and row.name == "mnist-fixed, 1 layer: IWAE k = 50, 3 seeds"
    assert row.metrics["nll"] == pytest.approx(87 + 1 / 3)
    assert row.metrics["nll_sd"] == pytest.approx(math.sqrt(7 / 3))
    assert row.verdict() == "+0.62 ± 0.88" and row.comparison.endswith("; ours is 3 seeds")
    assert results.units(row.metrics["active_units"]) == "25"
    assert rows.index(row) > max(rows.index(one) for one in rows if one.name in ("s0", "s1", "s2"))


@pytest.mark.parametrize(("noise", "verdict"), [(0.1, "+0.69 ± 0.06, higher"), (0.4, "+0.69 ± 0.23")])
def test_several_seeds_differ_only_beyond_their_noise(noise, verdict):
    """87.4 ± noise/√3, against 86.71; 3 · 0.23 nats are not exceeded."""
    models = [entry(f"s{seed}", measured(87.4 + noise * (seed - 1)), seed=seed) for seed in range(3)]
    (row,) = [row for row in rows_of(*models) if row.status == "seeds"]
    assert row.verdict() == verdict and len(row.members) == 3 and row.first.name == "s0"


def test_units():
    assert results.units([25]) == "25" and results.units([24, 7]) == "24+7"
    assert results.units([[24, 26, 25], [7, 7, 7]]) == "24–26+7" and results.units([]) == ""


def test_a_card_that_says_too_little_is_explained():
    good, bad = entry("good"), entry("bad", {"nll": 1.0}, seed=1)
    worse = entry("worse", seed=2, progress={"history": [{"training": {"nonsense": 1}}]})
    rows, refused = collect(catalogue(good, bad, worse))
    assert [row.name for row in rows] == ["good"] and set(refused) == {"bad", "worse"}
    assert "unknown settings: nonsense" in refused["worse"] and "lack active_units, elbo" in refused["bad"]


def test_a_card_without_weights_stands_in_the_table(tmp_path):
    """It reads as the checkpoint's own; there is nothing to verify or to show, and other files are refused by name."""
    card = checkpoints.read_card(catalog.SHIPPED / "mnist-2d-vae-k1.safetensors")
    path = tmp_path / "cell.json"
    path.write_text(checkpoints.card_text(card), encoding="utf-8")
    assert checkpoints.read_card_alone(path) == card
    (row,), refused = collect({"cell": catalog.Entry("cell", path, checkpoints.read_card_alone(path))})
    assert not refused and row.path is None and row.metrics == card.metrics and "--out" not in row.command
    for content in (
        "",
        "[]",
        "{}",
        '{"kind": "iwae-card", "version": "9", "header": {}}',
        '{"kind": "iwae-card"}',
        "\0",
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(checkpoints.CheckpointError, match=r"cell\.json"):
            checkpoints.read_card_alone(path)


def test_order():
    """Data sets as they are listed, then architecture, objective, k; plain before regularised."""
    models = [
        entry("e", dataset="omniglot"),
        entry("d", model="2layer"),
        entry("c", ema=0.9),
        entry("b"),
        entry("a", objective="vae", k=50),
        entry("0", dataset="mnist"),
    ]
    assert [row.name for row in rows_of(*models)] == ["0", "a", "b", "c", "d", "e"]


def test_what_is_not_run_and_the_commands_for_it():
    """Each command trains its very cell; a change of objective is two commands, the first making the start."""
    missing = grid.not_run([])
    assert [row.cell for row in missing] == list(published.cells())
    for row in missing:
        *first, last = [train.parse(shlex.split(part)[4:]) for part in row.command.split(" && ")]
        assert last.config.schedule == "paper" and last.config.epochs == 3280
        history = [{"training": vars(one.config)} for one in first]
        assert results.cell(last.config, history) == row.cell
        if first:
            assert str(first[0].out) == last.config.start
    assert sum(" && " in row.command for row in missing) == 6


def test_what_is_not_run_has_its_cost(monkeypatch):
    """The paper's 3,280 epochs of 50,000 images at 1,000 a second, for two trainings twice; unknown without a speed."""
    monkeypatch.setattr(estimate, "speed", lambda config: estimate.Speed(1000.0, ""))
    missing = grid.with_costs(grid.not_run([], "mnist-fixed"))
    assert [row.minutes for row in missing] == pytest.approx(
        [(1 + bool(row.cell.start)) * 3280 * 50_000 / 1000 / 60 for row in missing]
    )
    assert tables.not_run(missing[0]) == "mnist-fixed, 1 layer: VAE k = 1, published 88.71 (B), about 45.6 h"
    assert f"published 88.71 (B), about 45.6 h: `{missing[0].command}`" in tables.document(missing)
    monkeypatch.setattr(estimate, "speed", lambda config: None)
    assert "about" not in tables.not_run(grid.with_costs(missing[:1])[0])


def test_a_model_fills_its_cell():
    rows = rows_of(entry("vae", objective="iwae", k=1), entry("median", objective="median"))
    missing = {row.cell for row in grid.not_run(rows)}
    assert set(published.cells()) - missing == {
        Cell("mnist-fixed", "1layer", "vae", 1),
        Cell("mnist-fixed", "1layer", "median", 50),
    }
    history = {"history": [before(objective="vae", k=50)]}
    (changed,) = rows_of(entry("changed", progress=history))
    missing = {row.cell for row in grid.not_run([changed])}
    assert Cell("mnist-fixed", "1layer", "iwae", 50) in missing  # from scratch it is another cell
    assert Cell("mnist-fixed", "1layer", "iwae", 50, start="VAE k = 50") not in missing
    assert {row.cell.dataset for row in grid.not_run([], "omniglot-burda")} == {"omniglot-burda"}


def test_points_against_k():
    rows = rows_of(
        entry("vae", measured(89.0, 0.3), objective="vae", k=1),
        entry("a", measured(87.0, 0.2)),
        entry("b", measured(86.9, 0.1), seed=1),
        entry("other", objective="median"),
    )
    points = {part.name: part for part in against_k(rows, "mnist-fixed", "1layer", "nll")}
    assert list(points) == ["VAE, measured", "VAE, published", "IWAE, measured", "IWAE, published"]
    ours = points["IWAE, measured"]
    assert list(zip(ours.x, ours.y, ours.error, ours.labels, strict=True)) == [
        (50, 87.0, 0.2, "a"),
        (50, 86.9, 0.1, "b"),
    ]
    theirs = points["IWAE, published"]
    assert (50, 86.82, "P") in zip(theirs.x, theirs.y, theirs.labels, strict=True) and theirs.error is None
    assert {88.25, 88.70}.isdisjoint(theirs.y)  # those changed their objective
    names = [part.name for part in against_k(rows, "mnist-fixed", "2layer", "reconstruction")]
    assert names == []


def test_the_record_has_the_command():
    record = row_of(objective="vae", k=1, seed=3).record()
    assert record["command"].endswith("--objective vae --k 1 --seed 3 --out checkpoints/model.safetensors")
    assert record["published_nll"] == 88.71 and record["published_nll_source"] == "B"
    assert record["notes"] == "R: the report's table 10"
    own = rows_of(entry("run:1"))[0]
    assert "--out" not in own.command and TrainConfig.from_dict(own.config.__dict__) == own.config
