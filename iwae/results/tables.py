"""The rows of results.py as text for a terminal, Markdown, LaTeX, CSV and JSON."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from iwae.catalog import LAYERS
from iwae.evaluation.stats import duration, plus_minus
from iwae.figures.base import Points
from iwae.results.published import SOURCES, Source
from iwae.results.rows import MARGIN, SEED_NOISE, Row, units

NONE = "–"


@dataclass(frozen=True)
class Column:
    """A column: its title, what it means, its text in a row, and where it can be sorted by a number, that number."""

    title: str
    help: str
    text: Callable[[Row], str]
    number: Callable[[Row], float | None] | None = None
    form: str = "%.2f"  # of the number


def _with_error(name: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        value, se, sd = (row.metrics.get(key) for key in (name, f"{name}_se", f"{name}_sd"))
        if value is None:
            return NONE
        return plus_minus(value, se) if sd is None else f"{plus_minus(value, sd)} sd"

    return text


def _nll(row: Row) -> str:
    if row.status == "not run":
        return "not run"
    return _with_error("nll")(row) if row.metrics else "not evaluated"


def _active(row: Row) -> str:
    if not row.metrics.get("active_units"):
        return NONE
    return f"{units(row.metrics['active_units'])} ({units(row.metrics['pca_active_units'])})"


def _published(measure: str) -> Callable[[Row], str]:
    def text(row: Row) -> str:
        result = row.published(measure)
        return f"{getattr(result, measure):.2f} ({result.source})" if result else NONE

    return text


def _difference(row: Row) -> str:
    return f"{row.verdict()} ({row.seed_count})" if row.verdict() else NONE


def _draws(row: Row) -> str:
    return f"{row.metrics['samples']:,} × {row.metrics['images']:,}" if row.metrics else NONE


def _seeds(row: Row) -> str:
    if not row.seeds:
        return NONE
    return f"seed{'s' * (len(row.seeds) > 1)} {', '.join(map(str, row.seeds))}"


def _measure(title: str, help: str, name: str) -> Column:
    return Column(title, help, _with_error(name), lambda row: row.metrics.get(name))


def _amount(title: str, help: str, name: str) -> Column:
    def text(row: Row) -> str:
        return NONE if getattr(row, name) is None else f"{getattr(row, name):,.0f}"

    return Column(title, help, text, lambda row: getattr(row, name), "%.0f")


def _nll_error(row: Row) -> float | None:
    return row.metrics.get("nll_se" if row.status == "measured" else "nll_sd")


def _published_value(row: Row) -> float | None:
    result = row.published()
    return result.nll if result else None


def _source(row: Row) -> str:
    result = row.published()
    return result.source if result else NONE


NATS_NOTE = "nats per image, ± standard error over test images; of several seeds ± their standard deviation (sd)"
DIFFERENCE_NOTE = (
    "our NLL minus the published one, in nats, with the number of our seeds, from three on ± the standard error of "
    "their mean; published values have no standard error. It is called lower or higher only beyond "
    f"{MARGIN} nats, and beyond {SEED_NOISE} such errors: another seed moves an NLL by 0.1 to 0.3, another "
    "binarization of the test images by 0.09. Models after a change of objective are not judged: ours and theirs were "
    "trained for different numbers of epochs"
)
COLUMNS = {
    "name": Column("model", "the model's name, or what several seeds of it have in common", lambda row: row.name),
    "dataset": Column("data", "data set", lambda row: row.cell.dataset),
    "architecture": Column(
        "architecture", "stochastic layers, or sizes", lambda row: LAYERS.get(row.cell.model, row.cell.model)
    ),
    "objective": Column("objective", "the bound that was trained, and its k", lambda row: row.cell.title),
    "start": Column("after", "the objective of the model that it went on from", lambda row: row.cell.start or NONE),
    "gradient": Column("gradient", "the estimator of its gradient", lambda row: row.gradient or NONE),
    "schedule": Column("schedule", "of the learning rate", lambda row: row.schedule or NONE),
    "regularisation": Column("regularised", "plain: not at all", lambda row: row.regularisation or NONE),
    "epochs": _amount("epochs", "over the training data, in all", "epochs"),
    "minutes": _amount("minutes", "of training, in all; of what is not run an estimate for this CPU", "minutes"),
    "device": Column("device", "where it was trained", lambda row: row.device or NONE),
    "seed": Column("seed", "of the training", _seeds),
    "nll": Column("NLL", f"−L_S of S draws; {NATS_NOTE}", _nll, lambda row: row.metrics.get("nll")),
    "nll_ais": _measure(
        "NLL by AIS",
        "−log p(x) by annealed importance sampling: the NLL minus what L_S misses, which is the mean of log p̂(x) − L_S "
        f"over some of its images; {NATS_NOTE}",
        "nll_ais",
    ),
    "ais_gap": _measure(
        "gap (BDMC)",
        "upper minus lower bound on log p(x), by annealing from both ends, on images sampled from the model: by about "
        "as much the NLL by AIS may be too high; nats, ± standard error over images",
        "ais_gap",
    ),
    "published": Column(
        "published", "the lowest published NLL of its cell, and its source", _published("nll"), _published_value
    ),
    "difference": Column("difference", DIFFERENCE_NOTE, _difference),
    "reconstruction": _measure("reconstruction", f"loss, −log p(x|h) of one h ~ q(h|x); {NATS_NOTE}", "reconstruction"),
    "published_reconstruction": Column(
        "published recon.", "the lowest published reconstruction loss", _published("reconstruction")
    ),
    "elbo": _measure("ELBO", NATS_NOTE, "elbo"),
    "kl_prior": _measure("D_KL(q‖p(h))", NATS_NOTE, "kl_prior"),
    "kl_posterior": _measure("D_KL(q‖p(h|x))", NATS_NOTE, "kl_posterior"),
    "kl_posterior_ais": _measure(
        "D_KL(q‖p(h|x)) by AIS", f"the same with log p̂(x) by AIS instead of L_S; {NATS_NOTE}", "kl_posterior_ais"
    ),
    "active": Column("active (PCA)", "active units and PCA active units of each layer, from the pixels up", _active),
    "pruned_nll": _measure("pruned NLL", f"without the inactive units; {NATS_NOTE}", "pruned_nll"),
    "draws": Column("draws × images", "of the evaluation", _draws),
    "comparison": Column("in full", "every measure that was published too", lambda row: row.comparison or NONE),
}
# Where numbers can be sorted by, what stands beside a number in text has a column of its own.
SORTABLE = COLUMNS | {
    "nll_se": Column(
        "±", "standard error over test images, nats; over several seeds their standard deviation", str, _nll_error
    ),
    "source": Column("source", "of the published NLL; the letters are explained below the table", _source),
    "difference_nll": Column("nats", "the difference as a number, to sort by", str, Row.difference, "%+.2f"),
}
# In order of importance: a narrow terminal gets the first of them.
COMPACT = (
    *("name", "nll", "published", "difference", "regularisation", "reconstruction", "kl_posterior", "active", "epochs"),
    *("seed", "minutes", "nll_ais", "ais_gap"),
)
PAPER = (  # of the LaTeX table
    *("dataset", "architecture", "objective", "start", "regularisation", "epochs", "nll", "published"),
    *("reconstruction", "kl_posterior", "active", "draws"),
)
WIDE = r"p{26mm}"  # a column whose text is broken into lines
LATEX = {  # what LaTeX would read as a command, or pdflatex has no sign for
    "\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    **{letter: rf"$\{name}$" for letter, name in (("α", "alpha"), ("β", "beta"), ("σ", "sigma"))},
    "±": r"$\pm$", "−": "$-$", "×": r"$\times$", "‖": r"$\|$", "≤": r"$\le$", "–": "--", "…": r"\dots{}",
    **{digit: f"$_{place}$" for place, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}  # fmt: skip


def text(rows: Sequence[Row], width: int | None = None) -> str:
    """A table for a terminal: of the COMPACT columns those that fit into ``width``, or with None every column."""
    keys = list(COLUMNS) if width is None else list(COMPACT)
    cells = {key: [COLUMNS[key].title, *(COLUMNS[key].text(row) for row in rows)] for key in keys}
    wide = {key: max(map(len, column)) for key, column in cells.items()}
    while width is not None and len(keys) > 2 and sum(wide[key] + 2 for key in keys) - 2 > width:
        keys.pop()
    keys.sort(key=list(COLUMNS).index)
    lines = []
    for values in zip(*(cells[key] for key in keys), strict=True):
        left = {key: f"{value:<{wide[key]}}" for key, value in zip(keys, values, strict=True)}
        lines.append("  ".join(left.values()).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Row], keys: Sequence[str] = tuple(COLUMNS)) -> str:
    """A Markdown table of these columns."""
    lines = [[COLUMNS[key].title for key in keys], ["---"] * len(keys)]
    lines += [[COLUMNS[key].text(row) for key in keys] for row in rows]
    return "\n".join("| " + " | ".join(part.replace("|", "\\|") for part in line) + " |" for line in lines)


def document(rows: Sequence[Row]) -> str:
    """A Markdown table of every column, what is not run below it with its command, and the sources."""
    measured, missing = ([row for row in rows if (row.status == "not run") == absent] for absent in (False, True))
    parts = [markdown(measured)] if measured else []
    if missing:
        parts += ["Not run:", "\n".join(f"- {not_run(row)}: `{row.command}`" for row in missing)]
    cited = [f"- {letter}: {source.text}" for letter, source in sources("".join(parts)).items()]
    return "\n\n".join([*parts, "\n".join(cited)]).strip() + "\n"


def not_run(row: Row) -> str:
    """``mnist, 1 layer: VAE k = 5, published 86.10 (N), about 17.2 h``."""
    about = cost(row)
    return f"{row.name}, published {_published('nll')(row)}{about and f', {about}'}"


def cost(row: Row) -> str:
    """``about 17.2 h``; empty where it is unknown."""
    return "" if row.minutes is None else f"about {duration(60 * row.minutes)}"


def latex(rows: Sequence[Row]) -> str:
    """A LaTeX table of the rows that are measured, in the columns of ``PAPER``, with notes below it that define them
    and name the sources. It needs the package booktabs."""
    measured = [row for row in rows if row.status != "not run"]
    columns = [COLUMNS[key] for key in PAPER]
    lines = [
        " & ".join(map(_latex, cells)) + r" \\"
        for cells in ([column.text(row) for column in columns] for row in measured)
    ]
    places = ["r" if COLUMNS[key].number else WIDE if key == "regularisation" else "l" for key in PAPER]
    notes = [f"{column.title}: {column.help}" for column in columns]
    notes += [f"({letter}) {source.citation}" for letter, source in sources(markdown(measured, PAPER)).items()]
    return "\n".join([
        r"% \usepackage{booktabs}; made by: python -m iwae table --latex",
        r"\begin{table}", r"\centering", r"\scriptsize", r"\setlength{\tabcolsep}{3pt}",
        rf"\begin{{tabular}}{{{''.join(places)}}}", r"\toprule",
        " & ".join(_latex(column.title) for column in columns) + r" \\", r"\midrule",
        *lines, r"\bottomrule", r"\end{tabular}", r"\par\medskip\raggedright",
        _latex(". ".join(notes) + "."), r"\end{table}", "",
    ])  # fmt: skip


def _latex(text: str) -> str:
    return "".join(LATEX.get(sign, sign) for sign in text)


def csv_text(rows: Sequence[Row]) -> str:
    """Every value of every row; an unknown one is an empty field."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0].record()) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.record() for row in rows)
    return file.getvalue()


def json_text(rows: Sequence[Row]) -> str:
    """Every value of every row, and the sources in full."""
    sources = {key: asdict(source) for key, source in SOURCES.items()}
    return json.dumps({"rows": [row.record() for row in rows], "sources": sources}, indent=1, ensure_ascii=False) + "\n"


def sources(table: str) -> dict[str, Source]:
    """What the letters in a table's text stand for."""
    return {letter: source for letter, source in SOURCES.items() if f"({letter})" in table}


def values(rows: Sequence[Row], keys: Sequence[str]) -> list[dict[str, Any]]:
    """For a table that can be sorted, columns of ``SORTABLE``: numbers as numbers, the rest as text."""
    columns = {key: SORTABLE[key] for key in keys}
    return [
        {key: column.number(row) if column.number else column.text(row) for key, column in columns.items()}
        for row in rows
    ]


def points(title: str, parts: Sequence[Points]) -> list[dict[str, Any]]:
    """A figure's points as records: measure, series, k, nats, ± s.e. and which model or source."""
    return [
        {"measure": title, "series": part.name, "k": k, "nats": y, "± s.e.": error, "model or source": label}
        for part in parts
        for k, y, label, error in zip(part.x, part.y, part.labels, part.error or [None] * len(part.x), strict=True)
    ]
