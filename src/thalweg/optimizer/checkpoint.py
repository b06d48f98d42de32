"""What a saved state must have to fit an optimizer, and how it is taken over."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thalweg.optimizer.switching import fitting
from thalweg.rule import from_settings, parse_call


def name_of(group: Mapping[str, Any], i: int) -> str:
    """The name of a group's parameter, as messages have it."""
    names = group.get("param_names")
    return repr(names[i]) if names else f"{i} of its group"


def check_fits(groups: list[dict[str, Any]], state_dict: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless a state_dict is one of an optimizer with these groups."""
    if not {"state", "param_groups"} <= state_dict.keys():
        raise ValueError(f"this is no state of an optimizer; it has {', '.join(map(str, state_dict)) or 'nothing'}")
    saved = state_dict["param_groups"]
    if len(saved) != len(groups):
        raise ValueError(f"the state has {len(saved)} parameter groups, this optimizer has {len(groups)}")
    for i, (group, old) in enumerate(zip(groups, saved, strict=True)):
        if len(old["params"]) != len(group["params"]):
            have, own = len(old["params"]), len(group["params"])
            raise ValueError(f"group {i} of the state has {have} parameters, this optimizer's has {own}")
        if "rule" not in old:
            raise ValueError(f"group {i} of the state names no rule; it was not saved by a thalweg.Optimizer")
        rule = fitting(i, group, old)
        name, settings = parse_call(old["rule"])
        same = name == type(rule).__name__
        if not same or from_settings(type(rule), settings).options != rule.options:
            raise ValueError(f"group {i} of the state was stepped by {old['rule']}, this optimizer's rule is {rule}")
        for j, (key, p) in enumerate(zip(old["params"], group["params"], strict=True)):
            for field in rule.State._fields:
                value = state_dict["state"].get(key, {}).get(field)
                if isinstance(value, Tensor) and value.ndim and value.shape != p.shape:
                    raise ValueError(
                        f"the state's {field} of parameter {name_of(group, j)} has shape {tuple(value.shape)}, "
                        f"the parameter has {tuple(p.shape)}"
                    )
