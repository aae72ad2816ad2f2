"""A random walk over all pages: no exception, no console error."""

import pytest

from tests import soak
from tests.server import ROOT, Server


@pytest.mark.parametrize("seconds", [20, pytest.param(1800, marks=pytest.mark.slow)])
def test_a_random_walk_meets_no_error(browser, tmp_path, seconds):
    server = Server(ROOT / "app.py", tmp_path)
    try:
        walk, memory = soak.soak(browser, server, seconds, seed=1)
    finally:
        server.stop()
    assert len(walk.steps) > seconds / 10 and walk.missed < len(walk.steps) / 2
    if seconds > 600:
        rise, error = soak.slope(memory)
        assert rise < max(3 * error, 1.0), f"{rise:.2f} ± {error:.2f} MB per minute"
