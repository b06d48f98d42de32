"""What is seen of a training from its optimizer's steps: their time, the gradients, the losses, and the weights."""

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from thalweg.optimizer import Optimizer
from thalweg.problems.fingerprint import content
from thalweg.race.recording import Ended

_LONGER = 20
"""How many times as long a training that is looked at goes on, if there are not two reports before."""


class Enough(Ended):
    """All that was to be seen has been seen."""


@dataclass
class Inspection:
    """What was seen of one run.

    Attributes:
        most: the number of steps of the optimizer after which the run ends; None for no limit.
        steps: the number of steps that were seen.
        seconds: of training, of each step but the first two, in which kernels are compiled.
        stepping: of those, the seconds in the optimizer.
        evaluating: the seconds of each evaluation, from the last step before a report to its end.
        reports: the step and the value of each report.
        missing, infinite: in how many steps the gradient of a parameter was missing or not finite, by name.
        first, last: a hash of all parameters, before and after.
        losses: what ``backward`` was called on, by step.
        rates: the learning rate of each step.
    """

    most: int | None = None
    steps: int = 0
    seconds: list[float] = field(default_factory=list[float])
    stepping: list[float] = field(default_factory=list[float])
    evaluating: list[float] = field(default_factory=list[float])
    reports: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])
    missing: dict[str, int] = field(default_factory=dict[str, int])
    infinite: dict[str, int] = field(default_factory=dict[str, int])
    first: str = ""
    last: str = ""
    losses: dict[int, list[float]] = field(default_factory=dict[int, list[float]])
    rates: list[float] = field(default_factory=list[float])

    def watch(self, made: Optimizer, params: Any) -> "Watch":
        """Look at every step of an optimizer; `params` is what it was made for."""
        return Watch(self, made, params)


@dataclass
class Trial:
    """A run in which a race finds out what it must know of a training.

    Attributes:
        most: the number of steps after which a loop ends that the run knows of; None for all that it asks for.
        steps: the number of steps that the training asks for; 0 if it does not say.
        batch_size: of its first loader; 1 if it makes none.
        metric: the name of the metric that decides; empty if nothing was reported.
        higher_is_better: which way the metric is better.
        even: whether each of these steps is one of the optimizer.
        seen: what was seen of it, if it is looked at, too; then loops go on until there are two reports.
    """

    most: int | None = None
    steps: int = 0
    batch_size: int = 1
    metric: str = ""
    higher_is_better: bool = True
    even: bool = True
    seen: Inspection | None = None

    @property
    def length(self) -> int:
        """The number of steps of a loop."""
        return self.steps if self.most is None else self.most

    def over(self, taken: int) -> bool:
        """Whether a loop is to end after so many steps."""
        if not self.steps or taken < self.length:
            return False
        return self.seen is None or self.most is None or len(self.seen.reports) > 1 or taken >= _LONGER * self.most


class Watch:
    """Looks at the steps of an optimizer."""

    def __init__(self, seen: Inspection, made: Optimizer, params: Any) -> None:
        self.seen, self.named = seen, _named(made, params)
        seen.first = _hash(self.named)
        self.began = self.ended = time.perf_counter()
        self._inside = False
        made.register_step_pre_hook(self._before)
        made.register_step_post_hook(self._after)

    def reported(self, step: int, value: float) -> None:
        """Note a report: the time since the last step is that of an evaluation."""
        now = time.perf_counter()
        self.seen.evaluating.append(now - self.ended)
        self.seen.reports.append((step, value))
        self.ended = now

    def close(self) -> None:
        """Note the last weights."""
        self.seen.last = _hash(self.named)

    def _before(self, made: Optimizer, args: Any, kwargs: Any) -> None:
        now, seen = time.perf_counter(), self.seen
        if seen.steps > 1:
            seen.seconds.append(now - self.ended)
        seen.rates.append(float(made.param_groups[0]["lr"]))
        self._inside = (args[0] if args else kwargs.get("closure")) is not None  # where the gradients are computed
        if not self._inside:
            self._look()
        self.began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        ended, seen = time.perf_counter(), self.seen
        if seen.steps > 1:
            seen.stepping.append(ended - self.began)
            seen.seconds[-1] += seen.stepping[-1]
        seen.steps += 1
        if self._inside:
            self._look()
        self.ended = time.perf_counter()
        if seen.most is not None and seen.steps >= seen.most:
            raise Enough

    def _look(self) -> None:
        """Count the gradients that are missing or not finite."""
        for name, p in self.named.items():
            if p.grad is None:
                self.seen.missing[name] = self.seen.missing.get(name, 0) + 1
            elif not bool(torch.isfinite(p.grad).all()):
                self.seen.infinite[name] = self.seen.infinite.get(name, 0) + 1


@contextmanager
def losses(seen: Inspection) -> Generator[None]:
    """Within this context note what ``backward`` is called on, which is the loss, or parts of it."""
    plain = cast(Any, torch.Tensor).backward

    def backward(self: Tensor, *args: Any, **kwargs: Any) -> None:
        if self.numel() == 1:
            seen.losses.setdefault(seen.steps, []).append(float(self.detach()))
        plain(self, *args, **kwargs)

    cast(Any, torch.Tensor).backward = backward
    try:
        yield
    finally:
        cast(Any, torch.Tensor).backward = plain


def _named(made: Optimizer, params: Any) -> dict[str, Tensor]:
    """The parameters of an optimizer, by their names in the model or in the groups, or by their numbers."""
    names: dict[int, str] = {}
    if isinstance(params, nn.Module):
        names = {id(p): name for name, p in params.named_parameters()}
    found: dict[str, Tensor] = {}
    for group in made.param_groups:
        own = group.get("param_names") or [None] * len(group["params"])
        for p, name in zip(group["params"], own, strict=True):
            found[names.get(id(p)) or name or f"parameter {len(found)} of shape {tuple(p.shape)}"] = p
    return found


def _hash(named: dict[str, Tensor]) -> str:
    return " ".join(content(p) for p in named.values())
