"""Many users at once, without browsers: each uploads, samples and changes pages while training runs go on.

    python -m tests.load --users 30 --minutes 5

Every user has a digit, a pair of models and a picture of their own, and checks that the numbers on the page are those
of the engine for just these. Between two actions a user looks at the page for a while (--think). An action's time is
from the message to the server until the whole page has come back; what a browser then needs to draw it is not in it.
Ends with exit status 1 when anything went wrong, and prints what the server held before, at most, and after; before,
all users have been there for a minute and have left again, so that all is loaded that stays.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from iwae import catalog, checkpoints
from iwae.data import datasets
from iwae.images import digits
from iwae.inference import posterior
from iwae.runs import store
from iwae.training.config import TrainConfig
from tests.pictures import picture
from tests.process import Use, use
from tests.server import ROOT, Server
from tests.session import Session, apart, value

SAMPLES = 2000  # per model when a user checks the numbers
RUN = TrainConfig("digits", objective="iwae", k=50, epochs=10_000, batch_size=50)  # hours: it ends when it is stopped
SLOW = 8  # moves that are named
FIRST_SECONDS = 60.0  # that all users spend there before anything is measured
TIDY_SECONDS = 65  # after which a server that all have left has dropped what it held for them
FORGET_SECONDS = 125  # Streamlit keeps what a closed tab leaves for two minutes, should it come back
USE = "Use this test image"
# What starts or ends a run, takes another digit in hand, or decides the numbers that are checked
AVOID = re.compile(
    "^(Start training|Train an? |Stop|Resume|Delete|Remove|Download|Show |Model A|Model B|Data set|Ink|Random image|"
    "Test image|Change|Upload, photograph|Use |Look at|Click|Open)"
)
MOVES = {"number_input": 3, "slider": 3, "selectbox": 2, "button_group": 2, "checkbox": 1, "button": 2}


@dataclass(frozen=True)
class Own:
    """What one user picks and uploads, and the numbers that the page has to show for it: log p̂(x) of A and B."""

    pair: tuple[str, str]  # keys of models
    image: int
    picked: list[str]
    uploaded: list[str]


@dataclass
class Report:
    """What happened to all users together."""

    seconds: dict[str, list[float]] = field(default_factory=dict)  # of the actions, by kind
    moves: list[tuple[float, str]] = field(default_factory=list)  # seconds, and which widget was moved
    problems: list[str] = field(default_factory=list)
    checks: int = 0  # numbers compared with the engine's
    before: Use | None = None
    peak: int = 0  # bytes
    after: Use | None = None
    left: list[str] = field(default_factory=list)  # processes that should have ended

    def add(self, kind: str, seconds: float) -> None:
        self.seconds.setdefault(kind, []).append(seconds)

    @property
    def times(self) -> list[float]:
        """Of all actions, in seconds."""
        return [seconds for kind in self.seconds.values() for seconds in kind]

    def __str__(self) -> str:
        lines = [f"{'':20}{'n':>6}{'median':>9}{'p95':>9}{'max':>9}   seconds"]
        for name, times in [*sorted(self.seconds.items()), ("all", self.times)]:
            p95 = np.quantile(times, 0.95)
            lines.append(f"{name:20}{len(times):6}{statistics.median(times):9.2f}{p95:9.2f}{max(times):9.2f}")
        lines += [f"slow: {seconds:.1f} s, {what}" for seconds, what in sorted(self.moves, reverse=True)[:SLOW]]
        lines.append(f"{self.checks} times the numbers of a user's own digit were compared with the engine's")
        lines.append(f"before: {self.before}; at most {self.peak / 1e6:.0f} MB; after: {self.after}")
        lines.append(f"processes left: {self.left or 'none'}")
        lines.append(f"{len(self.problems)} problems")
        return "\n".join([*lines, *self.problems[:20]])


def own(count: int) -> list[Own]:
    """What each of ``count`` users picks and uploads; no two see the same numbers."""
    found = catalog.entries()[0]
    keys = sorted(key for key, entry in found.items() if entry.shipped)
    models = {key: checkpoints.load(found[key].path)[0] for key in keys}
    tests = {key: _test_images(found[key].config.dataset) for key in keys}
    users = []
    for number in range(count):
        pair = catalog.DEFAULT_PAIR
        if number % 3 == 0:  # as in a class: most stay with the pair that they find
            pair = keys[number % len(keys)], keys[(number // 2 + 1) % len(keys)]
        image = 7 * number + 1
        grey = torch.from_numpy((255 * digits.prepare(picture(number)).image).round().astype(np.uint8)).reshape(-1)
        uploaded = datasets.binarize(grey, torch.Generator().manual_seed(0))
        shown = []
        for x in (tests[pair[0]][image], uploaded):
            drawn = [posterior.posterior(models[key], x, samples=SAMPLES, seed=number) for key in pair]
            shown.append([f"from {one.elbo:.1f} to {one.log_p:.1f}".replace("-", "−") for one in drawn])
        users.append(Own(pair, image, *shown))
    everything = [tuple(numbers) for user in users for numbers in (user.picked, user.uploaded)]
    assert len(set(everything)) == len(everything), "two users would see the same numbers"
    return users


@cache
def _test_images(name: str) -> torch.Tensor:
    """Those that the sidebar offers for a model A that was trained on ``name``."""
    here = [known for known in (name, *datasets.names()) if datasets.available(known)]
    return datasets.load(here[0], download=False).binary("test")


async def use_the_app(number: int, mine: Own, url: str, seconds: float, think: float, report: Report) -> None:
    """One user, from coming to leaving."""
    chance, session, doing = random.Random(number), None, "come"
    end = time.monotonic() + seconds
    try:
        await asyncio.sleep(chance.random() * min(think, seconds / 4))
        started = time.perf_counter()
        session = await Session.open(url, query=f"a={mine.pair[0]}&b={mine.pair[1]}")
        report.add("come", time.perf_counter() - started)
        uploaded = False
        while time.monotonic() < end:
            doing = chance.choices(["page", "move", "pick", "upload", "come back"], [4, 6, 3, 2, 2])[0]
            if doing == "page":
                links = [link.label for link in session.of("page_link", 1)]
                doing = chance.choice(links)
                report.add(f"to {doing}", await session.follow(doing))
            elif doing == "move":
                doing = await _move(session, chance, report)
            elif doing == "come back" and not uploaded:
                continue
            else:
                report.add("to Posterior", await session.follow("Posterior", "posterior_section=Bound+against+k"))
                await _check(session, doing, number, mine, report)
                uploaded = doing == "upload" or (uploaded and doing != "pick")
            report.problems += [f"user {number}, {doing}: {problem}" for problem in session.problems]
            session.problems.clear()
            await asyncio.sleep(chance.uniform(0.5, 1.5) * think)
    except Exception as error:
        report.problems.append(f"user {number}, {doing}: {type(error).__name__} {error}")
    finally:
        if session:
            await session.close()


async def _check(session: Session, way: str, number: int, mine: Own, report: Report) -> None:
    """Pick the own digit, upload the own picture, or come back to it; the page has to show its numbers."""
    fields = {"Samples per model": SAMPLES, "Seed": number}
    if way == "pick":
        await _choose(session, "Pick")
        fields["Test image"] = mine.image
    else:
        await _choose(session, "Upload")
        if way == "upload":
            report.add("upload", await session.upload("A picture", f"{number}.png", picture(number)))
    if way == "pick" and (use := [button for button in session.of("button", 0) if button.label == USE]):
        await session.run(value("button", use[0], True))
    states = []
    for label, to in fields.items():
        states.append(value("number_input", session.widget("number_input", label), to))
    report.add("sample", await session.run(*states))
    said = next(text.body for text in session.of("markdown") if text.body.startswith("L_k in nats"))
    shown = re.findall(r"from −[\d.]+ to −[\d.]*\d", said)  # of q's draws: log p̂(x) itself is annealed meanwhile
    wanted = mine.picked if way == "pick" else mine.uploaded
    report.checks += 1
    if shown != wanted:
        report.problems.append(f"user {number}, {way}: shown {shown}, not {wanted}")


async def _choose(session: Session, way: str) -> None:
    await session.run(value("button_group", session.widget("button_group", "The digit"), way))


async def _move(session: Session, chance: random.Random, report: Report) -> str:
    """Change any one widget of the page; returns which."""
    found = [(kind, w) for kind in MOVES for w in session.of(kind, 0) if not w.disabled and not AVOID.match(w.label)]
    if not found:
        return "nothing to move"
    kind, widget = chance.choices(found, [MOVES[kind] for kind, _ in found])[0]
    if kind == "number_input":
        near = widget.default + widget.step * chance.randint(-3, 3)
        low, high = (int(end.replace(",", "")) for end in re.findall(r"From ([\d,]+) to ([\d,]+)\.$", widget.help)[0])
        to = min(max(near, low), high)
    elif kind == "slider":
        count = round((widget.max - widget.min) / widget.step)
        places = sorted(chance.randint(0, count) for _ in widget.default)
        to = [widget.min + widget.step * place for place in places]
        if widget.options:
            to = chance.choice(list(widget.options))
    elif kind == "button_group":
        to = chance.choice([option.content for option in widget.options])
    elif kind == "selectbox":
        to = chance.choice(list(widget.options))
    else:
        to = chance.random() < 0.5
    took = await session.run(value(kind, widget, to), fragment=session.fragment_of(widget.id))
    report.add("move", took)
    what = f"{kind} {widget.label!r} to {to}"
    report.moves.append((took, what))
    return what


async def load(
    server: Server, users: list[tuple[int, Own]], seconds: float, think: float, forget: bool = True
) -> Report:
    """All users at once for so many seconds. With ``forget`` the server gets the time to forget them, and all of them
    have been there once before: what it holds ``before`` is what it keeps for good."""
    report, pid = Report(), server.process.pid
    if forget:
        await asyncio.gather(*(use_the_app(n, mine, server.url, FIRST_SECONDS, think, report) for n, mine in users))
        await forgotten(server)
    else:
        await use_the_app(0, users[0][1], server.url, min(20.0, seconds), 0.2, report)  # loads what is loaded once
    report.seconds.clear()
    report.moves.clear()
    report.before = use(pid)

    async def watch() -> None:
        while True:
            report.peak = max(report.peak, use(pid).resident)
            await asyncio.sleep(0.2)

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(use_the_app(number, mine, server.url, seconds, think, report) for number, mine in users))
    watching.cancel()
    if forget:
        await forgotten(server)
    report.after = use(pid)
    if "Traceback" in (log := server.log.read_text()):
        report.problems.append("in the server's log: " + log[log.index("Traceback") :][:4000])
    return report


def _left(server: Server) -> list[str]:
    """Processes that should have ended: all but the server and the one that waits to decode the next upload."""
    commands = [_command(pid) for pid in server.processes() if pid != server.process.pid]
    decoding = [command for command in commands if "iwae.images.decoding" in command]
    return [command for command in commands if command not in decoding[:1]]


def _command(pid: int) -> str:
    return f"{pid} {Path(f'/proc/{pid}/cmdline').read_text().replace(chr(0), ' ')}"


async def forgotten(server: Server) -> None:
    """Wait until a server that all have left has dropped what it held for them."""
    await asyncio.sleep(FORGET_SECONDS)
    await (await Session.open(server.url)).close()  # what has expired goes when another one leaves
    await asyncio.sleep(TIDY_SECONDS)


def measure(count: int, seconds: float, think: float, trainings: int, forget: bool = True) -> Report:
    """A server, training runs beside it, and ``count`` users for so many seconds."""
    users = list(enumerate(own(count)))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        with patch.dict(os.environ, {"IWAE_RUNS_DIR": str(home / "runs"), "IWAE_MAX_RUNS": str(max(1, trainings))}):
            server = Server(ROOT / "app.py", home)
            try:
                going = [store.start(RUN) for _ in range(trainings)]
                while not all(run.records() for run in going):
                    time.sleep(0.2)
                report = apart(load(server, users, seconds, think, forget))
                for run in going:
                    if not run.status().alive:
                        report.problems.append(f"run {run.name}: {run.status()}")
                    else:
                        run.stop()
                deadline = time.monotonic() + 60
                while any(run.status().alive for run in going) and time.monotonic() < deadline:
                    time.sleep(0.2)
                while _left(server) and time.monotonic() < deadline:
                    time.sleep(0.2)
                report.left = _left(server)
                return report
            finally:
                server.stop()


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--think", type=float, default=10.0, help="mean seconds between two actions of a user")
    parser.add_argument("--trainings", type=int, default=2, help="training runs beside the users")
    asked = parser.parse_args(words)
    print(f"load average {os.getloadavg()[0]:.1f} before, on {os.cpu_count()} cores", flush=True)
    report = measure(asked.users, 60 * asked.minutes, asked.think, asked.trainings)
    print(f"{asked.users} users for {asked.minutes:g} minutes, {asked.think:g} s between actions")
    print(f"{asked.trainings} training runs beside them")
    print(report)
    return 1 if report.problems or report.left else 0


if __name__ == "__main__":
    sys.exit(main())
