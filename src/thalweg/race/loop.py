"""The iterations of a training function: its steps, epochs and batches, and how far they are."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


class Loop:
    """Counts how often the bodies of a training's loops have ended.

    Args:
        over: whether the budget is used up, asked before each body.
        entered: called when an iteration begins.
        ended: called when a body has ended, with the name of its iteration.

    Attributes:
        inside: the iterations that are under way, from the outermost on.
        at: how often the bodies of each have ended.
        epoch: the batches of an epoch, where the training counts these; otherwise 0.
    """

    def __init__(self, over: Callable[[], bool], entered: Callable[[], None], ended: Callable[[str], None]) -> None:
        self._over, self._entered, self._ended = over, entered, ended
        self.inside: list[str] = []
        self.at = {"steps": 0, "epochs": 0, "loader": 0}
        self.epoch = 0

    def taken(self, step: int) -> int:
        """How many of its steps the training has taken, as it counts them: bodies of its loop, batches, or `step`, the
        steps of the optimizer, if it has no loop that is known.
        """
        if "steps" in self.inside or self.at["steps"]:
            return self.at["steps"]
        if self.epoch:
            return max(self.at["epochs"] * self.epoch, self.at["loader"])
        return self.at["loader"] or step

    def counted(self, what: str) -> Iterator[int]:
        """0, 1, 2 … of an iteration, or what follows in a checkpoint, until the budget is used up."""
        with self.iterating(what) as around:
            while not self._over():
                yield self.at[what]
                around()

    @contextmanager
    def iterating(self, what: str) -> Generator[Callable[[], None]]:
        """An iteration; what it gives is to be called whenever a body has ended."""
        self._entered()
        self.inside.append(what)

        def around() -> None:
            self.at[what] = self.at.get(what, 0) + 1
            self._ended(what)

        try:
            yield around
        finally:
            self.inside.remove(what)

    def goes_on(self, what: str) -> bool:
        """Whether a body around one of `what`, which has ended, has not ended yet; `what` is empty outside of all."""
        return ("steps" in self.inside and what != "steps") or (not what and bool(self.inside))


class Steps:
    """The steps of a run: to be iterated, or counted by ``len``."""

    def __init__(self, length: int, counted: Callable[[], Iterator[int]]) -> None:
        self._length, self._counted = length, counted

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return self._counted()


def endless(loader: Iterable[Any]) -> Iterator[Any]:
    """The batches of a loader, epoch after epoch."""
    while True:
        yield from loader
