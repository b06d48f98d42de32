"""Applies schedules to a group's hyperparameters."""

import copy
from collections.abc import Mapping
from typing import Any

from thalweg.hyperparameters import check
from thalweg.optimizer.course import KEY, Course, of
from thalweg.rule import Rate, Rule
from thalweg.schedules import Schedule


def by_name(schedule: Schedule | Mapping[str, Schedule] | None) -> dict[str, Schedule]:
    """Schedules by hyperparameter; a single one is for the learning rate."""
    if schedule is None:
        return {}
    return {"lr": schedule} if isinstance(schedule, Schedule) else dict(schedule)


def follow(group: dict[str, Any], schedules: Mapping[str, Schedule]) -> None:
    """Let a group's hyperparameters follow schedules from its current step on.

    Raises:
        ValueError: a schedule's hyperparameter does not exist, its length is not known, or its values leave the range.
    """
    if not schedules:
        return
    rule: Rule = group["rule"]
    course: Course = group[KEY]
    known = [*rule.numbers, "weight_decay"]
    course.schedules = copy.deepcopy(dict(schedules))  # data-driven schedules have state, so each group has its own
    for name, schedule in course.schedules.items():
        if name not in known:
            raise ValueError(f"there is a schedule of {name!r}, which {rule} does not have; it has {', '.join(known)}")
        base = course.initial.setdefault(name, group[name])
        for t in (course.steps, schedule.length or 0):
            value = check(f"the scheduled {name} at step {t}", schedule.value(base, int(t)), _range(rule, name))
            group[name] = value if t == course.steps else group[name]
    course.given = {name: group[name] for name in course.schedules}


def upcoming(group: Mapping[str, Any]) -> dict[str, float]:
    """The values of a group's schedules for the step after the next.

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
    """Count a step that was applied, and set the schedules' new values."""
    course: Course = group[KEY]
    group.update(values)
    course.given = values
    course.steps += 1


def observe(group: dict[str, Any], metric: float) -> None:
    """Pass a metric to the schedules of a group; only data-driven ones use it."""
    course = of(group)
    for schedule in course.schedules.values():
        schedule.observe(metric, course.steps)
    course.given = _at(course, course.steps)
    group.update(course.given)


def _at(course: Course, t: int) -> dict[str, float]:
    return {name: schedule.value(course.initial[name], t) for name, schedule in course.schedules.items()}


def _range(rule: Rule, name: str) -> Any:
    return Rate if name == "weight_decay" else rule.annotation(name)
