"""A schedule as a torch scheduler, for Lightning, transformers and Accelerate."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer


class Followed(Protocol):
    """The part of a schedule that `Scheduler` uses; see `thalweg.schedules.Schedule`."""

    def value(self, base: Any, t: float) -> Any:
        """The rate at `t`, from its `base` value."""
        ...

    def observe(self, metric: float, t: int | None = None) -> None:
        """Pass a metric to a data-driven schedule."""

    def state_dict(self) -> dict[str, Any]:
        """The state of a data-driven schedule."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict`."""


class Scheduler(LRScheduler):
    """Sets the ``lr`` of every group to ``schedule.value(initial_lr, t)`` at its t-th `step`; made by `as_torch`.

    It can be part of a ``SequentialLR``, but not of a ``ChainedScheduler``: the parts of that multiply the current
    rate, and this one overwrites it.  Multiply the schedules instead.  After `load_state_dict` the rate is that of
    the saved step, whether the optimizer or the scheduler was loaded first.
    """

    def __init__(self, optimizer: Optimizer, schedule: Followed, last_epoch: int = -1) -> None:
        self.schedule = schedule
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at the current step."""
        return [self.schedule.value(base, self.last_epoch) for base in self.base_lrs]

    def observe(self, metric: float) -> None:
        """Pass a metric to a data-driven schedule; it takes effect at the next `step`."""
        self.schedule.observe(metric, self.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, so that ``torch.load(…, weights_only=True)`` reads them."""
        state = super().state_dict()
        return {**state, "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore a `state_dict` of the same schedule."""
        state = dict(state_dict)
        self.schedule.load_state_dict(state.pop("schedule"))
        super().load_state_dict(state)
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
