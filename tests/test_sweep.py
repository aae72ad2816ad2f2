"""Grids, and sweeps of them on the embedded digits: whatever stops a sweep, the table in the end is the same."""

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
import torch

from iwae import checkpoints
from iwae.__main__ import main
from iwae.data import datasets
from iwae.evaluation import metrics as evaluation
from iwae.runs import store, worker
from iwae.sweeps import grid as cells
from iwae.sweeps import ray_pool, sweep
from iwae.sweeps.process_pool import ProcessPool
from iwae.sweeps.sweep import Measurement, Sweep, TrainingJob
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

PROJECT = Path(__file__).parent.parent
MEASUREMENT = Measurement(samples=60, images=40)
GRID = """
[defaults]
dataset = "digits"
model = "16:4"
epochs = 4
k = 5
log_every = 5
[grid]
objective = ["vae", "iwae"]
[[cell]]
objective = "iwae"
learning_rate = 1e6  # cannot go well
"""


class Here:
    """A backend that runs each job in this process."""

    def __init__(self):
        self.ended: dict[str, str] = {}

    def has_capacity(self) -> bool:
        return not self.ended

    def start(self, name: str, job: TrainingJob) -> None:
        self.ended[name] = job.run()

    def wait(self, seconds: float) -> dict[str, str]:
        ended, self.ended = self.ended, {}
        return ended

    def stop(self) -> None:
        raise AssertionError("nobody has asked for it")


def parse(text: str) -> list[cells.GridCell]:
    return cells.parse(tomllib.loads(text))


def table(folder: Path) -> list[dict]:
    """What of a sweep's table must be repeatable."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in json.loads((folder / "table.json").read_text())]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A sweep of GRID that nothing has disturbed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    work = Sweep(tmp_path_factory.mktemp("sweep"), parse(GRID), MEASUREMENT)
    work.run(Here())
    torch.set_num_threads(threads)
    return work


def test_a_grid_is_every_combination_and_single_cells():
    found = parse("""
        [defaults]
        epochs = 7
        [grid]
        objective = ["vae", "iwae"]
        k = [1, 50]
        [[cell]]
        objective = "power-mean"
        p = 2
        seed = [3, 4]
        epochs = 9
        [[override]]
        where = { k = 50, objective = "iwae" }
        gradient = "dreg"
        resample = 1
    """)
    assert [cell.config for cell in found] == [
        TrainConfig(objective="vae", k=1, epochs=7),
        TrainConfig(objective="vae", k=50, epochs=7),
        TrainConfig(objective="iwae", k=1, epochs=7),
        TrainConfig(objective="iwae", k=50, epochs=7, gradient="dreg", resample=1),
        TrainConfig(objective="power-mean", p=2.0, seed=3, epochs=9),
        TrainConfig(objective="power-mean", p=2.0, seed=4, epochs=9),
    ]
    assert len({cell.name for cell in found}) == 6


def test_names_never_change():
    """Sweeps find their finished cells by them."""
    settings = dict(dataset="mnist-fixed", model="200,200:100/100,100:50", objective="ciwae", beta=0.25, k=8, seed=2)
    assert cells.GridCell(TrainConfig(**settings)).name == "mnist-fixed-ciwae-k8-2layer-s2-6b3a93fd"
    odd = cells.GridCell(TrainConfig("digits", model="30,20:5/8:3"))
    assert odd.name == "digits-iwae-k50-30_20_5_8_3-s0-792538b7"


def test_the_grids_in_the_documents_are_whole():
    """The published one: 3 data sets, 1 and 2 layers, VAE and IWAE of k = 5 and 50, and k = 1 once; 3,280 epochs."""
    published = [cell.config for cell in cells.load(PROJECT / "docs" / "published.toml")]
    assert len(published) == 30 and {config.epochs for config in published} == {3280}
    assert sum(config.resample for config in published) == 6
    assert len(cells.load(PROJECT / "docs" / "digits.toml")) == 7


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it has no cells: a table [grid], or [[cell]], lists them"),
        ("[gird]\nk = [1]", "unknown table 'gird'; there are defaults, grid, cell, override"),
        ("[grid]\nsed = [1]", "grid: unknown setting 'sed'; there are dataset, model"),
        ("[grid]\nk = []", "grid: k has no values"),
        ("[grid]\nk = [1, 2.5]", "grid: k must be a whole number, not 2.5"),
        ("[grid]\nk = [true]", "grid: k must be a whole number, not True"),
        ("[grid]\nlearning_rate = ['fast']", "grid: learning_rate must be a number, not 'fast'"),
        ("[defaults]\ndataset = 1\n[grid]\nk = 1", "defaults: dataset must be a text, not 1"),
        ("[grid]\ndataset = ['minst']\nk = 1", "cell dataset = minst, k = 1: unknown data set 'minst'"),
        ("[grid]\nobjective = ['vae', 'ciwae']", "cell objective = ciwae: "),
        ("[[cell]]\nk = 0", "cell k = 0: k must be a whole number of at least 1, not 0"),
        ("[[cell]]\nstart = 'no.safetensors'", "cell start = no.safetensors: start: there is no file"),
        ("[grid]\nk = [1, 1]", "cell k = 1: there are two cells with these settings"),
        ("[cell]\nk = 1", "cell must be written as [[cell]]"),
        ("[grid]\nk = 1\n[[override]]\nwhere = { k = 2 }", "override 1 fits no cell"),
        ("grid = 3", "grid must be a table, not 3"),
        (f"[grid]\nk = {list(range(1, 11))}\nseed = {list(range(1001))}", "10,010 cells are too many"),
    ],
)  # fmt: skip
def test_grids_that_cannot_be_name_the_cell_and_the_value(text, told):
    with pytest.raises(cells.GridError) as refusal:
        parse(text)
    assert told in str(refusal.value)


def test_the_table_has_what_training_and_evaluation_give(done):
    first, second, failed = done.rows()
    for cell, row in zip(done.cells, (first, second), strict=False):
        alone = Training(cell.config)
        records = list(alone.run())
        order = torch.randperm(300, generator=torch.Generator().manual_seed(0))[:40]
        x = datasets.load("digits").binary("test")[order]
        expected = evaluation.evaluate(alone.kept_model(), x, samples=60).summary()
        assert (row.state, row.bound, row.valid_bound) == ("finished", records[-1].bound, records[-1].valid_bound)
        assert (row.nll, row.nll_se, row.samples, row.images) == (expected["nll"], expected["nll_se"], 60, 40)
    assert failed.state == "failed" and "no longer finite at step" in failed.reason and failed.nll is None
    lines = (done.folder / "table.md").read_text().splitlines()
    assert f"| {first.nll:.2f} ± {first.nll_se:.2f} |" in lines[2] and "failed: " in lines[4]
    assert lines[-1].endswith("NLL in nats per image: 40 test images, 60 draws each.")
    with (done.folder / "table.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["cell"] for row in rows] == [cell.name for cell in done.cells]
    assert float(rows[1]["nll"]) == second.nll and rows[2]["nll"] == ""


def test_finished_cells_are_never_run_again(done):
    before, started = table(done.folder), []

    class Watched(Here):
        def start(self, name, job):
            started.append(name)
            super().start(name, job)

    done.run(Watched())
    assert started == [done.cells[2].name]  # the one that failed
    assert table(done.folder) == before


def test_another_measurement_trains_nothing(done, tmp_path, monkeypatch):
    shutil.copytree(done.folder, tmp_path, dirs_exist_ok=True)
    again = Sweep(tmp_path, done.cells[:1], Measurement(samples=30, images=40))
    monkeypatch.setattr(worker, "work", lambda *_, **__: pytest.fail("it trained again"))
    (row,) = again.run(Here())
    assert row.samples == 30 and row.nll != done.row(done.cells[0]).nll
    (row,) = dataclasses.replace(again, measurement=MEASUREMENT).run(Here())
    assert row.samples == 60


def test_a_killed_process_is_told_and_the_cell_goes_on_the_next_time(done, tmp_path):
    """Two processes at once; one is killed when it has records. The second sweep gives the undisturbed table."""
    work = dataclasses.replace(done, folder=tmp_path)
    victim = tmp_path / work.cells[0].name

    def kill() -> None:
        while not (victim / "metrics.jsonl").exists():
            time.sleep(0.01)
        os.kill(json.loads((victim / "status.json").read_text())["pid"], signal.SIGKILL)

    with ProcessPool(2) as pool:
        killer = threading.Thread(target=kill)
        killer.start()
        first, second, _ = work.run(pool)
        killer.join()
    assert second.state == "finished"
    assert first.state == "failed" and first.reason == "its process ended without a message (exit code -9)"
    with ProcessPool(2) as pool:
        work.run(pool)
    assert table(tmp_path) == table(done.folder)


def test_ctrl_c_saves_and_the_same_command_goes_on(done, tmp_path, capsys):
    grid, out = tmp_path / "grid.toml", tmp_path / "out"
    grid.write_text(GRID)
    options = [str(grid), "--out", str(out), "--samples", "60", "--images", "40", "--jobs", "1"]
    command = [sys.executable, "-m", "iwae", "sweep", *options]
    process = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = out / done.cells[0].name / "metrics.jsonl"
    while not metrics.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "save and stop" in err and err.endswith("run the same command again to continue\n")
    assert "Traceback" not in err
    assert not (out / done.cells[1].name).exists()

    assert main(["sweep", *options, "--dry-run"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert listed[1].startswith(done.cells[1].name) and "not run" in listed[1]
    assert main(["sweep", *options]) == 1  # one cell cannot go well
    out_lines = capsys.readouterr().out.splitlines()
    assert sum("finished" in line for line in out_lines) == 2 and sum("failed: " in line for line in out_lines) == 1
    assert table(out) == table(done.folder)


def test_what_cells_still_cost(done):
    """By the time an epoch has taken in a cell that costs as much."""
    like, other = dataclasses.replace(done.cells[0].config, epochs=400), TrainConfig("digits", k=3)
    more = dataclasses.replace(done, cells=[*done.cells, *map(cells.GridCell, (like, other))])
    left = more.seconds_left()
    first = more.row(more.cells[0])
    assert left[more.cells[0].name] == 0 and left[more.cells[4].name] is None
    assert left[more.cells[3].name] == pytest.approx(first.seconds * 100)


def test_a_folder_with_another_run_and_a_second_sweep_are_refused(done, tmp_path):
    (cell, *_) = done.cells
    work = dataclasses.replace(done, folder=tmp_path, cells=[cell])
    store.create(dataclasses.replace(cell.config, k=6), folder=tmp_path / cell.name)
    (row,) = work.run(Here())
    assert row.state == "failed" and row.reason.endswith("holds a run with other settings")
    with (
        sweep.FileLock(tmp_path / "lock"),
        pytest.raises(sweep.SweepError, match="already being run by another process"),
    ):
        work.run(Here())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("nowhere.toml", "there is no file nowhere.toml"),
        ("BAD", "is not TOML"),
        ("TF32", "matrix products in tf32 need the device cuda; on cpu they are float32"),
        ("GRID --jobs 0", "--jobs must be at least 1, not 0"),
        ("GRID --samples 0", "--samples must be at least 1, not 0"),
        ("GRID --samples 1000001", "--samples must not be above 1,000,000, not 1,000,001"),
        ("GRID --images 1", "--images must be at least 2, not 1"),
        ("GRID --cpus-per-cell 2", "go with --ray"),
        ("GRID --ray auto --jobs 2", "with --ray, --gpus-per-cell decides"),
        ("GRID --ray auto --gpus-per-cell -1", "--gpus-per-cell must not be below 0"),
    ],
)
def test_wrong_arguments(words, told, tmp_path, capsys):
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "bad.toml").write_text("[[[")
    (tmp_path / "tf32.toml").write_text("[grid]\nproducts = ['float32', 'tf32']")
    named = {name.upper(): str(tmp_path / f"{name}.toml") for name in ("grid", "bad", "tf32")}
    assert main(["sweep", *(named.get(word, word) for word in words.split())]) == 2
    out, err = capsys.readouterr()
    assert out == "" and told in err and err.count("\n") == 1


def test_a_missing_ray_says_what_to_install(tmp_path, capsys, monkeypatch):
    (tmp_path / "grid.toml").write_text(GRID)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["sweep", str(tmp_path / "grid.toml"), "--ray", "auto", "--out", str(tmp_path / "out")]) == 1
    assert "pip install -r requirements-cluster.txt" in capsys.readouterr().err


def test_what_travels_between_nodes_goes_on_bit_for_bit(done, tmp_path):
    """A run stopped in the middle, as bytes, put down elsewhere."""
    config = done.cells[1].config
    there, here = (TrainingJob(tmp_path / name, config, "cpu", MEASUREMENT) for name in ("there", "here"))
    run = store.create(config, folder=there.folder)
    worker.work(run, lambda *_: (there.folder / "stop").touch())
    assert run.status().phase == "stopped" and run.records()[-1].step < 52
    ray_pool.write_files(here.folder, ray_pool.read_files(there.folder))
    assert not (here.folder / "stop").exists()
    assert here.run() == ""
    folders = here.folder, done.folder / done.cells[1].name
    found, wanted = (checkpoints.load(folder / "checkpoint.safetensors") for folder in folders)
    assert all(torch.equal(a, b) for a, b in zip(found[0].parameters(), wanted[0].parameters(), strict=True))
    assert found[1].metrics == wanted[1].metrics


@pytest.mark.slow
def test_a_ray_cluster_loses_a_node_and_nothing_else(ray_cluster, tmp_path):
    """One of two nodes is killed while it trains: the other node resumes its cell from the last saved state, and the
    table equals that of this machine alone."""
    made, node = ray_cluster
    text = GRID.replace("epochs = 4", "epochs = 150").replace('"iwae"]', '"iwae"]\nseed = [0, 1]')
    near, far = (Sweep(tmp_path / name, parse(text), MEASUREMENT) for name in ("near", "far"))
    lost = []

    def kill() -> None:
        while not lost:
            for log in far.folder.glob("*/log.txt"):
                if node.node_id in log.read_text() and (log.parent / "state.safetensors").exists():
                    lost.append(log.parent.name)
            time.sleep(0.02)
        made.remove_node(node, allow_graceful=False)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    with ray_pool.RayCluster(made.address, far.folder, sync_seconds=0.2) as backend:
        rows = far.run(backend)
        killer.join()
        assert [row.state for row in rows] == ["finished"] * 4 + ["failed"]
        log = (far.folder / lost[0] / "log.txt").read_text().splitlines()
        assert node.node_id in log[0] and "from step 0 " in log[0]
        assert node.node_id not in log[1] and int(log[1].split("from step ")[1].split()[0]) > 0
        before = table(far.folder)
        assert [row.state for row in far.run(backend)] == [row.state for row in rows]  # the failed one, once more
        assert table(far.folder) == before
    near.run(Here())
    assert table(near.folder) == before
