"""A real Streamlit server of a test's own."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
START_SECONDS = 90
# Without a proxy: urllib keeps the proxies that were set at its first request, for the rest of the process.
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
STOP_SECONDS = 10


def _end_with_parent() -> None:
    """In the child: ask Linux for SIGTERM when the tests die, even of SIGKILL, so that no server is left."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


class Server:
    """`streamlit run` of one app file on a free port, with runs, caches and settings of its own in `home`.

    Or another command that takes its options, in another folder.
    """

    def __init__(self, app_file: Path, home: Path, command: list[str] | None = None, folder: Path = ROOT):
        self.home = home
        self.log = home / "server.log"
        home.mkdir(parents=True, exist_ok=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        own = {"HOME": home, "IWAE_RUNS_DIR": home / "runs", "XDG_CACHE_HOME": home / "cache"}
        command = command or [sys.executable, "-m", "streamlit", "run", str(app_file)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, f"--server.port={port}", "--server.headless=true"],
                cwd=folder,
                env=os.environ | {name: str(path) for name, path in own.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):  # not listening yet
                if DIRECT.open(f"{self.url}/_stcore/health", timeout=5).status == 200:
                    return
            time.sleep(0.05)
        raise RuntimeError(f"the server did not start within {START_SECONDS} s:\n{self.log.read_text()}")

    def stop(self) -> None:
        """End the server and every process that it started: training runs are sessions of their own."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sign)
            deadline = time.monotonic() + STOP_SECONDS
            while (self.process.poll() is None or self.processes()) and time.monotonic() < deadline:
                time.sleep(0.1)
        if left := self.processes():
            raise RuntimeError(f"processes {left} of {self.url} did not end")

    def forget_runs(self) -> None:
        """End the training processes of this server and delete their folders."""
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if b"iwae.runs.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.home / "runs", ignore_errors=True)

    def processes(self) -> list[int]:
        """Living processes that carry this server's runs folder in their environment (on Linux)."""
        mark = f"IWAE_RUNS_DIR={self.home / 'runs'}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to another user
                if mark in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found
