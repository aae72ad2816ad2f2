"""The page of active units: its counts, curves and losses are the engine's."""

import json

import pytest
import torch

from iwae import catalog
from iwae.analysis import units
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.evaluation import activity, stats
from tests.app.test_samples_page import words

PAGE = "pages/3_Active_units.py"


@pytest.fixture
def x():
    return datasets.load("mnist-5k").binary("test")


@pytest.fixture
def pair():
    found = catalog.entries()[0]
    return [load(found[key].path)[0] for key in catalog.DEFAULT_PAIR]


def figures(test) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in test.get("plotly_chart")]


def test_counts_and_curves(app, pair, x):
    test = app(PAGE, threshold=0.1)
    n = test.selectbox(key="unit_images").value
    for place, model in enumerate(pair):
        (layer,) = activity.active_units(model, x[:n], threshold=0.1)
        assert test.metric[2 * place].value == f"{int(layer.active.sum())} of 50"
        assert test.metric[2 * place + 1].value == str(layer.pca_active)
        spec = {chart["layout"]["yaxis"]["title"]["text"]: chart["data"][place] for chart in figures(test)[:3]}
        variance = spec["Variance over images of E_q[h_u|x]"]["y"]
        assert variance == pytest.approx(layer.variance.sort(descending=True).values.clamp_min(1e-6).tolist())
        kl = units.unit_kl(model, x[:n])[0].mean(0)
        assert spec["Mean KL of each unit, nats"]["y"][0] == pytest.approx(kl.max().item())
    other = app(PAGE, threshold=1)
    assert int(other.metric[0].value.split()[0]) < int(test.metric[0].value.split()[0])


def test_how_sure_the_count_is(app):
    test = app(PAGE, active_units_section="How sure is the count", unit_images=100)
    directions, _ = figures(test)
    assert directions["layout"]["xaxis"]["title"]["text"] == "directions, greatest first"
    assert "With 30 images, 95% of the counts are 22 of A · VAE k = 1 and 25 to 32 of B · IWAE k = 50." in words(test)


def test_a_unit_is_switched_off(app, pair, x):
    active = app(PAGE)
    test = app(PAGE, active_units_section="One unit at a time")
    n, model = test.selectbox(key="unit_images").value, pair[0]
    layers = activity.active_units(model, x[:n])
    order = units.unit_kl(model, x[:n])[0].mean(0).argsort(descending=True).tolist()
    for unit in order[:2]:
        test.selectbox(key="unit.a").set_value(unit).run()
        assert not test.exception
        loss = units.pruning_loss(model, x[:200], layers, units.all_but(layers, 0, unit), samples=50)
        assert test.metric[0].value == f"{loss.mean:.2f}".replace("-", "−")
        assert test.metric[0].delta == f"± {loss.se:.2f} standard error"
    pruned = units.pruning_loss(model, x[:200], layers, [layer.active for layer in layers], samples=50)
    words = "\n".join(element.value for element in active.markdown)
    assert f"a loss of **{stats.plus_minus(pruned.mean, pruned.se, digits=None)} nats** over 200" in words


def test_models_of_other_sizes_stand_side_by_side(app):
    test = app(PAGE, a="mnist-2d-vae-k1")
    assert [metric.value.split()[1:] for metric in test.metric[:3:2]] == [["of", "2"], ["of", "50"]]
    assert torch.tensor([len(trace["y"]) for trace in figures(test)[0]["data"]]).tolist() == [2, 50]
