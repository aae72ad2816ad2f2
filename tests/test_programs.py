"""A gradient as a program is the gradient by Python and autograd. tests/test_cuda.py has what only a GPU can show."""

import shutil
from importlib import util

import pytest
import torch

from iwae.data import datasets
from iwae.kernels import bernoulli, precision, tanh, tracing
from iwae.model import Model
from iwae.training import steps
from iwae.training.config import TrainConfig
from iwae.training.loop import Training
from tests.steps import check_compiled

WHOLE = torch.ones(())  # the share that the KL has of its weight where nothing warms up

pytestmark = pytest.mark.usefixtures("threads_as_before")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """The usual tanh, the plain likelihood, and all images in one piece."""
    monkeypatch.setattr(tanh.Tanh, "forward", lambda self, z: z.tanh())
    monkeypatch.setattr(
        Model, "log_likelihood", lambda self, x, h1, *_, checked: bernoulli.log_likelihood(x, self.logits(h1))
    )
    monkeypatch.setattr(steps, "shares", lambda x, *of: [slice(0, len(x))])


@pytest.mark.skipif(not shutil.which("g++"), reason="no C++ compiler")
@pytest.mark.parametrize(
    "options",
    [{}, {"resample": 0}, {"gradient": "exact", "resample": 0, "model": "20:6/10:4"}, {"kl_warmup": 9, "resample": 0}],
)
def test_what_is_compiled_is_the_plain_gradient_of_the_weights_as_they_are(options, as_on_a_gpu):
    config = TrainConfig(**dict(dataset="digits", model="20:6", k=12, warm_k=0, batch_size=100) | options)
    run = Training(config, datasets.load("digits"))
    check_compiled(run)


LISTED = {
    "vae": {"objective": "vae", "k": 1, "model": "30:6"},
    "all draws": {"k": 5, "gradient": "exact", "resample": 0, "model": "30:6/10:4"},
    "dreg": {"k": 5, "resample": 0, "model": "30:6/10:4"},
    "piwae": {"k": 6, "gradient": "piwae", "resample": 0, "k1": 3, "k2": 2, "model": "30:6"},
    "resampled": {"k": 12, "resample": 2, "model": "30:6/10:4"},
    "resampled groups": {"objective": "miwae", "k": 12, "k1": 4, "k2": 3, "resample": 1, "model": "30:6"},
    "KL warm-up": {"k": 5, "resample": 0, "model": "30:6/10:4", "kl_warmup": 10},
    "KL warm-up, resampled": {"objective": "l-alpha", "alpha": 2.0, "k": 5, "resample": 2, "kl_warmup": 10},
    "hidden pixels": {"objective": "vae", "k": 1, "model": "30:6", "input_dropout": 0.2},
    "bfloat16": {"k": 8, "resample": 0, "model": "30:6", "products": "bfloat16", "batch_size": 60},
    "bfloat16, two layers": {"k": 12, "resample": 0, "model": "30:6/10:4", "products": "bfloat16", "batch_size": 60},
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("options", LISTED.values(), ids=LISTED)
def test_what_is_listed_is_the_plain_gradient_of_the_weights_as_they_are(options, threads):
    """And the same numbers at every call, of which a run that is resumed repeats only the last."""
    run = Training(TrainConfig(**dict(dataset="digits", warm_k=0, batch_size=50) | options), datasets.load("digits"))
    (call,) = run.calls.values()
    x = run.data.draw(run.images[: run.config.batch_size], run.generator)
    seen, noise = run._hide(x), run.estimator.noise(run.model, len(x), run.generator)
    torch.set_num_threads(threads)
    coarse = precision.used(run.config.products) == "bfloat16"
    for change, share in ((1.0, 0.75), (1.1, 0.25), (torch.nan, 1.0)):
        run.flat.mul_(change)
        with precision.of(run.config.products):
            gradient, values = call.gradient(x, seen, noise, torch.tensor(share))
            first, *others = (call.gradient(x, seen, noise, torch.tensor(share), lasting=True) for _ in range(4))
        if change == change:
            assert (gradient - first[0]).norm() < (2e-2 if coarse else 1e-5) * gradient.norm()
            torch.testing.assert_close(first[1], values, rtol=1e-3 if coarse else 1e-5, atol=0.0)
            assert all(torch.equal(a, b) for other in others for a, b in zip(other, first, strict=True))
        else:
            assert first[0].isnan().any() and first[1].isnan().any()
    assert {images for images, _ in call.listed} == {len(x) // threads}


@pytest.mark.parametrize("resample", [0, 2])
def test_a_list_whose_likelihood_underflows_gives_way_to_the_plain_formula(resample):
    config = TrainConfig(dataset="digits", model="30:6", k=12, warm_k=0, resample=resample, batch_size=50)
    run = Training(config, datasets.load("digits"))
    (call,) = run.calls.values()
    x, seen, noise = run._drawn(run.order[:50], run.estimator)
    call.gradient(x, seen, noise, WHOLE, lasting=True)  # makes the list, where nothing underflows
    run.model.pixel_logits.weight.data.mul_(60)  # of flat, too
    given = run.flat, x, seen, WHOLE, noise.uniform, *noise.normal
    torch.set_num_threads(1)
    call.gradient(x, seen, noise, WHOLE, lasting=True)
    assert call.listed[50, 50](*given)[1].isnan().any()
    listed = call.gradient(x, seen, noise, WHOLE, lasting=True)
    for found, plain in zip(listed, call.gradient(x, seen, noise, WHOLE), strict=True):
        assert plain.isfinite().all() and torch.equal(found, plain)


def test_only_long_runs_are_listed_and_only_their_whole_batches(monkeypatch):
    data = datasets.load("digits")

    def listed(**options) -> list[tuple[int, int, int]]:
        run = Training(TrainConfig(**dict(dataset="digits", model="20:6", resample=0, batch_size=100) | options), data)
        for _ in range(run.steps_per_pass):
            run._train_step()
        return sorted((k, *images) for k, call in run.calls.items() for images in call.listed)

    torch.set_num_threads(2)
    small = {"objective": "vae", "k": 1}
    assert listed(passes=10, **small) == []
    monkeypatch.setattr(tracing, "LISTED_LONG", 10)
    assert listed(passes=10, **small) == [(1, 50, 100)]
    assert listed(passes=10, k=50, warm_k=5) == [(5, 50, 100)]
    assert listed(passes=10, k=50, warm_k=0, resample=1) == [(50, 50, 100)]
    torch.set_num_threads(1)
    assert listed(passes=10, k=50, warm_k=0) == [(50, 100, 100)]
    monkeypatch.setattr(steps, "LISTED_ROWS", 4999)
    assert listed(passes=10, k=50, warm_k=0) == []


def test_where_torch_has_no_lists_that_is_told(monkeypatch):
    monkeypatch.setattr(tracing, "CAN_LIST", False)
    with pytest.warns(UserWarning, match=r"a half as long again: .* Python 3\.\d+ or later"):
        run = Training(TrainConfig(dataset="digits", model="20:6", objective="vae", k=1, passes=100))
    run._train_step()
    assert not any(call.listed for call in run.calls.values())


def test_only_long_runs_are_compiled_and_what_is_missing_is_told(monkeypatch):
    assert not tracing.worth_compiling(tracing.LONG - 1)
    monkeypatch.setattr(tracing, "find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="not compiled.* Triton"):
        assert not tracing.worth_compiling(tracing.LONG)
    monkeypatch.setattr(tracing, "find_spec", lambda name: util.find_spec("torch"))
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.delenv("CC", raising=False)
    with pytest.warns(UserWarning, match="not compiled.* C compiler"):
        assert not tracing.worth_compiling(tracing.LONG)
    monkeypatch.setenv("CC", "cc")
    assert tracing.worth_compiling(tracing.LONG)
