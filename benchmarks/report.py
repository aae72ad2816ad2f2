"""The report: sections of Markdown under one list of targets, of which a run replaces those that it measured."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from benchmarks.settings import ASKED_FOR, SECTIONS, BenchmarkSettings

INTRODUCTION = """# Benchmarks
Written by `python -m benchmarks`. A number is the median over the rounds of one run, in which all contenders took
turns; the least and the greatest stand beside it in brackets. Sections may come from different runs: each names its
own.
"""
TARGETS = "Targets"
QUICK = "**QUICK: tiny sizes, to see that it runs; the numbers mean nothing**"


@dataclass(frozen=True)
class SpeedTarget:
    """A bar to clear: what, the value measured (None: not measured in this run), and whether that is enough."""

    what: str
    measured: str | None
    met: bool


def at_least(what: str, value: float | None, goal: float, unit: str = "×") -> SpeedTarget:
    """A value that should be no smaller than ``goal``."""
    return SpeedTarget(f"{what} ≥ {goal:g}{unit}", _text(value, unit), value is not None and value >= goal)


def at_most(what: str, value: float | None, goal: float, unit: str = "×") -> SpeedTarget:
    """A value that should be no greater than ``goal``."""
    return SpeedTarget(f"{what} ≤ {goal:g}{unit}", _text(value, unit), value is not None and value <= goal)


def _text(value: float | None, unit: str) -> str | None:
    return None if value is None else f"{value:.3g}{unit}"


@dataclass(frozen=True)
class Section:
    """What a section's ``measure`` returns: Markdown without a heading, and its targets."""

    body: str
    targets: tuple[SpeedTarget, ...] = ()


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows))


def heading(name: str, settings: BenchmarkSettings) -> str:
    """Of a section: its name, with the device where that is not the CPU."""
    return name if settings.device == "cpu" else f"{name}, {settings.device}"


def stamp(settings: BenchmarkSettings) -> str:
    """When, on what machine and how a section was measured; no host name and no path."""
    parts = [f"{datetime.now(UTC):%Y-%m-%d}", f"{_processor()}, {os.cpu_count()} cores"]
    if settings.device == "cuda":
        parts.append(torch.cuda.get_device_name())
    plural = "" if settings.threads == 1 else "s"
    parts += [f"torch {torch.__version__}", f"{settings.threads} thread{plural}", f"rounds: {settings.turns}"]
    return " · ".join(parts + ([QUICK] if settings.quick else []))


def merge(old: str, measured: dict[str, Section], stamp: str, judge: bool = True) -> str:
    """The report ``old`` with these sections, by heading, instead of those with the same headings.

    Without ``judge`` their targets are shown, but neither met nor missed: a quick run says nothing of them.
    """
    parts = _parts(old)
    targets = [row for row in parts.pop(TARGETS, "").splitlines()[2:] if _first_cell(row) not in measured]
    for name, section in measured.items():
        targets += [_row(name, target, judge) for target in section.targets]
        parts[name] = f"{stamp}\n\n{section.body.strip()}"
    headings = sorted(parts, key=_place)
    targets.sort(key=lambda row: _place(_first_cell(row)))
    list_of_targets = "\n".join([table(("section", "target", "measured", "met"), []), *targets])
    return "\n".join(
        [INTRODUCTION, f"## {TARGETS}", list_of_targets, *(f"\n## {name}\n{parts[name]}" for name in headings), ""]
    )


def _parts(text: str) -> dict[str, str]:
    """Heading → what stands below it."""
    pieces = re.split(r"^## (.+)\n", text, flags=re.MULTILINE)
    return {name: body.strip() for name, body in zip(pieces[1::2], pieces[2::2], strict=True)}


def _place(heading: str) -> tuple[int, str]:
    """In the order of SECTIONS; what it does not know comes last."""
    name, order = heading.split(",")[0], SECTIONS + ASKED_FOR
    return (order.index(name) if name in order else len(order), heading)


def _first_cell(row: str) -> str:
    return row.split("|")[1].strip()


def _row(section: str, target: SpeedTarget, judge: bool) -> str:
    if target.measured is None:
        return f"| {section} | {target.what} | not measured | – |"
    verdict = ("yes" if target.met else "**no**") if judge else "– (quick)"
    return f"| {section} | {target.what} | {target.measured} | {verdict} |"


def _processor() -> str:
    """The CPU's model."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()
