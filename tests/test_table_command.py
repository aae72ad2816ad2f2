"""``python -m iwae table`` on models of the embedded digits: what it prints, writes and finds wrong."""

import dataclasses
import json
import re

import pytest
import torch

from iwae import catalog, checkpoints
from iwae.__main__ import main
from iwae.data import datasets
from iwae.evaluation import metrics as evaluation
from iwae.results import readme as documents
from iwae.results.comparison import paired_difference
from iwae.runs import estimate
from iwae.training.config import TrainConfig
from iwae.training.loop import Training


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """Two small models of digits, measured with 20 draws."""
    folder = tmp_path_factory.mktemp("project") / "checkpoints"
    x = datasets.load("digits").binary("test")
    for name, settings in {"vae": {"objective": "vae", "k": 1}, "iwae": {"k": 5}}.items():
        training = Training(TrainConfig(dataset="digits", model="16:4", epochs=2, **settings))
        list(training.run())
        metrics = evaluation.evaluate(training.kept_model(), x, samples=20).summary()
        card = dataclasses.replace(training.card(), metrics=metrics)
        checkpoints.save(folder / f"{name}.safetensors", training.kept_model(), card)
    return folder


@pytest.fixture(autouse=True)
def _alone(shipped, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "SHIPPED", shipped)
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("COLUMNS", "100")


def printed(capsys, *words: str, status: int = 0) -> str:
    assert main(["table", *words]) == status
    return capsys.readouterr().out


def test_the_table_prints_what_the_cards_hold(shipped, capsys):
    out = printed(capsys)
    for name in ("vae", "iwae"):
        metrics = checkpoints.read_card(shipped / f"{name}.safetensors").metrics
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert f"{metrics['nll']:.2f} ± {metrics['nll_se']:.2f}" in line and "plain" in line
        assert len(line) <= 100
    assert "55 published cells are not run: --all lists them" in out
    assert len(printed(capsys, "--wide").splitlines()[0]) > 200


@pytest.fixture
def quick(monkeypatch):
    """Costs by one step of each kind."""
    monkeypatch.setattr(estimate, "MEASURED_SECONDS", 0.0)


def test_all_lists_what_is_not_run(capsys, quick):
    out = printed(capsys, "--all", "--dataset", "mnist-fixed")
    assert "not run, 22 published cells, with the time" in out
    start = re.escape("mnist-fixed, 1 layer: Power mean p = 3, k = 50, published 86.70 (R), about ")
    assert re.search(rf"{start}\d+\.\d h\n    python -m iwae train", out)


def test_files_are_written_and_hold_the_rows(tmp_path, capsys, quick):
    paths = [tmp_path / f"table.{kind}" for kind in ("markdown", "csv", "json")]
    words = [word for path in paths for word in (f"--{path.suffix[1:]}", str(path))]
    printed(capsys, "--models", "vae", *words)
    text, lines, loaded = (path.read_text() for path in paths)
    assert text.count("\n| vae |") == 1 and "iwae" not in lines.splitlines()[1].split(",")[1]
    assert [row["name"] for row in json.loads(loaded)["rows"]] == ["vae"] and len(lines.splitlines()) == 2
    printed(capsys, "--all", *words)
    assert len(json.loads(paths[2].read_text())["rows"]) == 57


@pytest.mark.parametrize("count", ["60", "300"])
def test_verify_agrees_with_true_cards(capsys, count):
    lines = printed(capsys, "--verify", count).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["vae", "iwae"]
    assert all(f"on {count} images" in line and "agrees" in line for line in lines[1:])


def test_verify_finds_a_wrong_card(shipped, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "checkpoints"
    model, card = checkpoints.load(shipped / "vae.safetensors")
    wrong = card.metrics | {"nll": card.metrics["nll"] - 2.0}
    checkpoints.save(folder / "vae.safetensors", model, dataclasses.replace(card, metrics=wrong))
    unmeasured = dataclasses.replace(card, metrics={}, progress=card.progress | {"steps": 1})
    checkpoints.save(folder / "new.safetensors", model, unmeasured)
    monkeypatch.setattr(catalog, "SHIPPED", folder)
    assert main(["table", "--verify", "300"]) == 1
    out, err = capsys.readouterr()
    assert "DISAGREES" in out and "new: not evaluated yet" in out
    assert err == "more than 3 standard errors from its card: vae\n"


def test_compare_is_paired_by_image(shipped, capsys):
    out = printed(capsys, "--compare", "vae", "iwae", "--images", "80", "--samples", "20", "--seed", "3")
    x = datasets.load("digits").binary("test")
    x = x[torch.randperm(300, generator=torch.Generator().manual_seed(3))[:80]]
    models = [checkpoints.load(shipped / f"{name}.safetensors")[0] for name in ("vae", "iwae")]
    a, b = (evaluation.evaluate(model, x, samples=20, seed=3) for model in models)
    mean, se = paired_difference(a.nll, b.nll)
    line = next(line for line in out.splitlines() if line.startswith("nll"))
    assert f"{mean:+.3f} ± {se:.3f}".replace("-", "−") in line
    assert f"{a.nll.mean():.3f} ±" in line and f"{b.nll.mean():.3f} ±" in line
    assert "the same 80 test images of digits, 20 draws each, seed 3" in out


def test_nothing_to_show(capsys):
    assert "no such model" in printed(capsys, "--dataset", "omniglot")


def test_readme_needs_its_marks(shipped, capsys):
    for path in documents.paths(shipped):
        path.parent.mkdir(exist_ok=True)
        path.write_text("nothing")
    assert main(["table", "--readme"]) == 1
    assert "must hold the two lines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("--dataset nonsense", "there are mnist-5k, digits, mnist"),
        ("--models nothing", "there is no model 'nothing'; there are iwae, vae"),
        ("--compare vae nothing", "there is no model 'nothing'; there are iwae, vae"),
        ("--compare vae", "--compare"),
        ("--verify 1", "--verify must be at least 2 images, not 1"),
        ("--verify all", "--verify"),
        ("--images 1 --compare vae iwae", "--images must be at least 2, not 1"),
        ("--samples 0", "--samples must be at least 1, not 0"),
        ("--samples 1000001", "--samples must not be above 1,000,000, not 1,000,001"),
        ("--seed -1", "--seed must lie between"),
        ("vae", "Unrecognized options: vae"),
    ],
)
def test_wrong_arguments_are_one_line(words, told, capsys):
    assert main(["table", *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("error: ") and told in err
