"""Training for learners: what a run will need, a pair at one click, the strip that follows it, and comparing it."""

import dataclasses
import re

import pytest

from iwae.runs import estimate, queue, store, summary
from iwae.training import memory
from iwae.training.config import TrainConfig
from pages.common import reading
from pages.common.runs import training_pair
from pages.common.runs.training_form import needs
from pages.common.runs.training_pair import RUNNING
from tests.app import TWO_LAYERS
from tests.app.test_pages import words

VAE = TrainConfig("digits", model="16:4", objective="vae", k=1, epochs=3, valid_images=50)
PAGE = "pages/7_Training.py"


def test_every_field_of_the_form_has_help(app):
    test = app(PAGE)
    fields = [*test.sidebar.selectbox, *test.sidebar.text_input, *test.sidebar.get("button_group")]
    fields = [field for field in fields if "train." in (getattr(field, "key", None) or field.proto.id)]
    assert len(fields) >= 8
    for field in fields:
        assert field.proto.help, field.label


def test_what_a_run_needs_is_measured_or_taken_from_an_earlier_run(trained):
    found = estimate.speed(VAE)
    assert "measured" in found.basis and found.images > 100
    assert estimate.seconds(VAE, found) == pytest.approx(3 * 1297 / found.images)
    assert estimate.seconds(dataclasses.replace(VAE, minutes=1e-6), found) == pytest.approx(6e-5)
    assert estimate.speed(TrainConfig(k=5000)) is None
    assert "time is not known" in needs(TrainConfig(k=5000, batch_size=50))
    run = trained(VAE)
    line = (run.folder / "metrics.jsonl").read_text().splitlines()[-1]
    slow = re.sub(r'"seconds": [^,]+', '"seconds": 100.0', re.sub(r'"epochs": [^,]+', '"epochs": 2.0', line))
    (run.folder / "metrics.jsonl").write_text(slow + "\n")
    again = estimate.speed(dataclasses.replace(VAE, seed=5, epochs=90, learning_rate=1e-4))
    assert again.images == pytest.approx(2 * 1297 / 100) and "earlier run" in again.basis
    said = needs(dataclasses.replace(VAE, epochs=90))
    assert said.startswith("About 75 min on this machine")  # 90 · 50 s
    assert f"{sum(memory.needed(dataclasses.replace(VAE, epochs=90))) / 1e9:.2g} GB" in said


def test_a_run_that_was_stopped_while_it_waited_says_so(app, monkeypatch):
    run = store.create(VAE)
    monkeypatch.setattr(type(run), "status", lambda _: queue.RunStatus("stopped"))
    assert "stopped before its first validation" in words(app("home.py"))


def test_epochs_are_counted_in_words():
    assert [reading.epochs(count) for count in (0, 1, 2.5)] == ["0 epochs", "1 epoch", "2.5 epochs"]


@pytest.mark.parametrize(("slots", "epochs"), [(1, 15), (2, 20)])
def test_a_pair_starts_at_a_click_with_as_many_epochs_as_fit(app, monkeypatch, slots, epochs):
    """An epoch of 4,000 images takes the VAE 2 s and the IWAE 6 s: 15 of both in turn, 20 beside each other."""
    monkeypatch.setenv("IWAE_MAX_RUNS", str(slots))
    speeds = {"vae": 2000.0, "iwae": 4000 / 6}
    monkeypatch.setattr(estimate, "speed", lambda config: estimate.Speed(speeds[config.objective], "given"))
    monkeypatch.setattr(store, "start", lambda config, **_: store.create(config))
    test = app(PAGE)
    test.button(key="train.pair.page").click().run()
    assert not test.exception
    assert test.session_state["reveal"]["key"] == RUNNING  # the browser scrolls to the runs, below the form
    made = {run.config.objective: run for run in store.list_runs()}
    vae, iwae = made["vae"].config, made["iwae"].config
    assert (vae.k, iwae.k, vae.epochs, iwae.epochs) == (1, 20, epochs, epochs)
    for name in ("dataset", "model", "seed", "batch_size", "learning_rate", "schedule", "minutes"):
        assert getattr(vae, name) == getattr(iwae, name)
    assert queue.max_running() == slots and not [one for one in test.button if one.key == "pair.open"]


def test_the_pair_opens_and_a_finished_run_is_compared_with_its_like(app, trained):
    vae, iwae = trained(VAE), trained(dataclasses.replace(VAE, objective="iwae", k=3))
    other = trained(TWO_LAYERS)
    test = app(PAGE)
    test.session_state[training_pair._PAIR] = [vae.name, iwae.name]
    test.run()
    test.button(key="pair.open").click().run()
    chosen = [f"run:{vae.name}", f"run:{iwae.name}"]
    assert [test.selectbox(key=slot).value for slot in "ab"] == chosen and not test.exception
    metrics = summary.read(iwae).metrics
    assert f"NLL {metrics['nll']:.2f} ± {metrics['nll_se']:.2f} nats per image" in words(test)
    test.selectbox(key="a").set_value(f"run:{other.name}").run()
    test.button(key=f"Compare.{iwae.name}").click().run()
    assert [test.selectbox(key=slot).value for slot in "ab"] == chosen


def test_the_strip_follows_a_run_that_is_running(app, trained):
    run = trained(VAE)
    with run.claim():
        run.set_status("running")
        test = app(PAGE, data="digits")
        assert not test.exception and "While they train" in words(test)
        assert re.search(r"\*\*VAE k = 1\*\* after 3 epochs: \*\*\d of 4\*\* active units", words(test))
        captions = {image.caption for images in test.main.get("image") for image in images.proto.imgs}
        assert captions >= {"input", *(f"{one.epochs:g}" for one in summary.snapshots(run)[0])}
