"""The form of weight decay, with a warning where the default is probably not what is meant."""

import math
import sys
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from thalweg.hyperparameters import check
from thalweg.rule import Rule
from thalweg.schedules import Schedule
from thalweg.stages import DecayForm


def form_of(
    group: Mapping[str, Any], default: DecayForm | None, rule: Rule, schedules: Mapping[str, Schedule]
) -> DecayForm:
    """The form of a group's weight decay: its own, the optimizer's, or ``l2``.

    Raises:
        ValueError: there is no such form.

    Warns:
        UserWarning: there is weight decay without a form, and the rule rescales the gradient that ``l2`` adds it to.
    """
    given = group.get("decay_form") or default
    if given is None:
        if (group["weight_decay"] or "weight_decay" in schedules) and _rescales(rule):
            warnings.warn(
                f"weight_decay is {group['weight_decay']:g} with {rule}, without a decay_form: it is added to the "
                "gradient (decay_form='l2', as in torch.optim.Adam), which the rule then rescales. Write "
                "decay_form='scaled' for the decay of AdamW, or 'l2' if that is what you mean.",
                stacklevel=_outside(),
            )
        return "l2"
    return check("decay_form", given, DecayForm)


@cache
def _rescales(rule: Rule) -> bool:
    """Whether the step is not proportional to the gradient, so that l2 decay does not simply shrink the weights."""
    zero, t = cast(Any, 0.0), 10  # late enough for rules that adapt only after a few steps, such as RAdam
    rule = rule.bind({"lr": 1.0})
    once, twice = (cast(float, rule.update(zero, cast(Any, g), rule.init(zero), t)[0]) for g in (1.0, 2.0))
    return not math.isclose(twice, 2 * once, rel_tol=1e-6)


def _outside() -> int:
    """The number of frames up to the first that is neither ours nor torch's, to which a warning refers."""
    depth, frame = 1, sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("thalweg", "torch"):
        depth, frame = depth + 1, frame.f_back
    return depth
