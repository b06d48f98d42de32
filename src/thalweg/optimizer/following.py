"""Hyperparameters of a group that follow schedules."""

import copy
from collections.abc import Mapping
from typing import Any

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
    known = [*rule.numbers, "weight_decay"]
    group.setdefault("steps", 0)
    group["schedule"] = copy.deepcopy(dict(schedules))  # a data-driven one remembers: each group has its own
    for name, schedule in group["schedule"].items():
        if name not in known:
            raise ValueError(f"there is a schedule of {name!r}, which {rule} does not have; it has {', '.join(known)}")
        base = group.setdefault(f"initial_{name}", group[name])
        for t in (group["steps"], schedule.length or 0):
            value = check(f"the scheduled {name} at step {t}", schedule.value(base, int(t)), _range(rule, name))
            group[name] = value if t == group["steps"] else group[name]


def scheduled(group: Mapping[str, Any], ahead: int) -> dict[str, float]:
    """The scheduled hyperparameters of a group, so many steps ahead."""
    if "schedule" not in group:
        return {}
    t = group["steps"] + ahead
    return {name: s.value(group[f"initial_{name}"], t) for name, s in group["schedule"].items()}


def _range(rule: Rule, name: str) -> Any:
    return Rate if name == "weight_decay" else annotations(type(rule))[name]
