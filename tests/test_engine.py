"""Every engine makes the steps of the plain one. tests/test_cuda.py has what only a GPU can show."""

import shutil
from importlib import util

import pytest
import torch

from iwae.data import datasets
from iwae.kernels import precision, threads
from iwae.model import Model, ModelConfig
from iwae.training import engine
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from tests.steps import check_compiled, step_inputs

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


EXPLICIT = {
    "vae": {"objective": "vae", "k": 1, "model": "30:6"},
    "all draws": {"k": 5, "gradient": "exact", "resample": 0, "model": "30:6/10:4"},
    "dreg": {"k": 5, "resample": 0, "model": "30:6/10:4"},
    "some images at a time": {"k": 12, "resample": 0, "model": "30:6/10:4", "batch_size": 60},
    "some at a time, exact": {"k": 12, "gradient": "exact", "resample": 0, "model": "30:6", "batch_size": 60},
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
@pytest.mark.parametrize("options", EXPLICIT.values(), ids=EXPLICIT)
def test_the_gradient_s_formulas_are_autograd_s(options, threads):
    """And the same numbers at every call."""
    config = TrainConfig(**dict(dataset="digits", warm_k=0, batch_size=50) | options)
    plain, ours = (Training(config, datasets.load("digits"), engine=name) for name in ("plain", "explicit"))
    inputs = step_inputs(plain)
    torch.set_num_threads(threads)
    coarse = precision.used(config.precision) == "bfloat16"
    for change, share in ((1.0, 0.75), (1.1, 0.25), (torch.nan, 1.0)):
        given = inputs, torch.tensor(share), plain.estimator
        for run in (plain, ours):
            run.optimizer.flat.mul_(change)
        with precision.of(config.precision):
            gradient, bound, non_finite = plain.engine.gradient(*given)
            first, *others = (ours.engine.gradient(*given) for _ in range(3))
        assert torch.equal(first.non_finite, non_finite) and non_finite.any() == (change != change)
        if change == change:
            assert (gradient - first.gradient).norm() < (2e-2 if coarse else 1e-5) * gradient.norm()
            torch.testing.assert_close(first.bound, bound, rtol=1e-3 if coarse else 1e-5, atol=0.0)
            assert all(torch.equal(a, b) for other in others for a, b in zip(other, first, strict=True))


def test_an_engine_is_chosen_by_device_model_and_length():
    standard = Model(ModelConfig(((8,),), (2,)))
    assert engine.choose("cpu", 1, standard) == "explicit"
    for name in ("1layer@gaussian", "1layer@relu", "conv"):
        assert engine.choose("cpu", 1, Model(ModelConfig.parse(name))) == "plain"
    assert engine.choose("cuda", 1, standard) == engine.choose("cuda", engine.COMPILED_STEPS - 1, standard)
    assert engine.choose("cuda", 1, standard) == "cuda-graph"
    standard.pixel_hidden[0].register_forward_hook(lambda layer, given, out: 2 * out)
    assert engine.choose("cpu", 1, standard) == "plain"
    with pytest.raises(ValueError, match="'explicit' has formulas for tanh and Bernoulli pixels alone, not for conv"):
        Training(TrainConfig("digits", "conv", k=2), engine="explicit")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (
            "fast",
            "unknown engine 'fast'; there are plain, explicit, planned, cuda-graph, compiled, compiled cuda-graph",
        ),
        ("cuda-graph", "engine 'cuda-graph' needs the device cuda, not cpu"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(name, says):
    with pytest.raises(ValueError, match=says):
        Training(TrainConfig(dataset="digits"), engine=name)


def test_only_long_runs_are_compiled_and_what_is_missing_is_told(monkeypatch):
    model = Model(ModelConfig(((8,),), (2,)))
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="not compiled.* Triton is missing"):
        assert engine.choose("cuda", engine.COMPILED_STEPS, model) == "cuda-graph"
    monkeypatch.setattr(util, "find_spec", lambda name: True)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.warns(UserWarning, match="not compiled.* C compiler is missing"):
        assert engine.choose("cuda", engine.COMPILED_STEPS, model) == "cuda-graph"
    monkeypatch.setenv("CC", "cc")
    assert engine.choose("cuda", engine.COMPILED_STEPS, model) == "compiled cuda-graph"


@pytest.mark.parametrize("batch", [100, 64, 20, 7])
def test_shares_are_all_images_once_and_those_of_a_whole_batch_where_they_can(batch, monkeypatch):
    for count in (1, 2, 3, 16):
        monkeypatch.setattr(threads, "count", lambda count=count: count)
        whole = engine._shares(torch.zeros(batch, 1), 50, 300, batch)
        for images in range(1, 2 * batch):
            rows = torch.arange(images).unsqueeze(1)
            shares = engine._shares(rows, 50, 300, batch)
            assert torch.equal(torch.cat([rows[share] for share in shares]), rows)
            assert all(len(rows[share]) for share in shares)
            if len(shares) == len(whole) and whole[-1].start + engine.FEW_IMAGES <= images <= batch:
                assert shares == whole
