"""What a run of the benchmarks measures, and how: the options of the command line."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import torch
import tyro

from iwae.system import cores

SECTIONS = ("training", "busy", "evaluation", "memory", "growth")  # in the order of the report; each is a module
ASKED_FOR = ("quality", "app")  # modules too, measured when named
CPU_ONLY = ("busy", "memory", "growth")
RESULTS = Path(__file__).parent / "RESULTS.md"
LEAST_ROUNDS = 5

T = TypeVar("T")


@dataclass(frozen=True)
class BenchmarkSettings:
    """Measure this package side by side with JAX, pythae and the machine's own limit.

    Contenders take turns within each round; a number is the median over the rounds, with the least and the greatest
    beside it. What is measured replaces the sections of the same names in benchmarks/RESULTS.md, the others stay.
    Rows of a peer that is not installed (pip install -r benchmarks/requirements.txt) are left out.
    """

    sections: Annotated[tuple[str, ...], tyro.conf.Positional] = SECTIONS  # which to measure; also: quality, app
    threads: int = min(2, cores.count())  # of torch
    rounds: int | None = None  # at least 5, which is the default; with --quick any number, by default 1
    k: tuple[int, ...] = ()  # of training, draws; 1, 5 and 50 without it
    least_seconds: float = 1.5  # of work for each contender in each round
    device: Literal["cpu", "cuda"] = "cpu"  # cuda: training and evaluation only
    test_images: int = 10_000  # of the full-test NLL
    runs: tuple[str, ...] = ()  # for quality: names of training runs, the fast one first
    quick: bool = False  # tiny sizes, to see that everything runs; writes no file unless --out names one
    out: Path | None = None  # the report's file, instead of benchmarks/RESULTS.md

    def check(self) -> None:
        """Raises ValueError for what cannot be: its name, its value, and what is allowed."""
        known = SECTIONS + ASKED_FOR
        if unknown := [name for name in self.sections if name not in known]:
            raise ValueError(f"unknown section {unknown[0]!r}; there are {', '.join(known)}")
        available = cores.count()
        if not 1 <= self.threads <= available:
            raise ValueError(
                f"--threads must lie between 1 and the {available} cores of this machine, not {self.threads}"
            )
        if self.turns < (least := self.pick(LEAST_ROUNDS, 1)):
            raise ValueError(f"--rounds must be at least {least}, not {self.turns}")
        if not self.least_seconds > 0:
            raise ValueError(f"--least-seconds must be above 0, not {self.least_seconds}")
        if bad := [k for k in self.k if k < 1]:
            raise ValueError(f"--k must be at least 1, not {bad[0]}")
        if self.test_images < 2 * self.turns:
            least = f"2 for each of the {self.turns} rounds"
            raise ValueError(f"--test-images must be at least {least}, not {self.test_images}")
        if self.device == "cuda":
            if not torch.cuda.is_available():
                raise ValueError("--device cuda: this machine, or this build of torch, has none")
            if bad := [name for name in self.sections if name in CPU_ONLY]:
                raise ValueError(f"--device cuda does not go with {bad[0]}: name the sections to measure")

    def pick(self, full: T, quick: T) -> T:
        """The size for this mode."""
        return quick if self.quick else full

    @property
    def turns(self) -> int:
        """Rounds to measure."""
        return self.pick(LEAST_ROUNDS, 1) if self.rounds is None else self.rounds

    @property
    def seconds(self) -> float:
        """Of work for each contender in each round, at least."""
        return self.pick(self.least_seconds, 0.02)

    @property
    def file(self) -> Path | None:
        """Where the report belongs, or None for a quick run that is only shown."""
        return self.out or self.pick(RESULTS, None)
