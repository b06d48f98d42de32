"""The settings of an optimizer around its rule, and those of a parameter group."""

from collections.abc import Mapping
from typing import Any, Literal, cast

from torch import Tensor

from thalweg.hyperparameters import check
from thalweg.kernels import Work
from thalweg.optimizer import checkpoint
from thalweg.optimizer.course import KEY, Course
from thalweg.optimizer.decay import form_of
from thalweg.optimizer.following import follow
from thalweg.rule import Decay, Positive, Rate, Rule
from thalweg.schedules import Schedule
from thalweg.stages import DecayForm

Nonfinite = Literal["propagate", "skip", "raise"]

RANGES: dict[str, Any] = {
    "weight_decay": Rate,
    "decay_form": DecayForm,
    "clip_norm": cast(Any, Positive) | None,
    "clip_eps": Rate,
    "clip_in": Literal["float64", "float32"],
    "clip_each": cast(Any, Positive) | None,
    "clip_value": cast(Any, Positive) | None,
    "ema": cast(Any, Decay) | None,
    "nonfinite": Nonfinite,
    "maximize": bool,
}
"""The allowed values of `Optimizer`'s arguments around a rule; see `thalweg.hyperparameters.check`."""


def settle(
    group: dict[str, Any], rule: Rule, schedules: Mapping[str, Schedule], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Complete a new group: its rule with the group's own hyperparameters, decay, and schedules from their start.

    Args:
        group: what was given for it; changed in place.
        rule: its rule, before its own hyperparameters.
        schedules: its schedules, by the name of what they set.
        defaults: the optimizer's, for what the group has not.

    Returns:
        The group.

    Raises:
        ValueError: a setting is out of its range, or is none of the rule's.
    """
    settings = {**rule.numbers, **rule.options}
    rule = rule.replace(**{name: group.pop(name) for name in settings if name in group})
    if "split" in group:
        raise ValueError(
            f"a group has split={group['split']!r}, and {type(rule).__name__} splits no matrices; give these "
            "parameters a rule with a setting split, or leave it out"
        )
    group.update(rule.numbers)
    for name in ("weight_decay", "maximize"):
        group[name] = check(name, group.get(name, defaults[name]), RANGES[name])
    group["decay_form"] = form_of(group, defaults["decay_form"], rule, schedules)
    group["rule"] = rule
    course: Course = group.setdefault(KEY, Course())
    if group["decay_form"] == "independent":
        course.base_lr = check("base_lr", group.pop("base_lr", group["lr"]), Rate)
    follow(group, schedules)
    return group


def check_parameters(group: Mapping[str, Any]) -> None:
    """Raise ``ValueError``, with its name, for a parameter that the group's rule cannot step."""
    rule: Rule = group["rule"]
    parameters: list[Tensor] = group["params"]
    if not rule.fits and all(dtype.is_floating_point for dtype in {p.dtype for p in parameters}):
        return
    for i, p in enumerate(parameters):
        if not (p.is_floating_point() or p.is_complex()):
            raise ValueError(
                f"can't optimize a tensor of dtype {p.dtype} (parameter {checkpoint.name_of(group, i)}); "
                "only floating-point and complex tensors have gradients"
            )
        try:
            if rule.fits and p.is_complex():
                raise ValueError(f"{type(rule).__name__} does not support complex parameters")
            rule.fit(tuple(p.shape))
        except ValueError as error:
            raise ValueError(f"parameter {checkpoint.name_of(group, i)}: {error}") from None


def immutable(x: Any) -> bool:
    """Whether a setting's value is what it is as long as it is the same object."""
    if type(x) is tuple:
        return all(map(immutable, cast("tuple[Any, ...]", x)))
    return type(x) in (float, int, bool, str, type(None))


def check_rates(works: list[Work]) -> None:
    """Raise ``ValueError`` where groups have different rates and their rule estimates one for all."""
    rates: dict[tuple[str, type[Rule]], set[float]] = {}
    for work in works:
        for asked in work.template.common.items():
            rates.setdefault(asked, set()).add(work.numbers[asked[0]])
    for (name, cls), found in rates.items():
        if len(found - {0.0}) > 1:
            said = ", ".join(f"{rate:g}" for rate in sorted(found - {0.0}))
            raise ValueError(
                f"the groups' rates are {said}; {cls.__name__} estimates one rate for all parameters together, so "
                f"allowed is one value of {name}, or 0 for groups that do not move"
            )
