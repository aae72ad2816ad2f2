"""The running server from outside: where it listens, and what it refuses to whom it does not know."""

import asyncio
import base64
import contextlib
import http.client
import secrets
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server import ROOT, Server
from tests.session import Session, apart


@pytest.fixture(scope="module")
def silent_proxy():
    """A proxy that takes connections and says nothing; gives how to count them. All that the server asks of the
    network goes to it."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listening:
        listening.setblocking(False)
        taken = []

        def count() -> int:
            with contextlib.suppress(BlockingIOError):
                while True:
                    taken.append(listening.accept()[0])
            return len(taken)

        with pytest.MonkeyPatch.context() as patch:
            for name in ("http_proxy", "https_proxy"):
                patch.setenv(name, f"http://127.0.0.1:{listening.getsockname()[1]}")
            patch.setenv("no_proxy", "127.0.0.1")  # the tests go straight to the server
            yield count
        for one in taken:
            one.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory, silent_proxy):
    server = Server(ROOT / "app.py", tmp_path_factory.mktemp("server"))
    yield urlsplit(server.url)
    server.stop()


@pytest.fixture
def opened(address):
    """Somebody has opened the app, and left it."""

    async def visit() -> None:
        await (await Session.open(address.geturl())).close()

    apart(visit())
    return address


def ask(address, method: str, path: str, **options) -> tuple[int, bytes]:
    """A request with its path as it stands."""
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    try:
        connection.request(method, path, **options)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_it_listens_on_loopback_only(address):
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            if state == "0A" and int(local.split(":")[1], 16) == address.port:
                listening.append(local.split(":")[0])
    assert listening == ["0100007F"]  # 127.0.0.1


def test_an_upload_needs_the_token_of_the_page(address):
    """Another site's page could otherwise send files in its visitor's name."""
    path = f"/_stcore/upload_file/{secrets.token_hex(8)}/{secrets.token_hex(8)}"
    for method in ("PUT", "DELETE"):
        status, _ = ask(address, method, path, body=b"x", headers={"Origin": "http://elsewhere.example"})
        assert status == 403, method


def upgrade(address, **headers: str) -> tuple[int, float]:
    """(status of the answer to a WebSocket's first request, seconds until it came): 101 where it is accepted."""
    key = base64.b64encode(secrets.token_bytes(16)).decode()
    usual = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": key}
    began = time.monotonic()
    status, _ = ask(address, "GET", "/_stcore/stream", headers=usual | headers)
    return status, time.monotonic() - began


def test_a_foreign_page_is_refused_at_once_and_without_the_network(opened, silent_proxy):
    """Streamlit would ask a host on the network for its own external address, with all sessions waiting: 2 s each."""
    for origin in ("http://elsewhere.example", "https://127.0.0.1.elsewhere.example", "null", "file://", "http://[::1"):
        status, seconds = upgrade(opened, Origin=origin)
        assert status >= 400, origin
        assert seconds < 1, origin
    assert silent_proxy() == 0


def test_what_a_reverse_proxy_must_pass(opened):
    """The visitor's Host: with its own, the server takes the visitor's page for another site's."""
    assert upgrade(opened, Host="iwae.example", Origin="https://iwae.example")[0] == 101
    assert upgrade(opened, Origin="https://iwae.example")[0] == 403
    assert ask(opened, "GET", "/_stcore/stream", headers={"Host": "iwae.example"})[0] != 101  # without Upgrade


@pytest.mark.parametrize("base", ["/media", "/static", "/component", "/app/static", "/_stcore", "/vendor", ""])
@pytest.mark.parametrize("dots", ["../", "..%2f", "%2e%2e/", "..%5c", "....//"])
def test_no_path_leads_out_of_what_it_serves(address, base, dots):
    for target in ("etc/passwd", "requirements.txt"):
        for depth in (1, 4, 12):
            _, body = ask(address, "GET", f"{base}/{dots * depth}{target}")
            assert b"root:" not in body and b"torch==" not in body


def test_a_failure_says_nothing_of_the_machine(address):
    for path in ("/_stcore/upload_file/a/b", "/media/none.png", "/_stcore/none", "/component/none/x.js"):
        _, body = ask(address, "GET", path)
        assert b"Traceback" not in body and str(ROOT).encode() not in body and b"site-packages" not in body


def test_pages_opened_together_while_the_server_imports_wait_for_each_other(tmp_path):
    """Plotly looks for pandas in every value, and failed where another page's thread had it half imported."""

    async def open_together() -> None:
        pages = [path.stem.partition("_")[2] for path in sorted(ROOT.glob("pages/[0-9]*.py"))]
        sessions = await asyncio.gather(*(Session.open(server.url, page) for page in pages))
        assert not [problem for session in sessions for problem in session.problems]
        for session in sessions:
            await session.close()

    server = Server(ROOT / "app.py", tmp_path)
    try:
        apart(open_together())
    finally:
        server.stop()
