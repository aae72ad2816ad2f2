"""The pictures of tour.md, taken in a real Chromium from the app itself:

    python -m docs.tour          # all of them
    python -m docs.tour bounds   # only these

They show MNIST where it is at hand, and otherwise the 5,000 of its digits that are built in.
"""

import io
import math
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from iwae.system import files
from tests.browser.driver import CHROMIUM_FLAGS, find_chromium, settled, still
from tests.server import ROOT, Server

FOLDER = Path(__file__).parent / "tour"
WIDTH, HEIGHT = 1400, 900
COLOURS = 128  # of the palette: enough for a page, at a third of the size
FRAMES, FRAME_MS = 24, 120  # of a film
FILM_WIDTH, FILM_COLOURS = 800, 128


def whole(page: Page) -> None:
    """Nothing to do before the picture."""


def maps(page: Page) -> None:
    """UMAP comes from the background."""
    page.get_by_text("UMAP 1", exact=True).first.wait_for(timeout=300_000)


def trained(page: Page) -> None:
    """Start the first run, and wait for its end."""
    page.get_by_role("button", name=re.compile("Train an IWAE")).click()
    page.get_by_text(re.compile("10.0 epochs")).first.wait_for(timeout=300_000)
    settled(page)
    page.get_by_role("tab", name="One run").click()
    page.get_by_role("slider").first.wait_for(timeout=300_000)


class Shot(NamedTuple):
    """One picture."""

    address: str
    height: int
    heading: str | None = None  # where it begins, instead of the page's top
    first: Callable[[Page], None] = whole  # what to do before
    moving: bool = False  # a film of the pointer going round on the map of A, instead of a picture


SHOTS = {
    "home": Shot("", 1100),
    "posterior": Shot("Posterior?image=3", 1500),
    "hidden": Shot("Posterior?posterior_section=Hide+a+part&image=3&hidden=left+half", 1500),
    "latent-space": Shot("Latent_space?image=3&map=PCA", 1250),
    "live-map": Shot("Latent_space?image=3", 760, moving=True),
    "umap": Shot("Latent_space?image=3", 1000, first=maps),
    "spread": Shot("Latent_space?latent_space_section=Does+B+spread+more%3F&image=3", 1200),
    "active-units": Shot("Active_units", 1400),
    "reconstructions": Shot("Reconstructions", 1500),
    "samples": Shot("Samples", 1200),
    "plane": Shot("Samples?samples_section=The+plane+of+two+units&a=mnist-2d-vae-k1&b=mnist-2d-iwae-k50", 1100),
    "bounds": Shot("Bounds?image=3", 1500),
    "step": Shot("Bounds?bounds_section=One+step+of+training&image=3", 1200),
    "training": Shot("Training", 1700, first=trained),
    "results": Shot("Results", 1300),
}


def main(names: Sequence[str]) -> None:
    """Take the pictures of these names, or all."""
    if unknown := set(names) - set(SHOTS):
        sys.exit(f"error: unknown picture {sorted(unknown)[0]!r}; there are {', '.join(SHOTS)}")
    if (chromium := find_chromium()) is None:
        sys.exit("error: no chromium found; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        server = Server(ROOT / "app.py", Path(home))
        try:
            browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
            for name in names or SHOTS:
                shot = SHOTS[name]
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
                page.set_default_timeout(120_000)
                page.goto(f"{server.url}/{shot.address}")
                settled(page, seconds=120)
                shot.first(page)
                file = _keep_film(name, _filmed(page, shot)) if shot.moving else _keep(name, _taken(page, shot))
                page.close()
                print(file.relative_to(ROOT))
        finally:
            server.stop()


def _taken(page: Page, shot: Shot) -> bytes:
    """The window as high as all of the page, as Streamlit scrolls inside it; of that, the shot's part."""
    main = page.get_by_test_id("stMain")
    page.set_viewport_size({"width": WIDTH, "height": max(HEIGHT, main.evaluate("main => main.scrollHeight"))})
    settled(page)
    still(page)
    if shot.heading is None:
        return page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": shot.height})
    box, left = main.get_by_role("heading", name=shot.heading).bounding_box(), main.bounding_box()["x"]
    top = box["y"] - 20
    return page.screenshot(clip={"x": left, "y": top, "width": WIDTH - left, "height": shot.height})


def _filmed(page: Page, shot: Shot) -> list[bytes]:
    """The pointer on a circle over the map of A; of the page the part beside the sidebar, from its sections on."""
    still(page)
    main = page.get_by_test_id("stMain")
    main.evaluate("main => { main.style.overflow = 'hidden'; }")  # a scrollbar comes and goes
    sections, left = page.get_by_role("tablist").bounding_box(), main.bounding_box()["x"]
    main.evaluate("(main, by) => main.scrollBy(0, by)", sections["y"] - 20)
    area = page.locator(".st-key-map-a .nsewdrag").bounding_box()
    frames = []
    for step in range(FRAMES):
        angle = 2 * math.pi * step / FRAMES
        page.mouse.move(
            area["x"] + area["width"] * (0.5 + 0.22 * math.cos(angle)),
            area["y"] + area["height"] * (0.5 + 0.3 * math.sin(angle)),
            steps=4,
        )
        page.wait_for_timeout(300)
        frames.append(page.screenshot(clip={"x": left, "y": 0, "width": WIDTH - left, "height": shot.height}))
    return frames


def _keep_film(name: str, pictures: Sequence[bytes]) -> Path:
    """As a GIF, which every viewer plays, with the palette of the first picture for all."""
    images = [Image.open(io.BytesIO(picture)).convert("RGB") for picture in pictures]
    size = FILM_WIDTH, round(FILM_WIDTH * images[0].height / images[0].width)
    images = [image.resize(size, Image.Resampling.LANCZOS) for image in images]
    first = images[0].quantize(FILM_COLOURS, dither=Image.Dither.NONE)
    rest = [image.quantize(palette=first, dither=Image.Dither.NONE) for image in images[1:]]
    film, file = io.BytesIO(), FOLDER / f"{name}.gif"
    first.save(film, "GIF", save_all=True, append_images=rest, duration=FRAME_MS, loop=0, optimize=True)
    files.write(file, film.getvalue())
    return file


def _keep(name: str, picture: bytes) -> Path:
    small = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS).save(small, "PNG", optimize=True)
    file = FOLDER / f"{name}.png"
    files.write(file, small.getvalue())
    return file


if __name__ == "__main__":
    main(sys.argv[1:])
