"""What was written before epochs and matmul precision had these names: options, settings, runs, sweeps and cards."""

import json

from iwae import catalog, checkpoints
from iwae.cli import train
from iwae.runs import store
from iwae.runs.loggers import Logs
from iwae.sweeps import grid
from iwae.training.config import TrainConfig

OLD = {"dataset": "digits", "model": "16:4", "k": 5, "passes": 7, "products": "bfloat16"}
CONFIG = TrainConfig("digits", model="16:4", k=5, epochs=7, precision="bfloat16")


def test_settings():
    assert TrainConfig.from_dict(OLD) == CONFIG


def test_options():
    words = ["--dataset", "digits", "--model", "16:4", "--k", "5"]
    for more in (["--passes", "7", "--products", "bfloat16"], ["--passes=7", "--products=bfloat16"]):
        assert train.parse(words + more).config == CONFIG


def test_the_option_of_the_only_logger(tmp_path):
    for words in (["--tensorboard", str(tmp_path)], [f"--tensorboard={tmp_path}"]):
        command = train.parse(["--k", "5", *words])
        assert (command.log, command.log_dir, command.config.k) == (("tensorboard",), tmp_path, 5)


def test_a_run(tmp_path, monkeypatch):
    """Its settings and its records, as version 2 wrote them."""
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))
    folder = tmp_path / "old"
    folder.mkdir()
    settings = {"version": 2, "config": OLD, "device": "cpu", "tensorboard": "/logs"}
    (folder / "config.json").write_text(json.dumps(settings))
    record = {"step": 13, "passes": 1.0, "bound": -200.5, "valid_bound": None, "active_units": None}
    record |= {"images_per_second": 1000.0, "seconds": 1.5, "learning_rate": 2e-3}
    (folder / "metrics.jsonl").write_text(json.dumps(record) + "\n")
    run = store.get("old")
    assert run.config == CONFIG and [each.epochs for each in run.records()] == [1.0]
    assert run.logs == Logs(("tensorboard",), "/logs")


def test_a_grid_keeps_the_names_of_its_cells():
    """The hashes are those that version 2 gave: a sweep that began then goes on in the same folders."""
    tables = {"grid": {"k": [5]}, "cell": [{"objective": "vae", "k": 1}]}
    old = tables | {"defaults": {"dataset": "digits", "passes": 100}}
    new = tables | {"defaults": {"dataset": "digits", "epochs": 100}}
    old["cell"], new["cell"] = ([{"objective": "vae", "k": 1, key: "bfloat16"}] for key in ("products", "precision"))
    assert grid.parse(old) == grid.parse(new)
    names = ["digits-iwae-k5-1layer-s0-30d361db", "digits-vae-k1-1layer-s0-e4581672"]
    assert [cell.name for cell in grid.parse(old)] == names


def test_cards_of_version_2():
    """A model that went on from another one: its own settings and progress, and those of the first."""
    path = catalog.SHIPPED / "mnist-fixed-1layer-vae-k1-then-iwae-k50.safetensors"
    card = checkpoints.read_card(path)
    parts = [card.training | card.progress, *(part["training"] | part for part in card.progress["history"])]
    assert len(parts) > 1
    for part in parts:
        assert part["epochs"] > 0 and not set(part) & set(checkpoints.OLD_NAMES)
