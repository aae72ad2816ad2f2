"""`python -m benchmarks [SECTION …] [OPTIONS]`: measure, print, and put into RESULTS.md."""

import sys
from collections.abc import Sequence
from inspect import cleandoc

import tyro

from benchmarks import apart, report
from benchmarks.settings import BenchmarkSettings
from iwae.cli import STYLE
from iwae.system import files

WRONG_ARGUMENTS, FAILED, INTERRUPTED = 2, 1, 130  # exit statuses


def main(words: Sequence[str] | None = None) -> int:
    """Run with these words (by default the shell's); returns the exit status. Errors are one line."""
    try:
        settings = tyro.cli(
            BenchmarkSettings,
            prog="python -m benchmarks",
            description=cleandoc(BenchmarkSettings.__doc__),
            args=words,
            config=STYLE,
        )
        settings.check()
        if settings.file:
            files.check_target(settings.file)
    except (ValueError, files.TargetError) as error:
        return _print_error(str(error), WRONG_ARGUMENTS)
    try:
        run(settings)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        return _print_error(str(error) or type(error).__name__, FAILED)
    except KeyboardInterrupt:
        return _print_error("interrupted; nothing was written", INTERRUPTED)
    return 0


def run(settings: BenchmarkSettings) -> None:
    """Measure the sections, print the report, write its file."""
    measured = {}
    for name in settings.sections:
        print(f"measuring {name} …", file=sys.stderr)
        measured[report.heading(name, settings)] = apart.measure(name, settings)
    stamp = report.stamp(settings)
    print(report.merge("", measured, stamp, judge=not settings.quick))
    if settings.file:
        old = settings.file.read_text(encoding="utf-8") if settings.file.exists() else ""
        files.write(settings.file, report.merge(old, measured, stamp, judge=not settings.quick))
        print(f"written: {settings.file}", file=sys.stderr)


def _print_error(message: str, status: int) -> int:
    print("error:", " ".join(message.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
