"""docs/tutorial.ipynb runs from its first cell to its last, and lies there with its results."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="requirements-extra.txt")
nbclient = pytest.importorskip("nbclient", reason="requirements-extra.txt")
pytest.importorskip("ipykernel", reason="requirements-extra.txt")

ROOT = Path(__file__).parents[1]
PATH = ROOT / "docs" / "tutorial.ipynb"
LARGEST = 300_000  # bytes


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell) -> list[tuple]:
    """What a cell shows: the kind of each output, with all printed text as one."""
    text = ["text"] if any(output.output_type == "stream" for output in cell.outputs) else []
    return text + [tuple(sorted(output.data)) for output in cell.outputs if output.output_type != "stream"]


def text(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def test_the_tutorial_runs_and_shows_what_it_showed(tmp_path, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # as if the package were installed: the folder is a foreign one
    committed, fresh = nbformat.read(PATH, 4), nbformat.read(PATH, 4)
    for cell in code_cells(fresh):
        cell.outputs = []
    nbclient.NotebookClient(fresh, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    for before, now in zip(code_cells(committed), code_cells(fresh), strict=True):
        assert kinds(now) == kinds(before), now.source
    # sums rounded otherwise on another machine end in slightly other weights: the NLLs agree within 5 nats
    nlls = [[float(nll) for nll in re.findall(r"NLL (\d+\.\d+) ±", "".join(map(text, code_cells(notebook))))]
            for notebook in (committed, fresh)]  # fmt: skip
    assert len(nlls[0]) == 2 and nlls[1] == pytest.approx(nlls[0], abs=5)


@pytest.mark.parametrize("folder", ["", "docs", "tests/app"])
def test_in_a_checkout_it_finds_the_package_from_any_folder(folder):
    first, *_ = code_cells(nbformat.read(PATH, 4))
    code = f"{first.source}\nimport iwae; print(iwae.__file__)"
    words = [sys.executable, "-P", "-c", code]  # -P: without the current folder
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=ROOT / folder, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(ROOT / "iwae" / "__init__.py")


def test_the_tutorial_is_small_and_names_no_machine():
    content = PATH.read_text()
    assert len(content.encode()) < LARGEST
    assert not re.findall(r"/(?:home|root|tmp|usr|Users|work)/|site-packages|[A-Z]:\\\\", content)
    counts = [cell.execution_count for cell in code_cells(nbformat.reads(content, 4))]
    assert counts == list(range(1, len(counts) + 1)), "run from top to bottom"
