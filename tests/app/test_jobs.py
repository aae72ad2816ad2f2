"""Work behind the pages: shared, in order, and ended when nobody waits for it."""

import threading
import time

import pytest

from pages.common.server import jobs as module
from pages.common.server.jobs import Jobs


class Step:
    """Work that goes on until it is let go, and notes how it ended."""

    def __init__(self):
        self.go, self.begun, self.ended, self.runs = threading.Event(), threading.Event(), None, 0

    def __call__(self, progress):
        self.runs += 1
        self.begun.set()
        try:
            while not self.go.wait(0.005):
                progress(1, 4)
        except BaseException as error:
            self.ended = type(error)
            raise
        self.ended = "done"
        return "result"


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def queue():
    made = Jobs(1)
    yield made
    made.cancel_all()


def test_one_runs_and_the_others_wait_in_order(queue):
    first, second, third = Step(), Step(), Step()
    one, two = queue.request("anna", {1: first, 2: second})
    (three,) = queue.request("ben", {3: third})
    until(lambda: one.share == 0.25)
    assert (two.ahead, three.ahead) == (1, 2) and not second.begun.is_set()
    first.go.set()
    until(second.begun.is_set)
    queue.request("ben", {3: third})
    assert one.result == "result" and three.ahead == 1 and not third.begun.is_set()


def test_the_next_digit_ends_the_work_on_the_last(queue):
    old, waiting, new = Step(), Step(), Step()
    queue.request("anna", {1: old, 2: waiting})
    until(old.begun.is_set)
    queue.request("anna", {3: new})
    until(new.begun.is_set)
    assert old.ended is module.JobCancelled and waiting.runs == 0
    (again,) = queue.request("anna", {1: old})
    until(lambda: old.runs == 2)
    assert not again.finished


def test_what_another_visitor_waits_for_goes_on_and_is_shared(queue):
    step = Step()
    (one,) = queue.request("anna", {1: step})
    (two,) = queue.request("ben", {1: step})
    until(step.begun.is_set)
    queue.request("anna", {})
    step.go.set()
    until(lambda: two.finished)
    assert one is two and step.ended == "done" and step.runs == 1
    (later,) = queue.request("carl", {1: step})
    assert later.result == "result" and step.runs == 1


def test_a_visitor_who_does_not_come_back_waits_for_nothing(queue, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    step = Step()
    queue.request("anna", {1: step})
    until(lambda: not queue.busy)
    assert step.ended in (module.JobCancelled, None)


def test_an_error_is_kept_for_the_page_and_the_queue_goes_on(queue):
    def fails(progress):
        raise ValueError("no such number")

    step = Step()
    step.go.set()
    failed, fine = queue.request("anna", {1: fails, 2: step})
    until(lambda: fine.finished)
    assert str(failed.error) == "no such number" and failed.finished and fine.result == "result"


def test_old_results_are_dropped(queue, monkeypatch):
    monkeypatch.setattr(module, "KEPT", 3)
    for key in range(6):
        step = Step()
        step.go.set()
        (job,) = queue.request("anna", {key: step})
        until(lambda job=job: job.finished)
        until(lambda: not queue.busy)
    assert queue.request("anna", {5: step})[0] is job
    assert len(queue._jobs) <= 3
