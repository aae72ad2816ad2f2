"""Random numbers drawn ahead, in a thread that has nothing else to do, and the same ones as if they were not."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

from torch import Generator, Tensor

from iwae.kernels import threads

T = TypeVar("T")


class Ahead(Generic[T]):
    """What ``generator`` gives, one draw after the other, of which the next may be begun with before it is wanted."""

    def __init__(self, generator: Generator):
        self.generator = generator
        self.begun: tuple[int, Tensor, Future[T]] | None = None  # its number, the generator's state before it, itself

    def begin(self, number: int, draw: Callable[[], T]) -> None:
        """Begin with ``draw()``, which is to be taken under this number; nothing else may be drawn until then."""
        self.begun = number, self.generator.get_state(), threads.aside(draw)

    def take(self, number: int, draw: Callable[[], T]) -> T:
        """``draw()``, begun with or not. What was begun with under another number is undone."""
        if self.begun:
            (begun, before, drawn), self.begun = self.begun, None
            found = drawn.result()
            if begun == number:
                return found
            self.generator.set_state(before)
        return draw()

    def state(self) -> Tensor:
        """The generator's, with nothing begun."""
        return self.begun[1] if self.begun else self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Go on from what ``state`` gave."""
        if self.begun:
            self.begun[2].result()
        self.begun = None
        self.generator.set_state(state)
