"""The fuzzing of uploads, a minute each: slow, and only where atheris is installed."""

import importlib.util
import subprocess
import sys

import pytest

from tests.fuzz import READERS
from tests.server import ROOT


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
@pytest.mark.parametrize("reader", READERS)
def test_nothing_is_found_in_a_minute(reader, tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", reader, "--seconds", "60"]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
