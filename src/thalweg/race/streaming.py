"""Points of runs that are under way, on their way to whoever writes them down.

A run calls what `of` gave it whenever it has a new point.  About once a second the new points of all runs in this
process are sent on together, to where `to` says: in this process to the race, in a worker through its pipe.
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from thalweg.race.entry import Entry
from thalweg.race.plan import Task
from thalweg.store import Curve, Points

EVERY = 1.0
"""Seconds from one batch to the next."""

Columns = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Streamed:
    """Points, among other messages of a worker."""

    points: Sequence[Points]


class _Run:
    """What has been sent of a run."""

    def __init__(self, about: Points) -> None:
        self.about, self.sent = about, 0
        self.columns: Columns = {}

    def new(self) -> Points:
        """The points that have not been sent."""
        first, self.sent = self.sent, len(self.columns["step"])
        curve = Curve(**{name: tuple(column[first:]) for name, column in self.columns.items()})
        return replace(self.about, first=first, curve=curve)


class _Stream:
    """Collects points, and sends them on once in a while."""

    def __init__(self, send: Callable[[Sequence[Points]], None]) -> None:
        self.send, self._last = send, time.monotonic()
        self._waiting: dict[str, _Run] = {}

    def note(self, run: _Run, columns: Columns) -> None:
        run.columns = columns
        self._waiting[run.about.key] = run
        if time.monotonic() - self._last >= EVERY:
            points = [waiting.new() for waiting in self._waiting.values()]
            self._waiting.clear()
            self.send(points)
            self._last = time.monotonic()


_stream: _Stream | None = None


@contextmanager
def to(send: Callable[[Sequence[Points]], None]) -> Generator[None]:
    """Within this context the points of runs are sent there; what has not been sent at its end never is."""
    global _stream
    before, _stream = _stream, _Stream(send)
    try:
        yield
    finally:
        _stream = before


def sender() -> Callable[[Sequence[Points]], None]:
    """Where points are sent to at present."""
    return _ignore if _stream is None else _stream.send


def of(task: Task, entry: Entry) -> Callable[[Columns], None]:
    """What a run calls with the columns of its curve, whenever there is a point more."""
    stream = _stream
    if stream is None:
        return _ignore
    settings = {**entry.numbers, **task.tuned}
    run = _Run(Points(task.key, task.entry, task.phase, task.trial, task.seed, settings))
    return lambda columns: stream.note(run, columns)


def _ignore(what: Any) -> None:
    pass
