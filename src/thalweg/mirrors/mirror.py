"""What a mirror is, and how it is kept from costing a race anything.

A mirror hears of points as runs report them, and of each run that has ended, which has its whole curve.  It works in a
thread of its own: a server that is slow or gone holds up nothing.  When it fails it is told once, and no more is
mirrored; the records of the race are complete without it.
"""

import importlib
import importlib.util
import math
import queue
import threading
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, cast

from thalweg.passwords import masked
from thalweg.signals import HELD_UP
from thalweg.store import Curve, Plan, Points, Run, race_name

KINDS = {"tensorboard": "tensorboard", "mlflow": "mlflow-skinny", "wandb": "wandb"}
"""The kinds of mirrors, and the distribution that each needs."""
COLUMNS = ("validation_metric", "validation_loss", "train_loss")
"""The columns of a curve that are mirrored, under their own names: those of metrics may be anything."""
_BEHIND = 1_000
"""Messages that may wait; points beyond are left out, since they come again when their run has ended."""
_LAST = 60.0
"""Seconds to wait for a mirror after the race."""


class MirrorError(ValueError):
    """There is no such mirror, or it cannot be opened; one sentence says why, and what to do."""


class MirrorWarning(UserWarning):
    """A mirror has failed or is too slow, which its race outlives; the message says why, in one sentence."""


class Mirror(Protocol):
    """A place where curves are mirrored."""

    def points(self, some: Points) -> None:
        """Note points of a run that is under way; those whose first is 0 begin it, perhaps anew."""
        ...

    def ended(self, run: Run) -> None:
        """Note a run that has ended, with the points of its curve that have not been noted."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class Mirrors:
    """Some mirrors, each in a thread of its own."""

    def __init__(self, mirrors: Iterable[tuple[str, Mirror]]) -> None:
        self._asides = [_Aside(name, mirror) for name, mirror in mirrors]

    def hear(self, points: Sequence[Points]) -> None:
        """Pass on points of runs that are under way."""
        for aside in self._asides:
            aside.hear(points)

    def keep(self, run: Run) -> None:
        """Pass on a run that has ended."""
        for aside in self._asides:
            aside.keep(run)

    def close(self, seconds: float = _LAST) -> tuple[str, ...]:
        """Wait for what has not been mirrored yet, so many seconds at most.

        Returns:
            A sentence for each mirror that lacks something, which has also been the message of a `MirrorWarning`.
        """
        for aside in self._asides:
            aside.close(seconds)
        return tuple(aside.lacks for aside in self._asides if aside.lacks)


class _Aside:
    """A mirror in a thread of its own; if it fails there is a warning, once, which is in `lacks`."""

    def __init__(self, name: str, mirror: Mirror) -> None:
        self._name, self._mirror = name, mirror
        self._waiting: queue.SimpleQueue[Points | Run | None] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self.lacks = ""
        self._thread = threading.Thread(target=self._work, name=HELD_UP + name, daemon=True)
        self._thread.start()

    def hear(self, points: Sequence[Points]) -> None:
        self._check()
        if self._failed is None and self._waiting.qsize() < _BEHIND:
            for some in points:
                self._waiting.put(some)

    def keep(self, run: Run) -> None:
        self._check()
        if self._failed is None:
            self._waiting.put(run)

    def close(self, seconds: float) -> None:
        self._waiting.put(None)
        self._thread.join(None if math.isinf(seconds) else seconds)
        self._check()
        if self._thread.is_alive():
            self._warn("is too slow, and the race does not wait for it; thalweg export --mirror writes what it lacks")

    def _check(self) -> None:
        if self._failed is not None:
            self._warn(
                f"has failed ({_why(self._failed)}); the race goes on without it, and thalweg export --mirror writes "
                "what it lacks"
            )

    def _warn(self, what: str) -> None:
        if self.lacks:
            return
        self.lacks = f"the mirror {self._name} {what}"
        try:
            warnings.warn(self.lacks, MirrorWarning, stacklevel=5)
        except MirrorWarning as told:  # where warnings are errors it is shown, too, and the race goes on
            warnings.showwarning(told, MirrorWarning, __file__, 0)

    def _work(self) -> None:
        try:
            while (what := self._waiting.get()) is not None:
                if isinstance(what, Points):
                    self._mirror.points(what)
                else:
                    self._mirror.ended(what)
            self._mirror.close()
        except Exception as error:
            self._failed = error


@contextmanager
def opened(texts: Iterable[str], plan: Plan, race: str, folder: Path) -> Generator[Mirrors]:
    """Mirrors of a race by their texts, ``KIND`` or ``KIND:WHERE``; at the end what is left is written.

    Args:
        texts: ``tensorboard:DIR``, ``mlflow:URI`` or ``wandb:PROJECT``.
        plan: the race.
        race: its name.
        folder: where to write by default.

    Raises:
        MirrorError: one is not known, not installed, or cannot be opened.
    """
    made = Mirrors([(text.partition(":")[0], _open(text, plan, race, folder)) for text in texts])
    try:
        yield made
    except BaseException:
        made.close(2.0)
        raise
    made.close()


def _open(text: str, plan: Plan, race: str, folder: Path) -> Mirror:
    kind, _, where = text.partition(":")
    if kind not in KINDS:
        raise MirrorError(f"there is no mirror {kind!r}; there are {', '.join(KINDS)}, as in tensorboard:DIR")
    if importlib.util.find_spec(kind) is None:
        raise MirrorError(
            f"the mirror {kind} needs {KINDS[kind]}, which is not installed; pip install 'thalweg[{kind}]'"
        )
    try:
        module = importlib.import_module(f"thalweg.mirrors.to_{kind}")
        return cast(Any, module).open_(where, plan, race, folder)
    except Exception as error:
        raise MirrorError(f"the mirror {masked(text)} cannot be opened ({_why(error)})") from error


def _why(error: Exception) -> str:
    """An error as part of a sentence, without the passwords of addresses in it."""
    return masked(" ".join(str(error).split()))[:300] or type(error).__name__


class Sent:
    """What a mirror has noted of each run that is under way."""

    def __init__(self) -> None:
        self._points: dict[str, int] = {}

    def new(self, key: str, first: int, curve: Curve) -> list[tuple[int, float, dict[str, float]]]:
        """Of points of which the first is the run's point number `first`, those that are new: step, seconds, values."""
        known = self._points.get(key, 0)  # a run that was begun again has the same points again
        if first > known:  # some are missing, which come when the run has ended
            return []
        self._points[key] = max(known, first + len(curve.step))
        found: list[tuple[int, float, dict[str, float]]] = []
        for i in range(known - first, len(curve.step)):
            values = {name: getattr(curve, name)[i] for name in COLUMNS}
            known_values = {name: x for name, x in values.items() if math.isfinite(x)}
            found.append((curve.step[i], curve.seconds[i], known_values))
        return found

    def forget(self, key: str) -> None:
        """Forget a run that has ended."""
        self._points.pop(key, None)


def label(run: Points | Run) -> str:
    """A name for a run that is safe as a file name: the entry, what it is, and a part of its key."""
    what = f"trial-{run.trial}" if run.phase == "tune" else f"replicate-{run.seed}-of-{run.trial}"
    return f"{race_name(run.entry)}/{what}-{run.key[:6]}"


def results_of(run: Run) -> dict[str, float]:
    """The results of a run that has ended, as far as there are any, by the names that the records have."""
    names = ("best_step", "validation_metric", "validation_loss", "test_metric", "test_loss", "seconds")
    found = {f"best_{n}" if n.startswith("validation") else n: float(getattr(run, n)) for n in names}
    return {name: x for name, x in found.items() if math.isfinite(x)}


def about(run: Points | Run) -> dict[str, Any]:
    """What a run is, as plain values."""
    return {"entry": run.entry, "phase": run.phase, "trial": run.trial, "seed": run.seed, **run.settings}
