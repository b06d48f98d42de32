"""Saving the state of an optimizer, checking that a saved state fits, and loading it."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from thalweg.fields import array_fields, leaves, number_fields
from thalweg.kernels import eager
from thalweg.optimizer.course import KEY, of
from thalweg.optimizer.switching import fitting
from thalweg.parsing import parse_nested
from thalweg.rule import Rule
from thalweg.wrapping import read_like

_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing insert into the names of parameters that they wrap."""


def name_of(group: Mapping[str, Any], i: int) -> str:
    """The name of a group's parameter, for messages."""
    names = group.get("param_names")
    return repr(names[i]) if names else f"{i} of its group"


def as_text(groups: list[dict[str, Any]]) -> None:
    """Convert everything in saved groups that is not a tensor or number, such as rules, to text and numbers."""
    for group in groups:
        group["rule"] = str(group["rule"])
        group[KEY] = of(group).saved()


def fitted(groups: list[dict[str, Any]], state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state_dict of an optimizer with these groups, in the order of their parameters.

    Raises:
        ValueError: it is not a state_dict, or its groups, rules, names or shapes differ.
    """
    if not {"state", "param_groups"} <= state_dict.keys():
        raise ValueError(f"this is no state of an optimizer; it has {', '.join(map(str, state_dict)) or 'nothing'}")
    state_dict = by_name(groups, state_dict)
    saved = state_dict["param_groups"]
    if len(saved) != len(groups):
        raise ValueError(f"the state has {len(saved)} parameter groups, this optimizer has {len(groups)}")
    rules: list[Rule] = []
    for i, (group, old) in enumerate(zip(groups, saved, strict=True)):
        if len(old["params"]) != len(group["params"]):
            have, own = len(old["params"]), len(group["params"])
            raise ValueError(f"group {i} of the state has {have} parameters, this optimizer's has {own}")
        if not {"rule", KEY} <= old.keys():
            raise ValueError(f"group {i} of the state names no rule; it was not saved by a thalweg.Optimizer")
        rule = fitting(i, group, old)
        rules.append(rule)
        stepped = read_like(parse_nested(old["rule"]), rule)
        if stepped is None or stepped.options != rule.options:
            raise ValueError(f"group {i} of the state was stepped by {old['rule']}, this optimizer's rule is {rule}")
    check_shapes(groups, rules, state_dict)
    return state_dict


def _names(groups: list[dict[str, Any]]) -> list[str] | None:
    """The names of all parameters in order, if all are known."""
    if any("param_names" not in group for group in groups):
        return None
    return [name for group in groups for name in group["param_names"]]


def by_name(groups: list[dict[str, Any]], state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state_dict with its parameters in the order of these groups, if both have names.

    Raises:
        ValueError: one has a parameter that the other lacks.
    """
    saved = state_dict["param_groups"]
    own, theirs = _names(groups), _names(saved)
    if own is None or theirs is None or own == theirs or len(groups) != len(saved):
        return state_dict
    if set(own) != set(theirs):
        own, theirs = _unwrapped(own), _unwrapped(theirs)
    for names, others, where in ((own, theirs, "this state"), (theirs, own, "this optimizer")):
        missing = [name for name in names if name not in others]
        if missing:
            raise ValueError(f"{where} has no parameter {', '.join(map(repr, missing))}; it has {', '.join(others)}")
    index = dict(zip(theirs, (i for group in saved for i in group["params"]), strict=True))
    names = iter(own)
    moved = [
        {**old, "params": [index[next(names)] for _ in group["params"]], "param_names": group["param_names"]}
        for group, old in zip(groups, saved, strict=True)
    ]
    return {**state_dict, "param_groups": moved}


def _unwrapped(names: list[str]) -> list[str]:
    """The names inside a model's wrappers: compiled, distributed, sharded, checkpointed or averaged."""
    plain = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in names]
    if all(name.startswith("module.") for name in plain):
        plain = [name.removeprefix("module.") for name in plain]
    return plain if len(set(plain)) == len(names) else names


def check_shapes(groups: list[dict[str, Any]], rules: list[Rule], state_dict: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` for a state of another shape than its parameter's state has.

    torch checks the number of groups; entries that are not part of a rule's state belong to the user.
    """
    for group, rule, old in zip(groups, rules, state_dict["param_groups"], strict=False):
        for j, (i, p) in enumerate(zip(old["params"], group["params"], strict=False)):
            for name, value in _values(rule, state_dict["state"].get(i)):
                own = _shape(rule, name, p)
                if value.ndim and value.shape != own:
                    raise ValueError(
                        f"the state's {name} of parameter {name_of(group, j)} has shape {tuple(value.shape)}, "
                        + (f"the parameter has {tuple(p.shape)}" if own == p.shape else f"it should be {tuple(own)}")
                    )


def _shape(rule: Rule, name: str, p: Tensor) -> torch.Size:
    """The shape of what a parameter's state has under a name."""
    if name.partition(".")[0] not in array_fields(rule.State):
        return p.shape
    first = leaves(rule.fit(tuple(p.shape)).init(torch.empty(p.shape, device="meta")))
    return first[name].shape if name in first else torch.Size()


def _values(rule: Rule, held: Any) -> list[tuple[str, Tensor]]:
    """The tensors of a parameter's saved state by name, without the user's own entries."""
    if not isinstance(held, Mapping):
        return []
    known = cast("Mapping[str, Any]", held)
    fields = {*rule.State._fields, "ema"}
    return [(name, x) for name, x in known.items() if name.partition(".")[0] in fields and isinstance(x, Tensor)]


def uncast(
    groups: list[dict[str, Any]],
    rules: list[Rule],
    state: Mapping[Tensor, dict[str, Any]],
    state_dict: Mapping[str, Any],
    state_dtype: torch.dtype | None,
    number_dtype: torch.dtype,
) -> None:
    """Restore the types of a state that torch has loaded: torch casts everything to the parameter's dtype.

    Numbers are kept in `number_dtype`, and the state of 16-bit parameters in float32 or `state_dtype`.  What torch has
    cast is a copy, and stays one; the rest it shares with what was loaded.
    """
    for group, rule, old in zip(groups, rules, state_dict["param_groups"], strict=True):
        numbers, arrays = number_fields(rule.State), array_fields(rule.State)
        for i, p in zip(old["params"], group["params"], strict=True):
            for name, value in _values(rule, state_dict["state"].get(i)):
                kept = number_dtype if name in numbers else eager.arithmetic(p.dtype)
                if name not in numbers and name.partition(".")[0] not in arrays:
                    kept = state_dtype or kept
                if name in state[p] and state[p][name].dtype != kept:
                    state[p][name] = value.to(p.device, kept, copy=True)
