"""Every engine makes the steps of the plain one. tests/test_cuda.py has what only a GPU can show."""

import shutil
import sys
from importlib import util

import pytest
import torch

from iwae.data import datasets
from iwae.kernels import bernoulli, precision, tracing
from iwae.training import engine
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from tests.steps import check_compiled, step_inputs

WHOLE = torch.ones(())  # the share that the KL has of its weight where nothing warms up

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize(
    "options",
    [{}, {"resample": 0}, {"gradient": "exact", "resample": 0, "model": "20:6/10:4"}, {"kl_warmup": 9, "resample": 0}],
)
def test_what_is_compiled_is_the_plain_gradient_of_the_weights_as_they_are(options):
    """With the plain likelihood, as on a GPU: a hook on a layer makes the model take it."""
    config = TrainConfig(**dict(dataset="digits", model="20:6", k=12, warm_k=0, batch_size=100) | options)
    check_compiled(
        config,
        datasets.load("digits"),
        "cpu",
        lambda model: model.pixel_logits.register_forward_hook(lambda layer, given, logits: logits),
    )


TRACED = {
    "vae": {"objective": "vae", "k": 1, "model": "30:6"},
    "all draws": {"k": 5, "gradient": "exact", "resample": 0, "model": "30:6/10:4"},
    "dreg": {"k": 5, "resample": 0, "model": "30:6/10:4"},
    "piwae": {"k": 6, "gradient": "piwae", "resample": 0, "k1": 3, "k2": 2, "model": "30:6"},
    "resampled": {"k": 12, "resample": 2, "model": "30:6/10:4"},
    "resampled groups": {"objective": "miwae", "k": 12, "k1": 4, "k2": 3, "resample": 1, "model": "30:6"},
    "KL warm-up": {"k": 5, "resample": 0, "model": "30:6/10:4", "kl_warmup": 10},
    "KL warm-up, resampled": {"objective": "l-alpha", "alpha": 2.0, "k": 5, "resample": 2, "kl_warmup": 10},
    "hidden pixels": {"objective": "vae", "k": 1, "model": "30:6", "input_dropout": 0.2},
    "bfloat16": {"k": 8, "resample": 0, "model": "30:6", "precision": "bfloat16", "batch_size": 60},
    "bfloat16, two layers": {"k": 12, "resample": 0, "model": "30:6/10:4", "precision": "bfloat16", "batch_size": 60},
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", TRACED.values(), ids=TRACED)
def test_what_is_traced_is_the_plain_gradient_of_the_weights_as_they_are(options, threads):
    """And the same numbers at every call, of which a run that is resumed repeats only the last."""
    config = TrainConfig(**dict(dataset="digits", warm_k=0, batch_size=50) | options)
    plain, traced = (Training(config, datasets.load("digits"), engine=name) for name in ("plain", "traced"))
    inputs = step_inputs(plain)
    torch.set_num_threads(threads)
    coarse = precision.used(config.precision) == "bfloat16"
    for change, share in ((1.0, 0.75), (1.1, 0.25), (torch.nan, 1.0)):
        given = inputs, torch.tensor(share), plain.estimator
        for run in (plain, traced):
            run.optimizer.flat.mul_(change)
        with precision.of(config.precision):
            gradient, bound, non_finite = plain.engine.gradient(*given)
            first, *others = (traced.engine.gradient(*given) for _ in range(4))
        assert torch.equal(first.non_finite, non_finite) and non_finite.any() == (change != change)
        if change == change:
            assert (gradient - first.gradient).norm() < (2e-2 if coarse else 1e-5) * gradient.norm()
            torch.testing.assert_close(first.bound, bound, rtol=1e-3 if coarse else 1e-5, atol=0.0)
            assert all(torch.equal(a, b) for other in others for a, b in zip(other, first, strict=True))
    assert traced.engine.programs() == {("trace", config.k, config.batch_size // threads)}


@pytest.mark.parametrize("resample", [0, 2])
def test_a_trace_whose_likelihood_underflows_gives_way_to_the_plain_formula(resample):
    """With logits 60 times as large the product of 16 probabilities underflows, and a trace cannot branch."""
    config = TrainConfig(dataset="digits", model="30:6", k=12, warm_k=0, resample=resample, batch_size=50)
    plain, traced = (Training(config, datasets.load("digits"), engine=name) for name in ("plain", "traced"))
    inputs = step_inputs(plain)
    torch.set_num_threads(1)
    traced.engine.gradient(inputs, WHOLE, traced.estimator)  # makes the trace, where nothing underflows
    for run in (plain, traced):
        run.model.pixel_logits.weight.data.mul_(60)
    with torch.no_grad(), bernoulli.branch_free():
        assert plain.model.sample(inputs.x, noise=inputs.noise.normal).log_px.isnan().any()
    found, expected = (run.engine.gradient(inputs, WHOLE, run.estimator) for run in (traced, plain))
    assert expected.gradient.isfinite().all() and all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_only_whole_batches_of_not_too_many_draws_are_traced():
    data = datasets.load("digits")

    def traces(**options) -> set[tuple[str, int, int]]:
        """After an epoch, whose last batch has 97 images."""
        config = TrainConfig(**dict(dataset="digits", model="20:6", resample=0, batch_size=100, epochs=10) | options)
        run = Training(config, data, engine="traced")
        for _ in range(run.steps_per_epoch):
            run.advance()
        return run.engine.programs()

    torch.set_num_threads(2)
    assert traces(objective="vae", k=1) == {("trace", 1, 50)}
    assert traces(k=50, warm_k=5) == {("trace", 5, 50)}
    assert traces(k=50, warm_k=0, resample=1) == {("trace", 50, 50)}
    torch.set_num_threads(1)
    assert traces(k=50, warm_k=0) == {("trace", 50, 100)}
    assert traces(k=engine.TRACED_ROWS // 100 + 1, warm_k=0, resample=1) == set()


def test_an_engine_is_chosen_by_device_and_length():
    assert engine.choose("cpu", engine.TRACED_STEPS - 1) == "plain"
    assert engine.choose("mps", engine.COMPILED_STEPS) == "plain"
    assert engine.choose("cuda", 1) == engine.choose("cuda", engine.COMPILED_STEPS - 1) == "cuda-graph"
    data = datasets.load("digits")
    for epochs, name in ((38, "plain"), (39, "traced")):  # of 13 steps
        assert Training(TrainConfig(dataset="digits", model="20:6", k=1, epochs=epochs), data).engine_name == name


def test_a_python_without_tracing_is_told_about(monkeypatch):
    monkeypatch.setattr(sys, "version_info", tracing.TOO_NEW)
    with pytest.warns(UserWarning, match=r"steps take 10 to 50% longer: .* Python 3\.14 or later"):
        assert engine.choose("cpu", engine.TRACED_STEPS) == "plain"
    with pytest.raises(ValueError, match=r"engine 'traced' needs a Python before 3\.14"):
        engine.find("traced", "cpu")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("fast", "unknown engine 'fast'; there are plain, traced, planned, cuda-graph, compiled, compiled cuda-graph"),
        ("cuda-graph", "engine 'cuda-graph' needs the device cuda, not cpu"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        Training(TrainConfig(dataset="digits"), engine=name)


def test_only_long_runs_are_compiled_and_what_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="not compiled.* Triton is missing"):
        assert engine.choose("cuda", engine.COMPILED_STEPS) == "cuda-graph"
    monkeypatch.setattr(util, "find_spec", lambda name: True)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.warns(UserWarning, match="not compiled.* C compiler is missing"):
        assert engine.choose("cuda", engine.COMPILED_STEPS) == "cuda-graph"
    monkeypatch.setenv("CC", "cc")
    assert engine.choose("cuda", engine.COMPILED_STEPS) == "compiled cuda-graph"
