"""The number of processor cores this process may use, which can be fewer than the machine has."""

import math
import os
from pathlib import Path, PurePosixPath

import psutil

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def count() -> int:
    """Cores that this process may use, at least 1: those of its affinity mask, and no more than the CPU time that its
    control group (cgroup v1 or v2) and those above it are granted, rounded up."""
    return max(1, math.ceil(min(_affinity(), quota())))


def _affinity() -> int:
    try:
        return len(psutil.Process().cpu_affinity())
    except (AttributeError, psutil.Error):  # macOS has no affinity
        return os.cpu_count() or 1


def quota() -> float:
    """Seconds of CPU time for each second that the control groups of this process grant it; infinite without a limit.

    Source: the Linux kernel's documentation of cgroup-v2 (``cpu.max``) and of the CFS bandwidth controller.
    """
    return min((_granted(folder) for folder in control_groups("cpu")), default=math.inf)


def control_groups(controller: str) -> list[Path]:
    """The folders of this process's control groups for ``controller`` (cpu or memory), and of all above them."""
    try:
        lines = MEMBERSHIP.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:  # version 2: one hierarchy for all controllers
            bases = [CGROUPS, CGROUPS / "unified"]
        elif controller in controllers.split(","):
            bases = [CGROUPS / controllers, CGROUPS / controller]
        else:
            continue
        parts = PurePosixPath(path).parts[1:]
        # A container often sees its own group as the root, whatever the path says: missing parts are skipped
        found += [base.joinpath(*parts[:depth]) for base in bases for depth in range(len(parts) + 1)]
    return found


def _granted(folder: Path) -> float:
    try:
        words = (folder / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        try:
            words = [
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii").strip() for name in ("quota", "period")
            ]
        except (OSError, ValueError):
            return math.inf
    try:
        allowed, period = map(float, words)
    except ValueError:  # "max": no limit
        return math.inf
    return allowed / period if allowed > 0 and period > 0 else math.inf
