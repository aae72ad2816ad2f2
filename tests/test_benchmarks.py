"""The benchmarks' own arithmetic: operations, exponents, the peer with our weights, and the report's file."""

import dataclasses
import math
import time

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import (
    __main__,
    apart,
    app,
    breakdown,
    evaluation,
    flops,
    growth,
    probe,
    pythae_peer,
    quality,
    report,
    settings,
    timing,
    workload,
)
from benchmarks.report import Section, at_least, at_most
from iwae import checkpoints
from iwae.data import datasets
from iwae.model import Model, ModelConfig
from iwae.runs import store, worker
from iwae.training.config import TrainConfig

needs_pythae = pytest.mark.skipif(not pythae_peer.INSTALLED, reason="needs pythae: benchmarks/requirements.txt")


def test_operations_are_those_known():
    """784 → 200 → 200 → 50 and back: figures in MFLOP for an image, and for the full test in FLOP."""
    config = ModelConfig()
    assert round(flops.exact(config, 50) / 1e6) == 63
    assert round(flops.resampled(config, 50) / 1e6) == 24
    assert 10_000 * flops.nll(config, 5000) == pytest.approx(2.07e13, rel=2e-3)
    with pytest.raises(ValueError, match="one stochastic layer, not for 2"):
        flops.nll(ModelConfig.parse("2layer"), 1)


@pytest.mark.parametrize("sizes", ["200,200:50", "7:3", "9,8,5:4"])
def test_operations_are_those_of_the_linear_layers(sizes):
    """Rows through every Linear layer of a real model, counted while it runs: 2 operations a weight and row."""
    config, k, batch = ModelConfig.parse(sizes), 3, 5
    rows = {}
    model = Model(config)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda layer, inputs, _: rows.update({layer: inputs[0].numel()}))
    x = torch.zeros(batch, config.pixels)
    (h,), _ = model.sample_posterior(x, model.noise(k, batch, torch.Generator().manual_seed(0)))
    model.logits(h)
    forward = sum(2 * count * layer.out_features for layer, count in rows.items())  # rows × inputs × outputs
    assert batch * flops.nll(config, k) == forward
    assert batch * flops.exact(config, k) == 3 * forward
    assert flops.resampled(config, k) == flops.nll(config, k) + flops.exact(config, 1)


def test_exponent_of_exact_power_laws():
    sizes = [50, 500, 5000, 50_000]
    for power in (0, 0.5, 1, 2):
        slope, se = growth.exponent(sizes, [3 * n**power for n in sizes])
        assert slope == pytest.approx(power, abs=1e-12) and se == pytest.approx(0, abs=1e-12)
    with pytest.raises(ValueError, match="three points"):
        growth.exponent([1, 2], [1, 2])


def test_the_exponents_standard_error_is_that_of_repeated_fits():
    """500 fits with normal noise on the logarithms: the slopes' spread, and 5 standard errors for their mean."""
    rng, sizes = np.random.default_rng(0), np.array([10, 20, 40, 80, 160])
    fits = np.array([growth.exponent(sizes, sizes * np.exp(0.1 * rng.standard_normal(5))) for _ in range(500)])
    spread = fits[:, 0].std()
    assert abs(fits[:, 0].mean() - 1) < 5 * spread / math.sqrt(500)
    assert math.sqrt((fits[:, 1] ** 2).mean()) == pytest.approx(spread, rel=5 / math.sqrt(1000))


def test_contenders_take_turns_and_rates_count_units():
    order = []

    def worker(name):
        return timing.Contender(
            name, lambda n: order.append((name, n)) or torch.ones(300, 300).mm(torch.ones(300, 300)), 7
        )

    rates = timing.race([worker("a"), worker("b")], rounds=3, seconds=0)
    assert [name for name, _ in order[-6:]] == ["a", "b"] * 3
    assert len(rates["a"].values) == 3 and all(rate > 0 for rate in rates["a"].values)
    assert timing.Rate((3.0, 1.0, 200.4)).median == 3 and str(timing.Rate((3.0, 1.0, 200.4))) == "3 (1–200)"


@needs_pythae
def test_copied_weights_give_the_same_nll():
    """Paired over 20 images, within 4 standard errors: a false alarm in 16,000; log σ² not doubled is far outside."""
    model = Model(ModelConfig(hidden=((30, 20),), latent=(5,)), seed=1)
    with torch.no_grad():
        model.encoder[0].log_std.bias.fill_(-0.5)
    x = workload.test_images(datasets.load("digits"), 20)
    gap = evaluation.difference(model, pythae_peer.twin(model), x, samples=300)
    assert abs(gap.mean()) < 4 * gap.std() / math.sqrt(len(gap))
    with pytest.raises(ValueError, match="250 samples are not a multiple of 100"):
        pythae_peer.nll(pythae_peer.twin(model), x, 250, 100)


@needs_pythae
def test_the_peers_density_is_ours():
    """Its encoder and decoder give our q(h|x) and our pixel probabilities."""
    model = Model(ModelConfig(hidden=((30, 20),), latent=(5,)), seed=2)
    peer, x = pythae_peer.twin(model), torch.rand(4, 784).round()
    mean, log_std = model.encoder[0](x)
    found = peer.encoder(x)
    torch.testing.assert_close(found.embedding, mean)
    torch.testing.assert_close(found.log_covariance, 2 * log_std)
    torch.testing.assert_close(peer.decoder(mean).reconstruction, model.decode(mean))


@needs_pythae
def test_the_peers_trainer_trains():
    """Steps of its own loop change its weights: as many steps of Adam as asked for, over more than one epoch."""
    x = workload.test_images(datasets.load("digits"), 50)
    steps, real = [], torch.optim.Adam.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", lambda self, *args: steps.append(1) or real(self, *args))
        pythae_peer.trainer(ModelConfig(hidden=((8,),), latent=(2,)), x, k=2, batch=20, kind="iwae", device="cpu")(5)
    assert len(steps) == 5


def test_targets():
    assert at_least("speed", 2.5, 2.2) == report.SpeedTarget("speed ≥ 2.2×", "2.5×", True)
    assert not at_least("speed", 2.19, 2.2).met and not at_most("time", 1.31, 1.3).met
    assert at_most("time", 1.2, 1.3).met and at_most("time", None, 1.3).measured is None


def test_a_section_replaces_its_own_and_leaves_the_others():
    first = report.merge(
        "", {"memory": Section("old", (at_most("m", 1, 2),)), "training": Section("t", (at_least("s", 1, 2),))}, "then"
    )
    second = report.merge(first, {"memory": Section("new", (at_most("m", 3, 2),))}, "now")
    assert "old" not in second and "now\n\nnew" in second and "then\n\nt" in second
    assert "| training | s ≥ 2× | 1× | **no** |\n| memory | m ≤ 2× | 3× | **no** |" in second
    again = {"memory": Section("new", (at_most("m", 3, 2),))}
    assert report.merge(second, again, "now") == second
    assert "| memory | m ≤ 2× | 3× | – (quick) |" in report.merge(second, again, "now", judge=False)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Run with --quick on one thread, RESULTS.md being a file of the test's own."""
    monkeypatch.setattr(settings, "RESULTS", tmp_path / "RESULTS.md")
    threads = torch.get_num_threads()
    yield lambda *words: __main__.main([*words, "--quick", "--threads", "1"])
    torch.set_num_threads(threads)


def test_a_quick_run_from_end_to_end(quick, tmp_path, capsys):
    """Shown, labelled, and written only where --out says."""
    assert quick("training") == 0
    assert not list(tmp_path.iterdir())
    shown, out = capsys.readouterr().out, tmp_path / "out.md"
    assert quick("busy", "evaluation", "--out", str(out)) == 0
    assert list(tmp_path.iterdir()) == [out] and "QUICK" in out.read_text() and "QUICK" in shown
    shown += out.read_text()
    for row in (
        "| 1 | 20 | ours, exact gradient |",
        "| 5 | 20 | ours, DReG",
        "| 5 | ours, DReG, 1 draw of k backward |",
        "| ours, NLL alone |",
        "GFLOP/s",
        "| σ, exp, log |",
    ):
        assert row in shown
    assert ("| 5 | 20 | pythae IWAE |" in shown) == pythae_peer.INSTALLED
    assert ("The same number:" in shown) == pythae_peer.INSTALLED and "## training" not in out.read_text()


def test_time_is_counted_where_it_goes():
    """A product, a σ and a sleep: each in its own row, and together the time of the clock."""
    left, middle = torch.ones(200, 200), torch.ones(500, 500)

    def work(units: int) -> None:
        for _ in range(units):
            left @ left
            middle.sigmoid()
            time.sleep(0.01)

    found = breakdown._profile(work, 5)
    used = {what for what, ms in found.items() if ms > 0}
    assert used >= {"matrix products", "σ, exp, log", breakdown.BETWEEN}
    assert found["random numbers"] == found["Adam"] == 0
    assert 10 < found[breakdown.BETWEEN] < sum(found.values())


def test_memory_of_an_evaluation_is_flat():
    """Ten times the draws in a process of their own: its memory above the baseline within 10 per cent."""
    few, many = (probe.peak("evaluate", 1, k=k, images=100) for k in (100, 1000))
    assert 1 < few.own < few.baseline  # MiB
    assert many.own < 1.1 * few.own
    with pytest.raises(RuntimeError, match="samples must be at least 1, not 0"):
        probe.peak("evaluate", 1, k=0, images=2)


@pytest.mark.slow
def test_a_quick_run_of_what_needs_many_processes(quick, capsys):
    assert quick("memory", "growth") == 0
    shown = capsys.readouterr().out
    assert "| NLL, k = 100 | ours, `evaluate` |" in shown and shown.count("**exponent**") == 4


@pytest.mark.parametrize(
    "words, message",
    [
        (["speed"], "unknown section 'speed'; there are training, busy, evaluation, memory, growth"),
        (["--threads", "0"], "--threads must lie between 1 and"),
        (["--rounds", "4"], "--rounds must be at least 5, not 4"),
    ],
)
def test_wrong_words_are_one_line(words, message, capsys):
    assert __main__.main(words) == __main__.WRONG_ARGUMENTS
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_time_to_quality_is_read_from_finished_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))
    config = TrainConfig("digits", model="16:4", k=5, epochs=3, valid_images=50)
    run = store.create(config)
    worker.work(run)
    asked = settings.BenchmarkSettings(sections=("quality",), runs=(run.name,))
    section = apart.measure("quality", asked)  # in a process of its own
    assert section == quality.measure(asked)
    last = run.records()[-1]
    metrics = checkpoints.read_card(run.checkpoint).metrics
    assert f"| end | 3, {last.valid_bound:.2f} at 0 min |" in section.body
    assert f"NLL {metrics['nll']:.2f} ± {metrics['nll_se']:.2f} (300 test images, 1,000 draws)" in section.body
    assert not section.targets[0].met and "after 3 epochs" in section.targets[0].measured
    further = store.create(dataclasses.replace(config, epochs=2, start=str(run.checkpoint)))
    worker.work(further)
    section = quality.measure(settings.BenchmarkSettings(sections=("quality",), runs=(further.name,)))
    last = further.records()[-1]
    assert f"| end | 5, {last.valid_bound:.2f} at 0 min |" in section.body and "fast, 3 + 2 epochs" in section.body
    assert "after 5 epochs" in section.targets[0].measured
    with pytest.raises(ValueError, match="needs --runs"):
        quality.measure(settings.BenchmarkSettings(sections=("quality",)))


def test_the_apps_times_become_targets():
    idle = {key: [2.0, 1.0, 3.0] for key in app.GOALS}
    section = app.report(idle, {key: [3.0, 5.0, 4.0] for key in app.GOALS})
    assert "2.00 (1.00–3.00) | 4.00 (3.00–5.00) | 2.00" in section.body
    wide = ("paint", "start", "umap")  # may take 2.5, 3.3 and 25 s; the others less than 2. Beside training all: 2×
    assert [target.met for target in section.targets] == [met for key in app.GOALS for met in (key in wide, True)]
