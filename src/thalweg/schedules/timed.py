"""Schedules over a budget that is measured while it is used up, such as seconds."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, cast

from thalweg.schedules.base import Schedule, hints
from thalweg.schedules.settings import is_length

_WHOLE = 1_000_000
"""The steps to which a budget is divided."""


class Timed(Schedule, form=False):
    """A schedule as a function of the share of a budget that is used up, whatever the number of steps.

    Args:
        schedule: laid out over the whole budget; see `over`.
        share: returns the share that is used up, from 0 to 1.
    """

    schedule: Schedule
    share: Callable[[], float]

    def prepare(self) -> None:
        """It gives values if `schedule` does."""
        self._keep("_absolute", self.schedule.absolute)

    def evaluate(self, t: float) -> float:
        """The factor at the share that is used up now."""
        return self.schedule.evaluate(self._now())

    def observe(self, metric: float, t: int | None = None) -> None:
        """Pass a metric to the parts that depend on it."""
        self.schedule.observe(metric, int(self._now()))

    def __deepcopy__(self, memo: Any) -> "Timed":
        return Timed(copy.deepcopy(self.schedule, memo), self.share)  # the budget is the same

    def _now(self) -> float:
        return min(self.share(), 1.0) * _WHOLE


def over(schedule: Schedule, share: Callable[[], float]) -> Timed:
    """The schedule with its fractions as fractions of a budget, of which `share` returns how much is used up.

    Raises:
        ValueError: one of its lengths is a number of steps.
    """
    if any(_counted(schedule)):
        raise ValueError(
            f"the schedule {schedule} has lengths in steps, and the budget is in seconds, of which nobody knows how "
            "many steps they are; write fractions, as in warmup(0.1).then(cosine(0.9))"
        )
    return Timed(schedule.resolve(_WHOLE), share)


def _counted(schedule: Schedule) -> Iterator[int]:
    """The lengths that are numbers of steps, other than 0."""
    for name, hint in hints(type(schedule)).items():
        setting: Any = getattr(schedule, name)
        if isinstance(setting, Schedule):
            yield from _counted(setting)
        elif setting is not None and is_length(hint):
            given = cast("tuple[float, ...]", setting if isinstance(setting, tuple) else (setting,))
            yield from (length for length in given if isinstance(length, int) and length)
