"""Explore the latent spaces of variational (VAE) and importance weighted autoencoders (IWAE) from a shell.

usage: python -m iwae COMMAND [OPTIONS]     (once it is installed by pip, `iwae` is the same)

  app                    start the explorer in the browser
  train                  train a model
  sweep GRID.toml        train every cell of a grid, here or on a Ray cluster
  refit CHECKPOINT       train its encoder further, on images that the model generates
  evaluate CHECKPOINT    measure a trained model on test images
  encode CHECKPOINT      the latents of images, as a file for other programs
  table                  every model, measured against published values
  findings               the poster's claims, each with the measured figure and a verdict
  export CHECKPOINT      its encoder and decoder as ONNX or torch.export files, with its card
  card CHECKPOINT        its card in the Hugging Face format
  data list              the data sets, and which of them are on this machine
  data download NAME     fetch a data set
  data verify [NAME]     compare the files of a data set, or of all, with their checksums
  data add PATH          keep your own images as a data set
  data remove NAME       delete a data set that was added
  runs list              the training runs and their status
  runs show NAME         everything about one run
  runs stop NAME         ask a run to save and stop
  runs resume NAME       resume it in the background
  runs delete NAME       remove it with all its files

Every command has its own --help, and --version prints the version. Examples:

  python -m iwae train
      an IWAE (k = 50) on 4,000 images of MNIST: no download
  python -m iwae train --dataset mnist --objective vae --k 1 --epochs 100
      a VAE on MNIST, which is downloaded if necessary
  python -m iwae evaluate runs/NAME/checkpoint.safetensors --samples 5000
      its test NLL, KL divergences, active units
  python -m iwae table --verify 200
      all models against the literature, re-measured on 200 test images

The explorer shows the same models and runs.
"""

import atexit
import contextlib
import gc
import importlib
import io
import os
import re
import sys
from collections.abc import Sequence

from iwae import __version__
from iwae.system import streams

COMMANDS = (
    *("app", "train", "sweep", "refit", "evaluate", "encode", "table", "findings", "export", "card", "data"),
    "runs",
)
WRONG_ARGUMENTS, FAILED, INTERRUPTED = 2, 1, 130  # exit statuses


def main(words: Sequence[str] | None = None) -> int:
    """Run the command in ``words`` (by default the shell's); returns the exit status. Errors are one line."""
    with streams.robust_streams():
        try:
            return _run(list(sys.argv[1:] if words is None else words))
        except KeyboardInterrupt:
            return _print_error("interrupted", INTERRUPTED)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print((__doc__ or "").strip())
        return 0
    if words[0] == "--version":
        print(f"iwae {__version__}")
        return 0
    if words[0] not in COMMANDS:
        return _print_error(f"unknown command {words[0]!r}; there are {', '.join(COMMANDS)}", WRONG_ARGUMENTS)
    atexit.register(gc.freeze)  # at its end Python looks for garbage among all that was imported, which takes seconds
    importlib.import_module("numpy")  # before torch, which imports it from C++ and there loses a Ctrl-C
    module = importlib.import_module(f"iwae.cli.{words[0]}")  # imported here because torch takes seconds to import
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            command = module.parse(words[1:])
    except ValueError as error:
        return _print_error(str(error), WRONG_ARGUMENTS)
    except SystemExit as exit:  # --help, or tyro has refused
        return _print_error(_one_line(refusal.getvalue()), WRONG_ARGUMENTS) if exit.code else 0
    from iwae.kernels import threads  # torch, as above

    threads.limit()
    try:
        return command.run()
    except (ValueError, RuntimeError, OSError, MemoryError) as error:  # RuntimeError: torch's, for lack of memory too
        status = WRONG_ARGUMENTS if isinstance(error, module.cli.UsageError) else FAILED
        return _print_error(str(error) or type(error).__name__, status)


def _print_error(message: str, status: int) -> int:
    if os.environ.get("TORCHELASTIC_RUN_ID") is None or os.environ.get("RANK") == "0":  # of torchrun's processes, one
        print("error:", " ".join(message.split()), file=sys.stderr)
    return status


def _one_line(box: str) -> str:
    """tyro's box of text as a line: its sections, cut short at the first empty line, joined by semicolons."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours
    lines = [line.strip("│ ") for line in text.splitlines() if line[:1] not in "╭╰"]  # not the frame, not the title
    sections = re.split(r"^[─-]+$", "\n".join(lines), flags=re.MULTILINE)
    return "; ".join(section.strip().split("\n\n")[0].rstrip(".") for section in sections)


if __name__ == "__main__":
    sys.exit(main())
