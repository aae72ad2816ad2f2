"""A seeded random walk over all pages in a real browser: whatever can be clicked, typed into or moved is tried."""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Error, Locator, Page

from iwae.runs.queue import RunFolder
from tests.browser.driver import assert_clean, settled
from tests.pictures import picture

KINDS = {  # what to act on, and how often beside the others
    "link": ('[data-testid="stPageLink-NavLink"]:visible', 4),
    "button": ('[data-testid="stButton"] button:enabled:visible', 4),
    "choice": ('[data-testid="stButtonGroup"] button:enabled:visible', 3),
    "number": ('[data-testid="stNumberInput"] input:enabled:visible', 4),
    "slider": ('[data-testid="stSlider"] [role="slider"]:visible', 4),
    "select": ('[data-testid="stSelectbox"] input:enabled:visible', 3),
    "checkbox": ('[data-testid="stCheckbox"] label:visible', 2),
    "expander": ('[data-testid="stExpander"] summary:visible', 2),
    "popover": ('[data-testid="stPopover"] button:enabled:visible', 1),
    "tab": ('[role="tab"]:visible', 2),
    "chart": ('[data-testid="stPlotlyChart"]:visible', 1),
    "canvas": (".st-key-canvas .paper canvas:visible", 4),
    "file": ('[data-testid="stFileUploaderDropzoneInput"]', 4),
    "back": (None, 1),
    "reload": (None, 1),
}
MAX_RUNS = 3  # alive at once: each further one would only wait in the queue
STARTS = re.compile("^(Start training|Train an? )")
REACH_MS = 3_000  # of patience with one click: what lies under a dialog cannot be clicked


@dataclass
class Walk:
    """A walk from ``seed``; ``steps`` says what was done, the last one last."""

    page: Page
    url: str
    runs: Path  # the folder of the server's runs
    seed: int
    steps: list[str] = field(default_factory=list)
    missed: int = 0  # steps at things that something lay over

    def __post_init__(self):
        self.random = random.Random(self.seed)

    def step(self) -> None:
        """Do one thing, wait for the page, and check it. Raises AssertionError with the seed and the step."""
        try:
            self._act()
            settled(self.page)
            assert_clean(self.page)
        except (AssertionError, Error) as error:
            done = "\n".join(f"{number:5} {step}" for number, step in enumerate(self.steps, 1))
            where = f"seed {self.seed}, step {len(self.steps)}, at {self.page.url}"
            raise AssertionError(f"{where}:\n{error}\nafter\n{done[-4000:]}") from error

    def _act(self) -> None:
        if self.page.get_by_role("dialog").count() and self.random.random() < 0.5:
            self.steps.append("Escape")
            self.page.keyboard.press("Escape")
            return
        kinds = list(KINDS)
        while True:
            kind = self.random.choices(kinds, [KINDS[kind][1] for kind in kinds])[0]
            selector, _ = KINDS[kind]
            if selector is None:
                self.steps.append(kind)
                getattr(self, f"_{kind}")()
                return
            found = self.page.locator(selector)
            if count := found.count():
                break
        which = self.random.randrange(count)
        target = found.nth(which)
        self.steps.append(f"{kind} {which + 1} of {count}")
        try:
            name = self._name(target)
            self.steps[-1] += f": {name}"
            if name.startswith("Download") or (STARTS.match(name) and self._alive() >= MAX_RUNS):
                return  # no walk goes to the network
            if kind != "file":
                target.scroll_into_view_if_needed(timeout=REACH_MS)
            getattr(self, f"_{kind}", self._click)(target)
        except Error as error:  # it has just gone, or something lies over it
            self.missed += 1
            self.steps[-1] += f" (missed: {str(error).splitlines()[0]})"
            self.page.keyboard.press("Escape")

    def _name(self, target: Locator) -> str:
        text = target.evaluate("e => e.innerText || e.ariaLabel || e.name || ''", timeout=REACH_MS)
        return re.sub(r"^[a-z_]+\n", "", text).replace("\n", " ")[:60]  # the first line may be an icon's name

    def _alive(self) -> int:
        return sum(RunFolder(path.parent).status().alive for path in self.runs.glob("[!.]*/config.json"))

    def _click(self, target: Locator) -> None:
        target.click(timeout=REACH_MS)

    def _number(self, target: Locator) -> None:
        usual = float(target.input_value(timeout=REACH_MS) or 1)
        near = [usual + 1, usual - 1, 2 * usual, usual // 2]
        number = self.random.choice([*near, self.random.randint(-10, 100), 10**9, usual + 0.5])  # some are refused
        text = f"{number:g}"
        self.steps[-1] += f" = {text}"
        target.fill(text, timeout=REACH_MS)
        target.press("Enter", timeout=REACH_MS)

    def _slider(self, target: Locator) -> None:
        key = self.random.choice(["ArrowLeft", "ArrowRight", "Home", "End", "PageUp", "PageDown"])
        self.steps[-1] += f" {key}"
        target.press(key, timeout=REACH_MS)

    def _select(self, target: Locator) -> None:
        target.click(timeout=REACH_MS)
        options = self.page.get_by_role("option")
        options.first.wait_for(timeout=REACH_MS)
        which = self.random.randrange(min(options.count(), 8))
        self.steps[-1] += f" option {which + 1}"
        options.nth(which).click(timeout=REACH_MS)

    def _chart(self, target: Locator) -> None:
        box = target.bounding_box(timeout=REACH_MS)
        place = {"x": self.random.random() * box["width"], "y": self.random.random() * box["height"]}
        target.click(position=place, timeout=REACH_MS)

    def _canvas(self, target: Locator) -> None:
        box = target.bounding_box(timeout=REACH_MS)
        spots = [(box["x"] + self.random.random() * box["width"], box["y"] + self.random.random() * box["height"])]
        spots += [(x + 40 * self.random.random(), y + 40 * self.random.random()) for x, y in spots]
        self.page.mouse.move(*spots[0])
        self.page.mouse.down()
        self.page.mouse.move(*spots[1], steps=5)
        self.page.mouse.up()

    def _file(self, target: Locator) -> None:
        number = self.random.randrange(1000)
        content = picture(number) if number % 5 else b"<svg/>"  # one in five is no picture
        self.steps[-1] += f" {number}.png"
        target.set_input_files({"name": f"{number}.png", "mimeType": "image/png", "buffer": content}, timeout=REACH_MS)

    def _back(self) -> None:
        self.page.go_back()
        if not self.page.url.startswith(self.url):  # before the first page
            self.page.goto(self.url)

    def _reload(self) -> None:
        self.page.reload()
