"""The page of training: what it shows of real runs, against their folders, and what its buttons do to them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from iwae import checkpoints
from iwae.analysis import timeline
from iwae.data import datasets
from iwae.runs import store, summary
from iwae.training.config import TrainConfig
from tests.app import TWO_LAYERS, open_section
from tests.app.test_pages import finished, words

PAGE = "pages/7_Training.py"
ALL, ONE = "All runs", "One run"  # its sections
VAE = TrainConfig("digits", model="16:4", objective="vae", k=1, epochs=3, valid_images=50)


@pytest.fixture
def pair(trained):
    """(the newer run, the older one): other objective, other number of layers, other length."""
    vae, iwae = trained(VAE), trained(TWO_LAYERS)
    return iwae, vae


def figures(test) -> dict[str, dict]:
    """The page's figures by their key; the sidebar's are left out."""
    found = {}
    for chart in test.main.get("plotly_chart"):
        found[chart.proto.id.rsplit("-", 1)[-1]] = json.loads(chart.proto.spec)
    return found


def table(test, column: str):
    return next(frame.value for frame in test.dataframe if column in frame.value)


def button(test, label: str, place: str = ".page"):
    return next(item for item in test.button if item.label == label and (item.key or "").endswith(place))


def test_without_a_run_it_says_what_to_do_and_does_it(app, monkeypatch):
    monkeypatch.setattr(store, "start", lambda config, **_: store.create(config))
    test = app(PAGE)
    assert "There is no run yet" in test.info[0].value and not test.get("plotly_chart")
    next(item for item in test.button if item.label.startswith("Train an IWAE")).click().run()
    assert not test.exception
    (run,) = store.list_runs()
    assert (run.config.dataset, run.config.objective, run.config.k) == ("mnist-5k", "iwae", 20)


def test_the_table_and_the_curves_are_those_of_the_folders(app, pair):
    test = app(PAGE)
    shown = table(test, "test NLL")
    order = [run.name for run in store.list_runs()]
    assert list(shown["run"]) == order and list(shown["state"]) == ["finished"] * 2
    for place, name in enumerate(order):
        run = store.get(name)
        records = run.records()
        metrics = checkpoints.read_card(run.checkpoint).metrics
        assert shown["test NLL"][place] == metrics["nll"] and shown["± s.e."][place] == metrics["nll_se"]
        assert shown["bound"][place] == records[-1].bound
        assert shown["active units"][place] == " + ".join(map(str, records[-1].active_units))
        drawn = figures(test)
        assert drawn["training.bound"]["data"][place]["y"] == pytest.approx([r.bound for r in records])
        checked = [r for r in records if r.valid_bound is not None]
        assert drawn["training.validation"]["data"][place]["y"] == pytest.approx([r.valid_bound for r in checked])
        assert drawn["training.units"]["data"][place]["y"] == [sum(r.active_units) for r in checked]
        assert drawn["training.speed"]["data"][place]["x"] == pytest.approx([r.epochs for r in records])
    test.segmented_control(key="against").set_value("minutes").run()
    drawn = figures(test)["training.speed"]["data"][0]
    assert drawn["x"] == pytest.approx([r.seconds / 60 for r in store.get(order[0]).records()])


def test_only_settings_that_differ_are_compared(app, pair):
    test = app(PAGE)
    columns = list(table(test, "objective" if len(test.dataframe) == 1 else "folder"))
    assert {"objective", "k", "model", "epochs", "seed"} <= set(columns)
    assert not {"dataset", "schedule", "batch size", "learning rate"} & set(columns)
    test.multiselect(key="runs").set_value([pair[0].name]).run()
    assert not test.exception and "nothing to compare" in words(test)
    assert list(table(test, "test NLL")["run"]) == [pair[0].name]


@pytest.mark.parametrize("place", [0, 1])
def test_the_scrubber_drives_map_units_and_pictures(app, pair, place):
    run = pair[place]
    test = app(PAGE, training_section=ONE, run=run.name)
    slider = test.select_slider(key="moment")
    found, _ = summary.snapshots(run)
    assert slider.options == [f"{moment.epochs:g}" for moment in found] and len(found) == run.config.epochs + 1
    images = datasets.load("digits").binary("test")
    frame = timeline.timeline_axes(
        timeline.describe_model(checkpoints.load(run.checkpoint)[0], images[:500], images[:1])
    )
    for epochs in ("0", "2"):
        test.select_slider(key="moment").set_value(epochs).run()
        assert not test.exception
        model, _ = checkpoints.load(next(m.path for m in found if f"{m.epochs:g}" == epochs))
        seen = timeline.describe_model(model, images[:500], images[:1])
        placed = np.concatenate([[t["x"], t["y"]] for t in figures(test)["timeline.map"]["data"]], 1)
        expected = frame.project(seen.means).numpy().T
        assert np.sort(placed).ravel() == pytest.approx(np.sort(expected).ravel(), abs=1e-4)
        for trace, layer in zip(figures(test)["timeline.units"]["data"], seen.activity, strict=True):
            assert trace["y"] == pytest.approx(layer.variance.sort(descending=True).values.tolist(), rel=1e-4)


def test_stop_resume_and_delete_which_asks_first(app, pair):
    run = store.start(dataclasses.replace(VAE, epochs=5000))
    test = app(PAGE, training_section=ONE, run=run.name)
    assert button(test, "Delete …", "").disabled
    button(test, "Stop").click().run()
    assert not test.exception and finished(run).phase == "stopped"
    test.run()
    button(test, "Resume").click().run()
    assert not test.exception and run.status().alive
    run.stop()
    finished(run)
    test.run()
    button(test, "Delete …", "").click().run()
    assert run.folder.exists()
    button(test, "Delete it", "").click().run()
    assert not test.exception and not run.folder.exists()
    open_section(test, ALL)
    assert list(table(test, "test NLL")["run"]) == [one.name for one in store.list_runs()]
    assert len(store.list_runs()) == 2


@pytest.mark.parametrize("news", ["gone", "begun"])
def test_a_click_is_not_lost_to_news_of_another_run(app, pair, news):
    """The page used to begin anew at the news, before it came to the button."""
    run, other = pair
    here, aside = other.folder, other.folder.parent.parent / other.name
    before, after = (here, aside) if news == "gone" else (aside, here)
    here.rename(before)
    test = app(PAGE, training_section=ONE, run=run.name)
    before.rename(after)
    button(test, "Delete …", "").click().run()
    assert not test.exception and "Delete it" in [item.label for item in test.button]


def test_a_click_is_not_lost_to_a_run_that_ends(app, pair):
    """The same of the panel in the sidebar, which is drawn before everything on the page."""
    run = store.create(dataclasses.replace(VAE, seed=2))
    with run.claim():
        run.set_status("running")
        test = app(PAGE, training_section=ONE, run=pair[0].name)
        run.set_status("stopped")
    button(test, "Delete …", "").click().run()
    assert not test.exception and "Delete it" in [item.label for item in test.button]


def test_a_stop_is_answered_at_once(app, pair):
    """By the button itself, while the process is still at its step."""
    run = store.create(dataclasses.replace(VAE, seed=2))
    with run.claim():
        run.set_status("running")
        test = app(PAGE, training_section=ONE, run=run.name)
        keys = [f"Stop.{run.name}{place}" for place in ("", ".page")]
        assert [test.button(key=key).label for key in keys] == ["Stop"] * 2
        test.button(key=keys[0]).click().run()
        assert not test.exception and run.stop_requested and run.status().phase == "stopping"
        assert [(test.button(key=key).label, test.button(key=key).disabled) for key in keys] == [
            ("Stopping …", True)
        ] * 2
        open_section(test, ALL)
        assert table(test, "test NLL")["state"][0] == "stopping"


def test_the_sidebar_shows_first_what_is_at_work(app, pair):
    """Then what waits, in its order, whatever else is newer."""
    made = [store.create(dataclasses.replace(VAE, seed=seed)) for seed in (3, 4, 5, 6)]
    with made[0].claim():
        made[0].set_status("running")
        for since, run in ((2.0, made[1]), (1.0, made[2])):
            run.set_status("starting", since=since)  # by this process, which lives
        made[3].set_status("stopped")
        test = app(PAGE, training_section=ONE, run=made[3].name)
        keys = [item.key.split(".")[1] for item in test.sidebar.button if item.label in ("Stop", "Resume")]
        assert keys == [run.name for run in (made[0], made[2], made[1])]


def test_a_damaged_run_is_explained_beside_the_others(app, pair):
    (pair[1].folder / "metrics.jsonl").write_text("{\n")
    test = app(PAGE, training_section=ONE, run=pair[1].name)
    assert any("metrics.jsonl cannot be read" in error.value for error in test.error)
    open_section(test, ALL)
    assert list(table(test, "test NLL")["run"]) == [pair[0].name]


def test_a_run_without_snapshots_or_data_says_so(app, pair):
    shutil.rmtree(pair[0].snapshots.folder)
    test = app(PAGE, training_section=ONE, run=pair[0].name)
    assert "It has only one model" in words(test) and "timeline.map" in figures(test)
    folder = store.create(dataclasses.replace(VAE, dataset="omniglot")).folder
    test = app(PAGE, training_section=ONE, run=folder.name)
    assert "data download omniglot" in "".join(info.value for info in test.info)


def test_files_hold_the_run(pair):
    run = pair[0]
    lines = summary.metrics_csv(run.records()).splitlines()
    assert lines[0].startswith("step,epochs,bound,valid_bound") and len(lines) == 1 + len(run.records())
    settings = json.loads(summary.settings_json(run))
    assert TrainConfig.from_dict(settings["config"]) == run.config and settings["device"] == "cpu"


def test_thinned_records_keep_the_last():
    assert summary.thinned([]) == [] and summary.thinned([1, 2, 3]) == [1, 2, 3]
    kept = summary.thinned(list(range(1234)))
    assert len(kept) <= summary.POINTS and kept[-1] == 1233 and set(np.diff(kept)) == {3}


def test_a_frame_is_the_plane_or_the_main_directions():
    means = torch.randn(300, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5.0, 2.0])
    covariance = means.double().T.cov()
    activity = timeline.Activity(means.double().mean(0), covariance, 0.01)
    frame = timeline.timeline_axes(timeline.ModelState(means, (activity,), means, means))
    placed = frame.project(means)
    values = torch.linalg.eigvalsh(covariance).flip(0)[:2]
    torch.testing.assert_close(placed.double().T.cov().diagonal(), values, rtol=1e-4, atol=0)
    assert frame.axes[1, 0] > 0.9 and frame.reach == pytest.approx(1.1 * placed.abs().max().item())
    plane = timeline.ModelState(
        means[:, :2], (timeline.Activity(activity.mean[:2], covariance[:2, :2], 0.01),), means, means
    )
    torch.testing.assert_close(timeline.timeline_axes(plane).project(means[:, :2]), means[:, :2])
    line = timeline.ModelState(
        means[:, :1], (timeline.Activity(activity.mean[:1], covariance[:1, :1], 0.01),), means, means
    )
    assert timeline.timeline_axes(line).project(means[:, :1]).shape == (300, 2)
