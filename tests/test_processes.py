"""A process is known by its number and its start, whatever a file says that its number is."""

import os
import signal
import subprocess
import sys
import time

import pytest

from iwae.system import processes


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_this_process_is_alive_and_another_of_its_number_is_not():
    me = processes.identity()
    assert me["pid"] == os.getpid() and processes.is_alive(**me)
    for moved in (-3600.0, -3.0, 3.0, 3600.0):
        assert not processes.is_alive(me["pid"], me["started"] + moved)


@pytest.mark.parametrize("pid", [None, "1", "text", 0, -1, 1.0, True, [], {}, 2**31, 2**63, 10**30, float("nan")])
def test_what_is_no_number_of_a_process_is_no_process(pid):
    assert processes.start_time(pid) is None
    assert not processes.is_alive(pid, 0.0) and not processes.is_suspended(pid, 0.0)


@pytest.mark.parametrize("started", [None, "now", True, [], float("nan"), float("inf"), 10**400])
def test_what_is_no_time_is_no_start(started):
    assert not processes.is_alive(os.getpid(), started)


def test_a_process_that_was_killed_is_gone_although_nobody_has_waited_for_it(sleeper):
    started = processes.start_time(sleeper.pid)
    assert abs(time.time() - started) < 60 and processes.is_alive(sleeper.pid, started)
    sleeper.kill()
    deadline = time.monotonic() + 30
    while processes.is_alive(sleeper.pid, started):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert sleeper.returncode is None  # a zombie until then


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP here")
def test_a_suspended_process_is_told_from_one_that_runs(sleeper):
    started = processes.start_time(sleeper.pid)
    assert not processes.is_suspended(sleeper.pid, started)
    for number, suspended in ((signal.SIGSTOP, True), (signal.SIGCONT, False)):
        sleeper.send_signal(number)
        deadline = time.monotonic() + 30
        while processes.is_suspended(sleeper.pid, started) != suspended:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_how_a_process_ended_is_said():
    assert processes.describe_exit(3) == "ended with exit status 3"
    assert processes.describe_exit(-11) == "was ended by SIGSEGV"
    assert processes.describe_exit(-200) == "was ended by signal 200"
    assert processes.describe_exit(-9).startswith("was killed (SIGKILL): by `kill -9`, or")
    assert processes.describe_exit(-9, out_of_memory=True).endswith("had run out of memory")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux counts them")
def test_the_processes_killed_for_want_of_memory_are_counted():
    count = processes.oom_kill_count()
    if count is None:
        pytest.skip("this kernel does not say")
    assert count >= 0 and isinstance(count, int)
