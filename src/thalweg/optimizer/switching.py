"""A parameter group that goes from one rule to another; see `thalweg.Switch`."""

import copy
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from thalweg import stages
from thalweg.kernels import Work, eager
from thalweg.optimizer.following import follow
from thalweg.rule import Rule, from_settings, parse_call
from thalweg.schedules import Schedule
from thalweg.stages import Stages
from thalweg.switch import Switch

State = MutableMapping[Tensor, dict[str, Any]]


@dataclass
class Course:
    """Where a group is on its way.

    Attributes:
        switch: the two rules, and when.
        schedules: of the hyperparameters of both.
        switched: whether it is the second rule that steps.
        average: λ of SWATS, the average of the rates that the first rule's steps amount to.
        rate: Λ, once it is found.
    """

    switch: Switch
    schedules: Mapping[str, Schedule] = field(default_factory=dict[str, Schedule])
    switched: bool = False
    average: float = 0.0
    rate: float | None = None

    @property
    def phase(self) -> Rule:
        """The rule in force, as it was given."""
        return self.switch.then if self.switched else self.switch.first

    def followed(self) -> dict[str, Schedule]:
        """The schedules of what the rule in force has."""
        return {name: s for name, s in self.schedules.items() if name in (*self.phase.numbers, "weight_decay")}

    def saved(self) -> dict[str, Any]:
        """As texts and numbers."""
        return {"rule": str(self.switch), "switched": self.switched, "average": self.average, "rate": self.rate}


def pending(group: Mapping[str, Any]) -> bool:
    """Whether a group will switch."""
    course = group.get("switch")
    return isinstance(course, Course) and not course.switched


def begin(group: dict[str, Any], switch: Switch, schedules: Mapping[str, Schedule]) -> tuple[Rule, dict[str, Schedule]]:
    """Set a group on its way; gives the first rule, and the schedules of what it has.

    Raises:
        ValueError: it is not known when to switch, a setting or a schedule is of neither rule or of an unknown one.
    """
    if not switch.resolved:
        raise ValueError(f"{switch} switches at a fraction of a total; say which with .resolve(total)")
    numbers = {*switch.first.numbers, *switch.then.numbers}
    if own := sorted((numbers | switch.first.options.keys() | switch.then.options.keys()) & group.keys()):
        raise ValueError(f"a group has {own[0]} beside {switch}; write it in the rule that it is of")
    if foreign := sorted(schedules.keys() - numbers - {"weight_decay"}):
        known = ", ".join([*sorted(numbers), "weight_decay"])
        raise ValueError(f"there is a schedule of {foreign[0]!r}, which no rule of {switch} has; they have {known}")
    if switch.at == "auto" and "lr" in schedules and schedules["lr"].absolute:
        raise ValueError(f"{schedules['lr']} gives the rate that {switch} finds; use one that gives a factor of it")
    course = group["switch"] = Course(switch, dict(schedules))
    group.setdefault("steps", 0)
    # What is wrong with the second rule's schedules is said now, not when its time has come.
    second = Course(switch, course.schedules, switched=True)
    weight_decay = group.get("weight_decay", 0.0)
    follow({"rule": switch.then, **switch.then.numbers, "weight_decay": weight_decay}, second.followed())
    return switch.first, course.followed()


@torch.no_grad()
def watch(works: Sequence[Work], groups: Sequence[Mapping[str, Any]], state: State) -> None:
    """Before a step: what rate the coming steps of groups that find theirs amount to.  SWATS, Algorithm 1."""
    for work, group in zip(works, groups, strict=True):
        if pending(group) and group["switch"].switch.at == "auto":
            _watch(work, group["switch"], group["steps"] + 1, state)


def _watch(work: Work, course: Course, k: int, state: State) -> None:
    pp = pg = 0.0
    for p in dict.fromkeys(work.params):
        if p.grad is not None:
            step, g = (x.double().flatten() for x in _step(work, p, state[p]))
            pp += float(step @ step)
            pg += float(step @ g)
    if pg == 0:
        return
    beta2 = work.numbers["beta2"]
    rate = pp / -pg
    course.average = beta2 * course.average + (1 - beta2) * rate
    mean = course.average / (1 - beta2**k)
    # The paper leaves a rate below zero unsaid, on which nothing could go on.
    if k > 1 and abs(mean - rate) < course.switch.tolerance and mean > 0:
        course.rate = mean


def _step(work: Work, p: Tensor, held: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The step that a rule will take, the parameter's decay left out, and the gradient that it is given."""
    if not work.kept <= held.keys():
        eager.start(work, p, held)
    assert p.grad is not None
    dtype = eager.arithmetic(p.dtype)
    at = eager.real(p.to(dtype))
    g = stages.given(work.form, at, eager.real(p.grad.to_dense().to(dtype)), work.scalars)
    rule = work.template.bind(work.numbers)
    # From zero: a difference of two points would have lost the step's digits.
    step, _ = rule.update(torch.zeros_like(at), g, eager.read(rule, held), int(held["step"]) + 1)
    return step, g


def advance(works: Sequence[Work], groups: Sequence[dict[str, Any]], state: State) -> bool:
    """After a step: count it, and switch where it is time; whether any group switched."""
    switched = False
    for work, group in zip(works, groups, strict=True):
        if not pending(group):
            continue
        if "schedule" not in group:  # which counts steps itself
            group["steps"] += 1
        course: Course = group["switch"]
        if course.rate is not None or group["steps"] == course.switch.at:
            _switch(work, group, course, state)
            switched = True
    return switched


@torch.no_grad()
def _switch(work: Work, group: dict[str, Any], course: Course, state: State) -> None:
    old: Rule = group["rule"]
    before = old.bind(group.pop("interim", None) or {name: group[name] for name in old.numbers})
    running: dict[str, Schedule] = group.pop("schedule", {})
    course.switched = True
    rule = course.phase if course.rate is None else course.phase.replace(lr=course.rate)
    rate = rule.lr
    if course.rate is not None and "lr" in running:
        rate /= running["lr"](group["steps"] - 1)  # Λ is what the steps so far amounted to, schedule and all
    for name in old.numbers:
        del group[name]
        group.pop(f"initial_{name}", None)
    group.update(rule.numbers, rule=rule)
    if "base_lr" in group:
        group["base_lr"] = rate
    if "lr" in course.schedules:
        group["initial_lr"] = rate
    follow(group, {name: running.get(name, schedule) for name, schedule in course.followed().items()})
    for p in group["params"]:
        _begin_anew(Work(rule, Stages(ema=work.form.ema), [p], work.state_dtype), before, p, state)


def _begin_anew(work: Work, before: Rule, p: Tensor, state: State) -> None:
    """Forget the state of a parameter but for the average of its weights, and leave no interim point in it."""
    held = state.pop(p, {})
    if not held:
        return
    ahead = before.interim(eager.read(before, held))
    if ahead is not None:
        p.sub_(torch.view_as_complex(ahead) if p.is_complex() else ahead)
    if "ema" in held:
        work.numbers = work.template.numbers
        state[p] = {"ema": held["ema"]}
        eager.start(work, p, state[p])


def fitting(i: int, group: Mapping[str, Any], saved: Mapping[str, Any]) -> Rule:
    """The rule that must have stepped a saved group; ``ValueError`` if it is on the way of another switch."""
    own, other = group.get("switch"), saved.get("switch")
    if own is None and other is None:
        return group["rule"]
    if own is None or other is None or not _alike(own.switch, Switch.parse(other["rule"])):
        theirs, ours = (other["rule"] if other else saved.get("rule")), (own.switch if own else group["rule"])
        raise ValueError(f"group {i} of the state was stepped by {theirs}, this optimizer's rule is {ours}")
    return own.switch.then if other["switched"] else own.switch.first


def _alike(a: Switch, b: Switch) -> bool:
    pairs = ((a.first, b.first), (a.then, b.then))
    return all(type(x) is type(y) and x.options == y.options for x, y in pairs)


def restored(own: Course, saved: Mapping[str, Any], rule: str) -> tuple[Course, Rule, dict[str, Schedule]]:
    """Where a saved group was: the course, the rule as it was, and fresh copies of the schedules of what it has."""
    course = Course(Switch.parse(saved["rule"]), own.schedules, *(saved[n] for n in ("switched", "average", "rate")))
    return course, from_settings(type(course.phase), parse_call(rule)[1]), copy.deepcopy(course.followed())
