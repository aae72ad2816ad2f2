"""The table as text, Markdown, LaTeX, CSV and JSON, and the blocks in the documents."""

import csv
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from iwae import catalog, checkpoints
from iwae.cli import refit, train
from iwae.results import grid, readme, tables
from iwae.results.rows import collect
from iwae.training.wake_sleep import Refit
from tests.cards import catalogue, entry, measured


@pytest.fixture
def rows():
    models = [
        entry("vae", measured(88.2, 0.1), objective="vae", k=1),
        *(entry(f"iwae{seed}", measured(86.5 + 0.1 * seed, 0.1), seed=seed) for seed in range(2)),
        entry("run:new", {}, objective="median"),
    ]
    return collect(catalogue(*models))[0]


@pytest.mark.parametrize("width", [40, 80, 120, 160])
def test_text_fits(rows, width):
    text = tables.text(rows, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, 60) and len(lines) == 1 + len(rows)
    assert lines[1].split()[0] == "vae" and "88.20 ± 0.10" in lines[1]
    assert "86.55 ± 0.07 sd" in text and "not evaluated" in text
    assert ("−0.51, lower (one seed)" in text) == (width > 80)
    assert len(tables.text(rows, width)) <= len(tables.text(rows, width + 40))


def test_wide_text_has_every_column(rows):
    head = tables.text(rows).splitlines()[0]
    for column in tables.COLUMNS.values():
        assert column.title in head


def test_markdown_has_as_many_cells_in_every_line(rows):
    lines = tables.markdown(rows).splitlines()
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(tables.COLUMNS) + 1}
    assert "D_KL(q‖p(h\\|x))" in lines[0] and len(lines) == 2 + len(rows)


def test_the_document_lists_what_is_not_run_and_the_sources(rows):
    text = tables.document([*rows, *grid.not_run(rows, "fashion-mnist")])
    assert "fashion-mnist, 1 layer: IWAE k = 50, published 231.95 (R): `python -m iwae train" in text
    assert "- N: nbip" in text and "- B: Burda" in text and "- X: " not in text


def test_latex_has_every_number_and_no_sign_that_latex_would_read(rows):
    text = tables.latex([*rows, *grid.not_run(rows, "fashion-mnist")])
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == len(rows) and {line.count(" & ") for line in body} == {len(tables.PAPER) - 1}
    assert r"88.20 $\pm$ 0.10" in body[0] and "not evaluated" in text
    assert r"D\_KL(q$\|$p(h|x))" in text and "(N) nbip" in text
    assert text.isascii(), "pdflatex has no sign for all others"


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    """The whole table of the shipped models, on a landscape page."""
    table = tables.latex(collect(catalog.entries()[0])[0])
    page = r"\documentclass[a4paper,landscape]{article}\usepackage[margin=12mm]{geometry}\usepackage{booktabs}"
    (tmp_path / "t.tex").write_text(page + r"\begin{document}" + table + r"\end{document}", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "t.pdf").exists() and "Missing character" not in done.stdout
    assert not re.search(r"Overfull .hbox|Float too large", done.stdout), done.stdout


def test_csv_and_json_hold_every_value(rows):
    every = [*rows, *grid.not_run(rows)]
    read = list(csv.DictReader(io.StringIO(tables.csv_text(every))))
    loaded = json.loads(tables.json_text(every))
    assert len(read) == len(loaded["rows"]) == len(every)
    for row, line, record in zip(every, read, loaded["rows"], strict=True):
        assert record == row.record()
        assert line == {name: "" if value is None else str(value) for name, value in record.items()}
    vae = loaded["rows"][0]
    assert (vae["nll"], vae["nll_se"], vae["published_nll"], vae["published_nll_source"]) == (88.2, 0.1, 88.71, "B")
    assert vae["difference_nll"] == pytest.approx(-0.51)
    assert loaded["sources"]["B"]["address"] == "https://arxiv.org/abs/1509.00519"


def test_values_can_be_sorted(rows):
    found = tables.values(rows, tables.SORTABLE)
    assert [type(record["nll"]) for record in found] == [float, float, float, float, type(None)]
    assert found[0]["difference_nll"] == pytest.approx(-0.51) and found[0]["source"] == "B"


def test_empty_tables():
    assert tables.text([], 80).startswith("model") and tables.csv_text([]) == "\n"
    assert json.loads(tables.json_text([]))["rows"] == []


def shipped():
    found = catalog.entries()[0] | catalog.cards()
    return collect({key: entry for key, entry in found.items() if entry.shipped})[0]


def test_the_documents_hold_the_table_of_the_shipped_models(tmp_path, monkeypatch):
    """README.md, checkpoints/README.md and docs/findings.md are what ``python -m iwae table --readme`` gives."""
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path))
    for path, text in readme.render(catalog.SHIPPED, shipped()).items():
        assert path.read_text() == text, f"{path.name} is out of date: run `python -m iwae table --readme`"


def test_the_commands_in_the_documents_train_the_shipped_models():
    for row in (row for row in shipped() if row.path):
        shown = readme.wrapped(row.command)
        assert max(map(len, shown.splitlines())) <= 120
        assert shown in (catalog.SHIPPED / "README.md").read_text()
        first, *others = (shlex.split(line.replace("\\\n", "")) for line in shown.split(" &&\n"))
        assert train.parse(first[4:]).config == row.config
        place = Path(f"checkpoints/{row.path.name}")
        refits = [refit.parse(words[4:]) for words in others]
        assert {(each.checkpoint, each.out) for each in refits} <= {(place, place)}
        assert [each.settings for each in refits] == Refit.from_progress(checkpoints.read_card(row.path).progress)


def test_only_the_block_is_rewritten(tmp_path, rows):
    folder = tmp_path / "checkpoints"
    documents = tmp_path / "README.md", folder / "README.md", tmp_path / "docs" / "findings.md"
    for path in documents:
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"before\n{readme.BEGIN}\nold\n{readme.END}\nafter\n")
    assert readme.rewrite(folder, rows) == list(documents)
    text = (tmp_path / "README.md").read_text()
    assert text.startswith(f"before\n{readme.BEGIN}\n\n| objective |") and text.endswith(f"{readme.END}\nafter\n")
    assert "old" not in text and "88.20 ± 0.10" in text
    details = (folder / "README.md").read_text()
    assert "`iwae0.safetensors`" in details and "python -m iwae evaluate" in details
    again = readme.render(folder, rows)
    assert again[tmp_path / "README.md"] == text
    (folder / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md must hold the two lines"):
        readme.rewrite(folder, [])
    assert (tmp_path / "README.md").read_text() == text
