"""Switches a parameter group from one rule to another; see `thalweg.Switch`."""

import copy
import dataclasses
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg import stages
from thalweg.kernels import Work, eager
from thalweg.optimizer import points
from thalweg.optimizer.course import KEY, Course, Transition, of
from thalweg.optimizer.following import follow
from thalweg.parsing import parse_nested
from thalweg.rule import Rule
from thalweg.schedules import Schedule
from thalweg.stages import Stages
from thalweg.switch import Switch
from thalweg.wrapping import read_like

State = MutableMapping[Tensor, dict[str, Any]]


def pending(group: Mapping[str, Any]) -> bool:
    """Whether a group will switch."""
    transition = of(group).transition
    return transition is not None and not transition.switched


def begin(group: dict[str, Any], switch: Switch, schedules: Mapping[str, Schedule]) -> tuple[Rule, dict[str, Schedule]]:
    """Prepare a group's switch; returns the first rule and the schedules of its hyperparameters.

    Raises:
        ValueError: the time of the switch is not known, or a setting or schedule belongs to neither rule.
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
    transition = Transition(switch, dict(schedules))
    group[KEY] = Course(transition=transition)
    # Errors in the second rule's schedules are reported now, not at the switch.
    second = {**switch.then.numbers, "weight_decay": group.get("weight_decay", 0.0)}
    follow({"rule": switch.then, KEY: Course(), **second}, Transition(switch, schedules, switched=True).followed())
    return switch.first, transition.followed()


@torch.no_grad()
def watch(works: Sequence[Work], groups: Sequence[Mapping[str, Any]], state: State) -> None:
    """Before a step: estimate the rate equivalent to the next step, for groups that need it.  SWATS, Algorithm 1."""
    for work, group in zip(works, groups, strict=True):
        course = of(group)
        if course.transition and not course.transition.switched and course.transition.switch.at == "auto":
            _watch(work, course.transition, course.steps + 1, state)


def _watch(work: Work, transition: Transition, k: int, state: State) -> None:
    pp = pg = 0.0
    for p in dict.fromkeys(work.params):
        if p.grad is not None:
            step, g = (x.double().flatten() for x in _step(work, p, state[p]))
            pp += float(step @ step)
            pg += float(step @ g)
    if pg == 0:
        return
    rate = pp / -pg
    transition.average, mean = transition.switch.averaged(work.numbers, transition.average, rate, k)
    # The paper does not say what to do about a negative rate, which would be useless.
    if k > 1 and abs(mean - rate) < transition.switch.tolerance and mean > 0:
        transition.rate = mean


def _step(work: Work, p: Tensor, held: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The step that a rule will take, without weight decay of the parameter, and the gradient passed to it."""
    if not work.kept(p) <= held.keys():
        eager.start(work, p, held)
    assert p.grad is not None
    dtype = eager.arithmetic(p.dtype)
    at = eager.real(p.to(dtype))
    g = stages.given(work.form, at, eager.real(p.grad.to_dense().to(dtype)), work.scalars)
    rule = work.fitted(p).bind(work.numbers)
    # Starting from zero, since a difference of two points would lose digits.
    step, _ = rule.update(torch.zeros_like(at), g, eager.read(rule, held, p), int(held["step"]) + 1)
    return step, g


def advance(works: Sequence[Work], groups: Sequence[dict[str, Any]], state: State) -> bool:
    """After a step: count it, and switch groups whose time has come; returns whether any group switched."""
    switched = False
    for work, group in zip(works, groups, strict=True):
        course = of(group)
        transition = course.transition
        if transition is None or transition.switched:
            continue
        if not course.schedules:  # which count steps themselves
            course.steps += 1
        if transition.rate is not None or course.steps == transition.switch.at:
            _switch(work, group, course, transition, state)
            switched = True
    return switched


def hurry(groups: Sequence[Mapping[str, Any]]) -> None:
    """Switch after the next step, whenever a group's switch was to come."""
    for group in groups:
        course = of(group)
        if course.transition is not None and not course.transition.switched:
            transition = course.transition
            transition.switch = dataclasses.replace(transition.switch, at=course.steps + 1)


@torch.no_grad()
def _switch(work: Work, group: dict[str, Any], course: Course, transition: Transition, state: State) -> None:
    old: Rule = group["rule"]
    before = old.bind(points.made_with(group, {name: group[name] for name in old.numbers}))
    running, course.schedules, course.given, course.ahead = course.schedules, {}, {}, None
    transition.switched = True
    rule = transition.phase if transition.rate is None else transition.phase.replace(lr=transition.rate)
    rate = rule.lr
    if transition.rate is not None and "lr" in running:
        rate /= running["lr"](course.steps - 1)  # Λ includes the effect of the schedule so far
    for name in old.numbers:
        del group[name]
        course.initial.pop(name, None)
    group.update(rule.numbers, rule=rule)
    if course.base_lr is not None:
        course.base_lr = rate
    if "lr" in transition.schedules:
        course.initial["lr"] = rate
    follow(group, {name: running.get(name, schedule) for name, schedule in transition.followed().items()})
    for p in group["params"]:
        new = Work(rule, Stages(ema=work.form.ema), [p], state_dtype=work.state_dtype, number_dtype=work.number_dtype)
        _begin_anew(new, before, p, state)


def _begin_anew(work: Work, before: Rule, p: Tensor, state: State) -> None:
    """Drop the state of a parameter except the average of its weights, and leave its lookahead point."""
    held = state.pop(p, {})
    if not held:
        return
    points.leave(p, held, before)
    if "ema" in held:
        work.numbers = work.template.numbers
        state[p] = {"ema": held["ema"]}
        eager.start(work, p, state[p])


def fitting(i: int, group: Mapping[str, Any], saved: Mapping[str, Any]) -> Rule:
    """The rule that must have stepped a saved group; ``ValueError`` if it is on the way of another switch."""
    own, other = of(group).transition, saved[KEY]["transition"]
    if own is None and other is None:
        return group["rule"]
    if own is None or other is None or not _alike(own.switch, Switch.parse(other["rule"])):
        theirs, ours = (other["rule"] if other else saved.get("rule")), (own.switch if own else group["rule"])
        raise ValueError(f"group {i} of the state was stepped by {theirs}, this optimizer's rule is {ours}")
    return own.switch.then if other["switched"] else own.switch.first


def _alike(a: Switch, b: Switch) -> bool:
    pairs = ((a.first, b.first), (a.then, b.then))
    return all(type(x) is type(y) and x.options == y.options for x, y in pairs)


def restore(group: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Set a group that was just loaded on the way that it had `before`, to where the saved one was."""
    saved: Mapping[str, Any] = group[KEY]
    own = of(before)
    transition, rule, schedules = own.transition, before["rule"], own.schedules
    if transition is not None:
        there = saved["transition"]
        kept = {name: there[name] for name in ("switched", "average", "rate")}
        transition = Transition(Switch.parse(there["rule"]), transition.schedules, **kept)
        rule = read_like(parse_nested(group["rule"]), transition.phase)
        assert rule is not None  # `fitting` has compared them
        schedules = copy.deepcopy(transition.followed())
    group["rule"] = rule
    group[KEY] = Course.restored(saved, transition)
    for name, schedule in schedules.items():
        schedule.load_state_dict(saved["schedules"].get(name, {}))
    follow(group, schedules)
