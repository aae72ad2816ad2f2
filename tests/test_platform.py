"""What the program needs of the machine it runs on: little, and what is missing is named in a sentence.

Containers are tried for real where this user may make namespaces; elsewhere those tests are skipped.
"""

import ast
import errno
import functools
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from iwae.kernels import threads
from iwae.runs import queue, store
from iwae.sweeps import grid
from iwae.system import cores, files, paths

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "iwae"]
MODEL = ROOT / "checkpoints/mnist-2d-vae-k1.safetensors"
SMALL = ["--dataset", "digits", "--model", "8:2", "--objective", "vae", "--k", "1", "--log-every", "1"]
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


@pytest.fixture(autouse=True)
def _alone(own_runs):
    pass


def python(program: str, **environment: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", program]
    return subprocess.run(words, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True)


# Where fcntl, and folders that can be opened, are missing (Windows)

NO_POSIX = """
import builtins, importlib, os, pathlib, sys
import psutil, torch  # which have other files for each system
blocked = {"fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog"}
real = builtins.__import__
def without(name, *rest, **more):
    if name.split(".")[0] in blocked:
        raise ImportError(f"no module {name}")
    return real(name, *rest, **more)
builtins.__import__ = without
for name in blocked & set(sys.modules):
    del sys.modules[name]
open_before, kill = os.open, os.kill
def no_folders(path, *rest, **more):
    if not isinstance(path, int) and os.path.isdir(path):
        raise PermissionError(13, "Permission denied", os.fspath(path))
    return open_before(path, *rest, **more)
def no_probe(pid, number):
    assert number, "os.kill(pid, 0) ends the process on Windows"
    return kill(pid, number)
os.open, os.kill = no_folders, no_probe
"""


def test_every_module_is_imported_and_a_run_is_trained_without_fcntl_and_without_opening_folders(tmp_path):
    program = (
        NO_POSIX
        + """
for path in sorted(pathlib.Path("iwae").rglob("*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    if name != "iwae.__main__":
        importlib.import_module(name)
from iwae.analysis import umap_maps as maps
from iwae.runs import store as runs, worker
from iwae.training.config import TrainConfig
run = runs.create(TrainConfig("digits", "8:2", "vae", 1, epochs=1))
print(worker.work(run).phase, len(run.records()), runs.get(run.name).status().phase)
print(maps.find_map(maps.UmapSettings(), x=1).status().phase)
"""
    )
    done = python(program, IWAE_MAPS_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["finished", "1", "finished", "missing"]


def test_no_module_asks_for_a_process_by_a_signal():
    for path in (*(ROOT / "iwae").rglob("*.py"), *(ROOT / "pages").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"os\.kill\([^)]*, 0\)|^import fcntl|^from fcntl", text, re.MULTILINE), path


def test_every_text_file_is_read_and_written_in_an_encoding_that_is_named():
    """The locale's differs from one machine to the next."""
    for path in (*(ROOT / "iwae").rglob("*.py"), *(ROOT / "pages").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("read_text", "write_text"):
                assert any(word.arg == "encoding" for word in node.keywords), f"{path}:{node.lineno}"


# Output in any encoding, to anybody


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-16"])
def test_every_command_prints_in_every_encoding(encoding):
    """One process for all commands; what they print is theirs, with other signs for what the encoding lacks."""
    program = f"""
import sys
from iwae.__main__ import main
model = {str(MODEL)!r}
for words in ("", "train --help", "sweep --help", "data list", "runs list", f"card {{model}}", "table --wide --all",
              f"evaluate {{model}} --dataset digits --images 3 --samples 2"):
    assert main(words.split()) == 0, words
assert main(["train", "--start", "\\u03b1\\U0001f600.safetensors"]) == 2
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True
    )
    said, complaint = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 0, complaint
    ascii_only = encoding == "ascii"
    assert ("NLL, -L_2" if encoding != "utf-16" else "NLL, −L_2") in said
    assert ("+/-" if ascii_only else "±") in said
    assert re.search(r"no file .*\.safetensors", complaint) and "Traceback" not in complaint


@LINUX
def test_a_result_is_not_lost_with_a_full_disk_behind_standard_output(tmp_path):
    words = [*COMMAND, "card", str(MODEL)]
    whole = subprocess.run(words, cwd=ROOT, capture_output=True).stdout
    with open("/dev/full", "wb") as full:
        environment = os.environ | {"TMPDIR": str(tmp_path)}
        done = subprocess.run(words, cwd=ROOT, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
    kept = re.search(r"cannot be written \(No space left on device\); it is in (\S+) instead", done.stderr)
    assert Path(kept[1]).read_bytes() == whole and len(whole) > 1000


def test_a_run_goes_on_to_its_end_when_nobody_reads_what_it_prints(tmp_path):
    """As with `train | head -1`."""
    model = tmp_path / "model.safetensors"
    words = [*COMMAND, "train", *SMALL, "--epochs", "2", "--out", str(model)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline().startswith(b"step 1 of")
        process.stdout.close()
    (run,) = store.list_runs()
    assert process.returncode == 0 and run.status().phase == "finished"
    assert run.records()[-1].step == 26 and model.read_bytes() == run.checkpoint.read_bytes()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
@pytest.mark.parametrize("ignored", [False, True])
def test_a_closed_terminal_saves_and_one_that_is_ignored_does_not_stop(ignored):
    """SIGHUP, plainly and under nohup."""
    words = [*COMMAND, "train", *SMALL, "--epochs", "3" if ignored else "10000"]
    hang_up = (lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) if ignored else None
    with subprocess.Popen(
        words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hang_up
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGHUP)
        _, complaint = process.communicate(timeout=300)
    (run,) = store.list_runs()
    assert run.status().phase == ("finished" if ignored else "stopped") and run.checkpoint.exists()
    assert process.returncode == (0 if ignored else 130) and "Traceback" not in complaint


# Targets of writers


def odd_targets(folder: Path) -> dict[str, Path]:
    (folder / "file").write_text("mine")
    (folder / "link").symlink_to(folder / "file")
    (folder / "dangling").symlink_to(folder / "nothing")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    kinds = {"a link": "link", "a link ": "dangling", "a folder": "folder", "a pipe": "pipe"}
    return {kind: folder / name for kind, name in kinds.items()} | {"a device": Path("/dev/null")}


@LINUX
def test_only_regular_files_are_written_over(tmp_path):
    for kind, path in odd_targets(tmp_path).items():
        before = path.lstat()
        for write in (files.check_target, functools.partial(files.write, content="new")):
            with pytest.raises(files.TargetError, match=f"{path} is {kind.strip()}; only a new or a regular file"):
                write(path)
        assert path.lstat().st_ino == before.st_ino and path.lstat().st_mode == before.st_mode
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 5
    files.check_target(tmp_path / "file")
    files.check_target(tmp_path / "new" / "deep" / "file")
    assert len(list(tmp_path.iterdir())) == 5  # a check leaves nothing
    for path, reason in (
        (tmp_path / "file" / "below", "Not a directory"),
        (tmp_path / ("x" * 300), "File name too long"),
        (Path("/proc/nothing/file"), "cannot be written"),
    ):
        with pytest.raises(files.TargetError, match=reason):
            files.check_target(path)


@LINUX
@pytest.mark.parametrize(
    ("words", "suffix"),
    [
        ("train --out TARGET", ".safetensors"),
        ("refit MODEL --out TARGET", ".safetensors"),
        ("evaluate TARGET --save", ".safetensors"),
        ("export MODEL --out TARGET", ""),
        ("card MODEL --out TARGET", ""),
        ("table --csv TARGET", ""),
        ("table --json TARGET", ""),
        ("table --markdown TARGET", ""),
    ],
)
def test_every_writer_checks_its_target_before_the_work(words, suffix, tmp_path, capsys, monkeypatch):
    from iwae.__main__ import main

    target = tmp_path / f"link{suffix}"
    target.symlink_to(MODEL)

    def no_work(*args, **kwargs):
        raise AssertionError("it has begun to work")

    for name in (
        "iwae.data.datasets.load",
        "iwae.runs.store.create",
        "iwae.export.programs.package",
        "iwae.results.rows.collect",
    ):
        monkeypatch.setattr(name, no_work)
    replaced = {"TARGET": str(target), "MODEL": str(MODEL)}
    assert main([replaced.get(word, word) for word in words.split()]) == 2
    complaint = capsys.readouterr().err
    assert str(target) in complaint and ("is a link" in complaint or "a new or an empty folder" in complaint)
    assert target.is_symlink() and store.list_runs() == []


def test_a_result_whose_target_fails_in_the_end_is_kept_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "blocked").write_text("")
    path = tmp_path / "blocked" / "result.csv"
    with pytest.raises(files.TargetError, match=r"File exists.*; the result is in .*result.csv instead") as error:
        files.write_or_rescue(path, functools.partial(files.write, content="all of it"))
    kept = Path(re.search(r"in (\S+) instead", str(error.value))[1])
    assert kept.read_text() == "all of it" and kept.is_relative_to(tmp_path / "temporary")
    files.write_or_rescue(tmp_path / "result.csv", functools.partial(files.write, content="all of it"))
    assert (tmp_path / "result.csv").read_text() == "all of it"


def test_a_folder_that_can_be_opened_and_not_flushed_is_no_failure_and_a_disk_that_fails_is(tmp_path, monkeypatch):
    """Some file systems of networks know no flushing of folders."""
    fsync = os.fsync
    for code, fails in ((errno.EINVAL, False), (errno.EIO, True)):

        def broken(handle, code=code):
            if os.path.isdir(f"/proc/self/fd/{handle}"):
                raise OSError(code, os.strerror(code))
            fsync(handle)

        monkeypatch.setattr(os, "fsync", broken)
        if fails:
            with pytest.raises(OSError, match="Input/output error"):
                files.write(tmp_path / "file", "content")
        else:
            files.write(tmp_path / "file", "content")


# Folders


def test_the_home_folder_is_meant_by_a_tilde_in_every_variable(monkeypatch):
    for variable, folder in (
        (paths.DATA, paths.data_dir),
        (paths.RUNS, paths.runs_dir),
        (paths.MODELS, paths.models_dir),
        (paths.MAPS, paths.maps_dir),
    ):
        monkeypatch.setenv(variable, "~/x")
        assert folder() == Path.home() / "x"
        monkeypatch.setenv(variable, "")
        assert folder().is_absolute()  # as if it were not set
        monkeypatch.setenv(variable, "~nobody-of-this-name/x")
        with pytest.raises(paths.FolderError, match=f"{variable} is '~nobody.*: set it to a full path, without ~"):
            folder()


def test_a_folder_that_cannot_be_written_is_named_with_its_variable(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(paths.FolderError, match=r"cannot be written .* set IWAE_RUNS_DIR to a folder"):
        paths.make_writable(tmp_path / "file", paths.RUNS)


@pytest.fixture(scope="module")
def container():
    """``container(words, **environment)``: a command as user 12345, who has no account, with the project and the
    installed packages read-only, and nothing else in the environment. Skips where that is not permitted."""
    if not all(map(shutil.which, ("unshare", "setpriv", "mount"))):
        pytest.skip("needs unshare, setpriv and mount")
    scratch = Path(tempfile.mkdtemp(dir="/tmp"))  # not pytest's or TMPDIR, which are for the user of the tests alone
    scratch.chmod(0o777)
    prefix, base = sys.prefix, str(Path(sys.base_prefix))
    home = Path(base).parents[-2]  # /root, /usr, …: opened for all in this namespace only
    script = f"""
        set -e
        mount --bind {base} {scratch}/base
        if [ {home} = /root ]; then mount -t tmpfs -o mode=755 none /root; mkdir -p {base}; mount --bind {scratch}/base {base}; fi
        for place in {ROOT} {prefix}; do mount --bind $place $place; mount -o remount,ro,bind $place; done
        cd {ROOT}; exec setpriv --reuid 12345 --regid 12345 --clear-groups env -i "$@"
    """  # noqa: E501

    def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
        command = ["unshare", "-m", "bash", "-c", script, "-", f"PATH={os.environ['PATH']}", "OMP_NUM_THREADS=1"]
        command += [f"{name}={value}" for name, value in environment.items()]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)

    scratch.joinpath("base").mkdir()
    tried = run(sys.executable, "-c", "import os; print(os.getuid())")
    if tried.stdout != "12345\n":
        shutil.rmtree(scratch)
        pytest.skip(f"namespaces are not permitted here: {tried.stderr.strip()[-200:]}")
    run.scratch = scratch
    yield run
    shutil.rmtree(scratch)


def test_without_an_account_a_home_and_a_place_to_write_one_sentence_names_the_variable(container):
    done = container(*COMMAND, "train", *SMALL, "--epochs", "1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert f"{ROOT / 'runs'} cannot be written (" in done.stderr and "set IWAE_RUNS_DIR to a folder" in done.stderr
    done = container(*COMMAND, "data", "list")
    assert done.returncode == 0 and "digits          here" in done.stdout


def test_without_an_account_and_a_home_a_run_is_trained_where_the_variable_says(container):
    folder = container.scratch / "runs"
    done = container(*COMMAND, "train", *SMALL, "--epochs", "1", IWAE_RUNS_DIR=str(folder))
    assert done.returncode == 0, done.stderr
    assert "test NLL" in done.stdout and len(list(folder.glob("*/checkpoint.safetensors"))) == 1


def test_the_app_shows_its_pages_without_an_account_and_with_a_home_that_cannot_be_written(container):
    """Streamlit itself wants HOME to be set."""
    program = """
from streamlit.testing.v1 import AppTest
for page in ("home.py", "pages/7_Training.py", "pages/8_Results.py"):
    test = AppTest.from_file("home.py", default_timeout=250)
    if page != "home.py":
        test.switch_page(page)
    test.run()
    assert not test.exception, test.exception
print("shown")
"""
    done = container(sys.executable, "-c", program, HOME="/")
    assert done.stdout == "shown\n", done.stderr[-3000:]


@LINUX
def test_a_project_whose_path_holds_the_separator_of_paths(tmp_path):
    """A process that is started from there, in whatever folder, finds the package."""
    project = tmp_path / "a:b c"
    shutil.copytree(ROOT / "iwae", project / "iwae", ignore=shutil.ignore_patterns("__pycache__"))
    (project / "iwae" / "hello.py").write_text(
        "import sys\nfrom iwae.system import paths\nprint(paths.IMPORT_ROOT, sys.argv[1:])"
    )
    program = """
import os, pathlib
from iwae.system import launcher
os.chdir("/")
launcher.start("iwae.hello", "x y", log=pathlib.Path(os.environ["LOG"]), environment={}).wait()
"""
    environment = os.environ | {"LOG": str(tmp_path / "log")}
    subprocess.run([sys.executable, "-c", program], cwd=project, env=environment, check=True)
    assert (tmp_path / "log").read_text() == f"{project} ['x y']\n"


# Cores


@LINUX
def test_cores_are_those_that_this_process_may_use():
    from joblib import cpu_count

    assert cores.count() == cpu_count()
    one = {min(os.sched_getaffinity(0))}
    program = f"import os; os.sched_setaffinity(0, {one}); "
    program += "from iwae.runs import queue; from iwae.system import cores; print(cores.count(), queue.max_running())"
    environment = {name: value for name, value in os.environ.items() if name != "IWAE_MAX_RUNS"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout == "1 1\n"


@pytest.mark.parametrize(
    ("written", "membership", "granted"),
    [
        ({"cpu.max": "150000 100000"}, "0::/", 1.5),
        ({"cpu.max": "max 100000"}, "0::/", math.inf),
        ({"a/cpu.max": "max 100000", "a/b/cpu.max": "50000 100000", "cpu.max": "400000 100000"}, "0::/a/b", 0.5),
        ({"a/cpu.max": "200000 100000"}, "0::/a/b", 2.0),  # of a group above
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/\n0::/", 3.0),
        ({"cpu,x/y/cpu.cfs_quota_us": "50000", "cpu,x/y/cpu.cfs_period_us": "100000"}, "4:cpu,x:/y", 0.5),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "4:cpu:/", math.inf),
        ({"cpu.max": ""}, "0::/", math.inf),
        ({"memory/cpu.max": "100000 100000"}, "5:memory:/", math.inf),
        ({}, "", math.inf),
    ],
)  # fmt: skip
def test_what_control_groups_grant(written, membership, granted, tmp_path, monkeypatch):
    for name, content in written.items():
        (tmp_path / "groups" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "groups" / name).write_text(content)
    (tmp_path / "membership").write_text(membership)
    monkeypatch.setattr(cores, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(cores, "MEMBERSHIP", tmp_path / "membership")
    assert cores.quota() == granted
    assert 1 <= cores.count() <= max(1, math.ceil(min(granted, os.cpu_count())))
    monkeypatch.setenv("IWAE_MAX_RUNS", "3")
    assert queue.max_running() == 3


def test_torch_takes_no_more_threads_than_cores_are_granted(monkeypatch, threads_as_before):
    for asked, granted, expected in ((None, 1, 1), (None, 8, 2), ("2", 1, 2)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        if asked:
            monkeypatch.setenv("OMP_NUM_THREADS", asked)
        monkeypatch.setattr(cores, "count", lambda granted=granted: granted)
        torch.set_num_threads(2)
        threads.limit()
        assert torch.get_num_threads() == expected


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_sweep_file_may_begin_with_a_byte_order_mark(start, tmp_path):
    """As Windows' editors write it."""
    (tmp_path / "grid.toml").write_bytes(f"{start}[grid]\nseed = [1, 2]\n".encode())
    assert [cell.config.seed for cell in grid.load(tmp_path / "grid.toml")] == [1, 2]
