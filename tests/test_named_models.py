"""IWAE_ADAPTERS: models that whoever starts the server names, in the catalogue; wrong values are reasons in a line."""

import json

import numpy as np
import pytest
import torch

from iwae import catalog, cli, encode, evaluate
from iwae.__main__ import main
from iwae.adapters import WrappedModel, environment
from iwae.analysis import costs
from iwae.catalog import AdapterEntry, CatalogError
from iwae.cli import table
from iwae.data import datasets
from iwae.export import report
from iwae.export.report import SampledImage
from iwae.inference.posterior import posterior
from iwae.results import comparison, rows
from tests import foreign


@pytest.fixture
def named(monkeypatch, tmp_path):
    """``named("pair", "one")``: models by key, and reasons."""
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))

    def entries(*functions: str):
        monkeypatch.setenv(environment.VARIABLE, ", ".join(f"tests.foreign:{name}" for name in functions))
        found, refused = catalog.entries()
        return {key: entry for key, entry in found.items() if isinstance(entry, AdapterEntry)}, refused

    return entries


def test_they_are_in_the_catalogue(named):
    found, refused = named("pair", "one", "plain")
    assert list(found) == ["adapter:conv VAE", "adapter:conv IWAE", "adapter:A titled VAE", "adapter:plain"]
    assert not refused and not any(entry.shipped or entry.changeable for entry in found.values())
    vae, iwae, _, plain = found.values()
    assert (vae.kind, iwae.kind) == ("vae", "iwae") and vae.layers == "wrapped, 2 units" and plain.layers == "6:2"
    assert vae.label == "conv VAE · wrapped, 2 units · adapter · not evaluated"
    assert catalog.names(found)["adapter:conv VAE"] == "conv VAE · adapter"
    assert (vae.dataset, vae.k, vae.epochs, vae.trained_on) == ("", None, 0, frozenset())
    x = torch.zeros(784)
    drawn = posterior(vae.load(), x, samples=50)
    assert torch.equal(drawn.log_w, posterior(foreign.pair()["conv VAE"], x, samples=50).log_w)
    assert isinstance(vae.load(), WrappedModel) and vae.load() is catalog.load_model("adapter:conv VAE")
    costs.check(vae.card.model, costs.posterior(vae.card.model, 5000), "the first page")


def test_a_function_is_called_once(named, monkeypatch):
    calls = []
    monkeypatch.setattr(foreign, "counted", lambda: calls.append(1) or foreign.plain(), raising=False)
    for _ in range(3):
        assert list(named("counted")[0]) == ["adapter:counted"]
    assert calls == [1]


def test_a_hash_tells_models_apart(named):
    """By what they compute: also where only the code differs."""
    found, _ = named("pair", "one", "plain")
    assert len({entry.fingerprint for entry in found.values()}) == 3  # "A titled VAE" is the conv VAE again
    assert len({entry.identity for entry in found.values()}) == 4
    before, _ = found["adapter:plain"].identity, torch.manual_seed(1)
    assert named("plain")[0]["adapter:plain"].identity == before


def test_they_can_neither_be_renamed_nor_removed_nor_are_they_results(named):
    found, _ = named("pair")
    entry = found["adapter:conv VAE"]
    for change in (lambda: catalog.rename(entry, "x"), lambda: catalog.remove(entry)):
        with pytest.raises(CatalogError, match=r"adapter:conv VAE is named by IWAE_ADAPTERS"):
            change()
    with pytest.raises(CatalogError, match="was trained elsewhere"):
        _ = entry.config
    assert rows.collect(found) == ([], {})


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("tests.foreign", "it must be module:function"),
        (":pair", "it must be module:function"),
        ("tests.foreign:picky", "encode raises RuntimeError: no ink"),
        ("tests.foreign:half", "is torch.float16, and weights must be float32"),
        ("tests.foreign:unreadable", "KeyError: 'a'"),
        ("tests.absent:pair", "ModuleNotFoundError: No module named 'tests.absent'"),
        ("tests.foreign:absent", "AttributeError: module 'tests.foreign' has no attribute 'absent'"),
        ("tests.foreign:broken", "FileNotFoundError: no weights here"),
        ("tests.foreign:leaves", "SystemExit: usage"),
        ("tests.foreign:nothing", "nothing() returned no model"),
        ("tests.foreign:network", "network() returned a Sequential where a model is needed, as iwae.adapters.wrap"),
        ("tests.foreign:wide", "wide: images have at most 64×64 pixels, not 65×10"),
        ("tests.foreign:markup", "a title has 1 to 40 letters"),
        ("tests.foreign:one, tests.foreign:one", "there are two models called 'A titled VAE'"),
    ],
)
def test_a_wrong_value_is_a_reason_in_a_line(monkeypatch, tmp_path, place, says, capsys):
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))
    monkeypatch.setenv(environment.VARIABLE, place)
    found, refused = catalog.entries()
    (reason,) = refused.values()
    assert catalog.DEFAULT_PAIR[0] in found and reason.startswith("IWAE_ADAPTERS: ") and says in reason
    assert "\n" not in reason and ("Traceback" in capsys.readouterr().err) == ("Error" in says or "Exit" in says)


def test_a_report_of_them(named):
    """It shows their draws, and no command that would train them."""
    found, _ = named("pair")
    entries = [("A", found["adapter:conv VAE"]), ("B", catalog.entries()[0][catalog.DEFAULT_PAIR[1]])]
    x = torch.zeros(784)
    packed = report.build(entries, {"title": "x"}, {}, SampledImage(x, 50, 0))
    readme = report.zipfile.ZipFile(report.io.BytesIO(packed)).read("README.md").decode()
    assert "# A: conv VAE, a model that IWAE_ADAPTERS names" in readme and 'for name in "B":' in readme
    assert readme.count("python -m iwae train") == 1


def test_two_models_are_compared_on_the_images_of_the_one_that_is_known(named, capsys):
    named("plain")
    words = ["--compare", "adapter:plain", "mnist-5k-1layer-vae-k1", "--images", "20", "--samples", "10"]
    assert table.parse(words).run() == 0
    assert "A: plain · 6:2 · adapter · not evaluated" in capsys.readouterr().out
    with pytest.raises(cli.UsageError, match="of neither is it known"):
        table.parse(["--compare", "adapter:plain", "adapter:plain"]).run()


def test_they_are_measured_and_encoded_from_the_shell(named, tmp_path, capsys):
    vae = named("pair")[0]["adapter:conv VAE"]
    options = ["--dataset", "mnist-5k", "--images", "12", "--samples", "20"]
    assert main(["evaluate", vae.key, *options]) == 0
    shown = capsys.readouterr().out
    x = comparison.choose(datasets.load("mnist-5k").binary("test"), 12, 0)
    measured = evaluate(vae.load(), x, samples=20).summary()
    assert shown.startswith("adapter:conv VAE: wrapped, 2 units, trained elsewhere\n12 test images of mnist-5k")
    assert f"{measured['nll']:.3f} ± {measured['nll_se']:.3f}" in shown
    assert main(["encode", vae.key, *options, "--map", "pca", "--out", str(tmp_path / "l.npz")]) == 0
    with np.load(tmp_path / "l.npz") as file:
        x = datasets.load("mnist-5k").binary("test")[file["index"]]
        np.testing.assert_array_equal(file["h1_mean"], encode(vae.load(), x, samples=20).mean[0])
        about = json.loads(str(file["about"]))
    assert (about["model"], about["weights_sha256"]) == (vae.key, vae.fingerprint)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["evaluate", "adapter:conv VAE"], "what adapter:conv VAE was trained on is not known: name a data set with"),
        (["evaluate", "adapter:VAE"], "names no model adapter:VAE: it names adapter:conv VAE, adapter:conv IWAE"),
        (["evaluate", "adapter:conv VAE", "--save"], "--save is for checkpoints: adapter:conv VAE is code, and has no"),
        (["evaluate", "adapter:conv VAE", "--half"], "--half is for checkpoints"),
        (["encode", "adapter:conv VAE", "--out", "l.csv", "--ray", "auto"], "--ray is for checkpoints"),
        (["encode", "adapter:gone", "--out", "l.csv"], "names no model adapter:gone"),
    ],
)
def test_the_commands_refuse_in_one_line(named, capsys, words, told):
    named("pair")
    assert main(words) == 2
    err = capsys.readouterr().err
    assert told in err and err.count("\n") == 1


def test_what_went_wrong_is_said_where_the_model_is_asked_for(named, capsys):
    named("broken")
    assert main(["evaluate", "adapter:conv VAE", "--dataset", "mnist-5k"]) == 2
    err = capsys.readouterr().err
    assert "it names none; IWAE_ADAPTERS: tests.foreign:broken: FileNotFoundError: no weights here" in err
