"""Fixtures that several test files share."""

import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

# `pip install -r requirements.txt` is enough for all other tests.
if find_spec("playwright") is None and os.environ.get("IWAE_REQUIRE_BROWSER") != "1":
    collect_ignore = ["browser"]


def pytest_report_header() -> str | None:
    return None if find_spec("playwright") else "the browser tests are left out: pip install -r requirements-dev.txt"


def pytest_configure() -> None:
    """Processes that the tests start answer Ctrl-C and a closed terminal, also where the tests themselves, below nohup
    or in the background of a script, must not: what is ignored is inherited."""
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets, `IWAE_DATA_DIR`; the test is skipped where it is not set."""
    if not os.environ.get("IWAE_DATA_DIR"):
        pytest.skip("needs the real data sets: set IWAE_DATA_DIR")
    return Path(os.environ["IWAE_DATA_DIR"])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """torch computes on one thread, as in the processes that a test starts: sums depend on how they are split, and
    threads that share a core with another process wait for each other (the gradients: 15 s, or ten minutes)."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def threads_as_before():
    """A test may change the number of torch's threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def own_runs(tmp_path, monkeypatch):
    """Every test has its own runs, and their processes one thread."""
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def ray_cluster(monkeypatch):
    """(cluster, its second node): a head with one CPU and a node with one more, on this machine."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # not 15, which on a busy machine is next to nothing
    small = {"num_cpus": 1, "object_store_memory": 80_000_000}
    made = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False})
    try:
        yield made, made.add_node(**small)
    finally:
        made.shutdown()
