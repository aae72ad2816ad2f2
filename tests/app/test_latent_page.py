"""The page of the latent space, against direct calls into the engine."""

import io
import json
import time

import numpy as np
import pytest
import streamlit as st

from iwae import catalog
from iwae.analysis import encode, latent, umap_maps
from iwae.analysis.spread import difference, spread
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.evaluation import metrics as evaluation
from iwae.export import shipped_maps
from iwae.inference import ais
from pages.common.evidence import jobs
from pages.latent import live_map
from pages.latent.controls import MapSide
from tests.app import TWO_LAYERS, open_section, open_tables
from tests.app.test_pages import values

PAGE = "pages/2_Latent_space.py"
TWO_D = {"a": "mnist-2d-vae-k1", "b": "mnist-2d-iwae-k50"}


@pytest.fixture(autouse=True)
def own_maps(tmp_path, monkeypatch):
    monkeypatch.setenv("IWAE_MAPS_DIR", str(tmp_path / "maps"))


@pytest.fixture
def digits():
    return datasets.load("digits")


def encoded(digits, keys=catalog.DEFAULT_PAIR):
    found, _ = catalog.entries()
    return [latent.encode(load(found[key].path)[0], digits.binary("test")) for key in keys]


def words(test) -> str:
    kinds = ("markdown", "caption", "info", "error", "warning")
    return "\n".join(str(element.value) for kind in kinds for element in test.get(kind))


def spec(test, place: int) -> dict:
    return json.loads(test.get("plotly_chart")[place].proto.spec)


def numbers(test, place: int):
    """The table behind the figure of that place."""
    open_tables(test, "map.a", "map.b")
    return [frame.value for frame in test.dataframe][place]


def pm(estimate, sign="") -> str:
    digits = 1 - int(np.floor(np.log10(estimate.se)))
    return f"{estimate.value:{sign}.{digits}f} ± {estimate.se:.{digits}f}".replace("-", "−")


def test_pca_in_one_frame(app, digits):
    test = app(PAGE, data="digits")
    a, b = encoded(digits)
    places = [latent.pca(side.mean).project(side.mean) for side in (a, b)]
    places[1] = places[1] @ latent.procrustes(*places)[0].T
    for place, expected in enumerate(places):
        table = numbers(test, place)
        assert list(table["image"]) == list(range(300))
        np.testing.assert_allclose(table[["x", "y"]], expected, atol=1e-6)
        names = [digits.label_names[label] for label in digits.test.labels]
        assert list(table["label"]) == names
        shown = spec(test, place)
        assert sum(len(trace["customdata"]) for trace in shown["data"] if "customdata" in trace) == 300
        assert shown["data"][0]["type"] == "scattergl"
        assert pm(latent.trustworthiness((a, b)[place].mean, expected)) in words(test)
    assert spec(test, 0)["layout"]["xaxis"]["range"] == spec(test, 1)["layout"]["xaxis"]["range"]
    assert spec(test, 0)["layout"]["yaxis"]["range"] == spec(test, 1)["layout"]["yaxis"]["range"]


def test_the_table_of_spread_is_the_engine_s(app, digits):
    test = app(PAGE, latent_space_section="Does B spread more?", data="digits")
    table = test.table[0].value
    sides = [spread(side, side.kl_standard) for side in encoded(digits)]
    assert len(table) == len(sides[0]) == 7
    for row, a, b in zip(table.to_dict("records"), *sides, strict=True):
        assert row["measure"].startswith(f"**{a.name}**")
        assert [row[column] for column in list(row)[1:]] == [
            pm(a.estimate), pm(b.estimate), pm(difference(a, b)),
        ]  # fmt: skip
    assert "n = 300 images" in words(test)
    one = difference(sides[0][0], sides[1][0])
    assert f"wider under B: its standard deviation differs by {pm(one, '+')}" in words(test)


def test_colours_are_the_engine_s_and_share_a_scale(app, digits):
    test = app(PAGE, data="digits", colour="NLL")
    found, _ = catalog.entries()
    expected = []
    for place, key in enumerate(catalog.DEFAULT_PAIR):
        model = load(found[key].path)[0]
        metrics = evaluation.evaluate(model, digits.binary("test"), samples=50, prune=False)
        expected.append(metrics)
        np.testing.assert_allclose(numbers(test, place)["NLL, nats"], metrics.nll, atol=1e-3)
    scales = [
        [trace["marker"][end] for end in ("cmin", "cmax")] for trace in (spec(test, i)["data"][0] for i in (0, 1))
    ]
    assert scales[0] == scales[1]
    test.selectbox(key="colour").set_value("ESS").run()
    np.testing.assert_allclose(numbers(test, 1)["ESS of 50"], expected[1].ess, rtol=1e-3)
    test.selectbox(key="colour").set_value("D_KL").run()
    sides = encoded(digits)
    np.testing.assert_allclose(numbers(test, 0)["D_KL, nats"], sides[0].kl_standard, rtol=1e-5)
    test.selectbox(key="colour").set_value("posterior spread").run()
    np.testing.assert_allclose(numbers(test, 0)["tr Σ(x)"], sides[0].trace, rtol=1e-5)
    test.selectbox(key="colour").set_value("predicted digit").run()
    votes = latent.predict_labels(latent.neighbours(sides[1].mean)[0], digits.test.labels.numpy())
    assert list(numbers(test, 1)["predicted digit"]) == [digits.label_names[vote] for vote in votes]
    test.selectbox(key="colour").set_value("nothing").run()
    assert not test.exception and spec(test, 0)["data"][0]["marker"]["color"] == "#CC7A00"


def test_the_ellipse_of_the_image_and_of_a_class(app, digits):
    test = app(PAGE, data="digits", image=7)
    a, _ = encoded(digits)
    view = latent.pca(a.mean)

    def curve():
        trace = next(trace for trace in spec(test, 0)["data"] if trace.get("mode") == "lines")
        return trace

    one = a.select(7)
    assert f"true tr Σ = {one.trace[0]:.3g} over 50 units" in words(test)
    table = latent.ellipse(view.project(one.mean)[0], view.covariance(one.std[0]))
    x, y = spec(test, 0)["layout"]["xaxis"]["range"], spec(test, 0)["layout"]["yaxis"]["range"]
    assert x[0] <= table[:, 0].min() and table[:, 1].max() <= y[1] and curve()["name"] == "95% of q(h|x)"
    test.segmented_control(key="spread").set_value("a class").run()
    test.selectbox(key="class").set_value("3").run()
    typical = a.average(digits.test.labels.numpy() == 3)
    assert f"class 3, the mean of its posteriors, exact; true tr Σ = {typical.trace[0]:.3g}" in words(test)
    test.segmented_control(key="spread").set_value("none").run()
    assert not any(trace.get("mode") == "lines" for trace in spec(test, 0)["data"])


def test_a_selection_holds_on_both_maps(app, digits):
    test = app(PAGE, data="digits")
    test.session_state["latent.selected"] = "digits", [3, 40, 41]
    test.run()
    for place in (0, 1):
        chosen = {
            trace["customdata"][i]
            for trace in spec(test, place)["data"]
            if "selectedpoints" in trace
            for i in trace["selectedpoints"]
        }
        assert chosen == {3, 40, 41}
    assert "**3 of 300 images selected**" in words(test)
    test.button(key="latent.clear").click().run()
    assert "selectedpoints" not in spec(test, 0)["data"][0]


def test_classes_can_be_taken_off_both_maps(app, digits):
    test = app(PAGE, data="digits")
    before = spec(test, 0)["layout"]["xaxis"]["range"]
    test.pills(key="classes").set_value(["3", "7"]).run()
    labels = digits.test.labels.numpy()
    for place in (0, 1):
        there = [image for trace in spec(test, place)["data"] for image in trace.get("customdata", ())]
        assert sorted(there) == np.flatnonzero(np.isin(labels, [3, 7])).tolist()
    assert spec(test, 0)["layout"]["xaxis"]["range"] == before
    test.selectbox(key="colour").set_value("posterior spread").run()
    (trace,) = (trace for trace in spec(test, 1)["data"] if "customdata" in trace)
    shown = encoded(digits)[1].trace[np.isin(labels, [3, 7])]
    np.testing.assert_allclose(values(trace["marker"]["color"]), shown, rtol=1e-6)


def test_a_spot_is_a_mixture_of_places_or_the_digit_with_units_moved(digits):
    """What the server answers where a model is too large for the page."""
    a, _ = encoded(digits)
    view, own = latent.pca(a.mean), a.mean[3]
    side = MapSide("A", catalog.entries()[0][catalog.DEFAULT_PAIR[0]], "cpu", a, view.project(a.mean), view)
    parts = [[1.0, 2.0, 0.25], [-1.0, 0.5, 0.75]]
    np.testing.assert_allclose(live_map.code_of(side, own, parts, {}), view.lift(np.array([-0.5, 0.875]), own))
    moved = live_map.code_of(side, own, [], {"7": 2.5})
    assert moved[7] == 2.5 and (np.delete(moved, 7) == np.delete(own, 7)).all() and own[7] != 2.5


def test_images_that_moved_most(app, digits):
    test = app(PAGE, latent_space_section="Images that moved most", data="digits")
    overlap = latent.overlap(*(latent.neighbours(side.mean)[0] for side in encoded(digits)))
    assert f"**{pm(latent.MeanEstimate.from_values(overlap))}**" in words(test)
    open_tables(test, "moved")
    table = next(frame.value for frame in test.dataframe if "overlap" in frame.value)
    np.testing.assert_allclose(table["overlap"], np.sort(overlap))
    test.button(key="moved.select").click().run()
    open_section(test, "Maps")
    assert "**100 of 300 images selected**" in words(test)
    open_section(test, "Images that moved most")
    test.pills(key="moved").set_value(int(table["image"][2])).run()
    assert test.query_params["image"] == str(table["image"][2])


def test_the_plane_of_two_units(app, digits):
    test = app(PAGE, data="digits", map="Two units", **TWO_D)
    a, b = encoded(digits, TWO_D.values())
    for place, side in enumerate((a, b)):
        np.testing.assert_allclose(numbers(test, place)[["x", "y"]], side.mean, atol=1e-6)
        assert spec(test, place)["layout"]["xaxis"]["title"]["text"] == "unit 0"
    test.number_input(key="a_x").set_value(1).run()
    np.testing.assert_allclose(numbers(test, 0)["x"], a.mean[:, 1], atol=1e-6)


def test_the_true_posterior_of_the_digit_is_on_the_maps(app, digits):
    test = app(PAGE, data="digits", map="Two units", truth="true", image=4, **TWO_D)
    deadline = time.monotonic() + 120
    while jobs().busy and time.monotonic() < deadline:
        time.sleep(0.5)
        test.run()
    test.run()
    x = datasets.load("digits").binary("test")[4:5]
    for place, key in enumerate(TWO_D.values()):
        ends = ais.anneal(load(catalog.entries()[0][key].path)[0], x).draws(50)[0][:, 0]
        crosses = next(
            one for one in spec(test, place)["data"] if one.get("name") == "50 draws from the true posterior"
        )
        np.testing.assert_allclose(np.stack([values(crosses["x"]), values(crosses["y"])], 1), ends, atol=1e-5)
    assert "Crosses: 50 draws from the true posterior" in words(test)


def test_pairs_that_differ_say_what_cannot_be_compared(app, digits):
    test = app(PAGE, data="digits", a="mnist-2d-vae-k1", b="mnist-1layer-iwae-k50")
    assert "A has 2 latent units and B 50" in words(test) and "A and B: trained on mnist" in words(test)
    assert "not learned" not in words(app(PAGE, data="mnist-5k"))  # which is a part of what these models have seen
    open_section(test, "Does B spread more?")
    table = test.table[0].value
    assert [value == "–" for value in table["B − A"]] == [False, False, True, True, True, True, False]


def test_two_stochastic_layers(app, digits, trained):
    run = trained(TWO_LAYERS)
    for kind in ("PCA", "Two units"):
        test = app(PAGE, data="digits", b=f"run:{run.name}", map=kind, colour="D_KL")
        assert "1 in A, 2 in B" in words(test) and len(test.main.get("plotly_chart")) == 2
    model, x = load(run.checkpoint)[0], digits.binary("test")
    metrics = evaluation.evaluate(model, x, samples=50, prune=False)
    np.testing.assert_allclose(numbers(test, 1)["D_KL, nats"], metrics.kl_prior, rtol=1e-4)

    test.segmented_control(key="latent_layer").set_value("h₂").run()
    two = latent.encode(model, x, 2)
    np.testing.assert_allclose(numbers(test, 1)[["x", "y"]], two.mean, atol=1e-6)
    np.testing.assert_allclose(numbers(test, 1)["tr Σ(x)"], two.trace, rtol=1e-5)
    assert "spread are those of h₁ in A and h₂ in B" in words(test)  # A has no more
    dots = next(trace for trace in spec(test, 1)["data"] if trace.get("name") == "200 draws from q(h|x)")
    drawn = latent.draw(model, x[:1].expand(200, -1), 2)
    np.testing.assert_allclose(np.stack([values(dots["x"]), values(dots["y"])], 1), drawn, atol=1e-5)
    assert "q(h₂|x) is no Gaussian: a point is its mean over 20 draws" in words(test)


def test_umap_never_blocks_and_is_then_read_from_the_disk(app, digits, monkeypatch):
    started = []
    monkeypatch.setattr(
        umap_maps.Map, "start", lambda one, points, begin, settings: started.append((one, points, begin))
    )
    test = app(PAGE, data="digits", image=4)
    assert "Until then: PCA" in words(test) and not started  # it is offered
    test.button(key="umap.start").click().run()
    assert "Until then: PCA" in words(test) and len(test.get("plotly_chart")) == 2
    ((b, points, a),) = started
    np.testing.assert_allclose(points, encoded(digits)[1].mean, atol=1e-6)
    rng = np.random.default_rng(0)
    clouds = rng.normal(size=(2, 300, 2))
    for one, cloud in zip((a, b), clouds, strict=True):
        umap_maps._save(one.folder / "map.npy", cloud)
    test.run()
    assert not test.exception and "Until then" not in words(test) and len(started) == 1
    for place, cloud in enumerate(clouds):
        np.testing.assert_allclose(numbers(test, place)[["x", "y"]], cloud)
    text = words(test)
    assert "200 draws from q(h₁|x) of the digit in hand" in text and "Areas on a UMAP map are not variances" in text


def test_the_page_opens_on_the_umap_that_ships(app):
    """Nothing is computed, and PCA is one click away."""
    keys = {"a": "mnist-5k-1layer-vae-k1", "b": "mnist-5k-1layer-iwae-k50"}
    test = app(PAGE, data="mnist-5k", **keys)
    assert test.segmented_control(key="map").value == "UMAP" and "map" not in test.query_params
    for place, one in enumerate(shipped_maps.pair_of_maps(*keys.values(), "mnist-5k")):
        np.testing.assert_allclose(numbers(test, place)[["x", "y"]], one.coordinates())
    assert not umap_maps.maps_dir().exists()
    test.segmented_control(key="map").set_value("PCA").run()
    assert spec(test, 0)["layout"]["xaxis"]["title"]["text"] == "PC 1"


def test_umap_that_failed_can_be_tried_again(app, digits, monkeypatch):
    monkeypatch.setattr(umap_maps.Map, "status", lambda one: umap_maps.MapStatus("failed", "no room on the disk"))
    test = app(PAGE, data="digits", map="UMAP")
    assert "UMAP did not finish: no room on the disk" in test.error[0].value
    assert test.button(key="umap.again")


def test_numbers_that_a_smaller_data_set_lacks(app):
    """What the address asks for is refused by name; what another data set or model had is replaced."""
    test = app(PAGE, data="digits", images=5000, a_x=77, map="Two units")
    assert [error.value.split(" ")[0] for error in test.error] == ["5000", "77"]
    assert "300 test images" in words(test)
    for key, value in (("images", 5000), ("a_x", 77)):
        test.session_state[key] = test.session_state[f"{key} in use"] = value
    test.run()
    assert not test.exception and not test.error and "300 test images" in words(test)
    assert test.number_input(key="images").value == 300


def points(test, place: int) -> dict[int, dict]:
    """The trace of each image on a map, by its number."""
    return {
        int(image): trace
        for trace in spec(test, place)["data"]
        if "customdata" in trace
        for image in trace["customdata"]
    }


def test_columns_of_a_file_colour_the_maps(app):
    """Numbers get a scale, texts a legend; images without a value are grey; what is wrong is said, and nothing lost."""
    test = app(PAGE, data="digits", map="PCA")
    table = "index,score,kind <b>\n" + "".join(f"{i},{i / 2},{'even' if i % 2 == 0 else 'odd'}\n" for i in range(200))
    field = test.file_uploader(key="latent.table.file")
    field.set_value(("own.csv", table.encode(), "text/csv")).run()
    assert test.selectbox(key="colour").value == "score (file)" and not test.exception
    scale = spec(test, 0)["data"][1]["marker"]
    assert scale["colorbar"]["title"]["text"] == "score" and values(scale["color"]) == [i / 2 for i in range(200)]
    assert points(test, 1)[250]["name"] == "no value" and "which 200 of them have" in words(test)
    assert list(numbers(test, 0)["score (file)"][[3, 199]]) == [1.5, 99.5]

    test.selectbox(key="colour").set_value("kind <b> (file)").run()
    for place in (0, 1):
        found = points(test, place)
        assert [found[image]["name"] for image in (4, 7, 299)] == ["even", "odd", "no value"]
        layout = spec(test, place)["layout"]
        assert layout["showlegend"] and layout["legend"]["title"]["text"] == "kind &lt;b&gt;"
        named = {trace["name"] for trace in spec(test, place)["data"] if trace["showlegend"]}
        assert named == {"even", "odd", "no value"}
    assert list(numbers(test, 0)["kind <b> (file)"][[3, 4]]) == ["odd", "even"]

    test.file_uploader(key="latent.table.file").set_value(("bad.csv", b"index,a\n300,1\n", "text/csv")).run()
    assert "“bad.csv”: index 300 is not a test image; there are 0 to 299." in words(test).replace("\\", "")
    assert test.selectbox(key="colour").value == "kind <b> (file)"  # the table before is still in use
    test.file_uploader(key="latent.table.file").set_value(None).run()
    assert test.selectbox(key="colour").value == "label" and not test.exception


def test_an_address_with_a_column_that_is_not_here_shows_the_labels(app):
    test = app(PAGE, data="digits", map="PCA", colour="score (file)")
    assert test.selectbox(key="colour").value == "label" and len(test.main.get("plotly_chart")) == 2


def test_the_latents_of_the_images_on_the_maps_can_be_downloaded(app, digits, trained, monkeypatch):
    run, made = trained(TWO_LAYERS), []
    monkeypatch.setattr(st, "download_button", lambda label, data, *_, **options: made.append((label, data)))
    test = app(PAGE, data="digits", b=f"run:{run.name}", map="PCA", images=150)
    test.session_state["latents"] = True
    test.run()
    test.segmented_control(key="latents.model").set_value("B").run()
    test.selectbox(key="latents.format").set_value(".npz").run()
    test.button(key="latents.encode").click().run()
    assert not test.exception
    chosen = latent.subset(300, 150)
    expected = encode.encode(load(run.checkpoint)[0], digits.binary("test")[chosen], samples=100)
    content = next(data for label, data in made if label == "Download NumPy (.npz)")()
    with np.load(io.BytesIO(content)) as file:
        np.testing.assert_allclose(file["log_p"], expected.log_p, atol=1e-4)
        np.testing.assert_allclose(file["h2_std"], expected.std[1], rtol=1e-4)
        assert (file["index"] == chosen).all() and (file["label"] == digits.test.labels.numpy()[chosen]).all()
        about = json.loads(str(file["about"]))
        np.testing.assert_allclose(file["map"], numbers(test, 1)[["x", "y"]], atol=1e-6)
    assert about["samples"] == 100 and about["map"] == "pca" and about["dataset"] == "digits"
