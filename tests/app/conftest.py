"""The app in Streamlit's AppTest: no browser, the real engine, its own folders for runs and data."""

import functools
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import streamlit as st
import torch
from streamlit.testing.v1 import AppTest

from iwae.runs import store, worker
from iwae.runs.store import Run
from iwae.training.config import TrainConfig
from pages.common.evidence import jobs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No runs but the test's own, and no data but the embedded digits."""
    monkeypatch.setenv("IWAE_RUNS_DIR", str(tmp_path / "runs"))
    monkeypatch.setenv("IWAE_DATA_DIR", str(tmp_path / "data"))
    st.cache_resource.clear()  # what pages kept was computed with another number of threads, so rounded otherwise
    st.cache_data.clear()
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    main = sys.modules["__main__"]  # AppTest puts the page there, and every process started later would run it
    yield tmp_path
    sys.modules["__main__"] = main
    jobs().cancel_all()
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def train(tmp_path_factory) -> Callable[[TrainConfig], Run]:
    """`train(config)`: a finished run with this configuration, among those of the session; each is trained once."""
    folder = tmp_path_factory.mktemp("trained")

    @functools.cache
    def finished(config: TrainConfig) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("IWAE_RUNS_DIR", str(folder))
            run = store.create(config)
            assert worker.work(run).phase == "finished"
        return run

    return finished


@pytest.fixture
def trained(train) -> Callable[[TrainConfig], Run]:
    """`trained(config)`: a finished run with this configuration among those that the pages of this test show."""

    def own(config: TrainConfig) -> Run:
        made = train(config)
        shutil.copytree(made.folder, store.runs_dir() / made.name)
        return store.get(made.name)

    return own


@pytest.fixture
def app():
    """`app("pages/1_Posterior.py", image=5)`: a page after its first run, at an address with these parameters."""

    def run(page: str = "home.py", **query) -> AppTest:
        test = AppTest.from_file(str(ROOT / "home.py"), default_timeout=120)
        for name, value in query.items():
            test.query_params[name] = str(value)
        if page != "home.py":
            test.switch_page(page)
        test.run()
        assert not test.exception, test.exception
        return test

    return run
