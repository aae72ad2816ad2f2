"""Standard output and error that never raise, whatever the locale and even if the reader has gone."""

import codecs
import errno
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

PLAIN = {
    **{"−": "-", "–": "-", "—": "-", "‑": "-", "×": "x", "·": "*", "±": "+/-", "→": "->", "…": "...", "‖": "||"},
    **{"≤": "<=", "≥": ">=", "≠": "!=", "≈": "~", "’": "'", "‘": "'", "“": '"', "”": '"', "∞": "inf", "√": "sqrt"},
    **{"α": "alpha", "β": "beta", "σ": "sigma", "μ": "mu", "Σ": "sum", "∇": "grad", "\N{NO-BREAK SPACE}": " "},
    **dict.fromkeys("│║", "|"),
    **dict.fromkeys("─━═", "-"),
    **dict.fromkeys("╭╮╰╯┌┐└┘├┤┬┴┼", "+"),
    **dict.fromkeys("₀⁰", "0"),
    **dict.fromkeys("₁¹", "1"),
    **dict.fromkeys("₂²", "2"),
    **dict.fromkeys("█▉▊▋▌▍▎▏", "#"),  # tqdm's bar
}
READER_GONE = (errno.EPIPE, errno.EIO)  # `… | head`, or a terminal that was closed
ENCODING_ERRORS = "iwae.plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """For characters that an encoding lacks: the usual ASCII for ours, ``\\u…`` for all others."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    unknown = error.object[error.start : error.end]
    return "".join(PLAIN.get(c) or c.encode("ascii", "backslashreplace").decode() for c in unknown), error.end


codecs.register_error(ENCODING_ERRORS, _plain)


class RobustStream:
    """A stream whose ``write`` and ``flush`` never raise OSError, so that a command does not lose its work.

    If the reader has gone, further output is discarded. If it cannot be written (a full disk), it goes to a temporary
    file that is named on standard error.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._redirect(error, text)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._redirect(error)
            self._stream.flush()  # what was buffered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _redirect(self, error: OSError, text: str = "") -> None:
        handle, kept = os.open(os.devnull, os.O_WRONLY), ""
        if error.errno not in READER_GONE:
            with suppress(OSError):
                handle, kept = tempfile.mkstemp(prefix="iwae-output-", suffix=".txt")
        os.dup2(handle, self._stream.fileno())
        os.close(handle)
        if kept and self is not sys.stderr:
            print(f"the output cannot be written ({error.strerror}); it is in {kept} instead", file=sys.stderr)
        self._stream.write(text)


@contextmanager
def robust_streams() -> Iterator[None]:
    """Inside, printing raises neither UnicodeEncodeError nor OSError."""
    before = sys.stdout, sys.stderr
    streams = [stream or io.StringIO() for stream in before]  # None: closed by the shell
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):  # a stream of another kind, as a notebook's, has none
            # write through, because the buffer keeps what it could not write
            reconfigure(errors=ENCODING_ERRORS, write_through=True)
    sys.stdout, sys.stderr = map(RobustStream, streams)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before
