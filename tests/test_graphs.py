"""What a GPU is given to do, compiled for the CPU: the same numbers. tests/test_cuda.py has the rest."""

import shutil
from importlib import util

import pytest

from iwae import bernoulli, datasets, graphs, tanh, training
from iwae.config import TrainConfig
from iwae.model import Model
from iwae.training import Training
from tests.steps import check_compiled


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The plain formulas, in one piece."""
    monkeypatch.setattr(
        Model, "log_likelihood", lambda self, x, h1, visible=None: bernoulli.log_likelihood(x, self.logits(h1))
    )
    monkeypatch.setattr(tanh.Tanh, "forward", lambda self, z: z.tanh())
    monkeypatch.setattr(training, "shares", lambda x, draws: [slice(0, len(x))])


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize("options", [{}, {"resample": 0}, {"gradient": "exact", "resample": 0, "model": "20:6/10:4"}])
def test_what_is_compiled_is_the_plain_gradient_of_the_weights_as_they_are(options, as_on_a_gpu):
    config = TrainConfig(**dict(dataset="digits", model="20:6", k=12, warm_k=0, batch_size=100) | options)
    run = Training(config, datasets.load("digits"))
    check_compiled(run)


def test_only_long_runs_are_compiled_and_what_is_missing_is_told(monkeypatch):
    assert not graphs.worth_compiling(graphs.LONG - 1)
    monkeypatch.setattr(graphs, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="not compiled.* Triton"):
        assert not graphs.worth_compiling(graphs.LONG)
    monkeypatch.setattr(graphs, "find_spec", lambda name: util.find_spec("torch"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.warns(UserWarning, match="not compiled.* C compiler"):
        assert not graphs.worth_compiling(graphs.LONG)
    monkeypatch.setenv("CC", "cc")
    assert graphs.worth_compiling(graphs.LONG)
