"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets, `IWAE_DATA_DIR`; the test is skipped where it is not set."""
    if not os.environ.get("IWAE_DATA_DIR"):
        pytest.skip("needs the real data sets: set IWAE_DATA_DIR")
    return Path(os.environ["IWAE_DATA_DIR"])
