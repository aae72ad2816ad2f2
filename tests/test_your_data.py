"""docs/your-data.md: every block runs, from top to bottom, in a folder with 200 pictures of two classes."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.pictures import save_shapes

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "your-data.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path):
    save_shapes(tmp_path / "shapes")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for variable in ("IWAE_DATA_DIR", "IWAE_RUNS_DIR", "XDG_CACHE_HOME"):
        environment[variable] = str(tmp_path / variable)
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["sh", "sh", "python"]
    printed = []
    for kind, block in blocks:
        commands = [["-c", block]] if kind == "python" else [line.split()[1:] for line in block.splitlines()]
        for words in commands:
            done = subprocess.run(
                [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
    trained, measured, listed, added, verified, removed, python = printed
    assert "test NLL" in trained and re.search(r"20 test images of shapes@[0-9a-f]{8}", measured)
    assert re.search(r"shapes@[0-9a-f]{8} here", listed)
    assert re.search(r"small@[0-9a-f]{8}: 160 / 20 / 20 images .* 12×12", added)
    assert verified.count(" good ") == 2 and removed.endswith("is removed\n")
    assert re.search(r"Dataset\(bars@[0-9a-f]{8}: 240 / 30 / 30 images of 20×10 pixels", python)
