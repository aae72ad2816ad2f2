"""Every kind of damage to every file of a run, each in a copy of a run of its own."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

FILES = (
    "config.json",
    "status.json",
    "metrics.jsonl",
    "checkpoint.safetensors",
    "state.safetensors",
    "snapshots/00000013.safetensors",
    "snapshots",
    "log.txt",
    "lock",
    "stop",
)
WRONG = ("null", "NaN", "Infinity", "1e999", "-1", "1" + "0" * 30, "1" * 5000, "true", '"text"', "[[]]", "{}")


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


def foreign_bytes(path: Path) -> None:
    path.write_bytes(b'{"phase": "\xff\x80"}\n\xfe\n')


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def nested(path: Path) -> None:
    path.write_bytes(b"[" * 200_000 + b"\n")


def nested_objects(path: Path) -> None:
    path.write_bytes(b'{"a":' * 200_000 + b"\n")


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**30)


KINDS = (folder, pipe, link, link_to_itself, foreign_bytes, nothing, nested, nested_objects, huge)


def copies(good: Path, place: Path) -> Iterator[tuple[str, str, Path]]:
    """(file, kind of damage, the damaged copy of the run ``good``), in the folder ``place``, one for each of both."""
    for number, file in enumerate(FILES):
        for kind in KINDS:
            run = copy(good, place / f"{number}-{kind.__name__}")
            put(run / file, kind)
            yield file, kind.__name__, run


def copy(good: Path, run: Path) -> Path:
    """Of hard links: ``put`` and ``rewrite`` give a file a new one."""
    shutil.copytree(good, run, copy_function=os.link)
    return run


def put(path: Path, kind: Callable[[Path], None]) -> None:
    """The damage instead of a file."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    kind(path)


def rewrite(path: Path, content: str) -> None:
    path.unlink()
    path.write_text(content)


def wrong_values(content: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, JSON with that value under that key) for every key of an object and of the objects in it."""

    def keys(values: dict, outer: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for key, value in values.items():
            yield (*outer, key)
            if isinstance(value, dict):
                yield from keys(value, (*outer, key))

    whole = json.loads(content)
    for path in keys(whole):
        for value in WRONG:
            values = json.loads(content)
            inner = values
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = "WRONG"
            yield ".".join(path), value, json.dumps(values).replace('"WRONG"', value)
