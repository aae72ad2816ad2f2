"""The parts of README.md, checkpoints/README.md and docs/findings.md that follow from the cards of shipped models.

They stand between two marks, and ``python -m iwae table --readme`` rewrites them.
"""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from iwae.results import claim_figures, comparison, findings, tables
from iwae.results.rows import Row
from iwae.system import files
from iwae.training import commands

BEGIN, END = "<!-- table: written by python -m iwae table --readme -->", "<!-- end of the table -->"
POSTER = ("vae", "iwae")  # the objectives of its main table, in its order
README = ("objective", "nll", "reconstruction", "kl_posterior", "active", "published", "difference")


def render(shipped: Path, rows: Sequence[Row]) -> dict[Path, str]:
    """The documents as they should be, by path; ``rows`` are those of the models in the folder ``shipped``, and of the
    cards that are kept alone.

    Raises ValueError for a document without the marks.
    """
    blocks = (
        summary(rows),
        details([row for row in rows if row.path or row.status == "seeds"]),
        findings.markdown(findings.findings(rows)),
    )
    return {path: _with_block(path, block) for path, block in zip(paths(shipped), blocks, strict=True)}


def paths(shipped: Path) -> tuple[Path, ...]:
    """The documents: of the project, of its folder ``shipped``, and of the findings."""
    return shipped.parent / "README.md", shipped / "README.md", shipped.parent / "docs" / "findings.md"


def rewrite(shipped: Path, rows: Sequence[Row]) -> list[Path]:
    """Bring the documents up to date; returns their paths."""
    documents = render(shipped, rows)
    for path, content in documents.items():
        files.write(path, content)
    return list(documents)


def summary(rows: Sequence[Row]) -> str:
    """The poster's cells against what is published, for the README."""
    return tables.markdown(poster(rows), README)


def poster(rows: Sequence[Row]) -> list[Row]:
    """The poster's main table: VAE and IWAE with one layer on mnist-fixed."""
    found = [
        row
        for cell, row in claim_figures.plain(rows).items()
        if (cell.dataset, cell.model, cell.start) == ("mnist-fixed", "1layer", "") and cell.objective in POSTER
    ]
    return sorted(found, key=lambda row: (POSTER.index(row.cell.objective), row.cell.k))


def details(rows: Sequence[Row]) -> str:
    """Every measure of every model, and the commands that made it."""
    named = [replace(row, name=f"`{row.path.name}`") if row.path else row for row in rows]
    made = [wrapped(row.command) for row in rows if row.path]
    for row in rows:
        if row.path and row.metrics:
            place = f"{row.path.parent.name}/{row.path.name}"
            made.append(wrapped(commands.evaluate(place, row.cell.dataset, row.metrics, row.half)))
            if annealed := row.metrics.get("ais"):
                made.append(wrapped(commands.anneal(place, annealed)))
    table, shell = tables.markdown(named), "\n".join(["```sh", *made, "```"])
    return "\n\n".join([table, _notes(table, rows), "## Commands", shell])


def wrapped(command: str, width: int = 110) -> str:
    """A command, or several joined by &&, over several lines of a shell."""
    options = {"break_long_words": False, "break_on_hyphens": False, "subsequent_indent": "    "}
    parts = []
    for part in command.split(" && "):
        kept = re.sub(r"(--\S+) (?!--)", "\\1\N{NO-BREAK SPACE}", part)  # an option stays with its value
        parts.append(" \\\n".join(textwrap.wrap(kept, width, **options)).replace("\N{NO-BREAK SPACE}", " "))
    return " &&\n".join(parts)


def _notes(table: str, rows: Sequence[Row]) -> str:
    cited = [f"{letter}: {source.text}" for letter, source in tables.sources(table).items()]
    if cited:
        cited.append(f"difference: {tables.DIFFERENCE_NOTE}")
    differences = [difference.text for difference in comparison.seed_differences(rows)]
    return "\n".join(f"- {line}." for line in [*cited, *differences]) or "Nothing is published for these models."


def _with_block(path: Path, block: str) -> str:
    text = path.read_text(encoding="utf-8")
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{path} must hold the two lines {BEGIN!r} and {END!r}, between which the table is written")
    return f"{head}{BEGIN}\n\n{block}\n\n{END}{tail}"
