"""IWAE_READ_ONLY=1: nothing of the user's is made, renamed or removed, neither by commands nor by pages."""

import shutil

import pytest

from iwae import __main__, catalog
from iwae.runs import store, worker
from iwae.system import paths
from iwae.training.config import TrainConfig

SHIPPED = catalog.SHIPPED / "digits-small-vae-k1.safetensors"


@pytest.fixture
def own(tmp_path, monkeypatch, own_runs):
    """An added model and a finished run, and then no change any more."""
    monkeypatch.setenv("IWAE_MODELS_DIR", str(tmp_path / "models"))
    catalog.add(SHIPPED.read_bytes(), "mine")
    run = store.create(TrainConfig(dataset="digits", model="8:2", k=1, epochs=1))
    assert worker.work(run).phase == "finished"
    monkeypatch.setenv("IWAE_READ_ONLY", "1")
    return tmp_path, run


def test_no_change_is_made(own):
    folder, run = own
    entry = catalog.entries()[0]["model:mine"]
    before = sorted(path for path in folder.rglob("*"))
    for change in (
        lambda: store.create(TrainConfig(dataset="digits")),
        lambda: store.start(TrainConfig(dataset="digits")),
        run.resume,
        run.delete,
        lambda: catalog.add(SHIPPED.read_bytes() + b" ", "other"),
        lambda: catalog.rename(entry, "another name"),
        lambda: catalog.remove(entry),
    ):
        with pytest.raises(paths.FolderError, match=r"nothing can be trained, added, .* here \(IWAE_READ_ONLY=1\)"):
            change()
    assert sorted(path for path in folder.rglob("*")) == before


def test_commands_say_so(own, capsys):
    assert __main__.main(["train", "--dataset", "digits", "--epochs", "1"]) != 0
    assert "IWAE_READ_ONLY=1" in capsys.readouterr().err


def test_another_value_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("IWAE_READ_ONLY", "yes")
    with pytest.raises(paths.FolderError, match="IWAE_READ_ONLY is 'yes': set it to 1"):
        paths.check()
    for value, meaning in (("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("IWAE_READ_ONLY", value)
        assert paths.read_only() is meaning


def test_models_are_still_read(own, tmp_path):
    found, _ = catalog.entries()
    assert "model:mine" in found and any(key.startswith("run:") for key in found)
    shutil.rmtree(tmp_path / "runs")
    assert "model:mine" in catalog.entries()[0]
