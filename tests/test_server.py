"""The running server from outside: where it listens, and what it refuses to whom it does not know."""

import http.client
import secrets
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.browser.driver import ROOT, Server


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    server = Server(ROOT / "app.py", tmp_path_factory.mktemp("server"))
    yield urlsplit(server.url)
    server.stop()


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
