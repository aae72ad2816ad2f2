"""Training on a CUDA device: the replayed graph against the same steps one by one. Skipped without such a device."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.kernels import gpu
from iwae.model import Model, ModelConfig
from iwae.training.config import TrainConfig
from iwae.training.loop import NonFiniteError, Training
from tests.steps import check_compiled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

# 13 steps an epoch, the last one with fewer images; 5 draws for the first epoch, then 20
SMALL = dict(
    dataset="digits", k=20, warm_k=5, warm_share=1 / 3, gradient="dreg", resample=1, epochs=3, batch_size=100, ema=0.9
)


@pytest.fixture(scope="module")
def data():
    return datasets.load("digits")


@pytest.mark.parametrize(("engine", "single"), [("cuda-graph", "planned"), ("compiled cuda-graph", "compiled")])
@pytest.mark.parametrize(("batch", "epochs"), [(100, 3), (20, 2)])  # an epoch has 13 steps, or 65: three bursts of 20
@pytest.mark.parametrize(
    "options", [{}, {"resample": 0}, {"gradient": "exact"}, {"model": "20:6/10:4"}, {"kl_warmup": 2}]
)
def test_the_graph_trains_as_the_single_steps_do(options, batch, epochs, engine, single, data):
    config = TrainConfig(**SMALL | options | {"batch_size": batch, "epochs": epochs})
    replayed = Training(config, data, "cuda", engine=engine)
    records = list(replayed.run())
    graphs = {steps for kind, _, steps in replayed.engine.programs() if kind == "graph"}
    assert graphs == ({1} if batch == 100 else {1, gpu.BURST})
    for a, b in zip(records, (other := Training(config, data, "cuda", engine=single)).run(), strict=True):
        assert a.step == b.step and a.bound == pytest.approx(b.bound, rel=1e-4)
    for a, b in zip(replayed.kept_model().parameters(), other.kept_model().parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)  # float32 sums in another order, over 39 or 130 steps


@pytest.mark.parametrize("options", [{}, {"resample": 0}, {"model": "20:6/10:4", "resample": 0}, {"kl_warmup": 2}])
def test_what_is_compiled_is_the_plain_gradient(options, data):
    check_compiled(TrainConfig(**SMALL | {"warm_k": 0} | options), data, "cuda")


def test_runs_at_the_same_time_are_what_each_is_alone(data):
    """Threads with a stream each: no graph may use what another's does."""

    def train(run):
        torch.cuda.synchronize()  # what the run is made of comes from another stream
        with torch.cuda.stream(torch.cuda.Stream()):
            return [record.bound for record in run.run()]

    configs = [TrainConfig(**SMALL | {"warm_k": 0, "epochs": 12, "seed": seed}) for seed in range(4)]
    alone = [train(Training(config, data, "cuda")) for config in configs]
    runs = [Training(config, data, "cuda") for config in configs]
    for run in runs:  # recording stops everyone
        for _ in range(13):  # an epoch, of which the first record then tells, too
            run.advance()
    with ThreadPoolExecutor() as pool:
        together = list(pool.map(train, runs))
    for a, b in zip(alone, together, strict=True):
        assert len(b) == 11 and b[1:] == pytest.approx(a[2:], rel=1e-3)


def test_no_step_waits_for_the_device(data):
    run = Training(TrainConfig(**SMALL), data, "cuda")
    for _ in range(2 * 13 + 6):  # both graphs are recorded, and the third epoch has begun
        run.advance()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            run.advance()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_run_resumes_on_the_device(data):
    config = TrainConfig(**SMALL)
    whole = Training(config, data, "cuda")
    records = list(whole.run())
    first = Training(config, data, "cuda")
    for _ in range(20):
        first.advance()
    second = Training(config, data, "cuda")
    second.restore(*first.state())
    rest = list(second.run())
    assert rest[-1].step == records[-1].step
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_non_finite_numbers_are_told_with_their_step(data):
    run = Training(TrainConfig(**SMALL | {"learning_rate": 1e6, "schedule": "constant"}), data, "cuda")
    with pytest.raises(NonFiniteError, match=r"no longer finite at step \d+"):
        list(run.run())
    assert all(weight.isfinite().all() for weight in run.model.parameters())


def test_the_two_devices_agree(data):
    model, x = Model(ModelConfig(), pixel_mean=data.pixel_mean), data.binary("test")[:50]
    noise = model.noise(7, 50, torch.Generator().manual_seed(0))
    here = model.sample(x, noise=noise).log_w
    there = model.to("cuda").sample(x.cuda(), noise=tuple(eps.cuda() for eps in noise)).log_w
    torch.testing.assert_close(here, there.cpu(), rtol=1e-5, atol=2e-3)
    nll = [metrics.evaluate(model.to(d), x.to(d), samples=500).summary() for d in ("cpu", "cuda")]
    assert abs(nll[0]["nll"] - nll[1]["nll"]) < 0.5  # two independent estimates of the same number
