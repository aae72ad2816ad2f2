"""UMAP maps, cached on disk: each is computed once, in a background process.

A map's folder in ``maps_dir()`` is named by a hash of all that decides it, and holds:

    points.npy    the points to embed, [n, latent]; deleted when the map is finished
    init.npy      the initial positions, unless request.json names a map to start from
    map.npy       the finished map, [n, 2]
    status.json   progress of the process, or why it failed, and its id
    log.txt       what the process printed
    lock          held while the map is started or computed

Maps of the models that ship are there from the beginning, under the same names, in ``checkpoints/umap.npz``
(iwae/export/shipped_maps.py): so each of them is used for exactly those models, images and settings.
"""

import hashlib
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from iwae.analysis import latent
from iwae.system import files, launcher, optional, paths, priority, processes
from iwae.system.paths import maps_dir

SMALL = 5_000  # points up to which UMAP moves them 500 times instead of 200; its own limit is 10,000
LOCK_PATIENCE = 1.0  # seconds; starting a process holds the lock for an instant
VERSION = 2  # of the naming of folders
SHIPPED = paths.SHIPPED / "umap.npz"  # places [n, 2] as float16, by the names of their folders


@dataclass(frozen=True)
class UmapSettings:
    """UMAP's own (McInnes et al. 2018)."""

    neighbours: int = latent.NEIGHBOURS
    min_dist: float = 0.1
    seed: int = 0


@dataclass(frozen=True)
class MapStatus:
    """The state of a map. ``phase``: missing, running, finished, or failed (``message`` says why)."""

    phase: str
    message: str = ""
    share: float = 0.0  # done, in [0, 1]


def fingerprint(checkpoint: Path) -> str:
    """A hash of the tensors in a checkpoint, with their names, shapes and types, whatever its card says."""
    return _fingerprint(checkpoint, checkpoint.stat().st_mtime_ns)


@lru_cache(maxsize=100)
def _fingerprint(path: Path, written: int) -> str:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header.pop("__metadata__", None)
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode() + content[end:]).hexdigest()


@lru_cache(maxsize=2)
def _shipped(path: Path, written: int) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


@dataclass(frozen=True)
class Map:
    """One map in its folder, read again at every call."""

    folder: Path

    def coordinates(self) -> np.ndarray | None:
        """The finished map [n, 2], float64; None if it does not exist or cannot be read."""
        if SHIPPED.is_file():
            shipped = _shipped(SHIPPED, SHIPPED.stat().st_mtime_ns)
            if self.folder.name in shipped:
                return shipped[self.folder.name].astype(np.float64)
        with suppress(OSError, ValueError, EOFError):
            found = np.load(self.folder / "map.npy", allow_pickle=False)
            if found.ndim == 2 and found.shape[1] == 2 and np.isfinite(found).all():
                return found.astype(np.float64)
        return None

    def status(self) -> MapStatus:
        """The current state."""
        if self.coordinates() is not None:
            return MapStatus("finished", share=1.0)
        status = _read_status(self.folder)
        if not status:
            return MapStatus("missing")
        if status.get("failed"):
            return MapStatus("failed", str(status.get("message")))
        if processes.is_alive(status.get("pid"), status.get("started")):
            return MapStatus("running", str(status.get("message")), _progress(status))
        if (
            _read_status(self.folder) != status or self.coordinates() is not None
        ):  # it was updated between the two reads
            return self.status()
        return MapStatus("failed", "its process ended without a message")

    def start(self, points: np.ndarray, init: "np.ndarray | Map", settings: UmapSettings) -> None:
        """Compute it in a background process; returns at once. Does nothing if it is running or finished.

        points: [n, latent], finite. init: initial positions [n, 2], or the map that provides them; that map is
        computed first if needed, and must have been started or ``prepare``d before. Raises ValueError for
        points that cannot be placed, and FolderError where the map cannot be kept.
        """
        if self.status().phase == "running":
            return
        self.prepare(points, init, settings)
        with suppress(Timeout), FileLock(self.folder / "lock", timeout=LOCK_PATIENCE):  # Timeout: it is being computed
            if self.status().phase in ("running", "finished"):
                return
            process = launcher.start(
                "iwae.analysis.umap_maps",
                str(self.folder.resolve()),
                log=self.folder / "log.txt",
                environment={"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), "NUMBA_NUM_THREADS": "1"}
                | _compiler_cache(),
            )
            about = {"pid": process.pid, "started": processes.start_time(process.pid)}
            _write_status(self.folder, "starting …", 0.0, **about)  # the process waits for the lock

    def prepare(self, points: np.ndarray, init: "np.ndarray | Map", settings: UmapSettings) -> None:
        """Write the inputs of the computation to its folder. Raises ValueError for points that cannot be placed,
        FolderError where the map cannot be kept, and MissingError without UMAP."""
        if points.ndim != 2 or not np.isfinite(points).all():
            raise ValueError(f"a map needs finite points [n, latent], not the shape {points.shape}")
        if not 2 <= settings.neighbours < len(points):
            raise ValueError(f"{len(points)} images allow 2 to {len(points) - 1} neighbours, not {settings.neighbours}")
        if self.coordinates() is not None:
            return
        optional.require("the map", "umap", extra="umap")
        paths.make_writable(maps_dir(), paths.MAPS)
        _save(self.folder / "points.npy", points)
        request = asdict(settings)
        if isinstance(init, Map):
            request["begin"] = init.folder.name
        else:
            _save(self.folder / "init.npy", init)
        files.write(self.folder / "request.json", json.dumps(request))

    def delete(self) -> None:
        """Delete it, unless it is being computed."""
        if self.status().phase != "running":
            shutil.rmtree(self.folder, ignore_errors=True)


def find_map(settings: UmapSettings, **decided: Any) -> Map:
    """The map of what ``decided`` names (plain values: a checkpoint's fingerprint, the data, the map it begins from),
    there or not: the same for the same values and settings."""
    text = json.dumps({"version": VERSION} | asdict(settings) | decided, sort_keys=True)
    return Map(maps_dir() / hashlib.sha256(text.encode()).hexdigest()[:32])


def pair_of_maps(
    settings: UmapSettings,
    models: Sequence[tuple[str, str]],
    dataset: str,
    images: int,
    layers: Sequence[int] = (1, 1),
) -> tuple[Map, Map]:
    """The maps of two models, by their fingerprints and sizes (the text of their ``ModelConfig``) and by the stochastic
    layers mapped: that of B begins from that of A. ``images``: how many of the test images of ``dataset``, by
    ``latent.subset``. Of one model and layer twice it is the same map."""
    one, other = (
        {"checkpoint": mark, "model": sizes, "dataset": dataset, "images": images}
        | ({"layer": layer} if layer > 1 else {})
        for (mark, sizes), layer in zip(models, layers, strict=True)
    )
    a = find_map(settings, begin=None, **one)
    return a, a if one == other else find_map(settings, begin=a.folder.name, **other)


def compute(folder: Path, report: Callable[[str, float], None], first: float = 0.0) -> np.ndarray:
    """Compute a prepared map in this process, after the one it begins from; ``report(message, share done)``."""
    found = Map(folder).coordinates()
    if found is not None:
        return found
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    begin = request.pop("begin", None)
    if begin:
        other = folder.parent / begin
        report("waits for the other map …", first)
        with FileLock(other / "lock"):  # another process may be computing it

            def report_both(message: str, share: float) -> None:
                _write_status(other, message, share)
                report(f"first map: {message}", share / 2)

            start = compute(other, report_both)
        first = 0.5
    else:
        start = np.load(folder / "init.npy", allow_pickle=False)
    points = np.load(folder / "points.npy", allow_pickle=False)
    report("finding neighbours …", first)
    placed = umap(points, start, UmapSettings(**request), lambda text, share: report(text, first + (1 - first) * share))
    _save(folder / "map.npy", placed)
    for name in ("points.npy", "init.npy"):
        (folder / name).unlink(missing_ok=True)
    return placed


def umap(
    points: np.ndarray, start: np.ndarray, settings: UmapSettings, report: Callable[[str, float], None]
) -> np.ndarray:
    """UMAP of points [n, latent] from places ``start`` [n, 2], [n, 2]: repeatable from ``settings.seed``.

    Exact neighbours are passed in, so that UMAP does not search itself. Where the start is far from UMAP's
    own size of 10 it is brought there. At the end the map is rotated, not scaled, onto ``start``. Points that are all
    alike lie in one place.
    """
    if not np.ptp(points, axis=0).any():
        return np.zeros((len(points), 2))
    index, distance = latent.neighbours(points, settings.neighbours - 1)
    own = np.arange(len(points))[:, None]  # UMAP counts the point itself
    known = np.hstack([own, index]), np.hstack([np.zeros((len(points), 1)), distance])
    report("loading UMAP …", 0.05)
    from umap import UMAP  # seconds, and only here

    _keep_compiled()
    start = start - start.mean(0)
    start = start * (10 / max(np.abs(start).max(), 1e-9))
    flat = np.ptp(start, axis=0) == 0  # as of a single unit: UMAP would divide by the extent
    start[:, flat] = np.random.default_rng(settings.seed).uniform(-1, 1, (len(start), flat.sum()))
    report("preparing …", 0.1)
    bar = _Bar(lambda share: report(f"laying out, {share:.0%}", 0.1 + 0.9 * share))
    large = len(points) > SMALL
    layout: Any = UMAP  # whose annotations allow less than it does
    placed = layout(
        n_neighbors=settings.neighbours,
        min_dist=settings.min_dist,
        random_state=settings.seed,
        n_jobs=1,
        n_epochs=200 if large else 500,
        learning_rate=0.25 if large else 1.0,  # smaller steps make up for the epochs: docs/performance.md
        init=start.astype(np.float32),
        precomputed_knn=(known[0].astype(np.int32), known[1].astype(np.float32)),
        force_approximation_algorithm=True,  # else it takes small data for a reason to search itself
        verbose=True,
        tqdm_kwds={"file": bar, "mininterval": 0.5},
    ).fit_transform(points.astype(np.float32))
    placed = placed.astype(np.float64) - placed.mean(0)
    return placed @ latent.procrustes(start, placed)[0].T


class _Bar:
    """A file for tqdm's bar that reads the percentages from it."""

    def __init__(self, report: Callable[[float], None]):
        self.report = report

    def write(self, text: str) -> None:
        if found := re.search(r"(\d+)%", text):
            self.report(int(found[1]) / 100)

    def flush(self) -> None:
        pass


def _save(path: Path, array: np.ndarray) -> None:
    with files.atomic_write(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, array)


def _keep_compiled() -> None:
    """Let numba keep on disk what it compiles of UMAP. Otherwise each process compiles it again, which takes as long as
    a map of 10,000 points."""
    from numba.core.dispatcher import Dispatcher
    from umap import layouts, umap_, utils

    for module in (layouts, umap_, utils):
        for function in vars(module).values():
            if isinstance(function, Dispatcher):
                function.enable_caching()


def _import_search_uncompiled() -> None:
    """Import UMAP's search for neighbours, which are known here, as plain Python: to compile it takes 16 s where nobody
    has done so before. Only for a process that makes maps and nothing else."""
    config: Any = import_module("numba").config  # whose names are not declared
    before, config.DISABLE_JIT = config.DISABLE_JIT, True
    try:
        import_module("pynndescent")
    finally:
        config.DISABLE_JIT = before


def _compiler_cache() -> dict[str, str]:
    """Where numba keeps what it compiles, in the environment, if it may not write beside UMAP's files, as it would."""
    package = find_spec("umap")
    beside = package.origin if package else None
    if "NUMBA_CACHE_DIR" in os.environ or beside is None or os.access(Path(beside).parent, os.W_OK):
        return {}
    return {"NUMBA_CACHE_DIR": str(maps_dir().resolve() / "numba")}


def _write_status(folder: Path, message: str, share: float, **more: Any) -> None:
    status = {"message": message, "share": share} | processes.identity() | more
    files.write(folder / "status.json", json.dumps(status))


def _read_status(folder: Path) -> dict[str, Any]:
    try:
        status = json.loads((folder / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return status if isinstance(status, dict) else {}


def _progress(status: dict[str, Any]) -> float:
    share = status.get("share")
    return min(max(float(share), 0.0), 1.0) if isinstance(share, int | float) else 0.0


def main(folder: Path) -> None:
    """The process of ``Map.start``."""
    started = time.monotonic()
    with FileLock(folder / "lock"):
        try:
            _import_search_uncompiled()
            compute(folder, lambda message, share: _write_status(folder, message, share))
        except Exception as error:
            _write_status(folder, str(error) or type(error).__name__, 0.0, failed=True)
            raise
    print(f"finished in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    priority.lower_priority(priority.MAP)
    main(Path(sys.argv[1]))
