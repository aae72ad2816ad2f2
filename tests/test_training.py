"""Training: schedules, repeatability, resuming bit for bit, early stopping, and what happens when numbers blow up."""

import dataclasses
import itertools
import math

import pytest
import torch

from iwae import checkpoints
from iwae.data import datasets
from iwae.evaluation import metrics
from iwae.training.config import PAPER_EPOCHS, SCHEDULES, TrainConfig
from iwae.training.loop import NonFiniteError, Training
from tests.steps import gradients, step_inputs

SMALL = dict(dataset="digits", model="16:4", k=4, epochs=3, batch_size=100, log_every=5, valid_images=50, seed=3)


@pytest.fixture(scope="module")
def data():
    return datasets.load("digits")


def plain(record) -> dict:
    """What of a record must be repeatable."""
    return {
        name: value
        for name, value in dataclasses.asdict(record).items()
        if name not in ("seconds", "images_per_second")
    }


def train(config, data, engine=None):
    training = Training(config, data, engine=engine)
    return training, [plain(record) for record in training.run()]


def test_paper_schedule():
    """3ⁱ epochs at 10^(−i/7), i = 0…7: 3,280 in all."""
    rates = [SCHEDULES["paper"].function(number / PAPER_EPOCHS) for number in range(PAPER_EPOCHS)]
    found = [(rate, len(list(group))) for rate, group in itertools.groupby(rates)]
    assert PAPER_EPOCHS == 3280
    assert [epochs for _, epochs in found] == [3**i for i in range(8)]
    assert [rate for rate, _ in found] == pytest.approx([10 ** (-i / 7) for i in range(8)])
    config = TrainConfig(schedule="paper")
    assert (config.epochs, config.learning_rate, config.adam_eps) == (3280, 1e-3, 1e-4)


def test_cosine_schedule():
    cosine = SCHEDULES["cosine"].function
    assert cosine(0) == 1 and cosine(1) == pytest.approx(0.01) and cosine(0.5) == pytest.approx(0.505)


def test_a_run_on_data_of_another_name_is_refused(data):
    other = dataclasses.replace(data, name="mnist")
    with pytest.raises(ValueError, match="the data set is 'mnist', but the configuration says 'digits'"):
        Training(TrainConfig(**SMALL), other)
    small = datasets.Split(data.train.images[:, :100], None)
    with pytest.raises(ValueError, match="digits: images of 100 pixels are not 28×28"):
        dataclasses.replace(data, train=small)


def cut(data: datasets.Dataset, shape: tuple[int, int]) -> datasets.Dataset:
    """The upper left corner of every image."""
    splits = {}
    for name in ("train", "valid", "test"):
        split = getattr(data, name)
        images = split.images.view(-1, 28, 28)[:, : shape[0], : shape[1]].flatten(1)
        splits[name] = datasets.Split(images, split.labels)
    return dataclasses.replace(data, **splits, shape=shape)


def test_the_data_set_decides_the_shape_of_the_model(data, tmp_path):
    """The layers are those of ``model``; another shape than that of ``start`` is refused with both."""
    oblong = cut(data, (20, 12))
    training = Training(TrainConfig(**SMALL), oblong)
    training.advance()
    assert training.model.config == dataclasses.replace(TrainConfig(**SMALL).model_config, shape=(20, 12))
    assert training.card().progress["data"]["shape"] == [20, 12]
    checkpoints.save(path := tmp_path / "oblong.safetensors", training.model, training.card())
    assert checkpoints.load(path)[0].config.shape == (20, 12)
    assert metrics.evaluate(training.model, oblong.binary("test")[:5].view(-1, 20, 12), samples=3).nll.shape == (5,)
    with pytest.raises(ValueError, match="is for images of 20×12 pixels; those of digits have 28×28"):
        Training(TrainConfig(**SMALL, start=str(path)), data)


def test_the_card_says_what_was_trained_on(data):
    """Name, shapes, and a hash of the images that tells one changed pixel; a run resumes with the same images only."""
    changed = data.train.images.clone()
    changed[7, 300] ^= 1
    other = dataclasses.replace(data, train=datasets.Split(changed, data.train.labels))
    first, second = Training(TrainConfig(**SMALL), data), Training(TrainConfig(**SMALL), other)
    told, again = (training.card().progress["data"] for training in (first, second))
    assert told | {"sha256": ""} == again | {"sha256": ""}
    assert told["sha256"] != again["sha256"] and len(told["sha256"]) == 64
    assert told | {"sha256": ""} == {
        **{"name": "digits", "sha256": "", "shape": [28, 28], "stochastic": True},
        **{"train": [1297, 784], "valid": [200, 784], "test": [300, 784]},
    }
    assert datasets.load("digits").identity == told
    with pytest.raises(ValueError, match="was begun on other images than those of digits"):
        second.restore(*first.state())


def test_one_validation_image_is_enough(data):
    training = Training(TrainConfig(**SMALL | {"valid_images": 1}), data)
    *_, last = training.run()
    assert last.active_units is None
    x = training.valid
    assert x.shape == (1, 784)
    bound = metrics.mean_bound(training.latest_model(), x, training.estimator.bound, 4)
    assert last.valid_bound == pytest.approx(bound.item())


def test_it_learns_and_is_repeatable(data):
    config = TrainConfig(**SMALL | {"epochs": 12, "learning_rate": 5e-3})
    first, records = train(config, data)
    second, again = train(config, data)
    assert records == again
    assert all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))
    bounds = [record["valid_bound"] for record in records if record["valid_bound"] is not None]
    assert len(bounds) == 12 and bounds[-1] > bounds[0] + 10  # nats; from about −190 to −165
    _, other = train(TrainConfig(**SMALL | {"epochs": 12, "learning_rate": 5e-3, "seed": 4}), data)
    assert other != records


@pytest.mark.parametrize("engine", ["plain", "explicit"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"precision": "bfloat16"},
        {"ema": 0.9, "patience": 50, "weight_decay": 0.1, "gradient": "dreg", "resample": 1},
        {"kl_warmup": 2},
    ],
)
@pytest.mark.parametrize("interrupted_at", [1, 7, 13, 30])
def test_resuming_is_bit_for_bit(data, tmp_path, more, interrupted_at, engine):
    """Stopped at any step, saved to a file, restored into a new object: the same records and the same weights."""
    config = TrainConfig(**SMALL | more)
    whole, expected = train(config, data, engine)
    first = Training(config, data, engine=engine)
    records = [plain(record) for record in first.run(stop=lambda: first.step >= interrupted_at)]
    assert first.step == interrupted_at
    tensors, values = first.state()
    checkpoints.save_tensors(tmp_path / "state.safetensors", tensors, "state", values)
    second = Training(config, data, engine=engine)
    second.restore(*checkpoints.load_tensors(tmp_path / "state.safetensors", "state"))
    records += [plain(record) for record in second.run()]
    assert records == expected
    for a, b in zip(whole.kept_model().parameters(), second.kept_model().parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("engine", ["plain", "explicit"])
def test_a_resumed_run_keeps_its_own_number_of_threads(data, threads_as_before, engine):
    """Begun with two threads, resumed where torch has one, and the other way round: the same weights."""
    config = TrainConfig(**SMALL | {"k": 10, "epochs": 1})
    ends = {}
    for count in (1, 2):
        torch.set_num_threads(count)
        whole, _ = train(config, data, engine)
        first = Training(config, data, engine=engine)
        list(first.run(stop=lambda first=first: first.step >= 5))
        torch.set_num_threads(3 - count)
        second = Training(config, data, engine=engine)
        second.restore(*first.state())
        list(second.run())
        assert torch.equal(second.optimizer.flat, whole.optimizer.flat) and second.card().progress["threads"] == count
        ends[count] = whole.optimizer.flat
    assert not torch.equal(ends[1], ends[2])  # so it matters


def test_kl_warmup_rises_linearly(data):
    """Over the first 2 of 3 epochs of 13 steps; the gradient is that of the bound with so much of its KL weight."""
    training = Training(TrainConfig(**SMALL | {"objective": "l-alpha", "alpha": 4.0, "kl_warmup": 2}), data)
    shares = [training.scheduled(step).kl_share for step in range(39)]
    assert shares == [*(step / 26 for step in range(26)), *[1.0] * 13]
    inputs = step_inputs(training)
    for step in (0, 7, 30):
        config = TrainConfig(**SMALL | {"objective": "l-alpha", "alpha": 4.0 * shares[step]})
        plain = Training(config, data)
        found = training.engine.gradient(inputs, torch.tensor(shares[step]), training.estimator).gradient
        expected = plain.engine.gradient(inputs, torch.ones(()), plain.estimator).gradient
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * expected.abs().max().item() + 1e-9)


@pytest.mark.parametrize("more", [{}, {"batch_size": 20}, {"warm_k": 2, "warm_share": 0.4, "input_dropout": 0.1}])
def test_steps_that_a_graph_could_record_are_those_of_the_plain_engine(data, more):
    """On a GPU the numbers of a step lie on the device; here the same steps without a graph, also in bursts of 20 and
    from the middle of an epoch: the same draws, and the same weights up to float32's rounding of their moving average's
    share."""
    config = TrainConfig(**SMALL | {"kl_warmup": 2, "ema": 0.9, "epochs": 2} | more)
    plain, planned = (Training(config, data, engine=name) for name in ("plain", "planned"))
    for run in (plain, planned):
        list(run.run(stop=lambda run=run: run.step >= 5))
    restored = Training(config, data, engine="planned")
    restored.restore(*planned.state())
    for run in (plain, restored):
        list(run.run())
    assert plain.step == restored.step and torch.equal(plain.generator.get_state(), restored.generator.get_state())
    torch.testing.assert_close(restored.optimizer.flat, plain.optimizer.flat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(restored.average, plain.average, rtol=1e-4, atol=1e-5)


def test_validation_is_of_the_whole_weight_and_patience_begins_after_the_warm_up(data):
    config = TrainConfig(**SMALL | {"objective": "vae", "k": 1, "epochs": 6, "kl_warmup": 4, "patience": 1})
    training = Training(config, data)
    training.best_bound = math.inf  # that nothing reaches
    found = []
    for record in training.run():
        if record.valid_bound is not None:
            found.append((record.epochs, training.stale))
            assert training.validate()[0] == record.valid_bound
    assert found == [(1, 0), (2, 0), (3, 0), (4, 0), (5, 1)] and training.finished


def test_a_state_of_an_earlier_version_is_refused(data):
    tensors, values = Training(TrainConfig(**SMALL), data).state()
    with pytest.raises(ValueError, match="saved by an earlier version"):
        Training(TrainConfig(**SMALL), data).restore(tensors | {"adam.3.exp_avg": torch.zeros(2)}, values)


def test_one_step_is_adam_on_the_estimator(data):
    """The first step moves every weight by −lr·g/(|g| + ε), Adam's first step (Kingma & Ba 2015), and a matrix by
    −lr·λ of itself as well (Loshchilov & Hutter 2019)."""
    adam = {"schedule": "constant", "adam_eps": 1e-4, "learning_rate": 1e-3, "weight_decay": 0.5}
    config = TrainConfig(**SMALL | adam)
    training = Training(config, data)
    before = [weight.detach().clone() for weight in training.optimizer.weights]
    next(training.run(stop=lambda: training.step >= 1), None)
    for old, weight, g in zip(before, training.optimizer.weights, gradients(training), strict=True):
        decay = 1 - 1e-3 * 0.5 * (weight.ndim > 1)  # of matrices alone
        expected = decay * old - 1e-3 * (g / (g.abs() + 1e-4)).view_as(old)
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "objective",
    [
        {"objective": "vae"},
        {"objective": "power-mean", "p": 2.0},
        {"objective": "median"},
        {"objective": "l-alpha", "alpha": 0.5},
        {"objective": "renyi", "alpha": 0.5},
        {"objective": "ciwae", "beta": 0.25},
        {"objective": "miwae", "k1": 10, "k2": 5},
    ],
    ids=lambda objective: objective["objective"],
)
def test_every_objective_trains_by_default(data, objective):
    """With k = 50, of which the default sends some draws backward; the bound that is told is that of all of them."""
    config = TrainConfig("digits", model="16:4", k=50, warm_k=0, epochs=1, log_every=1, **objective)
    training = Training(config, data)
    (record,) = training.run(stop=lambda: training.step >= 1)
    other = Training(training.config, data)
    x = data.draw(other.images[other.shuffled(0)[: other.config.batch_size]], other.generator)
    _, bound, _ = other.estimator(other.model, x, other.generator)
    assert record.bound == pytest.approx(bound.mean().item(), rel=1e-6)


def test_every_pass_sees_every_image_once(data):
    training = Training(TrainConfig(**SMALL), data)
    orders = []
    for number in range(2):
        seen = training.shuffled(number).tolist()
        assert sorted(seen) == list(range(len(data.train)))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_early_stopping_keeps_the_best(data):
    """A learning rate that hurts after a while: stops, and the kept model is the one of the best validation."""
    config = TrainConfig(**SMALL | {"epochs": 60, "learning_rate": 0.05, "schedule": "constant", "patience": 3})
    training, records = train(config, data)
    bounds = [record["valid_bound"] for record in records if record["valid_bound"] is not None]
    assert training.finished and len(bounds) < 60
    assert len(bounds) - 1 - max(range(len(bounds)), key=bounds.__getitem__) == 3
    kept = Training(config, data)
    kept.model = training.kept_model()
    assert kept.validate()[0] == pytest.approx(max(bounds), abs=1e-4)
    assert training.card().progress["valid_bound"] == max(bounds)


def test_average_is_the_mean_of_the_weights(data):
    """ema = e keeps a(t) = e·a(t−1) + (1−e)·w(t), with a shorter memory over the first steps."""
    training = Training(TrainConfig(**SMALL | {"ema": 0.5}), data)
    average = training.model.pixel_logits.bias.detach().clone()
    for _ in training.run(stop=lambda: False):
        break
    expected, replay = average, Training(TrainConfig(**SMALL), data)
    for step in range(1, training.step + 1):
        next(replay.run(stop=lambda s=step: replay.step >= s), None)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * replay.model.pixel_logits.bias.detach()
    torch.testing.assert_close(training.kept_model().pixel_logits.bias.detach(), expected)


def test_a_run_continues_under_another_objective(data, tmp_path):
    first, _ = train(TrainConfig(**SMALL), data)
    path = tmp_path / "first.safetensors"
    checkpoints.save(path, first.kept_model(), first.card())
    second = Training(TrainConfig(**SMALL | {"objective": "vae", "start": str(path)}), data)
    assert torch.equal(second.model.pixel_logits.weight, first.model.pixel_logits.weight)
    (before,) = second.card().progress["history"]
    assert before["training"] == dataclasses.asdict(first.config) and before["epochs"] == 3
    with pytest.raises(ValueError, match="16:4, not 1layer"):
        Training(TrainConfig(**SMALL | {"model": "1layer", "start": str(path)}), data)


def test_minutes_end_a_run(data):
    training = Training(TrainConfig(**SMALL | {"epochs": 10_000, "minutes": 0.02}), data)
    records = list(training.run())
    assert training.finished and 1.2 <= records[-1].seconds < 20
    assert records[-1].valid_bound is not None


def test_non_finite_numbers_stop_the_run_with_good_weights(data):
    training = Training(TrainConfig(**SMALL | {"learning_rate": 1e6, "schedule": "constant"}), data)
    with pytest.raises(
        NonFiniteError, match=r"no longer finite at step \d+ \(epoch \d+, batch \d+ of 13, learning rate"
    ):
        list(training.run())
    assert all(weight.isfinite().all() for weight in training.model.parameters())
    assert math.isfinite(training.bound_sum.item())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": "minst"}, "unknown data set 'minst'; there are mnist-5k, digits, mnist"),
        ({"objective": "elbow"}, "unknown objective 'elbow'"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; there are fast, paper, cosine, constant"),
        ({"model": "9layer"}, "model '9layer' is neither"),
        ({"epochs": 0}, "epochs must be above 0, not 0"),
        ({"epochs": 2.7}, "epochs must be a whole number, not 2.7"),
        ({"epochs": 10**30}, "epochs must not be above 1,000,000, not 10{30}"),
        ({"k": True}, "k must be a whole number, not True"),
        ({"seed": None}, "seed must be a whole number, not None"),
        ({"learning_rate": "1e-3"}, "learning rate must be a number, not '1e-3'"),
        ({"dataset": None}, "dataset must be a text, not None"),
        ({"kl_warmup": 4}, "kl warmup must lie between 0 and the 3 epochs of the run, not 4"),
        ({"kl_warmup": -1}, "kl warmup must lie between 0 and the 3"),
        ({"objective": "l-alpha", "alpha": -1}, "L_alpha: alpha must be a finite number from 0"),
        ({"learning_rate": math.nan}, "learning rate must be above 0, not nan"),
        ({"ema": 1.0}, r"ema must lie in \[0, 1\), not 1.0"),
        ({"p": 2.0}, "takes no parameters, not p"),
        ({"objective": "power-mean"}, "needs p"),
        ({"gradient": "piwae"}, "takes k1 and k2"),
        ({"batch_size": -5}, "batch size must be above 0, not -5"),
    ],
)
def test_refusals_name_the_value(change, says):
    with pytest.raises(ValueError, match=says):
        TrainConfig(**SMALL | change)


def test_from_dict_refuses_unknown_settings():
    with pytest.raises(ValueError, match="unknown settings: speed"):
        TrainConfig.from_dict({"speed": 3})
    config = TrainConfig(**SMALL)
    assert TrainConfig.from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("given", "filled"),
    [
        ({}, ("dreg", 1, 5, 100)),
        ({"k": 10}, ("dreg", 0, 0, 100)),
        ({"objective": "vae"}, ("dreg", 0, 5, 100)),
        ({"objective": "median"}, ("exact", 1, 5, 100)),
        ({"objective": "l-alpha", "alpha": 2}, ("dreg", 0, 5, 100)),
        ({"objective": "miwae", "k1": 10, "k2": 5}, ("dreg", 1, 0, 100)),
        ({"gradient": "piwae", "k1": 10, "k2": 5}, ("piwae", 0, 0, 100)),
        ({"schedule": "paper"}, ("exact", 0, 0, 20)),
        ({"schedule": "cosine"}, ("exact", 0, 0, 100)),
        ({"resample": 3, "warm_k": 0, "batch_size": 50}, ("dreg", 3, 0, 50)),
    ],
)
def test_defaults_follow_from_the_schedule(given, filled):
    config = TrainConfig(**given)
    assert (config.gradient, config.resample, config.warm_k, config.batch_size) == filled
    assert TrainConfig(**dataclasses.asdict(config)) == config


def test_a_run_begins_with_few_draws(data):
    """The first share of the epochs is the run with warm_k draws, bit for bit; validation is under the full k."""
    warm = Training(TrainConfig(**SMALL | {"warm_k": 2, "warm_share": 0.7}), data)
    few = Training(TrainConfig(**SMALL | {"k": 2}), data)
    for step in range(3 * warm.steps_per_epoch):
        warm.advance()
        few.advance()
        same = all(torch.equal(a, b) for a, b in zip(warm.model.parameters(), few.model.parameters(), strict=True))
        assert same == (step < 2 * warm.steps_per_epoch)
    assert warm.estimator.k == 4


@pytest.mark.parametrize("gradient", ["exact", "dreg"])
def test_input_dropout_hides_pixels_from_the_encoder_only(gradient, data):
    training = Training(TrainConfig(**SMALL | {"input_dropout": 0.25, "gradient": gradient}), data)
    x = data.binary("train")[:100]
    seen = training.dropout(x)
    lit = seen[x == 1]
    assert lit.unique().tolist() == pytest.approx([0, 4 / 3]) and not seen[x == 0].any()
    hidden = (lit == 0).double().mean()
    assert abs(hidden - 0.25) < 5 * (0.25 * 0.75 / len(lit)) ** 0.5  # false alarms: 1e-6
    noise = training.model.noise(4, 100, torch.Generator().manual_seed(0))
    sample = training.model.sample(x, noise=noise, encoder_input=seen)
    h, log_qh = training.model.sample_posterior(seen, noise)
    assert torch.equal(sample.log_qh, log_qh)
    torch.testing.assert_close(sample.log_px, training.model.log_likelihood(x, h[0]))


def test_progress_is_a_bar_and_the_same_records(data, capsys):
    """On stderr, to the last step, with the bound of the last record."""
    config = TrainConfig(**SMALL | {"epochs": 1})
    silent = [plain(record) for record in Training(config, data).run()]
    assert capsys.readouterr() == ("", "")
    assert [plain(record) for record in Training(config, data).run(progress=True)] == silent
    out, err = capsys.readouterr()
    assert not out and "| 13/13 [" in err and f"bound {silent[-1]['bound']:.2f} nats" in err
