"""What the pages show, against direct calls into the engine."""

import base64
import io
import json
import time
import zipfile

import numpy as np
import pytest
import streamlit as st
import torch
from PIL import Image

from iwae import catalog
from iwae.bounds import OBJECTIVES
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.images import digits
from iwae.inference import ais, occlusion, pareto
from iwae.inference import posterior as engine
from iwae.runs import loggers, store, worker
from iwae.system import optional
from iwae.training.config import TrainConfig
from pages.common.evidence import comparison, jobs
from pages.common.figure_card import escape_markdown
from pages.common.image_rows import percent
from tests.app import open_section


def words(test) -> str:
    """All text of the page."""
    kinds = ("title", "subheader", "markdown", "caption", "info", "error", "warning", "metric")
    return "\n".join(str(getattr(element, "value", "")) for kind in kinds for element in test.get(kind))


def png(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def assert_says(metric, drawn) -> None:
    """The metric is log p̂(x) with its standard error, or a bound in words where k̂ allows none."""
    value = f"{drawn.log_p:.2f}".replace("-", "−")
    if drawn.k_hat <= 0.5:
        assert (metric.value, metric.delta) == (value, f"± {drawn.log_p_se:.2f} standard error")
    else:
        decide = "1 draw decides" if drawn.carrying() == 1 else f"{drawn.carrying()} draws decide"
        assert (metric.value, metric.delta) == (f"≥\u00a0{value}", f"at least; {decide}")


def figure(test, place: int = 0) -> dict:
    return json.loads(test.get("plotly_chart")[place].proto.spec)


def values(sent: dict) -> list[float]:
    """An array as plotly sends it."""
    return np.frombuffer(base64.b64decode(sent["bdata"]), sent["dtype"]).tolist()


@pytest.fixture
def pair():
    found, refused = catalog.entries()
    assert not refused
    return [found[key] for key in catalog.default_pair(found)]


def test_home_shows_a_result_at_once(app, pair):
    test = app()
    assert "A · VAE k = 1" in words(test) and "B · IWAE k = 50" in words(test)
    x = datasets.load("mnist-5k").binary("test")[0]
    for metric, entry in zip(test.metric[::2], pair, strict=True):
        drawn = engine.posterior(load(entry.path)[0], x, samples=5000, seed=0)
        assert_says(metric, drawn)
        heaviest = drawn.weights.topk(5).values
        assert f"Together they carry {percent(heaviest.sum().item())} of the weight of 5,000 draws" in words(test)
        assert "heaviest first" not in words(test) and heaviest.sum() > 5 / 5000


def test_home_and_posterior_agree(app):
    """Of the same digit, also after another number of draws and another seed were asked for."""
    test = app()
    home = [metric.value for metric in test.metric]
    test.switch_page("pages/1_Posterior.py").run()
    assert [metric.value for metric in test.metric] == home
    test.number_input(key="samples").set_value(700).run()
    test.number_input(key="seed").set_value(3).run()
    asked = [metric.value for metric in test.metric]
    test.switch_page("home.py").run()
    assert [metric.value for metric in test.metric] == asked != home


def test_the_headline_is_annealed_behind_the_page(app):
    """Seconds later the number is that of annealed chains, with an interval; that of q stays below it."""
    small = "digits-small-vae-k1", "digits-small-iwae-k50"
    test = app(a=small[0], b=small[1])
    deadline = time.monotonic() + 120
    while jobs().busy and time.monotonic() < deadline:
        test.run()
        time.sleep(1)
    test.run()
    assert not test.exception
    x = datasets.load("digits").binary("test")[:1]
    both = [ais.anneal(load(catalog.entries()[0][key].path)[0], x) for key in small]
    assert comparison(*both) in words(test)
    for place, found in enumerate(both):
        low, high = (f"{end.item():.2f}".replace("-", "−") for end in found.interval())
        metric = test.metric[2 * place]
        assert metric.value == f"{found.log_p.item():.2f}".replace("-", "−")
        assert metric.delta == f"95%: {low} to {high}"
    assert "5,000 draws of q alone: " in words(test) and not test.get("progress")


def test_home_says_that_its_models_were_trained_on_these_digits(app):
    said = "trained on these digits too"
    for query, expected in (({}, True), ({"data": "digits"}, False), ({"b": "digits-small-iwae-k50"}, True)):
        test = app(**query)
        assert (said in words(test)) == expected
    assert "Model A was trained on these digits too" in words(test)


def test_posterior_of_a_picked_digit(app, pair):
    test = app("pages/1_Posterior.py", image=7, seed=3, samples=600)
    x = datasets.load("mnist-5k").binary("test")[7]
    bound = app("pages/1_Posterior.py", posterior_section="Bound against k", image=7, seed=3, samples=600)
    spec = figure(bound)
    curves = [trace for trace in spec["data"] if trace["type"] == "scatter"]
    for place, entry in enumerate(pair):
        drawn = engine.posterior(load(entry.path)[0], x, samples=600, seed=3)
        assert_says(test.metric[2 * place], drawn)
        effective = test.metric[2 * place + 1]
        assert (effective.value, effective.delta) == (f"{drawn.ess:,.1f}", "of 600 draws")
        assert f"**{drawn.carrying(0.9):,} of 600**" in words(test)
        assert curves[place]["y"][0] == pytest.approx(drawn.elbo, abs=1e-3)
        assert curves[place]["y"][-1] == pytest.approx(drawn.log_p, abs=1e-3)
    assert "nats" in spec["layout"]["yaxis"]["title"]["text"]


def test_the_true_posterior_beside_q(app, pair):
    """k̂, the distinct draws and their cloud are those of the very draw that the page's numbers come from."""
    test = app("pages/1_Posterior.py", posterior_section="Resampled draws", image=7, seed=3, samples=600)
    x = datasets.load("mnist-5k").binary("test")[7]
    for place, entry in enumerate(pair):
        drawn = engine.posterior(load(entry.path)[0], x, samples=600, seed=3)
        chosen, times = drawn.resample(1000, 3).unique(return_counts=True)
        assert f"Pareto k̂ = **{drawn.k_hat:.2f}**, {pareto.reading(drawn.k_hat)[0]}" in words(test)
        assert f"{len(chosen):,} distinct draws among 1,000" in words(test)
        first, second = drawn.kl_units.argsort(descending=True)[:2].tolist()
        spec = figure(test, place)
        assert spec["layout"]["xaxis"]["title"]["text"] == f"unit {first}"
        resampled = spec["data"][2]
        assert values(resampled["x"]) == pytest.approx(drawn.h[0][chosen, first].tolist())
        assert values(resampled["y"]) == pytest.approx(drawn.h[0][chosen, second].tolist())
        assert resampled["customdata"] == times.tolist() and sum(times) == 1000
    test.toggle(key="own units").set_value(True).run()
    assert not test.exception and figure(test)["layout"]["yaxis"]["title"]["text"] == "unit 1"


@pytest.mark.parametrize("part", ["bottom half", "a box"])
def test_a_hidden_part_is_left_to_the_posterior(app, pair, part):
    other = {} if part == "bottom half" else {"hidden": part}
    test = app("pages/1_Posterior.py", image=7, posterior_section="Hide a part", samples=300, **other)
    if part == "a box":
        test.slider(key="hidden.rows").set_value((3, 12)).run()
    box = occlusion.half(part, (28, 28)) if part in occlusion.HALVES else (3, 12, 7, 21)
    seen = occlusion.visible_pixels(box, (28, 28))
    table = next(frame.value for frame in test.dataframe if "spread where hidden" in frame.value)
    x = datasets.load("mnist-5k").binary("test")[7]
    for place, entry in enumerate(pair):
        model = load(entry.path)[0]
        drawn, found = engine.posterior(model, x, samples=300), occlusion.occluded(model, x, seen, samples=300)
        rows = (drawn, drawn.log_p, drawn.ess), (found.drawn, found.log_p, found.effective)
        for row, (weighted, log_p, effective) in enumerate(rows, 2 * place):
            spread = engine.reconstruct(model, weighted).spread[~seen].square().mean().sqrt().item()
            assert table["spread where hidden"][row] == pytest.approx(spread, rel=1e-4)
            assert table["log p̂ of the pixels, nats"][row] == pytest.approx(log_p, rel=1e-6)
            assert table["effective draws"][row] == pytest.approx(effective, rel=1e-6)
        assert table["s.e."][2 * place + 1] == pytest.approx(found.log_p_se, rel=1e-6)
        assert table["computed by"][2 * place + 1] == found.way
        assert (found.doubt is None) or any(escape_markdown(found.doubt) in warning.value for warning in test.warning)
    assert list(table["given"])[:2] == ["all pixels", f"{int(seen.sum())} of 784 pixels"]


def test_models_of_other_sizes_are_shown_too(app, pair):
    """A 2-D latent beside fifty units, and a run of two layers whose first has one unit."""
    plane = next(key for key in catalog.entries()[0] if "2d" in key)
    run = store.create(TrainConfig("digits", model="12:1/8:3", k=2, epochs=1, valid_images=50))
    assert worker.work(run).phase == "finished"
    test = app(
        "pages/1_Posterior.py",
        a=plane,
        b=f"run:{run.name}",
        posterior_section="Hide a part",
        samples=300,
        hidden="top half",
    )
    assert "spread where hidden" in test.dataframe[0].value
    open_section(test, "Resampled draws")
    assert {figure(test)["layout"][axis]["title"]["text"] for axis in ("xaxis", "yaxis")} == {"unit 0", "unit 1"}
    assert "A single unit has no plane to draw" in words(test)
    test = app("pages/1_Posterior.py", posterior_section="Resampled draws", a=plane, b=plane, samples=300)
    assert "own units" not in {toggle.key for toggle in test.toggle}


def test_another_digit_changes_the_result(app):
    test = app("pages/1_Posterior.py", samples=300)
    before = test.metric[0].value
    test.number_input(key="number").set_value(11).run()
    assert not test.exception and test.metric[0].value != before


def test_a_number_that_a_smaller_data_set_lacks_becomes_the_first_image(app):
    """As after image 9,000 of MNIST, when the data set is changed to one of 500 test images."""
    for page in ("home.py", "pages/1_Posterior.py"):
        test = app(page)
        test.session_state["image"] = test.session_state["image in use"] = 9000
        test.run()
        assert not test.exception and not test.error and len(test.metric) == 4


def test_upload_is_read_and_sampled(app, pair):
    """A dark stroke on light paper: the models see its binarized 28×28 image, and the numbers are those of it."""
    paper = np.full((200, 160, 3), 240, dtype=np.uint8)
    paper[30:170, 70:90] = 30
    test = app("pages/1_Posterior.py", digit="Upload", samples=300)
    assert "PNG, JPEG" in words(test)
    test.file_uploader[0].upload("one.png", png(paper), "image/png").run()
    assert not test.exception
    grey = (255 * digits.prepare(png(paper)).image).round().astype(np.uint8)
    x = datasets.binarize(torch.from_numpy(grey).reshape(-1), torch.Generator().manual_seed(0))
    drawn = engine.posterior(load(pair[0].path)[0], x, samples=300, seed=0)
    assert_says(test.metric[0], drawn)


def test_an_upload_is_replaced_or_removed_and_nothing_of_it_stays(app):
    """By another file, readable or not; by its ✕; and after another page by the button beside its name."""
    paper = np.full((200, 160, 3), 240, dtype=np.uint8)
    paper[30:170, 70:90] = 30
    test = app("pages/1_Posterior.py", digit="Upload", samples=300)
    test.file_uploader[0].upload("one.png", png(paper), "image/png").run()
    own = test.metric[0].value
    assert "one.png" in words(test)
    test.file_uploader[0].set_value(None).run()
    assert "one.png" not in words(test) and test.metric[0].value != own and not test.error
    test.file_uploader[0].upload("one.png", png(paper), "image/png").run()
    test.switch_page("pages/2_Latent_space.py").run()
    test.switch_page("pages/1_Posterior.py").run()
    assert "one.png" in words(test) and test.metric[0].value == own
    test.file_uploader[0].upload("one.heic", b"\0\0\0\x18ftypheic" + bytes(50), "image/heic").run()
    assert "HEIC" in test.error[0].value and "JPEG" in test.error[0].value
    assert "stays as it was" in test.error[0].value and test.metric[0].value == own
    test.button(key="digit.remove").click().run()
    assert "PNG, JPEG" in words(test) and not test.error and test.metric[0].value != own and not test.exception


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"not a picture at all", "digit.png"),
        (png(np.full((50, 50), 255, dtype=np.uint8)), "blank.png"),
        (b"", "0.png"),
    ],
)
def test_bad_uploads_get_a_sentence(app, content, name):
    test = app("pages/1_Posterior.py", digit="Upload")
    test.file_uploader[0].upload(name, content, "image/png").run()
    assert not test.exception
    assert len(test.error) == 1 and test.error[0].value.endswith(" The digit in hand stays as it was.")
    assert "Test image 0 of" in words(test)


def test_no_model_at_all_says_what_to_do(app, tmp_path, monkeypatch):
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path / "empty")
    test = app()
    assert "There is no model yet" in test.info[0].value


def test_a_damaged_checkpoint_is_explained(app, tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for path in catalog.SHIPPED.glob("mnist-1layer-*"):
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "broken.safetensors").write_bytes(b"broken")
    monkeypatch.setattr(catalog, "SHIPPED", folder)
    test = app()
    assert any("broken.safetensors" in text.value for text in test.text)
    assert len(test.metric) == 4


def test_models_come_from_the_address_and_stay(app):
    found, _ = catalog.entries()
    other = next(key for key in found if key not in catalog.default_pair(found))
    test = app("pages/1_Posterior.py", a=other, samples=300)
    assert test.selectbox(key="a").value == other
    test.switch_page("home.py").run()
    assert not test.exception and test.selectbox(key="a").value == other


def test_the_catalog_reads_a_file_again_once_it_is_written_anew(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    vae, iwae = ((catalog.SHIPPED / f"{name}.safetensors").read_bytes() for name in catalog.DEFAULT_PAIR)
    path.write_bytes(vae)
    monkeypatch.setattr(catalog, "SHIPPED", tmp_path)
    assert catalog.entries()[0]["model"].kind == "vae"
    assert catalog.entries()[0]["model"] is catalog.entries()[0]["model"]
    path.write_bytes(iwae)
    assert catalog.entries()[0]["model"].kind == "iwae"
    path.write_bytes(b"broken")
    found, refused = catalog.entries()
    assert not found and "model.safetensors" in refused["model.safetensors"]


def finished(run, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while run.status().alive and time.monotonic() < deadline:
        time.sleep(0.1)
    return run.status()


def test_the_form_trains_a_model_and_offers_it(app):
    test = app()
    assert test.selectbox(key="train.dataset").value == "mnist-5k"
    test.selectbox(key="train.dataset").set_value("digits").run()  # a third of the images
    test.text_input(key="train.epochs").set_value("2").run()
    test.text_input(key="train.k.iwae").set_value("3").run()
    if loggers.TensorBoard.available():
        test.button_group(key="train.log").select("tensorboard").run()
    next(button for button in test.button if button.label == "Start training").click().run()
    assert not test.exception and not test.error
    (run,) = store.list_runs()
    assert (run.config.dataset, run.config.objective, run.config.k, run.config.epochs) == ("digits", "iwae", 3, 2)
    assert finished(run).phase == "finished"
    if loggers.TensorBoard.available():
        assert list((store.logs_dir() / run.name).glob("events*"))
    else:
        assert run.logs is None
    test.run()
    next(button for button in test.button if button.label == "Use as B").click().run()
    test.run()
    assert test.selectbox(key="b").value == f"run:{run.name}"
    assert "B · IWAE k = 3" in words(test)


def test_the_form_offers_no_log_without_the_packages(app, monkeypatch):
    monkeypatch.setattr(optional, "find_spec", lambda name: None)
    with pytest.raises(KeyError):
        app().button_group(key="train.log")


def test_a_damaged_run_is_explained(app, tmp_path):
    folder = tmp_path / "runs" / "20260101-000000-digits"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    test = app()
    assert len(test.error) == 1 and folder.name in test.error[0].value
    assert len(test.metric) == 4


def test_objectives_of_the_form_are_valid(app, monkeypatch):
    """With their usual settings. That the button starts a process is seen above."""
    monkeypatch.setattr(store, "start", lambda config, **_: store.create(config))
    test = app()
    for objective in OBJECTIVES:
        test.selectbox(key="train.objective").set_value(objective).run()
        next(button for button in test.button if button.label == "Start training").click().run()
        assert not test.exception and not test.error
    assert {run.config.objective for run in store.list_runs()} == {*OBJECTIVES}


def test_one_draw_that_carries_all_the_weight_is_drawn(app, monkeypatch):
    """Resampled by weight, all of them are the same draw: a cloud of one point."""
    monkeypatch.setattr(engine.Posterior, "resample", lambda self, count, seed: torch.full((count,), 3))
    test = app("pages/1_Posterior.py", posterior_section="Resampled draws", image=4, samples=400)
    assert "1 distinct draws among" in words(test) and not test.error


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("home.py", {"image.csv", "A/coordinates.csv"}),
        ("pages/1_Posterior.py", {"image.csv", "A/posterior.csv"}),
        ("pages/2_Latent_space.py", {"map-a.csv", "map-b.csv"}),
        ("pages/3_Active_units.py", {"units-variance.csv"}),
        ("pages/4_Reconstructions.py", {"image.csv"}),
        ("pages/5_Samples.py", {"samples-prior-A.png", "samples-prior-B.png"}),
        ("pages/6_Bounds.py", {"bounds-weights.csv", "B/posterior.csv"}),
        ("pages/8_Results.py", {"image.csv"}),
    ],
)
def test_every_page_offers_a_report_of_what_it_shows(app, monkeypatch, path, names):
    """The ZIP that the button would give, made in its place."""
    made = []
    monkeypatch.setattr(st, "download_button", lambda label, data, *_, **options: made.append((label, data)))
    test = app(path)
    assert not test.exception
    data = dict(made)["Download a report of this view"]
    archive = zipfile.ZipFile(io.BytesIO(data()))
    assert set(archive.namelist()) >= names | {"README.md", "view.json", "A/card.json", "B/card.json"}
    for name in names:
        assert len(archive.read(name)) > 100
    view = json.loads(archive.read("view.json"))
    assert set(view["models"]) == {"A", "B"} and view["dataset"]
