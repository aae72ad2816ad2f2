"""The public names of the package, and the README's own example."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import iwae

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_an_unknown_one_is_an_attribute_error():
    for name in iwae.__all__:
        assert callable(getattr(iwae, name)) and name in dir(iwae)
    with pytest.raises(AttributeError, match="nonsense"):
        iwae.nonsense  # noqa: B018


@pytest.mark.parametrize("module", ["iwae", "iwae.runs", "iwae.system"])
def test_no_torch_is_loaded_before_it_is_needed(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_readmes_example_runs(capsys):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "passes=5" in code
    exec(code.replace("passes=5", "passes=1"), {})
    out = capsys.readouterr().out
    assert re.search(r"NLL \d+\.\d\d ± \d\.\d\d nats per image\n-\d+\.\d+\n$", out)
