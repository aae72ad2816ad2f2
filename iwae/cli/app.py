"""``python -m iwae app``."""

import runpy
import sys
from dataclasses import dataclass

from iwae import cli
from iwae.system import optional, paths

HELP = """Start the explorer and open it in the browser; Ctrl-C ends it.

usage: python -m iwae app [OPTIONS]

It listens on this computer only. The options are those of `streamlit run`:

  --server.port 8600       another port
  --server.headless true   open no browser
  --server.address 0.0.0.0 let other computers in: there is no login (docs/threat-model.md)
"""


@dataclass(frozen=True)
class App:
    """Start the explorer, with these options of ``streamlit run``."""

    options: tuple[str, ...] = ()

    def run(self) -> int:
        optional.require("the explorer", "streamlit", "plotly", "pandas", extra="app")
        sys.argv = ["streamlit", "run", str(paths.APP), *self.options]
        runpy.run_module("streamlit", run_name="__main__", alter_sys=True)  # ends by SystemExit, with its status
        return 0


def parse(words: list[str]) -> App:
    if "-h" in words or "--help" in words:
        print(HELP.strip())
        raise SystemExit(0)
    for before, word in zip(["", *words], words, strict=False):
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise cli.UsageError(f"app takes only options of `streamlit run`, such as --server.port 8600, not {word!r}")
    return App(tuple(words))
