"""The report: its numbers are the engine's, and its own README makes them again."""

import base64
import csv
import gzip
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
from plotly.offline import get_plotlyjs

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
    for name in names:
        assert zipfile.ZipFile(io.BytesIO(once)).read(name) == zipfile.ZipFile(io.BytesIO(again)).read(name)


def packed(page: str, name: str) -> str:
    """What the page unpacks: plotly's code, or the figures as JSON."""
    content = re.search(rf'<script type="application/gzip" id="{name}">([^<]+)<', page)[1]
    return gzip.decompress(base64.b64decode(content)).decode()


def test_the_page_is_one_small_file_with_everything_in_it(archive, pair, x):
    """It asks for nothing, says the numbers, draws each figure once and leaves room for its axes."""
    page = archive.read("report.html").decode()
    assert archive.read("some-figure.csv") == b"x,y\n1,3\n2,4\n" and archive.read("some-picture.png") == b"PNG"
    assert len(page) < 3_000_000 and not re.search(r"<(script|img|link)[^>]+(src|href)=.(?!data:)", page)
    assert "a &lt; b" in page and "a dot" in page and "<title>" in page
    assert packed(page, "plotly") == get_plotlyjs()
    figures = json.loads(packed(page, "figures"))
    assert set(figures) == {"some-figure", "curve"} and figures["some-figure"]["data"][0]["name"] == "only here"
    for name, figure in figures.items():
        assert page.count(f'<div id="{name}">') == 1
        assert figure["layout"]["margin"]["l"] >= 60 and figure["layout"]["yaxis"]["automargin"]
    for name, entry in pair:
        drawn = posterior(checkpoints.load(entry.path)[0], x, samples=SAMPLES, seed=SEED)
        assert f"{drawn.elbo:.2f}".replace("-", "−") in page and f"{name} · {entry.short}" in page
        assert f"{entry.card.metrics['nll']:.2f}" in page
    again = report.build_page(pair, {"link": "http://x/?a=1&b=2"}, {"curve": PageItem("own", go.Figure())}, None)
    assert b'href="http://x/?a=1&amp;b=2"' in again and b"<img" not in again


def test_what_has_no_room_is_left_out_of_the_page_and_said(pair):
    noise = np.random.default_rng(0).normal(size=(2, 150_000))
    shown = {
        "huge": PageItem("a cloud", go.Figure(go.Scatter(x=noise[0], y=noise[1]))),
        "small": PageItem("a line", go.Figure(go.Scatter(x=[1, 2], y=[3, 4]))),
    }
    page = report.build_page(pair, {}, shown).decode()
    assert len(page) < 3_000_000 and set(json.loads(packed(page, "figures"))) == {"small"}
    assert page.count("Too large for this file") == 1 and "a cloud" in page


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
    assert set(archive.namelist()) == {"README.md", "view.json", "report.html", "A/card.json", "B/card.json"}
    assert "one image" not in archive.read("README.md").decode()
