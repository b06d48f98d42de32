"""`plateau`: the schedule that depends on observed metrics."""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from thalweg.schedules.base import Schedule
from thalweg.schedules.settings import Natural, Nonnegative, Share


class plateau(Schedule):
    """`factor` once more whenever a metric has not got better for more than `patience` observations.

    torch's ``ReduceLROnPlateau``.  Pass it the metric with `observe` whenever it is measured.  Its state is in its
    `state_dict`, and is not part of its text or of equality.  To combine it with a warm-up, write
    ``warmup(500) * plateau()`` or ``warmup(500).then(plateau())``.

    Args:
        factor: the factor of a reduction, below 1.
        patience: number of observations without improvement to wait before reducing.
        mode: whether the metric is better when it is lower (``min``) or higher (``max``).
        threshold: the share (``rel``) or amount (``abs``) by which the metric must improve to count as better.
        threshold_mode: ``rel`` or ``abs``.
        cooldown: number of observations to ignore after a reduction.
        minimum: the lowest factor of the base value.
        least: the smallest reduction of the factor; smaller ones are skipped.
    """

    factor: Share = 0.1
    patience: Natural = 10
    mode: Literal["min", "max"] = "min"
    threshold: Nonnegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: Natural = 0
    minimum: Nonnegative = 0.0
    least: Nonnegative = 0.0
    _state: ClassVar[dict[str, float]]

    def prepare(self) -> None:
        """Start without observations."""
        if self.factor == 1:
            raise ValueError("plateau's factor is 1.0, which reduces nothing; allowed is >= 0 and < 1")
        best = math.inf if self.mode == "min" else -math.inf
        self._keep("_state", {"number": 1.0, "best": best, "bad": 0, "cooling": 0})

    def evaluate(self, t: float) -> float:
        """The current factor; it does not depend on `t`."""
        return self._state["number"]

    @property
    def data_driven(self) -> bool:
        """Always true."""
        return True

    def observe(self, metric: float, t: int | None = None) -> None:
        """Count one observation, and reduce the factor if there were too many without improvement."""
        s, metric = self._state, float(metric)
        if self._better(metric, s["best"]):
            s["best"], s["bad"] = metric, 0
        else:
            s["bad"] += 1
        if s["cooling"] > 0:
            s["cooling"] -= 1
            s["bad"] = 0
        if s["bad"] > self.patience:
            reduced = max(s["number"] * self.factor, self.minimum)
            if s["number"] - reduced > self.least:
                s["number"] = reduced
            s["cooling"], s["bad"] = self.cooldown, 0

    def state_dict(self) -> dict[str, Any]:
        """The factor, the best metric and the counters."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""
        if set(state) != set(self._state):
            raise ValueError(f"the state has {sorted(state)}, but a plateau has {sorted(self._state)}; load its own")
        self._state.update(state)

    def _better(self, metric: float, best: float) -> bool:
        margin = self.threshold if self.mode == "max" else -self.threshold
        bar = best * (1 + margin) if self.threshold_mode == "rel" else best + margin
        return metric > bar if self.mode == "max" else metric < bar
