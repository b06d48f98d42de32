"""A schedule as torch's own kind of scheduler, for Lightning, transformers and Accelerate."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer


class Followed(Protocol):
    """What a `Scheduler` asks of a schedule; see `thalweg.schedules.Schedule`."""

    def value(self, base: Any, t: float) -> Any:
        """The rate at `t`, from its `base` value."""
        ...

    def observe(self, metric: float, t: int | None = None) -> None:
        """Tell a data-driven schedule a metric."""

    def state_dict(self) -> dict[str, Any]:
        """What a data-driven schedule remembers."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""


class Scheduler(LRScheduler):
    """Sets the ``lr`` of every group to ``schedule.value(initial_lr, t)`` at its t-th `step`; made by `as_torch`.

    It may be a part of a ``SequentialLR``.  In a ``ChainedScheduler``, whose parts multiply what they find, it would
    overwrite; multiply the schedules instead.  After `load_state_dict` the rate is that of the saved step, whatever
    was loaded first.
    """

    def __init__(self, optimizer: Optimizer, schedule: Followed, last_epoch: int = -1) -> None:
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at the current step."""
        return [self.schedule.value(base, self.last_epoch) for base in self.base_lrs]

    def observe(self, metric: float) -> None:
        """Tell a data-driven schedule a metric; the next `step` acts on it."""
        self.schedule.observe(metric, self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, so that ``torch.load(…, weights_only=True)`` reads them."""
        state = super().state_dict()
        return {**state, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of the same schedule."""
        state = dict(state_dict)
        self.schedule.load_state_dict(state.pop("schedule"))
        super().load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
