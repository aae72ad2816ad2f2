"""Users at once against a real server: a short load, and in `slow` the one that docs/load.md states."""

import sys

import numpy as np
import pytest

from tests import load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def assert_served(report: load.Report) -> None:
    assert not report.problems and not report.left, str(report)
    assert report.checks > 0, str(report)


def test_a_few_users_at_once_see_their_own_numbers_only():
    assert_served(load.measure(count=4, seconds=15, think=1.0, trainings=1, forget=False))


@pytest.mark.slow
def test_thirty_users_beside_two_training_runs():
    report = load.measure(count=30, seconds=300, think=10.0, trainings=2)
    print(report)
    assert_served(report)
    assert np.median(report.times) <= 1 and np.quantile(report.times, 0.95) <= 3, str(report)
    assert report.after.resident <= 1.05 * report.before.resident, str(report)
    assert report.after.threads <= report.before.threads and report.after.sockets <= report.before.sockets, str(report)
