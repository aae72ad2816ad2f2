"""Start a module of this package as a detached process, which outlives the one that started it."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iwae.system.paths import IMPORT_ROOT

# Not by PYTHONPATH, which cannot hold a folder whose name contains its separator (":", on Windows ";").
_BOOTSTRAP = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)
_DETACHED: dict[str, Any] = (
    {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
    if sys.platform == "win32"
    else {"start_new_session": True}
)


def command(module: str, *arguments: str) -> list[str]:
    """``python -m module arguments…``, whatever the current folder is."""
    return [sys.executable, "-c", _BOOTSTRAP, str(IMPORT_ROOT), module, *arguments]


def start(module: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> subprocess.Popen:
    """Run ``command(module, *arguments)``; returns at once.

    What it prints is appended to ``log``, in UTF-8. It has no terminal and receives no Ctrl-C. Raises OSError if the
    process cannot be started.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            command(module, *arguments),
            env={**os.environ, **environment, "PYTHONIOENCODING": "utf-8"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **_DETACHED,
        )
    threading.Thread(target=process.wait, daemon=True).start()  # reaps the process
    return process
