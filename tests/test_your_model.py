"""docs/your-model.md: every block runs, from top to bottom; the explorer itself by its page Home."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-model.md").read_text(encoding="utf-8")
HOME = f"""
from streamlit.testing.v1 import AppTest
test = AppTest.from_file({str(ROOT / "home.py")!r}, default_timeout=120)
test.query_params["a"] = "adapter:My VAE"
test.run()
assert not test.exception and not test.error and not test.warning, (test.exception, test.error, test.warning)
print(test.subheader[0].value)
"""


def test_every_block_runs(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for variable in ("IWAE_RUNS_DIR", "IWAE_DATA_DIR", "XDG_CACHE_HOME"):
        environment[variable] = str(tmp_path / variable)

    def run(*words: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment | variables, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["python"] * 3 + ["sh"] * 2
    module, train, measure, start, shell = (block for _, block in blocks)
    (tmp_path / "mymodels.py").write_text(module, encoding="utf-8")
    run("-c", train)
    evaluated, drawn, shape = run("-c", measure).splitlines()
    nll = float(re.search(r"NLL ([\d.]+) ± [\d.]+, ELBO", evaluated)[1])
    assert 100 < nll < 250 and drawn.startswith("Posterior(1,000 draws") and shape == "(500, 8)"
    path, named, *command = shlex.split(start)
    assert (path, command) == ("PYTHONPATH=.", ["streamlit", "run", "app.py"])
    variables = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "IWAE_ADAPTERS": named.removeprefix("IWAE_ADAPTERS=")}
    assert ":orange[A · My VAE]" in run("-c", HOME, **variables)
    said = []
    for line in shell.splitlines():
        path, again, python, *words = shlex.split(line)
        assert (path, again, python) == ("PYTHONPATH=.", named, "python")
        said.append(run(*words, **variables))
    measured, encoded, compared = said
    assert "adapter:My VAE: wrapped, 8 units, trained elsewhere" in measured
    assert "50 test images of mnist-5k" in encoded and (tmp_path / "latents.npz").is_file()
    assert "A: My VAE · wrapped, 8 units · adapter · not evaluated" in compared
