"""What ``make`` installs: the build of torch that the machine can use. Its two sources are servers on loopback."""

import functools
import os
import shutil
import socket
import subprocess
import sys
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("make") or bool(shutil.which("nvidia-smi")),
    reason="needs make, on Linux without an NVIDIA GPU",
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def index(folder: Path, version: str) -> None:
    """A package index with nothing but an empty package torch of that version."""
    info = f"torch-{version}.dist-info"
    files = {
        "torch.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    (folder / "torch").mkdir(parents=True)
    with zipfile.ZipFile(folder / "torch" / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]))


@pytest.fixture(scope="module")
def install(tmp_path_factory):
    """``install(**variables)``: ``make install`` where pip finds torch 2.13.0 in its own index, and 2.13.0+cpu or
    2.13.0+given in two others, {url}/cpu and {url}/given. Returns what it printed, and the version installed."""
    folder = tmp_path_factory.mktemp("setup")
    for name, version in (("simple", "2.13.0"), ("cpu", "2.13.0+cpu"), ("given", "2.13.0+given")):
        index(folder / "served" / name, version)
    shutil.copy(ROOT / "Makefile", folder)
    (folder / "requirements.txt").write_text("torch==2.13.0\n")
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder / "served"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    # A make around this one hands on what it was told: MAKEFLAGS, and each variable of its command line, such as VENV.
    ours = ("PIP_", "MAKE", "TORCH_", "NVIDIA_DRIVER", "VENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{url}/simple", "PIP_NO_CACHE_DIR": "1"}

    def run(**variables: str) -> tuple[str, str]:
        for left in (folder / ".venv").glob("lib/python*/site-packages/torch*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        (folder / ".venv" / ".installed").unlink(missing_ok=True)
        path = variables.pop("PATH", os.environ["PATH"])
        words = [f"{name}={value.format(url=url)}" for name, value in variables.items()]
        done = subprocess.run(
            ["make", "install", f"PYTHON={sys.executable}", *words],
            cwd=folder,
            env=environment | {"PATH": path},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        (found,) = (folder / ".venv").glob("lib/python*/site-packages/torch-*.dist-info")
        return done.stdout, found.name.removeprefix("torch-").removesuffix(".dist-info")

    yield run
    server.shutdown()


def test_without_a_gpu_the_cpu_build_is_taken_where_its_index_answers(install):
    said, version = install(TORCH_CPU_INDEX="{url}/cpu")
    assert version == "2.13.0+cpu" and "No NVIDIA GPU was found: torch comes from http" in said


def test_without_a_gpu_and_that_index_it_says_what_pip_takes_and_goes_ahead(install):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/cpu"
        said, version = install(TORCH_CPU_INDEX=url)
    assert version == "2.13.0" and f"{url} does not answer" in said and "several gigabytes" in said


def test_an_index_that_is_given_wins(install):
    said, version = install(TORCH_CPU_INDEX="{url}/cpu", TORCH_INDEX="{url}/given")
    assert version == "2.13.0+given" and "GPU" not in said


@pytest.mark.parametrize("sign", ["driver", "nvidia-smi"])
def test_with_a_gpu_pip_takes_its_own_build(sign, install, tmp_path):
    (tmp_path / "nvidia-smi").touch(mode=0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    found = {"NVIDIA_DRIVER": str(tmp_path)} if sign == "driver" else {"PATH": path}
    said, version = install(TORCH_CPU_INDEX="{url}/cpu", **found)
    assert version == "2.13.0" and "GPU" not in said
