"""Hyperparameters of a group that follow schedules."""

import copy
from collections.abc import Mapping
from typing import Any

from thalweg.optimizer.course import KEY, Course, of
from thalweg.rule import Rate, Rule, annotations, check
from thalweg.schedules import Schedule


def by_name(schedule: Schedule | Mapping[str, Schedule] | None) -> dict[str, Schedule]:
    """Schedules by the hyperparameter; a lone one is the learning rate's."""
    if schedule is None:
        return {}
    return {"lr": schedule} if isinstance(schedule, Schedule) else dict(schedule)


def follow(group: dict[str, Any], schedules: Mapping[str, Schedule]) -> None:
    """Have a group's hyperparameters follow schedules, from where it is.

    Raises:
        ValueError: a schedule is of no hyperparameter, does not know its length, or leaves the range.
    """
    if not schedules:
        return
    rule: Rule = group["rule"]
    course: Course = group[KEY]
    known = [*rule.numbers, "weight_decay"]
    course.schedules = copy.deepcopy(dict(schedules))  # a data-driven one remembers: each group has its own
    for name, schedule in course.schedules.items():
        if name not in known:
            raise ValueError(f"there is a schedule of {name!r}, which {rule} does not have; it has {', '.join(known)}")
        base = course.initial.setdefault(name, group[name])
        for t in (course.steps, schedule.length or 0):
            value = check(f"the scheduled {name} at step {t}", schedule.value(base, int(t)), _range(rule, name))
            group[name] = value if t == course.steps else group[name]
    course.given = {name: group[name] for name in course.schedules}


def upcoming(group: Mapping[str, Any]) -> dict[str, float]:
    """What the schedules of a group give for the step after the coming one.

    Raises:
        ValueError: a hyperparameter that follows a schedule was set by hand.
    """
    course = of(group)
    if not course.schedules:
        return {}
    for name, value in course.given.items():
        if group[name] != value:
            raise ValueError(
                f"a group's {name} was set to {group[name]!r}, but it follows {course.schedules[name]}, which gives "
                f"{value!r} at step {course.steps}; set group['course'].initial[{name!r}], which the schedule "
                "starts from, or leave out the schedule"
            )
    return _at(course, course.steps + 1)


def advance(group: dict[str, Any], values: dict[str, float]) -> None:
    """Count a step that was applied, and take over what the schedules now give."""
    course: Course = group[KEY]
    group.update(values)
    course.given = values
    course.steps += 1


def observe(group: dict[str, Any], metric: float) -> None:
    """Tell the schedules of a group what a validation gave; data-driven ones act on it."""
    course = of(group)
    for schedule in course.schedules.values():
        schedule.observe(metric, course.steps)
    course.given = _at(course, course.steps)
    group.update(course.given)


def _at(course: Course, t: int) -> dict[str, float]:
    return {name: schedule.value(course.initial[name], t) for name, schedule in course.schedules.items()}


def _range(rule: Rule, name: str) -> Any:
    return Rate if name == "weight_decay" else annotations(type(rule))[name]
