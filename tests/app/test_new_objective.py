"""A new objective with a parameter of its own is one row: the commands, grids, forms and pages read it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# In a process of its own: the settings of a training follow from the rows when they are imported.
PROGRAM = r'''
import dataclasses
from pathlib import Path

from iwae import bounds
from iwae.bounds import Objective, Parameter, iwae, vae

def geometric(log_w, *, tau):
    """(1−τ)·VAE + τ·IWAE. Lower bound for τ in [0, 1]."""
    return (1 - tau) * vae(log_w) + tau * iwae(log_w)

TAU = Parameter("τ, share of the IWAE bound", "τ", 0, 1, 0.75, (0, 1), help="τ = 0 is VAE.")
ROW = Objective("Mixed", geometric, None, r"\tau L", "Nobody 2026", {"tau": TAU}, lower_bound=lambda tau: tau < 0.5)
bounds.OBJECTIVES["mixed"] = ROW

import torch
from streamlit.testing.v1 import AppTest

from iwae import checkpoints
from iwae.__main__ import main
from iwae.cli import train
from iwae.runs import store
from iwae.sweeps import grid
from iwae.training import commands
from iwae.training.config import TrainConfig

config = TrainConfig("digits", "8:2", "mixed", 6, tau=0.25, epochs=1)
assert TrainConfig.from_dict(dataclasses.asdict(config)) == config
assert train.parse(commands.train_words(config)).config == config
(cell,) = grid.parse({"cell": [{"objective": "mixed", "tau": 0.25, "k": 6}]})
assert cell.config.bound()(torch.tensor([[0.0], [0.0]])).item() == 0 and cell.config.bound().title == "Mixed τ = 0.25"

words = "train --dataset digits --model 8:2 --objective mixed --tau 0.25 --k 6 --epochs 1 --valid-images 50"
assert main(words.split()) == 0
(run,) = store.list_runs()
assert run.config.tau == 0.25 and checkpoints.load(run.checkpoint)[1].training["tau"] == 0.25
assert main(["card", str(run.checkpoint)]) == 0

page = AppTest.from_file(str(Path.cwd() / "home.py"), default_timeout=120)
page.query_params["samples"] = "200"
page.query_params["bounds_section"] = "Every bound"
page.switch_page("pages/6_Bounds.py").run()
assert not page.exception and page.slider(key="mixed.tau").value == 0.75
shown = " ".join(each.value for each in (*page.markdown, *page.caption))
assert "| Mixed τ = 0.75 |" in shown and "Median, L\\_alpha α = 0.5, Mixed τ = 0.75." in shown, shown
page.selectbox(key="objective").set_value("mixed").run()
assert not page.exception and any(r"\tau L" in each.value for each in page.latex)
page.selectbox(key="train.objective").set_value("mixed").run()
page.text_input(key="train.mixed.tau").set_value("2").run()
assert "choose a number from 0 to 1" in page.error[0].value and not page.exception
'''


def test_a_row_is_enough(tmp_path):
    folders = {"IWAE_RUNS_DIR": str(tmp_path / "runs"), "IWAE_MODELS_DIR": str(tmp_path / "models")}
    program = tmp_path / "program.py"  # a file: the page shows the source of the function
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(program)],
        env=os.environ | folders | {"PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "- Objective: (1−τ)·VAE + τ·IWAE. Lower bound for τ in [0, 1]. Nobody 2026." in done.stdout
