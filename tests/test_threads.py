"""Work on several threads: the same results in order, errors after the last thread, torch's threads as before."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from iwae.evaluation import metrics
from iwae.kernels import threads
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from tests.steps import gradients

PROJECT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)


def test_results_are_in_order_and_on_threads_of_one():
    seen, done = set(), []

    def square(n: int) -> int:
        seen.add((threading.get_ident(), torch.get_num_threads()))
        return n * n

    assert threads.parallel_map(square, range(20), done.append) == [n * n for n in range(20)]
    assert done == list(range(20))
    assert threading.get_ident() not in {ident for ident, _ in seen} and {count for _, count in seen} == {1}


def test_of_few_items_this_thread_takes_one():
    seen, done = {}, []

    def square(n: int) -> int:
        seen[n] = threading.get_ident(), torch.get_num_threads(), threads.count()
        return n * n

    assert threads.parallel_map(square, [5, 6], done.append) == [25, 36]
    assert done == [5, 6] and seen[5][0] == threading.get_ident() != seen[6][0]
    assert seen[5][1:] == seen[6][1:] == (1, 1)  # both compute alone


TEAMS = """
import os, torch
from iwae.kernels import threads
torch.set_num_threads(2)
product = lambda n: torch.randn(300, 300) @ torch.randn(300, 300)
product(0)
before = len(os.listdir("/proc/self/task"))
threads.parallel_map(product, range(20))
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_no_thread_brings_others_with_it():
    """Two threads of ours, and no OpenMP team of either: with those, torch's own took 2.5 times as long ever after."""
    done = subprocess.run([sys.executable, "-c", TEAMS], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "2\n"


@pytest.mark.parametrize("where", ["function", "after"])
@pytest.mark.parametrize("items", [range(50), range(3, 5)])
def test_an_error_comes_through_when_all_threads_are_at_rest(where, items):
    running, lock = [0], threading.Lock()

    def work(n: int) -> None:
        with lock:
            running[0] += 1
        torch.randn(100, 100) @ torch.randn(100, 100)
        with lock:
            running[0] -= 1
        if n == 3 and where == "function":
            raise RuntimeError("no")

    def after(n: int) -> None:
        if n == 3:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        threads.parallel_map(work, items, after)
    assert running == [0]


def test_evaluation_is_the_same_on_any_number_of_threads():
    model, x = Model(ModelConfig(((20,),), (5,), (1, 784))), torch.randint(0, 2, (250, 784)).float()
    two = metrics.evaluate(model, x, samples=120).nll
    torch.set_num_threads(1)
    one = metrics.evaluate(model, x, samples=120).nll
    torch.set_num_threads(2)
    assert torch.equal(one, two)


@pytest.mark.parametrize("gradient", ["exact", "dreg"])
@pytest.mark.parametrize("resample", [0, 1])
def test_a_step_on_two_threads_is_that_of_one(gradient, resample):
    """The same draws, so the same gradient up to rounding, for a layer that dreg looks through as well."""
    config = TrainConfig(
        "digits", model="30:6/10:4", k=20, gradient=gradient, resample=resample, warm_k=0, input_dropout=0.1
    )
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        training = Training(config)
        training.advance()
        found.append(gradients(training))
        assert training.monitor.report() == (None, 0)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())
