"""Times contenders against each other: each takes a turn per round, in rotating order, so busy moments affect all."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from thalweg.bench.result import Timing

_VISIT = 0.03  # seconds that a contender's turn takes, approximately …
_CALLS = 20  # … with at most this many calls
_WARM = 2  # calls that are not counted; the first compiles
_LONG = 10.0  # seconds after which no further round begins, …
_LEAST = 3  # … if there have been this many


@dataclass(frozen=True)
class Contender:
    """What is timed: `call`, after an untimed `prepare` each time."""

    name: str
    prepare: Callable[[], object]
    call: Callable[[], object]


def measure(contenders: Sequence[Contender], rounds: int) -> dict[str, Timing]:
    """The times of each contender by name, for `rounds` turns each, or fewer if that would take long."""
    calls = {c.name: min(_CALLS, 1 + int(_VISIT / max(min(_visit(c, _WARM)), 1e-9))) for c in contenders}
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would be charged to whichever contender it interrupts
    try:
        began = perf_counter()
        for i in range(rounds):
            if i >= _LEAST and perf_counter() - began > _LONG:
                break
            turn = i % len(contenders)
            for contender in (*contenders[turn:], *contenders[:turn]):
                seconds[contender.name] += _visit(contender, calls[contender.name])
    finally:
        if collecting:
            gc.enable()
    return {name: Timing.of(each) for name, each in seconds.items()}


def _visit(contender: Contender, calls: int) -> list[float]:
    seconds: list[float] = []
    for _ in range(calls):
        contender.prepare()
        start = perf_counter()
        contender.call()
        seconds.append(perf_counter() - start)
    return seconds
