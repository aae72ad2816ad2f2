"""Images that somebody uploads → three splits, read in a process of its own: ``python -m iwae.data.upload``.

As with a single picture (iwae/images/decoding.py) no check of the bytes finds everything that is hostile: archives,
tables and pictures that are small and become large. So the process that reads them has limits on memory and processor
time, and one that exceeds them ends alone. What it makes of the files is what ``readers`` makes of the same files on
this machine. Imports no torch: the process starts in a third of a second.
"""

import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from iwae.data import readers
from iwae.data.arrays import MAX_SIDE, ArrayError, FoundImages, Options, Rows, Splits
from iwae.images import decoding
from iwae.shapes import checked_shape
from iwae.system import launcher
from iwae.system.files import printable
from iwae.system.limits import limit_memory, limit_time

MAX_BYTES = 50 * 2**20  # of all files together, as they are sent
MAX_UNPACKED = 100 * 2**20  # of what is in an archive, or of an array
MAX_IMAGES = 100_000
MAX_KEPT = 2 * 2**30  # bytes of all data sets that were added, beyond which no upload is added
MEGABYTES, SECONDS = 900, 60  # of memory, and of a processor, that reading may take
PATIENCE = 300.0  # seconds that an answer may take on a busy machine

File = tuple[str, bytes]  # name, content
_free = threading.Semaphore(1)  # one upload is read at once; others wait


def read(files: Sequence[File], options: Options) -> Splits:
    """What is in several pictures, or in one file of ``readers.FILES``, in a process with limits.

    Raises ArrayError, one sentence that names the file and what is allowed.
    """
    size = sum(len(content) for _, content in files)
    title = _title(files)
    if size > MAX_BYTES:
        raise ArrayError(f"{title}: {size / 2**20:.1f} MB; at most {MAX_BYTES // 2**20} MB are read at once")
    head = {"options": asdict(options), "files": [(name, len(content)) for name, content in files]}
    sent = b"".join([json.dumps(head).encode(), b"\n", *(content for _, content in files)])
    with (
        _free,
        subprocess.Popen(
            launcher.command("iwae.data.upload"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
    ):
        try:
            answer, names = process.communicate(sent, PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            answer, names = process.communicate()
    try:
        return _checked(answer)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ArrayError):
            raise
    if hasattr(signal, "SIGPROF") and process.returncode == -signal.SIGPROF:
        last = printable(names.decode(errors="replace").strip().rpartition("\n")[2])
        raise ArrayError(
            f"{last} takes more than {decoding.SECONDS:g} s to decode: save it again as a plain PNG or JPEG"
        )
    raise ArrayError(
        f"{title} cannot be read within {SECONDS} s of a processor and {MEGABYTES} MB of memory: send less at once, or "
        "add it by `python -m iwae data add` where the explorer runs"
    )


def _title(files: Sequence[File]) -> str:
    return printable(files[0][0]) if len(files) == 1 else f"{len(files):,} files"


def found_in(
    files: Sequence[File], options: Options, limit: int = MAX_UNPACKED, most: int = MAX_IMAGES,
    decode: readers.Decode = readers.decode_picture,
) -> FoundImages:  # fmt: skip
    """Several pictures, or one file of ``readers.FILES``, with at most ``limit`` bytes of content, unpacked, and
    ``most`` images. Raises ArrayError."""
    if not files:
        raise ArrayError("there are no files")
    name, content = files[0]
    if len(files) == 1 and not name.lower().endswith(readers.PICTURES):
        found = readers.read_file(name, io.BytesIO(content), options, limit, decode, most)
    else:
        found = _pictures(dict(files), len(files), options, most, decode)
    count = sum(len(part.images) for part in found.parts.values())
    if count > most:
        raise ArrayError(f"{printable(name)}: {count:,} images; at most {most:,} are read")
    return found


def _pictures(files: dict[str, bytes], count: int, options: Options, most: int, decode: readers.Decode) -> FoundImages:
    if count > most:
        raise ArrayError(f"{count:,} pictures; at most {most:,} are read")
    if len(files) < count:
        raise ArrayError("two of the pictures have the same name: send them in a ZIP with a folder for each class")
    for name in files:
        if not name.lower().endswith(readers.PICTURES):
            allowed = f"pictures ({', '.join(readers.PICTURES)}) come together, {', '.join(readers.FILES)} alone"
            raise ArrayError(f"{printable(name)}: {allowed}")
    return readers.pictures(
        files, lambda names: (readers.picture(decode(files[name], name), options) for name in names)
    )


def _checked(answer: bytes) -> Splits:
    """The splits in an answer of the process. Raises ArrayError for its refusal, ValueError for what is no answer."""
    line, _, rest = answer.partition(b"\n")
    about = json.loads(line)
    if "error" in about:
        raise ArrayError(printable(about["error"], 1000))
    shape = checked_shape(about["shape"], MAX_SIDE)
    sizes, names = tuple(map(int, about["sizes"])), tuple(map(str, about["label_names"]))
    count, pixels = sum(sizes), shape[0] * shape[1]
    if len(sizes) != 3 or min(sizes) < 1 or len(rest) != count * (pixels + 8 * bool(names)):
        raise ValueError(about)
    images = np.frombuffer(rest, np.uint8, count * pixels).reshape(count, pixels).copy()
    rows = Rows([(images, None)])
    if not names:
        return Splits(rows, None, sizes, shape, ())
    labels = np.frombuffer(rest, np.int64, count, count * pixels).copy()
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(about)
    return Splits(rows, labels, sizes, shape, names)


def _decode(content: bytes, name: str) -> Image.Image:
    """As ``readers.decode_picture``, within the limits for a single picture; a decoder that takes longer ends the
    process, and the last line that it has printed says with which."""
    if len(content) > decoding.MAX_BYTES:
        raise ArrayError(f"{printable(name)}: {len(content) / 2**20:.1f} MB; at most {decoding.MAX_BYTES // 2**20} MB")
    print(printable(name), file=sys.stderr, flush=True)
    limit_time(decoding.SECONDS)
    try:
        return readers.decode_picture(content, name)
    finally:
        limit_time(0)


def _limit_processor() -> None:
    with suppress(ImportError):  # Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))


def serve() -> None:
    """Read one upload from standard input: a line of JSON with the options and the names and sizes of the files, then
    these. The answer is a line of JSON with the images uint8 and the labels int64 behind it, or {"error"}."""
    Image.MAX_IMAGE_PIXELS = None  # our own limits are stricter
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    head = json.loads(source.readline())
    files = [(name, source.read(size)) for name, size in head["files"]]
    size = head["options"].pop("size")
    limit_memory(MEGABYTES)
    _limit_processor()
    parts: list[Any] = []
    try:
        options = Options(tuple(size) if size else None, **head["options"])
        made = readers.splits(found_in(files, options, decode=_decode), options, _title(files))
        answer = {"shape": made.shape, "sizes": made.sizes, "label_names": made.label_names}
        parts = [*made.images.parts(), *([] if made.labels is None else [made.labels])]
    except ArrayError as error:
        answer = {"error": str(error)}
    sink.write(json.dumps(answer).encode() + b"\n")
    for values in parts:
        sink.write(np.ascontiguousarray(values).data)
    sink.flush()


if __name__ == "__main__":
    serve()
