"""The section What stays open of the page Posterior, against direct calls into the engine."""

import json

import numpy as np

from iwae import catalog
from iwae.analysis import draws
from iwae.checkpoints import load
from iwae.data import datasets
from iwae.inference.posterior import posterior
from tests.app.test_pages import values


def test_pixels_and_classes_of_the_draws_of_q(app):
    test = app("pages/1_Posterior.py", data="digits", image=5, posterior_section="What stays open")
    digits, top = datasets.load("digits"), 0.0
    charts = [json.loads(chart.proto.spec) for chart in test.get("plotly_chart")]
    for place, key in enumerate(catalog.DEFAULT_PAIR):
        model = load(catalog.entries()[0][key].path)[0]
        found = draws.decode(model, posterior(model, digits.binary("test")[5]).h[0][:500])
        shown = np.reshape(values(charts[place]["data"][0]["z"]), 784)
        np.testing.assert_allclose(shown, found.spread, atol=1e-6)
        labels = draws.nearest_class(found.pictures, digits.train.images, digits.train.labels)
        share, se = found.shares(labels, 10)
        bar = next(one for one in charts[2]["data"] if one["name"].startswith("AB"[place]))
        np.testing.assert_allclose(values(bar["y"]), share, atol=1e-9)
        np.testing.assert_allclose(values(bar["error_y"]["array"]), se, atol=1e-9)
        top = max(top, found.spread.max().item())
    assert {chart["layout"]["coloraxis"]["cmax"] for chart in charts[:2]} == {top}  # one scale
