"""The Dockerfile's image without Docker: its files, environment, user and entrypoint, below its limit of memory."""

import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.server import DIRECT, ROOT
from tests.session import Session, apart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the image is a Linux one")
LIMIT = 2 * 2**30  # bytes that docs/platforms.md promises
NOBODY = 65534
# Where the tests may change their user, and another one can run this Python.
INTERPRETER = [Path(sys.executable).resolve(), *Path(sys.executable).resolve().parents, *Path(sys.prefix).parents]
OTHER_USER = os.geteuid() == 0 and all(path.stat().st_mode & 1 for path in INTERPRETER)
PAGES = ["", "Posterior", "Latent_space", "Active_units", "Reconstructions", "Samples", "Bounds", "Training", "Results"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
RUNTIME = DOCKERFILE.split("FROM ")[-1]


def command(name: str) -> list[str]:
    """The words of an instruction in the JSON form."""
    return json.loads(re.search(rf"^(?:HEALTHCHECK .*)?{name} (\[.+\])$", RUNTIME, re.MULTILINE)[1])


def on_port(words: list[str], port: int) -> list[str]:
    return [sys.executable, *(word.replace("8501", str(port)) for word in words[1:])]


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    """(process, port) of the entrypoint, as an unprivileged user where the tests may change theirs."""
    top = tmp_path_factory.mktemp("container")
    app, home = top / "app", top / "tmp"
    home.mkdir()
    for line in re.findall(r"^COPY (?!--from)(.+)$", RUNTIME, re.MULTILINE):
        *sources, target = line.split()
        for source in sources:
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, app / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (app / target).mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / source, app / target)
    environment = dict(
        setting.split("=", 1) for line in re.findall(r"^ENV (.+)$", RUNTIME, re.MULTILINE) for setting in line.split()
    )
    environment = {name: value.replace("/tmp", str(home)) for name, value in environment.items()}
    user = {}
    if OTHER_USER:
        for folder in (*top.parents[:2], top):
            folder.chmod(0o755)
        os.chown(home, NOBODY, NOBODY)
        user = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [word.replace("0.0.0.0", "127.0.0.1") for word in on_port(command("ENTRYPOINT"), port)]
    with (top / "log").open("wb") as log:
        process = subprocess.Popen(
            words, cwd=app, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)), **user,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while process.poll() is None and subprocess.run(on_port(command("CMD"), port), capture_output=True).returncode:
            assert time.monotonic() < deadline, (top / "log").read_text()
            time.sleep(0.5)
        assert process.poll() is None, (top / "log").read_text()
        yield process, port
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(20)


def test_every_page_opens_in_two_gigabytes_and_changes_nothing(container):
    process, port = container

    async def visit() -> list[str]:
        session = await Session.open(f"http://127.0.0.1:{port}")
        said = []
        for page in PAGES:
            await session.run(page_name=page)
            said += [block.body for block in session.of("markdown", 1)]
            for label in ("Start training", "Add as model B", "VAE and IWAE side by side"):
                assert not [button for button in session.of("button") if button.label.startswith(label)], page
        problems = session.problems
        await session.close()
        assert not problems
        return said

    assert any("A public demo" in text for text in apart(visit()))
    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    assert sum(each.memory_info().rss for each in family) < LIMIT
    assert {each.uids().real for each in family} == {NOBODY if OTHER_USER else os.geteuid()}


def test_its_health_check_fails_without_the_server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert subprocess.run(on_port(command("CMD"), port), capture_output=True).returncode != 0


def test_the_image_takes_what_it_needs_and_nothing_else():
    """What is copied passes .dockerignore, which lets nothing else in."""
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1]
    }
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "*" and {line[1:] for line in lines if line.startswith("!")} == copied
    assert all((Path(ROOT) / word).exists() for word in copied)
    assert "USER 10001:10001" in RUNTIME and DIRECT
