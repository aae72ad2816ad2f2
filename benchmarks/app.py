"""The app's speed as a person meets it: from the deed to the moment at which the page shows its result.

A real server and a real Chromium. The clock starts with the server's process, or in the browser with the click or the
chosen file, and stops in the browser, at the first frame with the page's heading, the numbers of both models, every
picture loaded and every chart drawn, and with no running indicator and nothing stale left; the first paint is the first
frame with the heading, which comes after the empty page that Streamlit shows. Pictures that follow the pen are timed
from the pointer's event to their paint. Encoding has no page: it is timed as a call on one thread, as the pages' calls
are; and UMAP as the process that a page starts. All of it is timed idle and beside a training run.

    python -m benchmarks app
"""

import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from PIL import Image, ImageOps
from playwright.sync_api import Browser, Page, sync_playwright
from torch import Tensor

from benchmarks.report import Section, at_most
from benchmarks.report import table as markdown
from benchmarks.settings import BenchmarkSettings
from iwae import catalog, checkpoints
from iwae.analysis import latent, umap_maps
from iwae.data import datasets
from iwae.model import Model
from iwae.runs import store
from iwae.training.config import TrainConfig
from tests.browser.driver import CHROMIUM_FLAGS, find_chromium, settled
from tests.browser.live import WATCH, fetched
from tests.server import ROOT, Server

BESIDE_TRAINING = 2.0  # how much slower than idle anything may be beside a training run
SECONDS = 120  # of patience with any one page
RUN = TrainConfig("digits", objective="iwae", k=50, epochs=10_000, batch_size=50)  # hours: it ends when it is stopped

Times = dict[str, list[float]]  # seconds of every round, by the key of a Goal


@dataclass(frozen=True)
class Goal:
    """What is timed, and how long it may take with nothing else at work."""

    title: str
    seconds: float


GOALS = {
    "paint": Goal("Server start to first paint of the page, cold", 2.5),
    "start": Goal("Server start to first result, cold", 3.3),
    "posterior": Goal("Page change, Home → Posterior", 0.4),
    "home": Goal("Page change, Posterior → Home", 0.4),
    "upload": Goal("Upload to the posteriors of both models, 5,000 samples each", 0.6),
    "edit": Goal("Upload editor: a quarter turn to what the models see", 0.3),
    "stroke": Goal("Home: pen to picture", 0.05),
    "frame": Goal("Home: from one picture to the next while drawing", 1 / 30),
    "encode": Goal("Encoding and PCA of the test images", 1.0),
    "umap": Goal("UMAP of the test images, at most 10,000, under both models", 25.0),
}


@dataclass(frozen=True)
class PageContent:
    """What tells that a page is complete."""

    heading: str
    pictures: int  # at least so many
    charts: int


HOME = PageContent("Latent-space explorer", 2, 0)  # a strip of samples for each model
POSTERIOR = PageContent("The posterior of one digit", 2 * 2 + 2, 0)  # and a strip of reconstructions; the digit

PAINTED = (
    """heading => document.querySelector('[data-testid="stMain"] h1')?.innerText.trim() === heading && Date.now()"""
)
MOMENT = """([look, before]) => {
    const all = (selector) => [...document.querySelectorAll(`[data-testid="stMain"] ${selector}`)];
    const app = document.querySelector('[data-testid="stApp"]')?.dataset;
    const values = all('[data-testid="stMetricValue"]').map((value) => value.innerText);
    const pictures = all('[data-testid="stImage"] img');
    const model = (numbers, which) => numbers[2 * which + 1];  // the effective samples: log p changes by itself
    return app?.testConnectionState === "CONNECTED" && app.testScriptState === "notRunning"
        && !document.querySelector('[data-testid="stStatusWidget"], [data-testid="stSkeleton"], [data-stale="true"]')
        && all("h1").some((heading) => heading.innerText.trim() === look.heading)
        && values.length === 4 && [0, 1].every((which) => model(values, which) !== model(before, which))
        && pictures.length >= look.pictures && pictures.every((picture) => picture.complete && picture.naturalWidth)
        && all('[data-testid="stPlotlyChart"]').filter((chart) => chart.querySelector(".trace path")).length
            === look.charts
        && Date.now();
}"""
READ = """canvas => new Promise((done) => {
    const look = () => (canvas.classList.contains("old") ? requestAnimationFrame(look) : done(Date.now()));
    look();
})"""  # the editor's picture of what is read is old until the server has answered
ACTED = 'for (const kind of ["click", "change"]) addEventListener(kind, () => (window.acted = Date.now()), true);'


def measure(settings: BenchmarkSettings) -> Section:
    """Idle, and beside a training run. Raises RuntimeError without a Chromium."""
    chromium = find_chromium()
    if chromium is None:
        raise RuntimeError("no chromium found; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        environment = os.environ | {"HOME": home, "XDG_CACHE_HOME": home, "XDG_CONFIG_HOME": home}
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS, env=environment)
        idle, training = (_all(browser, settings.turns, train) for train in (False, True))
        browser.close()
    return report(idle, training)


def report(idle: Times, training: Times) -> Section:
    """The times as a table, and the targets."""
    rows, targets = [], []
    for key, goal in GOALS.items():
        alone, beside = statistics.median(idle[key]), statistics.median(training[key])
        rows.append((goal.title, _spread(idle[key]), _spread(training[key]), f"{beside / alone:.2f}"))
        targets.append(at_most(goal.title, alone, goal.seconds, " s"))
        targets.append(at_most(f"{goal.title}: beside training, against idle", beside / alone, BESIDE_TRAINING))
    body = f"""Seconds in a real Chromium, from the click, the chosen file or the start of the server's process to the
first frame with the whole result. The training run is one that the app started; the app itself computes on one thread.

{markdown(("", "idle, s", "beside training, s", "× idle"), rows)}"""
    return Section(body, tuple(targets))


def encode(model: Model, x: Tensor) -> Tensor:
    """The means of q(h₁|x) in the directions of their principal components, greatest first: [n, latent]."""
    with torch.inference_mode():
        means = model.encoder[0](x)[0]
        centred = means - means.mean(0)
        directions = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)  # by rising eigenvalue
        return centred @ directions


def _all(browser: Browser, rounds: int, train: bool) -> Times:
    times = {"paint": [], "start": []}
    for _ in range(rounds):
        with _server(train) as start, _page(browser) as page:
            started = time.time()
            page.goto(start().url, wait_until="commit")
            painted = page.wait_for_function(PAINTED, arg=HOME.heading, polling="raf").json_value() / 1000
            times["paint"].append(painted - started)
            times["start"].append(_moment(page, HOME) - started)
    with _server(train) as start, _page(browser) as page:
        server = start()
        page.goto(server.url)
        _moment(page, HOME)
        _changes(page, 1)  # unmeasured: the first visit draws the samples
        times |= _changes(page, rounds)
        times |= _strokes(page, rounds)
        times["upload"] = _uploads(page, server.url, rounds)
        times["edit"] = _edits(page, rounds)
        times["encode"] = _encodings(rounds)
        times["umap"] = _maps(rounds)
    return times


@contextmanager
def _server(train: bool) -> Iterator[Callable[[], Server]]:
    """What starts the app, beside a training run of its own if so wanted; both end here."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home, servers, run = Path(folder), [], None

        def start() -> Server:
            servers.append(Server(ROOT / "app.py", home))
            return servers[0]

        try:
            if train:
                with patch.dict(os.environ, {"IWAE_RUNS_DIR": str(home / "runs")}):
                    run = store.start(RUN)
                while not run.records():  # until it is under way
                    if not run.status().alive:
                        raise RuntimeError(f"the training run ended: {run.status().message}")
                    time.sleep(0.5)
            yield start
        finally:
            if run and run.status().alive:
                run.stop()
            for server in servers:
                server.stop()  # with all that works in its home


@contextmanager
def _page(browser: Browser) -> Iterator[Page]:
    """A tab with an empty cache."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    page = context.new_page()
    page.set_default_timeout(1000 * SECONDS)
    page.add_init_script(ACTED)
    yield page
    context.close()


def _moment(page: Page, look: PageContent, before: list[str] | None = None) -> float:
    """When the page was complete, with other numbers than ``before``; seconds since 1970."""
    asked = [look.__dict__, before or ["", "", "", ""]]
    shown = page.wait_for_function(MOMENT, arg=asked, polling="raf")
    return shown.json_value() / 1000


def _changes(page: Page, rounds: int) -> Times:
    """From Home to Posterior and back, by the links of the sidebar."""
    times = {"posterior": [], "home": []}
    for _ in range(rounds):
        for key, look in (("posterior", POSTERIOR), ("home", HOME)):
            settled(page)
            page.get_by_test_id("stSidebar").get_by_role("link", name=key.title()).click()
            shown = _moment(page, look)
            times[key].append(shown - page.evaluate("acted") / 1000)
    return times


def _uploads(page: Page, url: str, rounds: int) -> list[float]:
    """Pictures that the app has not seen, one after the other; the first is not measured."""
    page.goto(f"{url}/Posterior?digit=Upload")
    page.get_by_text("PNG, JPEG, WebP").wait_for()
    times = []
    for number in range(1 + rounds):
        settled(page)
        before = page.get_by_test_id("stMetricValue").all_inner_texts()
        file = {"name": f"{number}.png", "mimeType": "image/png", "buffer": _picture(number)}
        page.get_by_test_id("stMain").get_by_test_id("stFileUploaderDropzoneInput").set_input_files(file)
        shown = _moment(page, POSTERIOR, before)
        times.append(shown - page.evaluate("acted") / 1000)
    return times[1:]


def _edits(page: Page, rounds: int) -> list[float]:
    """Turns of the picture that was uploaded last; the first is not measured."""
    times = []
    for _ in range(1 + rounds):
        settled(page)
        page.get_by_role("button", name="Turn right").click()
        times.append(page.locator("canvas.seen").evaluate(READ) / 1000 - page.evaluate("acted") / 1000)
    return times[1:]


def _strokes(page: Page, rounds: int) -> Times:
    """Medians of lines that are drawn on Home."""
    page.add_init_script(WATCH)
    page.reload()
    settled(page)
    fetched(page, 2)
    times = {"stroke": [], "frame": []}
    surface = page.locator(".st-key-canvas .paper canvas")
    for _ in range(rounds):
        settled(page)
        box = surface.bounding_box()
        assert box is not None
        page.evaluate("frames.length = 0")
        page.mouse.move(box["x"] + 0.3 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        for x, y in ((0.7, 0.3), (0.4, 0.8)):
            page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=60)
        page.mouse.up()
        page.wait_for_timeout(500)
        frames = page.evaluate("frames")
        times["stroke"].append(statistics.median(frame["latency"] for frame in frames) / 1000)
        between = [after["at"] - before["at"] for before, after in pairwise(frames)]
        times["frame"].append(statistics.median(between) / 1000)
    return times


def _maps(rounds: int) -> list[float]:
    """A process each time, as Latent space starts it: of B, after the map of A that it begins from."""
    name = "mnist" if datasets.available("mnist") else "mnist-5k"
    x = datasets.load(name, download=False).binary("test")
    keys = catalog.DEFAULT_PAIR
    a, b = (latent.encode(checkpoints.load(catalog.SHIPPED / f"{key}{checkpoints.SUFFIX}")[0], x).mean for key in keys)
    settings, times = umap_maps.UmapSettings(), []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, {"IWAE_MAPS_DIR": folder}):
            first, second = (umap_maps.find_map(settings, benchmark=name) for name in "ab")
            started = time.monotonic()
            first.prepare(a, latent.pca(a).project(a), settings)
            second.start(b, first, settings)
            while second.status().phase == "running":
                time.sleep(0.05)
            if second.coordinates() is None:
                raise RuntimeError(f"UMAP failed: {second.status().message}")
            times.append(time.monotonic() - started)
    return times


def _picture(number: int) -> bytes:
    """A scan of one of the built-in digits: dark on light, 400 × 400 pixels."""
    grey = datasets.load("digits").test.images[number].reshape(28, 28).numpy()
    scan = ImageOps.invert(Image.fromarray(grey)).resize((400, 400), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    scan.save(file, "PNG")
    return file.getvalue()


def _encodings(rounds: int) -> list[float]:
    """As a page would: one thread, the model of the default pair, the images that the home page shows one of."""
    name = "mnist" if datasets.available("mnist") else "digits"
    x = datasets.load(name, download=False).binary("test")
    model, _ = checkpoints.load(catalog.SHIPPED / f"{catalog.DEFAULT_PAIR[1]}{checkpoints.SUFFIX}")
    threads, times = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(rounds):
        started = time.perf_counter()
        encode(model, x)
        times.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return times


def _spread(seconds: list[float]) -> str:
    middle = statistics.median(seconds)
    digits = 2 if middle >= 0.1 else 3
    return f"{middle:.{digits}f} ({min(seconds):.{digits}f}–{max(seconds):.{digits}f})"
