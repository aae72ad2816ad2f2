"""The report: its numbers are the engine's, and its own README makes them again."""

import csv
import io
import json
import re
import subprocess
import sys
import zipfile

import numpy as np
import plotly.graph_objects as go
import pytest
import torch
from PIL import Image

from iwae import catalog, checkpoints
from iwae.data import datasets
from iwae.export import report
from iwae.export.report import PageItem, SampledImage
from iwae.inference.posterior import posterior

SAMPLES, SEED = 70, 3


@pytest.fixture(scope="module")
def pair():
    found = catalog.entries()[0]
    return [("A", found["mnist-2d-vae-k1"]), ("B", found["mnist-1layer-iwae-k50"])]


@pytest.fixture(scope="module")
def x():
    return datasets.load("digits").binary("test")[4]


@pytest.fixture(scope="module")
def archive(pair, x):
    view = {"dataset": "digits", "value": float("nan")}
    figure = go.Figure(go.Scatter(x=[1, 2], y=[3, 4], name="only here"))
    shown = {
        "some-figure": PageItem("a < b", figure, lambda: "x,y\n1,3\n2,4\n"),
        "some-picture": PageItem("a dot", picture=lambda: b"PNG"),
    }
    return zipfile.ZipFile(io.BytesIO(report.build(pair, view, shown, SampledImage(x, SAMPLES, SEED))))


def table(archive, name) -> list[dict[str, str]]:
    return list(csv.DictReader(io.TextIOWrapper(archive.open(name), encoding="utf-8")))


def test_numbers_are_the_engine_s(archive, pair, x):
    assert [int(row["value"]) for row in table(archive, "image.csv")] == x.int().tolist()
    for name, entry in pair:
        drawn = posterior(checkpoints.load(entry.path)[0], x, samples=SAMPLES, seed=SEED)
        rows = table(archive, f"{name}/posterior.csv")
        assert [float(row["log_w"]) for row in rows] == drawn.log_w.tolist()
        assert sum(float(row["weight"]) for row in rows) == pytest.approx(1, abs=1e-12)
        h = [
            [float(value) for key, value in row.items() if key != "draw"]
            for row in table(archive, f"{name}/coordinates.csv")
        ]
        assert torch.tensor(h).equal(drawn.h[0])
        curve = table(archive, f"{name}/curve.csv")
        assert float(curve[0]["L_k in nats"]) == pytest.approx(drawn.elbo, abs=1e-3)
        summary = json.loads(archive.read(f"{name}/summary.json"))
        assert summary["log_p_nats"] == drawn.log_p and summary["effective_samples"] == drawn.ess
        assert json.loads(archive.read(f"{name}/card.json"))["training"] == entry.card.training
        picture = np.asarray(Image.open(io.BytesIO(archive.read(f"{name}/reconstructions.png"))))
        assert picture.shape == (112, 4 * 112)
    view = json.loads(archive.read("view.json"))
    assert view["models"] == {name: entry.key for name, entry in pair}
    assert (view["samples"], view["seed"], view["value"]) == (SAMPLES, SEED, None)


def test_the_same_view_gives_the_same_bytes(pair, x):
    once, again = (report.build(pair, {}, {}, SampledImage(x, 20, 0)) for _ in range(2))
    names = zipfile.ZipFile(io.BytesIO(once)).namelist()
    for name in set(names) - {"figures.html"}:  # plotly gives each figure a random name
        assert zipfile.ZipFile(io.BytesIO(once)).read(name) == zipfile.ZipFile(io.BytesIO(again)).read(name)


def test_its_figures_need_no_network(archive):
    html = archive.read("figures.html").decode()
    assert not re.search(r"<script[^>]+src=", html)
    assert "only here" in html and "a &lt; b" in html
    assert archive.read("some-figure.csv") == b"x,y\n1,3\n2,4\n" and archive.read("some-picture.png") == b"PNG"
    assert re.search(r"L(<|\\u003c)sub(>|\\u003e)k", html)  # the axis of the curves


def test_its_readme_makes_the_numbers_again(archive, pair, tmp_path):
    archive.extractall(tmp_path)
    for name, entry in pair:
        (tmp_path / f"{name}.safetensors").write_bytes(entry.path.read_bytes())
    readme = (tmp_path / "README.md").read_text()
    assert readme.count("python -m iwae train") == 2
    code = re.search(r"```python\n(.*?)```", readme, re.S)[1]
    environment = {"PYTHONPATH": str(catalog.SHIPPED.parent), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        _, again, kept = line.split()
        assert float(again) == pytest.approx(float(kept), abs=1e-4)
    assert len(done.stdout.splitlines()) == 2


def test_a_page_about_no_image(pair):
    archive = zipfile.ZipFile(io.BytesIO(report.build(pair, {"page": "Results"}, {})))
    assert set(archive.namelist()) == {"README.md", "view.json", "A/card.json", "B/card.json"}
    assert "one image" not in archive.read("README.md").decode()
