"""Whatever fails at whatever instant: the last saved state is whole, and the run that goes on ends as if nothing had.

The processes are killed (SIGKILL) at random instants; single calls to the operating system fail, each in its turn, as
SQLite tests its own (https://www.sqlite.org/testing.html, "I/O Error Testing"); and a real file system of 1 MB
fills up.
"""

import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from iwae import checkpoints
from iwae.data import cache
from iwae.runs import queue, store, worker
from iwae.runs.store import Run, RunError
from iwae.system import files
from tests.test_runs import CONFIG, PROCESSES, assert_same, in_process, undisturbed_run, work_in_process

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("own_runs")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return undisturbed_run(tmp_path_factory.mktemp("undisturbed"))


def assert_whole(run: Run) -> None:
    """What is on the disk under its own name is whole, and nothing else is listed."""
    for name, kind in (("state", "state"), ("checkpoint", "model")):
        path = run.folder / f"{name}.safetensors"
        if path.exists():
            checkpoints.load_tensors(path, kind)
    if run.checkpoint.exists():
        checkpoints.load(run.checkpoint)
    assert set(checkpoints.find(run.folder)[0]) <= {"checkpoint.safetensors", "state.safetensors"}
    steps = [record.step for record in run.records()]
    assert steps == sorted(set(steps))
    assert [listed.name for listed in store.list_runs()] == [run.name]
    assert run._read_status().phase


@pytest.mark.parametrize("kills", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_at_random_instants_a_run_ends_as_if_nothing_had_happened(undisturbed, kills):
    """A state is saved at every record. Half of the instants are anywhere in a life, half within 30 ms of a save."""
    rng, done, ended = random.Random(2016), 0, 0
    while done < kills:
        run = store.create(CONFIG)
        while done < kills:
            process = in_process(run)
            if rng.random() < 0.5:
                process.join(rng.uniform(0, 1.5))
            else:
                before = len(run.records())
                while process.is_alive() and len(run.records()) <= before:
                    time.sleep(0.001)
                time.sleep(rng.uniform(0, 0.03))
            alive = process.is_alive()
            process.kill()
            process.join()
            assert_whole(run)
            if not alive:
                assert process.exitcode == 0
                break
            done += 1
            if run.status().phase == "finished":
                break
        if run.status().phase != "finished":
            run.prepare()
            assert worker.work(run).phase == "finished"
        assert_same(run, undisturbed)
        assert [path.name for path in run.folder.glob(".*")] == []
        run.delete()
        ended += 1
    print(f"{done} kills, {ended} runs")


class Faulty:
    """Lets the n-th of these calls fail: making a temporary file, flushing, renaming, writing tensors."""

    def __init__(self, patch: pytest.MonkeyPatch, fatal: int, code: int = errno.EIO):
        self.calls, self.fatal, self.code = 0, fatal, code
        places = ((os, "fsync"), (os, "replace"), (os, "rename"), (tempfile, "mkstemp"), (checkpoints, "save_file"))
        for module, name in places:
            patch.setattr(module, name, self.wrapped(getattr(module, name)))

    def wrapped(self, function):
        def call(*args, **kwargs):
            self.calls += 1
            if self.calls == self.fatal:
                raise OSError(self.code, os.strerror(self.code))
            return function(*args, **kwargs)

        return call


@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_every_single_call_may_fail(undisturbed, monkeypatch, step):
    """The n-th call fails, for n = 1, 1 + step, …: the run says so or dies, goes on, and ends the same."""
    fatal, codes = 1, (errno.EIO, errno.ENOSPC, errno.EROFS)
    while True:
        with monkeypatch.context() as patch:
            run = store.create(CONFIG)
            faulty = Faulty(patch, fatal, codes[fatal % 3])
            try:
                worker.work(run, save_seconds=0.2)
            except OSError as error:
                assert error.errno == faulty.code
        if faulty.calls < fatal:
            break
        assert_whole(run)
        if run.status().phase != "finished":
            if run.status().phase != "starting":  # as it stays where the very first word was the call to fail
                run.prepare()
            assert worker.work(run).phase == "finished"
        assert_same(run, undisturbed)
        run.delete()
        fatal += step
    print(f"calls that failed, one in each run: {len(range(1, fatal, step))}")
    assert fatal > 30


def test_a_file_is_flushed_before_it_gets_its_name_and_its_folder_after(tmp_path, monkeypatch):
    """The order that a loss of power asks for."""
    said, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda handle: (said.append(os.readlink(f"/proc/self/fd/{handle}")), fsync(handle))
    )
    monkeypatch.setattr(os, "replace", lambda *pair: (said.append("rename"), replace(*pair)))
    files.write(tmp_path / "file", "content")
    assert len(said) == 3 and said[0].startswith(f"{tmp_path}/.file.") and said[1:] == ["rename", str(tmp_path)]


def test_a_full_disk_of_a_run_is_told_though_its_last_words_find_no_room(monkeypatch):
    run = store.create(CONFIG)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    def train(*args):
        monkeypatch.setattr(files, "atomic_write", full)
        full()

    monkeypatch.setattr(worker, "_train_and_test", train)
    with pytest.raises(OSError, match="No space left on device"):
        worker.work(run)
    assert run.status().phase == "died"


def test_what_killed_processes_left_is_removed(tmp_path):
    run = store.create(CONFIG)
    for name in (".state.safetensors.abc.tmp", ".tmpHYnJfb"):  # the latter is how safetensors names its own
        (run.folder / name).write_bytes(b"half")
    assert_whole(run)
    worker.work(run)
    assert not list(run.folder.glob(".*"))
    old, new = tmp_path / ".data.abc.tmp", tmp_path / ".data.def.tmp"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, time.time() - files.STALE_SECONDS - 1))
    files.write(tmp_path / "data", "content")
    assert not old.exists() and new.exists()  # another process may be at it


def test_of_two_processes_that_resume_a_run_one_wins_and_the_other_says_so(undisturbed):
    run = store.create(CONFIG)
    with PROCESSES.Manager() as manager:
        said = manager.list()
        pair = [PROCESSES.Process(target=resume, args=(run.folder, said)) for _ in range(2)]
        for process in pair:
            process.start()
        for process in pair:
            process.join()
        said = sorted(said)
    assert said == [f"run {run.name} is already running in another process", "won"], said
    assert_same(run, undisturbed)


def resume(folder: Path, said) -> None:
    queue.LOCK_PATIENCE = 0.05
    try:
        work_in_process(folder, 0.0)
    except RunError as error:
        said.append(str(error))
    else:
        said.append("won")


def in_small_file_system(program: str) -> subprocess.CompletedProcess:
    """Run a program with the folder SMALL, a file system of 1 MB of its own; skips where mounting is not permitted."""
    folder = tempfile.mkdtemp()
    shell = f"mount -t tmpfs -o size=1m tmpfs {folder} || exit 77; exec {sys.executable} -"
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs util-linux's unshare")
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", shell],
        input=textwrap.dedent(program).replace("SMALL", folder),
        cwd=ROOT, text=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    os.rmdir(folder)
    if done.returncode in (1, 77) and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip("mounting a file system is not permitted here")
    assert done.returncode == 0, done.stderr
    return done


def test_a_disk_that_is_full_keeps_the_old_checkpoint_whole():
    """Real: the second, larger model finds no room."""
    in_small_file_system("""
        from pathlib import Path
        from iwae import checkpoints
        from iwae.checkpoints import Card
        from iwae.model import Model, ModelConfig
        small, large, path = ModelConfig(((8,),), (3,)), ModelConfig(((300,),), (3,)), Path("SMALL/model.safetensors")
        checkpoints.save(path, Model(small, seed=1), Card(small, {}))
        before = path.read_bytes()
        try:
            checkpoints.save(path, Model(large), Card(large, {}))
            raise SystemExit("it had room")
        except OSError as error:
            assert "No space left" in str(error), error
        assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == [path.name]
    """)


def test_caches_and_downloads_on_a_full_or_read_only_disk():
    in_small_file_system("""
        import os, hashlib, subprocess
        from pathlib import Path
        import numpy as np
        from iwae.data import cache as packed
        from iwae.data import downloads
        folder = Path("SMALL")
        packed.cache_folder = lambda: folder
        large = {"values": np.random.default_rng(0).integers(0, 256, 3_000_000).astype(np.uint8)}
        again = packed.load_or_build("cache", "stamp", lambda: large)
        assert again["values"] is large["values"] and list(folder.iterdir()) == [], list(folder.iterdir())

        class Download(downloads.DataFile):
            def _transfer(self, url, path, progress):
                path.write_bytes(bytes(3_000_000))

        def fetch():
            try:
                Download("data/file", ("http://a/file", "http://b/file"), 10**7, bytes, sha256="0" * 64).fetch(folder)
            except downloads.DataError as error:
                return str(error)

        said = fetch()
        assert "No space left on device" in said, said
        assert [path for path in folder.rglob("*") if path.is_file()] == []
        subprocess.run(["mount", "-o", "remount,ro", "SMALL"], check=True)
        said = fetch()
        assert "cannot be written" in said and "Read-only file system" in said, said
        assert packed.load_or_build("cache", "stamp", lambda: large)["values"] is large["values"]
    """)


def test_a_half_written_cache_is_never_used(tmp_path, monkeypatch):
    """At every 50th byte of it, and with one byte changed; and a failure at any call leaves no file."""
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    good, built = {"values": np.arange(50)}, []

    def build():
        built.append(1)
        return good

    cache.load_or_build("cache", "stamp", build)
    whole = (tmp_path / "cache.npz").read_bytes()
    for end in range(0, len(whole), 50):
        (tmp_path / "cache.npz").write_bytes(whole[:end])
        before = len(built)
        assert np.array_equal(cache.load_or_build("cache", "stamp", build)["values"], good["values"])
        assert len(built) == before + 1
    (tmp_path / "cache.npz").unlink()
    for fatal in (1, 2, 3):
        with monkeypatch.context() as patch:
            Faulty(patch, fatal, errno.ENOSPC)
            assert cache.load_or_build("cache", "stamp", build)["values"] is good["values"]
        assert list(tmp_path.iterdir()) == []
