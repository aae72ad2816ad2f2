"""The claims of the poster by Arnal, Lee and Pezzotti (2021), each against what our models show.

``claim_figures`` says how a figure is judged. Here stand the claims, the figures that each is put to, and the result as
text, Markdown and JSON.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from iwae.results.claim_figures import (
    FAILS,
    HOLDS,
    RULE,
    TITLES,
    UNJUDGED,
    WITHIN,
    ClaimFigure,
    alike,
    known_dimension,
    over_seeds,
    pair,
    plain,
    same,
    signs,
)  # fmt: skip
from iwae.results.published import Cell
from iwae.results.rows import Row

PARTLY = "in part"  # holds by some figures, and not by others
TALLY = {HOLDS: "hold", FAILS: "against", WITHIN: "within the error", UNJUDGED: "not judged"}  # several figures


@dataclass(frozen=True)
class Finding:
    """A claim, what was measured, and whether it holds."""

    key: str
    title: str  # of the claim, in brief
    claim: str  # one sentence
    figures: tuple[ClaimFigure, ...]
    models: tuple[str, str] | None  # that show why, as A and B

    @property
    def verdict(self) -> str:
        """That of all its figures; where some lie within the error and all others speak against it, theirs."""
        found = {figure.verdict for figure in self.figures} - {UNJUDGED}
        if found == {FAILS, WITHIN}:
            return FAILS
        return found.pop() if len(found) == 1 else PARTLY if found else UNJUDGED

    @property
    def tally(self) -> str:
        """``2 hold, 2 within the error``, ``both figures``; empty where there is one."""
        counts, total = Counter(figure.verdict for figure in self.figures), len(self.figures)
        if len(counts) > 1:
            return ", ".join(f"{counts[verdict]} {words}" for verdict, words in TALLY.items() if counts[verdict])
        return "" if total < 2 else "both figures" if total == 2 else f"all {total} figures"


Figures = Callable[[Mapping[Cell, Row]], Iterable[ClaimFigure]]


@dataclass(frozen=True)
class _Claim:
    key: str
    title: str
    claim: str
    shown: tuple[Cell, Cell]  # the pair that shows why
    figures: Figures  # of the models by cell


def _cell(objective: str, k: int, model: str = "1layer", p: float | None = None, start: str = "") -> Cell:
    return Cell("mnist-fixed", model, objective, k, (("p", p),) if p else (), start)


V1, V5, V50 = (_cell("vae", k) for k in (1, 5, 50))
I5, I50, P2 = _cell("iwae", 5), _cell("iwae", 50), _cell("power-mean", 50, p=2.0)
TWO = (V50, I50), (V5, I5)
V1_DEEP, I50_DEEP = _cell("vae", 1, "2layer"), _cell("iwae", 50, "2layer")
I50_AFTER = _cell("iwae", 50, start=V1.title)
P2_AFTER, P3_AFTER = (_cell("power-mean", 50, p=p, start=V1.title) for p in (2.0, 3.0))
V1_OMNIGLOT, I50_OMNIGLOT = Cell("omniglot", "1layer", "vae", 1), Cell("omniglot", "1layer", "iwae", 50)


def _of(measure: str, *cells: tuple[Cell, Cell], sign: int) -> Figures:
    """A pair of models and the seeds for each two cells."""
    return lambda rows: [
        figure for a, b in cells for figure in (pair(rows, measure, a, b, sign), over_seeds(measure, a, b, sign))
    ]


def _pairs(*measures: tuple[str, int], cells: tuple[Cell, Cell]) -> Figures:
    """Pairs of models alone, for each measure and sign."""
    return lambda rows: [pair(rows, measure, *cells, sign) for measure, sign in measures]


def _all(*parts: Figures) -> Figures:
    return lambda rows: [figure for part in parts for figure in part(rows)]


CLAIMS = (
    _Claim(
        "bound", "Tighter bound",
        "The bound that an IWAE is trained on lies nearer to log p(x) than a VAE's, and its NLL is lower.", (V50, I50),
        _all(_of("gap", (V50, I50), sign=-1), _of("nll", *TWO, sign=-1)),
    ),
    _Claim(
        "constraint", "Weaker constraint on q",
        "The q of an IWAE lies further from the true posterior.", (V50, I50),
        _of("kl_posterior", *TWO, sign=1),
    ),
    _Claim(
        "spread", "More spread-out latent representation",
        "The posteriors of an IWAE are wider.", (V50, I50),
        _all(*(_of(name, *TWO, sign=1) for name in ("std", "std_active"))),
    ),
    _Claim(
        "units", "Richer representation: active units",
        "An IWAE uses more latent units than a VAE.", (V50, I50),
        _all(
            lambda rows: [signs(rows, 1)],
            *(_of(name, *TWO, sign=1) for name in ("pca_active", "active")),
        ),
    ),
    _Claim(
        "small-k", "Similar reconstruction loss at small k",
        "With k = 5 an IWAE reconstructs as well as a VAE.", (V5, I5), _of("reconstruction", (V5, I5), sign=0),
    ),
    _Claim(
        "large-k", "Loss of encoding-decoding power at k = 50",
        "With k = 50 the reconstruction loss of an IWAE is higher than a VAE's.", (V50, I50),
        _of("reconstruction", (V50, I50), sign=1),
    ),
    _Claim(
        "power-mean", "Power mean",
        "The power mean of the weights with p > 1 gives a lower NLL than the IWAE, p = 1.", (I50_AFTER, P2_AFTER),
        _all(
            _pairs(("nll", -1), cells=(I50_AFTER, P2_AFTER)), _pairs(("nll", -1), cells=(I50_AFTER, P3_AFTER)),
            lambda rows: [over_seeds("nll", I50, P2, -1)],
        ),
    ),
    _Claim(
        "layers", "N layers",
        "A second stochastic layer lowers the NLL.", (I50, I50_DEEP),
        _of("nll", (V1, V1_DEEP), (I50, I50_DEEP), sign=-1),
    ),
    _Claim(
        "omniglot", "OMNIGLOT",
        "On OMNIGLOT, too, an IWAE has the lower NLL and the weaker constraint on q.", (V1_OMNIGLOT, I50_OMNIGLOT),
        _pairs(("nll", -1), ("kl_posterior", 1), cells=(V1_OMNIGLOT, I50_OMNIGLOT)),
    ),
    _Claim(
        "dimension", "True latent dimension",
        "The number of PCA active directions is the latent dimension of the data.", (V50, I50),
        lambda rows: [
            *known_dimension("vae"), *known_dimension("iwae"), *(same(rows, "pca_active", *two) for two in TWO),
        ],
    ),
)  # fmt: skip


def findings(rows: Iterable[Row]) -> list[Finding]:
    """Every claim against the models of these rows: the shortest plain training of each cell."""
    by_cell, found = plain(rows), []
    for claim in CLAIMS:
        shown = [row.first.name for cell in claim.shown if (row := by_cell.get(cell)) and row.first.path]
        models = (shown[0], shown[1]) if len(shown) == 2 else None
        figures = tuple(claim.figures(by_cell))
        known = tuple(figure for figure in figures if figure.value is not None)
        found.append(Finding(claim.key, claim.title, claim.claim, known or figures, models))
    return found


def pairs(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Every two models with weights whose difference a claim or the table asks for: what ``findings --measure``
    measures."""
    wanted = (
        *combinations((V1, V5, V50, I5, I50), 2), (V1, V1_DEEP), (I50, I50_DEEP), (I50_AFTER, P2_AFTER),
        (I50_AFTER, P3_AFTER), (V1_OMNIGLOT, I50_OMNIGLOT),
    )  # fmt: skip
    by_cell = {cell: row.first for cell, row in plain(rows).items()}
    found = [(by_cell[a], by_cell[b]) for a, b in wanted if a in by_cell and b in by_cell]
    return [(a, b) for a, b in found if a.path and b.path and alike(a, b)]


def text(found: Sequence[Finding]) -> str:
    """For a terminal."""
    lines = []
    for finding in found:
        lines += [f"{finding.title}: {finding.verdict}", f"  {finding.claim}"]
        for figure in finding.figures:
            lines += [f"  {figure.text:>18}  {figure.title}, {figure.what}: {figure.verdict}", f"{'':22}{figure.basis}"]
        lines.append("")
    return "\n".join([*lines, RULE])


def markdown(found: Sequence[Finding]) -> str:
    """A Markdown table of all figures."""
    lines = [["claim", "measured", "figure ± s.e.", "of", "verdict"], ["---"] * 5]
    for finding in found:
        for place, figure in enumerate(finding.figures):
            claim = "" if place else f"**{finding.title}: {finding.verdict}**"
            lines.append([claim, f"{figure.title}, {figure.what}", figure.text, figure.basis, figure.verdict])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in lines)


def records(found: Sequence[Finding]) -> list[dict[str, Any]]:
    """A line for each figure, in numbers."""
    return [
        {"claim": finding.title, "measured": figure.title, "difference": figure.what, "value": figure.value}
        | {"± s.e.": figure.error, "unit": TITLES[figure.measure][1], "verdict": figure.verdict, "of": figure.basis}
        for finding in found
        for figure in finding.figures
    ]


def json_text(found: Sequence[Finding]) -> str:
    """Every value, and the rule."""
    values: list[dict[str, Any]] = []
    for finding in found:
        figures = [
            asdict(figure) | dict(zip(("title", "unit"), TITLES[figure.measure], strict=True))
            for figure in finding.figures
        ]
        values.append(asdict(finding) | {"verdict": finding.verdict, "figures": figures})
    return json.dumps({"rule": RULE, "findings": values}, indent=1, ensure_ascii=False) + "\n"
