"""Coverage-guided fuzzing of the two readers of strangers' files: whatever comes, a result or the one error they name.

    pip install atheris
    python -m tests.fuzz pictures --seconds 300
    python -m tests.fuzz checkpoints --seconds 300

libFuzzer mutates the files of the other tests towards code not reached before. It ends with the input, kept in the
working folder, of any other error, of one that takes 2 s, or of one that asks for 200 MB at once.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SLOW, LARGE = 2, 200  # seconds; MB
LONGEST = 2**16  # bytes of a file: mutations of longer ones are slow and reach nothing more


def pictures() -> tuple[list[bytes], Callable[[bytes], None]]:
    """(files to begin with, what is tried with each)."""
    from iwae.images import decoding, digits
    from tests.test_uploads import corpus

    def read(data: bytes) -> None:  # in this process, where the fuzzer can see it
        with suppress(digits.PictureError):
            digits.prepare(decoding.decode(data))

    return list(corpus().values()), read


def checkpoints() -> tuple[list[bytes], Callable[[bytes], None]]:
    """The same."""
    from iwae.checkpoints import CheckpointError, load
    from tests.test_hostile_checkpoints import HOSTILE, sound

    path = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)) / "upload.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(CheckpointError):
            load(path)

    return [sound(), *(data for data, _ in HOSTILE.values())], read


READERS = {"pictures": pictures, "checkpoints": checkpoints}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=60)
    asked = parser.parse_args()
    try:
        import atheris
    except ImportError:
        sys.exit("error: fuzzing needs atheris: pip install atheris")
    with atheris.instrument_imports(include=["iwae", "PIL", "safetensors"]):
        seeds, read = READERS[asked.reader]()
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds):
            if len(data) <= LONGEST:
                (Path(folder) / f"{number:04}").write_bytes(data)
        limits = [f"-timeout={SLOW}", f"-malloc_limit_mb={LARGE}", "-rss_limit_mb=8192", f"-max_len={LONGEST}"]
        atheris.Setup([sys.argv[0], folder, f"-max_total_time={asked.seconds}", "-print_final_stats=1", *limits], read)
        atheris.Fuzz()  # ends the process


if __name__ == "__main__":
    main()
