"""``python -m iwae app``."""

from dataclasses import dataclass
from importlib import import_module

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
        import click

        streamlit = import_module("streamlit.web.cli")
        try:
            streamlit.main(["run", str(paths.APP), *self.options], prog_name="streamlit", standalone_mode=False)
        except click.Abort:  # Ctrl-C
            pass
        except click.ClickException as error:
            raise cli.UsageError(error.format_message()) from None
        return 0


def parse(words: list[str]) -> App:
    if "-h" in words or "--help" in words:
        print(HELP.strip())
        raise SystemExit(0)
    for before, word in zip(["", *words], words, strict=False):
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            raise cli.UsageError(f"app takes only options of `streamlit run`, such as --server.port 8600, not {word!r}")
    return App(tuple(words))
