"""What Linux says of a process: its memory, threads, files and ports."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Use:
    """What a process holds at one moment."""

    resident: int  # bytes
    threads: int
    files: int  # all that it has open, sockets too
    sockets: int

    def __str__(self) -> str:
        return f"{self.resident / 1e6:.0f} MB, {self.threads} threads, {self.files} files, {self.sockets} sockets"


def use(pid: int) -> Use:
    """Raises FileNotFoundError when there is no such process."""
    folder = Path(f"/proc/{pid}")
    resident = int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    targets = [_target(link) for link in (folder / "fd").iterdir()]
    sockets = sum(target.startswith("socket:") for target in targets)
    return Use(resident, len(list((folder / "task").iterdir())), len(targets), sockets)


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:  # closed meanwhile
        return ""
