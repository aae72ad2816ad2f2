"""Several processes on one model: the gradients, the weights and the records of one process, and its silence."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from iwae import checkpoints
from iwae.data import datasets
from iwae.runs import store
from iwae.sweeps.process_pool import PROCESSES
from iwae.training import distributed
from iwae.training.config import TrainConfig
from iwae.training.engine import StepInputs
from iwae.training.loop import NonFiniteError, Training

PROJECT = Path(__file__).parent.parent
CONFIG = TrainConfig("digits", model="16:4", k=5, epochs=2, log_every=5)  # batches of 100 images, and one of 97
CASES = {
    "iwae": CONFIG,
    "resampled": dataclasses.replace(CONFIG, gradient="dreg", resample=2),
    "two layers": dataclasses.replace(CONFIG, model="16:4/8:3", objective="vae"),
}


def together(function, size: int, folder: Path) -> None:
    """``function(folder)`` in so many processes of one group."""
    processes = [PROCESSES.Process(target=_member, args=(function, rank, size, folder)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * size


def _member(function, rank: int, size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    function(folder)
    dist.destroy_process_group()


def gradients(training: Training) -> dict[str, torch.Tensor]:
    """Of one step on 97 images in float64, with its bound and densities."""
    training.model.double()
    x = datasets.binarize(training.images[:97], training.generator).double()
    noise = training.estimator.noise(training.model, len(x), training.generator)
    inputs = StepInputs(x, x, noise)
    return training.engine.gradient_and_terms(inputs, torch.ones(()), training.estimator)._asdict()


def save_gradients(folder: Path) -> None:
    for name, config in CASES.items():
        torch.save(gradients(distributed.SharedTraining(config)), folder / f"{name} {dist.get_rank()}")


@pytest.mark.parametrize("size", [2, 3])
def test_the_gradients_are_those_of_one_process(size, tmp_path):
    """On shares of unequal size, in float64: the same to 1e-10, on every rank."""
    together(save_gradients, size, tmp_path)
    for name, config in CASES.items():
        expected = gradients(Training(config))
        assert all(value.abs().max() > 0 for value in expected.values())
        for rank in range(size):
            found = torch.load(tmp_path / f"{name} {rank}")
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def train(folder: Path) -> None:
    training = distributed.SharedTraining(CONFIG)
    if dist.get_rank() == 0:
        records = [dataclasses.asdict(record) for record in training.run()]
        torch.save(records, folder / "records")
    else:
        parallel_follow(training)
    torch.save(training.model.state_dict(), folder / f"weights {dist.get_rank()}")


def parallel_follow(training: distributed.SharedTraining) -> None:
    """``parallel.follow`` with the training at hand afterwards."""
    received = [None, None, None]
    dist.broadcast_object_list(received)
    assert TrainConfig.from_dict(received[0]) == CONFIG and received[1] == "cpu"
    training.restore(*received[2])
    training.follow()


def test_training_together_is_training_alone_within_rounding(tmp_path):
    """26 steps: the same bounds to 1e-3 nats, and on both ranks the very same weights."""
    together(train, 2, tmp_path)
    alone = Training(CONFIG)
    expected = [dataclasses.asdict(record) for record in alone.run()]
    found = torch.load(tmp_path / "records")
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    assert [record["active_units"] for record in found] == [record["active_units"] for record in expected]
    for name in ("bound", "valid_bound"):
        assert [r[name] for r in found] == pytest.approx([r[name] for r in expected], abs=1e-3)
    first, second = (torch.load(tmp_path / f"weights {rank}") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first, alone.model.state_dict(), rtol=1e-3, atol=1e-4)


def fail(folder: Path) -> None:
    training = distributed.SharedTraining(dataclasses.replace(CONFIG, learning_rate=1e6))
    if dist.get_rank():
        dist.broadcast_object_list([None, None, None])
        training.follow()
        return
    with pytest.raises(NonFiniteError, match=r"no longer finite at step \d+") as refusal:
        list(training.run())
    (folder / "said").write_text(str(refusal.value))
    with pytest.raises(ValueError, match="batch size 1 leaves a batch of 1 images for 2 processes"):
        distributed.SharedTraining(dataclasses.replace(CONFIG, batch_size=1))


def test_all_end_when_numbers_blow_up(tmp_path):
    together(fail, 2, tmp_path)
    with pytest.raises(NonFiniteError) as alone:
        list(Training(dataclasses.replace(CONFIG, learning_rate=1e6)).run())
    assert (tmp_path / "said").read_text() == str(alone.value)


def test_torchrun_writes_one_run_and_prints_once(tmp_path):
    environment = os.environ | {"IWAE_RUNS_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    words = [
        "--nproc-per-node",
        "2",
        "--standalone",
        "-m",
        "iwae",
        "train",
        "--dataset",
        "digits",
        "--model",
        "16:4",
        "--k",
        "5",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", *words, "--epochs", "2", "--log-every", "5"],
        cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = tmp_path.iterdir()
    run = store.Run(folder)
    assert run.config == CONFIG and run.status().phase == "finished"
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["step"] * len(run.records()) + ["model:", "test"]
    alone = Training(CONFIG)
    list(alone.run())
    together, _ = checkpoints.load(run.checkpoint)
    torch.testing.assert_close(together.state_dict(), alone.model.state_dict(), rtol=1e-3, atol=1e-4)
