"""The optimizer of a run and what is done around it: the time, the rates, and the weights to evaluate."""

import copy
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from thalweg import schedules
from thalweg.groups import hidden_matrices
from thalweg.optimizer import Optimizer, switching
from thalweg.race import stopwatch
from thalweg.race.entry import DEFAULTS, Entry
from thalweg.race.plan import Task
from thalweg.rule import Rule
from thalweg.schedules import Schedule, timed
from thalweg.store import Plan
from thalweg.switch import Switch

_NEVER = 2**40
"""The step of a switch whose time is not known yet."""


class Clock:
    """Seconds of training; it stands still while a run is evaluated.

    Attributes:
        seconds: the seconds that are counted.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._since: float | None = None

    @property
    def spent(self) -> float:
        """The seconds so far."""
        return self.seconds + (0.0 if self._since is None else stopwatch.seconds() - self._since)

    def start(self) -> None:
        """Go on."""
        self._since = stopwatch.seconds()

    def lap(self) -> None:
        """Count the time since the last `start` or `lap`."""
        if self._since is not None:
            now = stopwatch.seconds()
            self.seconds, self._since = self.seconds + now - self._since, now

    def stop(self) -> None:
        """Stand still; the time since the last `lap` does not count, in which the run was evaluated."""
        self._since = None


def groups(params: Any, lr: float | None, rule: Rule | Switch, options: dict[str, Any]) -> list[dict[str, Any]]:
    """A training's own parameter groups: their weight decay, and their rates as multiples of `lr`.

    Settings of the rule in a group are those of the optimizer that the training was written for, and left out.
    """
    given = list(params)
    if not given or not isinstance(given[0], Mapping):
        return [{"params": given}]
    foreign = {*rule.numbers, *getattr(rule, "options", {}), "betas", "lr", "weight_decay", "decay_form", "rule"}
    found: list[dict[str, Any]] = []
    for group in cast("list[Mapping[str, Any]]", given):
        own = {name: x for name, x in group.items() if name not in foreign}
        if "lr" in group:
            if lr is None:
                raise ValueError(
                    f"a group's lr is {group['lr']!r}; write run.optimizer(…, lr=…) with the rate that this training "
                    "was written for, and the rates of groups are read as multiples of it"
                )
            own["lr"] = float(group["lr"]) / lr
        if "weight_decay" in group:
            own["weight_decay"] = options.get("weight_decay", group["weight_decay"]) if group["weight_decay"] else 0.0
        found.append(own)
    return found


class Budget:
    """How much of a run's budget is used up, for schedules and switches where it is not known in steps.

    Attributes:
        share: from 0 to 1.
    """

    def __init__(self, plan: Plan, entry: Entry, task: Task) -> None:
        self.steps = plan.entry(entry.name).steps
        self.share = 0.0
        rule, _ = entry.set(task.tuned)
        self.switch_at = rule.at if isinstance(rule, Switch) and isinstance(rule.at, float) and not self.steps else None

    def schedule(self, text: str) -> Schedule:
        """A schedule over the budget, in steps if they are known."""
        given = schedules.parse(text)
        return given.resolve(self.steps) if self.steps else timed.over(given, lambda: self.share)

    def used(self, share: float, optimizers: Sequence[Optimizer]) -> None:
        """Note the share that is used up; optimizers switch in their next step if it is time to."""
        self.share = share
        if self.switch_at is not None and share >= self.switch_at:
            for made in optimizers:
                switching.hurry(made.param_groups)
            self.switch_at = None


def optimizer(
    entry: Entry,
    task: Task,
    params: nn.Module | Iterable[Any],
    budget: Budget,
    lr: float | None = None,
    weight_decay: float | None = None,
) -> Optimizer:
    """The optimizer of a run, for a model or for parameters; see `thalweg.TrainingRun.optimizer`."""
    rule, options = entry.set(task.tuned)
    if isinstance(rule, Switch):
        rule = rule.resolve(budget.steps or _NEVER)
    if "schedule" in options:
        options["schedule"] = budget.schedule(options["schedule"])
    if weight_decay and "weight_decay" not in options:
        options |= {"decay_form": "scaled", **options, "weight_decay": weight_decay}
    others = options.pop("others", None)
    if isinstance(params, nn.Module):
        own = [p for p in params.parameters() if p.requires_grad]
        routed: Any = hidden_matrices(params, rule, others) if others else own
        if not others and isinstance(rule, Rule) and not all(_fits(rule, p) for p in own):
            routed = hidden_matrices(params, rule)
        options.setdefault("decay_form", DEFAULTS["decay_form"])
        return Optimizer(routed, rule, **options)
    found = groups(params, lr, rule, options)
    decays = any("weight_decay" in group for group in found)
    options.setdefault("decay_form", "scaled" if decays else DEFAULTS["decay_form"])
    for group in found:
        if "lr" in group:
            group["lr"] *= rule.numbers["lr"]
    return Optimizer(cast(Any, found), rule, **options)


def _fits(rule: Rule, p: Tensor) -> bool:
    try:
        rule.fit(tuple(p.shape))
    except ValueError:
        return False
    return True


class Rates:
    """The learning rates of an optimizer's groups: as the training reads and sets them, and as they are stepped with.

    With the rate `lr` that a training was written for, its groups show rates in its own terms, and what it sets is
    read as a multiple of `lr`.  Without, a training may multiply the rates that it finds, as torch's schedulers do;
    if it sets others, every run would have the same, whatever its setting.

    An entry's own schedule goes before the training's.
    """

    def __init__(self, made: Optimizer, lr: float | None, *, routed: bool) -> None:
        self.optimizer, self.own = made, lr is not None
        self._given = [float(group["lr"]) for group in made.param_groups]
        self._ratios = [1.0] * len(self._given)
        if lr is not None:
            first = self._given[0] or 1.0
            for i, group in enumerate(made.param_groups):
                # Routed groups have rates of two rules; a training's own are as far from each other as it has them.
                group["lr"] = lr if routed else lr * self._given[i] / first
                self._ratios[i] = self._given[i] / group["lr"]
        self._shown = [float(group["lr"]) for group in made.param_groups]

    def before(self) -> None:
        """Put the rates to step with in place."""
        found = self.optimizer.param_groups
        self._shown = [float(group["lr"]) for group in found]
        for i, group in enumerate(found):
            scheduled = group["course"].given.get("lr")
            if scheduled is not None:
                group["lr"] = scheduled
            elif self.own:
                group["lr"] = group["lr"] * self._ratios[i]
            elif group["lr"] != self._given[i]:
                self._check(group, self._given[i])
        self._stepped = [float(group["lr"]) for group in found]

    def after(self) -> None:
        """Put the rates that the training knows back; after a switch they are multiples of the second rule's."""
        for i, group in enumerate(self.optimizer.param_groups):
            lr, stepped = float(group["lr"]), self._stepped[i]
            if "lr" in group["course"].given:
                continue
            if lr != stepped:
                self._ratios[i] *= lr / stepped if stepped else 1.0
                self._given[i] = lr
            if self.own:
                group["lr"] = self._shown[i]

    def _check(self, group: Mapping[str, Any], given: float) -> None:
        if group.get("initial_lr") != given:
            raise ValueError(
                f"the training sets the learning rate to {group['lr']:g} by itself, and this run's is {given:g}; write "
                "run.optimizer(…, lr=…) with the rate that the training was written for, and what it sets is read as a "
                "multiple of that"
            )


def moves(made: Optimizer) -> bool:
    """Whether an optimizer evaluates at other weights than it trains at."""
    return made.ema is not None or any(group["rule"].looks_ahead for group in made.param_groups)


def follow(model: nn.Module, made: Optimizer) -> None:
    """Switch an optimizer to the weights to evaluate when its model is evaluated, and back when it is trained."""
    if not moves(made):
        return

    def before(module: nn.Module, _: Any) -> None:
        # Layers that are frozen in evaluation mode compute gradients, and checkpointed ones train without.
        if module.training or torch.is_grad_enabled():
            made.train()
        else:
            made.eval()

    for module in model.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_pre_hook(before)


@contextmanager
def evaluating(optimizers: Sequence[Optimizer]) -> Generator[None]:
    """Within this context the parameters are the weights to evaluate."""
    before = [made.training for made in optimizers]
    for made in optimizers:
        made.eval()
    try:
        yield
    finally:
        for made, training in zip(optimizers, before, strict=True):
            if training:
                made.train()


def states(models: Sequence[nn.Module]) -> list[dict[str, Any]]:
    """A copy of what models hold."""
    return [copy.deepcopy(model.state_dict()) for model in models]


@contextmanager
def holding(models: Sequence[nn.Module], held: Sequence[Mapping[str, Any]]) -> Generator[None]:
    """Within this context models hold what `held` says."""
    before = states(models)
    for model, state in zip(models, held, strict=True):
        model.load_state_dict(state)
    try:
        yield
    finally:
        for model, state in zip(models, before, strict=True):
            model.load_state_dict(state)


def infinite(optimizers: Sequence[Optimizer]) -> bool:
    """Whether a parameter is not finite."""
    return any(
        not bool(torch.isfinite(p.detach()).all())
        for made in optimizers
        for group in made.param_groups
        for p in group["params"]
    )
