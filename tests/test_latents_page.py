"""docs/latents.md: every block runs, from top to bottom, in one folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "latents.md").read_text(encoding="utf-8")


def test_every_block_runs(tmp_path):
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    commands = [line.split()[1:] for kind, block in blocks if kind == "sh" for line in block.splitlines()]
    programs = "".join(block for kind, block in blocks if kind == "python")
    printed = []
    for words in (*commands, ["-c", programs]):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert "200 test images of mnist-5k, 100 draws each, seed 0" in printed[0]
    assert {path.name for path in (tmp_path / "projector").iterdir()} == {
        "vectors.tsv", "vectors.metadata.tsv", "vectors.sprite.png", "vectors.tsv.json", "projector_config.pbtxt"
    }  # fmt: skip
    assert "(100, 5, 50) nats per image" in printed[-1] and "(100, 50) (100, 2, 50) -" in printed[-1]
    assert printed[-1].endswith(f"(100, {4 + 2 * 50 + 2 * 51})\n")
