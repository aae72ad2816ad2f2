"""The memory of a training step: the estimate beside the measured peak, and what is refused before it starts."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from iwae.__main__ import main
from iwae.data import datasets
from iwae.runs import store
from iwae.system import cores
from iwae.training import memory
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from iwae.training.memory import NotEnoughMemoryError

SLOW = pytest.mark.slow
pytestmark = pytest.mark.usefixtures("own_runs")

PROGRAM = """
import json, sys
from pathlib import Path
from iwae.training.config import TrainConfig
from iwae.training.loop import Training

def bytes_of(name):  # /proc counts in kB
    return 1024 * int(Path("/proc/self/status").read_text().split(name)[1].split()[1])

for config in (TrainConfig(model="8:2", k=2), TrainConfig(**json.loads(sys.argv[1]))):  # the first loads libraries
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = bytes_of("VmRSS")
    training = Training(config)
    for _ in range(2):
        training.advance()
print(bytes_of("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="measured by Linux's /proc")
@pytest.mark.parametrize(
    "options",
    [
        {"k": 50, "batch_size": 300, "resample": 0, "warm_k": 0, "epochs": 2},
        {"k": 500, "batch_size": 100, "warm_k": 0, "model": "2layer"},
        pytest.param(
            {"k": 50, "batch_size": 100, "model": "1layer@gaussian@relu", "resample": 0, "warm_k": 0}, marks=SLOW
        ),
        pytest.param(
            {"k": 50, "batch_size": 100, "model": "conv", "resample": 0, "warm_k": 0, "epochs": 2}, marks=SLOW
        ),
        pytest.param({"k": 1500, "batch_size": 100, "warm_k": 0}, marks=SLOW),
        pytest.param({"k": 2, "batch_size": 20, "model": "2000,2000:50", "epochs": 2}, marks=SLOW),
    ],
    ids=[
        "all draws backward",
        "one of two layers",
        "grey pixels",
        "convolutions",
        "one draw backward",
        "a wide model",
    ],
)
def test_the_estimate_is_near_the_measured_peak(options):
    """Between 0.6 and 2.5 times what three steps need at their peak: what has been freed and is kept is in neither."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(options)]
    measured = subprocess.run(command, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    ratio = sum(memory.needed(TrainConfig(**options))) / int(measured.stdout)
    assert 0.6 < ratio < 2.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"objective": "miwae", "k1": 1000, "k2": 1000, "k": 10**6, "batch_size": 50},
            r"k1·k2 = 1,000·1,000 = 1,000,000 draws for each of 50 images need about 5\d GB .* has 16 GB: choose",
        ),
        ({"k": 10**6}, r"k = 1,000,000 draws for each of 100 images need about 102 GB"),
        ({"k": 200_000, "resample": 0}, "k = 200,000 draws for each of 100 images need"),
        ({"k": 200_000, "gradient": "piwae", "k1": 2000, "k2": 100}, r"k1·k2 = 2,000·100 = 200,000 draws"),
        (
            {"dataset": "digits", "k": 15_000, "batch_size": 10**9},
            "k = 15,000 draws for each of 1,297 images need",
        ),  # all that there are
        ({"model": "100000,100000:50"}, "model 100000,100000:50 has so many weights .*: choose a smaller model"),
        ({"model": "20000,20000:50/20000:20000"}, "so many weights"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(options, says, monkeypatch):
    config = TrainConfig(**options)
    monkeypatch.setattr(memory, "available", lambda device: (8 * 10**9, 16 * 10**9))
    with pytest.raises(NotEnoughMemoryError, match=says):
        memory.check(config, ever=True)
    with pytest.raises(NotEnoughMemoryError, match=r"has 8\.0 GB free of 16 GB"):
        Training(config)
    with pytest.raises(NotEnoughMemoryError):
        store.create(config)
    assert store.list_runs() == []


def test_what_must_wait_its_turn_is_compared_with_all_the_memory(monkeypatch):
    config = TrainConfig(k=5000, resample=0, warm_k=0)  # 0.8 GB
    monkeypatch.setattr(memory, "available", lambda device: (2 * 10**8, 16 * 10**9))
    memory.check(config, ever=True)
    with pytest.raises(NotEnoughMemoryError, match=r"has 0\.20 GB free of 16 GB"):
        memory.check(config)


def test_what_ships_and_the_defaults_fit_into_a_small_machine(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda device: (5 * 10**8, 10**9))
    for options in ({}, {"model": "2layer"}, {"k": 1, "objective": "vae"}, {"k": 500, "model": "2layer"}):
        memory.check(TrainConfig(**options), images=50_000)


def test_train_says_so_before_anything_is_done(monkeypatch, capsys):
    monkeypatch.setattr(datasets, "download", lambda *_, **__: pytest.fail("a download"))
    monkeypatch.setattr(memory, "available", lambda device: (8 * 10**9, 16 * 10**9))
    assert main(["train", "--dataset", "mnist", "--k", "1000000"]) == 2
    assert capsys.readouterr().err.startswith("error: k = 1,000,000 draws for each of 100 images need about 102 GB")
    assert store.list_runs() == []


def test_a_sweep_names_the_cell_that_does_not_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "available", lambda device: (8 * 10**9, 16 * 10**9))
    (tmp_path / "grid.toml").write_text('[grid]\ndataset = "digits"\nk = [5, 1000000]\n')
    assert main(["sweep", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "out"), "--dry-run"]) == 2
    assert re.search(r"cell digits-iwae-k1000000-\S+: k = 1,000,000 draws for each", capsys.readouterr().err)


def groups(tmp_path: Path, monkeypatch, membership: str, **files: str) -> None:
    """A file system of control groups instead of the machine's; in the names __ stands for /."""
    monkeypatch.setattr(cores, "CGROUPS", tmp_path)
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    (tmp_path / "membership").write_text(membership)
    for name, content in files.items():
        path = tmp_path.joinpath(*name.split("__"))
        path = path.with_name(path.name.replace("memory_", "memory.", 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


STAT = "anon 70\ninactive_file 200\ntotal_inactive_file 300\n"
SMALL = {"memory_max": "3000", "memory_current": "1500", "memory_stat": STAT}


def test_control_groups_count(tmp_path, monkeypatch):
    """Of the group itself or one above it, whichever has the least; what the kernel keeps of files counts as free."""
    inner = {"a__b__memory_max": "max", "a__b__memory_current": "20", "a__b__memory_stat": STAT}
    groups(tmp_path, monkeypatch, "0::/a/b\n", **inner, **{f"a__{name}": text for name, text in SMALL.items()})
    assert memory.available() == (1700, 3000)


def test_control_groups_of_version_1_count(tmp_path, monkeypatch):
    one = {"memory__memory_limit_in_bytes": "3000", "memory__memory_usage_in_bytes": "1500"}
    groups(tmp_path, monkeypatch, "4:memory:/docker/12\n3:cpu:/\n", **one, memory__memory_stat=STAT)
    assert memory.available() == (1800, 3000)


@pytest.mark.parametrize(
    "files", [{}, SMALL | {"memory_max": "max"}, SMALL | {"memory_max": "9223372036854771712"}, {"memory_max": "3000"}]
)
def test_without_a_limit_it_is_the_machine_that_counts(tmp_path, monkeypatch, files):
    groups(tmp_path, monkeypatch, "0::/\n", **files)
    free, total = memory.available()
    assert total == psutil.virtual_memory().total and 0 < free <= total


def test_a_graphics_card_is_asked_itself(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10**9, 2 * 10**9))
    with pytest.raises(NotEnoughMemoryError, match=r"the device cuda has 2\.0 GB: choose"):
        memory.check(TrainConfig(k=5000, resample=0), "cuda", ever=True)
