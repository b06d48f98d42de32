"""Checkpoints of other packages, and of other forms of a rule: what is in them is converted by the convention named.

A buffer of one name means different things: torch's Muon averages its momentum and dion's accumulates it, so that the
same numbers are 20 times as large.  Nothing tells them apart but the name of the optimizer that has saved them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from thalweg import trace
from thalweg.conventions.frameworks import TABLE
from thalweg.conventions.meaning import Convention, Framework, Meaning
from thalweg.conventions.translation import nearest_arguments, parse
from thalweg.fields import leaves, number_fields
from thalweg.optimizer import Optimizer, checkpoint
from thalweg.optimizer.course import KEY, Course
from thalweg.rule import Rule
from thalweg.rules import parse as parse_rule

OURS = "thalweg"
"""What names the checkpoints of `thalweg.Optimizer` itself, which say what rule has left them."""


class _Left(NamedTuple):
    """What is saved of a parameter: the rule that has left it with its numbers, its state by our names, its steps."""

    meaning: Meaning
    held: dict[str, Any]
    steps: float | None


def load(optimizer: Optimizer, state_dict: Mapping[str, Any], source: str, steps: int | None = None) -> None:
    """Go on from a checkpoint that another optimizer has left, or the same with another form of its rule.

    The settings of `optimizer` are kept; only the state is taken over, in what it means.  Parameters are matched by
    name, if both sides have names, or else by position, in as many groups as `optimizer` has.

    Args:
        optimizer: steps the parameters by rules of the same classes as those that have left the state.
        state_dict: the checkpoint.
        source: what has left it, as in ``"torch.optim.Muon"`` or ``"dion.Muon"``; ``"thalweg"`` for a
            `thalweg.Optimizer`.
        steps: how many steps it has taken, for packages that do not count them.

    Raises:
        ValueError: `source` is not in the table or has checkpoints of another kind; a rule, name or shape differs; or
            a number of steps is needed and not known.
    """
    state_dict = checkpoint.by_name(optimizer.param_groups, state_dict)
    own = optimizer.state_dict()
    groups, saved = optimizer.param_groups, state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        raise ValueError(
            f"the checkpoint has groups of {', '.join(str(len(g['params'])) for g in saved)} parameters, this "
            f"optimizer of {', '.join(str(len(g['params'])) for g in groups)}"
        )
    state: dict[int, Any] = {}
    for i, (group, old, new) in enumerate(zip(groups, saved, own["param_groups"], strict=True)):
        rule: Rule = optimizer._settings(i, group)["rule"]  # pyright: ignore[reportPrivateUsage]
        for p, before, after in zip(group["params"], old["params"], new["params"], strict=True):
            left = _left(source, old, state_dict["state"].get(before), p.shape, steps)
            if left is not None:
                state[after] = _carried(rule, left, tuple(p.shape))
    optimizer.load_state_dict({**own, "state": state})


def convert(state_dict: Mapping[str, Any], source: str, to: str, steps: int | None = None) -> dict[str, Any]:
    """The checkpoint that another optimizer would have left.

    Args:
        state_dict: a checkpoint, which is not changed.
        source: what has left it, as in ``"torch.optim.Muon"``; ``"thalweg"`` for a `thalweg.Optimizer`.
        to: what is to load it: an optimizer as in ``"dion.Muon"`` or ``"dion.Muon(nesterov=True)"``, a framework that
            has the rule once, or ``"thalweg"``.
        steps: as for `load`.

    Returns:
        A new checkpoint.  Settings that are not given in `to` are those of `state_dict`, as near as `to` has them.

    Raises:
        ValueError: as `load` raises it.
    """
    groups: list[dict[str, Any]] = []
    state: dict[Any, Any] = {}
    for old in state_dict["param_groups"]:
        found = {i: _left(source, old, state_dict["state"].get(i), None, steps) for i in old["params"]}
        meanings = [left.meaning for left in found.values() if left is not None]
        meaning = meanings[0] if meanings else _meant(source, old, None)
        if any(type(other.rule) is not type(meaning.rule) for other in meanings):
            raise ValueError(
                f"a group of the checkpoint is stepped by {meaning.rule} and by another rule; have {source} save it "
                "with a group for each"
            )
        counts = {left.steps for left in found.values() if left is not None and left.steps is not None}
        kept = {name: old[name] for name in ("params", "param_names", "initial_lr") if name in old}
        rule, settings, target = _target(to, meaning, max(counts, default=steps or 0))
        groups.append({**settings, **kept})
        for i, left in found.items():
            if left is not None:
                state[i] = _renamed(_carried(rule, left, _shape(left)), target)
    extra = {"training": True, "skipped_steps": 0} if to == OURS else {}
    return {"state": state, "param_groups": groups, **extra}


def _left(source: str, group: Mapping[str, Any], held: Any, shape: Any, steps: int | None) -> _Left | None:
    """What a checkpoint has of a parameter, or None."""
    if not held:
        return None
    held = dict(held)
    if shape is None:
        shape = max((x.shape for x in held.values() if isinstance(x, Tensor)), key=len)
    meaning = _meant(source, group, shape)
    count = held.pop("step", group.get("step", steps))
    if source != OURS:
        keys = _convention(source, group, shape)[1].keys
        held = {
            ours: held[keys.get(ours, ours)] for ours in _names(meaning.rule, shape) if keys.get(ours, ours) in held
        }
    return _Left(meaning, held, float(count) if count else None)  # of a state, a count of 0 is none


def _meant(source: str, group: Mapping[str, Any], shape: Any) -> Meaning:
    """The rule of a saved group, with its numbers, and what is around it."""
    if source == OURS:
        if "rule" not in group:
            raise ValueError("a group of the checkpoint names no rule; it was not saved by a thalweg.Optimizer")
        rule = parse_rule(group["rule"])
        around = {name: group[name] for name in ("weight_decay", "decay_form", "maximize") if name in group}
        return Meaning(rule.bind({name: float(group[name]) for name in rule.numbers if name in group}), around)
    column, convention, given = _convention(source, group, shape)
    own = {k: x.item() if isinstance(x, Tensor) else x for k, x in group.items() if k in convention.arguments}
    return convention.read(source, {**column.named(given), **own})


def _convention(source: str, group: Mapping[str, Any], shape: Any) -> tuple[Framework, Convention, dict[str, Any]]:
    """The convention of a saved group."""
    column, name, given = parse(source if "(" in source else f"{source}()")
    convention = column.find(name)
    _known(column, name)
    if convention.others is not None and shape is not None:
        p = torch.empty(shape, device="meta")
        convention = convention if convention.chosen(p, group) else convention.others
    return column, convention, given


def _names(rule: Rule, shape: Any) -> list[str]:
    """The names of the state of a parameter."""
    return list(leaves(rule.fit(tuple(shape)).init(cast(Any, torch.empty(shape, device="meta")))))


def _shape(left: _Left) -> tuple[int, ...]:
    return max((tuple(x.shape) for x in left.held.values() if isinstance(x, Tensor)), key=len, default=())


def _carried(rule: Rule, left: _Left, shape: tuple[int, ...]) -> dict[str, Any]:
    """The state that a rule would have left, by our names, with its count of steps."""
    own = rule.fit(shape)
    held = own.carried(left.meaning.rule.fit(shape), left.held)
    if missing := [name for name in _names(rule, shape) if name not in held]:
        raise ValueError(f"the checkpoint has no {', '.join(missing)}, which {rule} needs")
    if left.steps is None and "t" in trace.rule(own, len(shape) if own.fits else 0).inputs:
        raise ValueError(f"{rule} depends on the number of steps, and the checkpoint has none; give steps=")
    numbers = number_fields(own.State)
    tensors = {name: torch.as_tensor(x) if name in numbers else x for name, x in held.items()}
    return {"step": torch.tensor(1.0 if left.steps is None else left.steps), **tensors}


def _target(to: str, meaning: Meaning, steps: float) -> tuple[Rule, dict[str, Any], Convention | None]:
    """The rule of a group that is to load a checkpoint, its settings there, and its convention."""
    if to == OURS:
        rule = meaning.rule
        around = {"weight_decay": 0.0, "decay_form": "l2", "maximize": False, **meaning.around}
        group = {**rule.numbers, **around, "rule": rule, KEY: Course(int(steps), base_lr=_base(around, rule))}
        checkpoint.as_text([group])
        return rule, group, None
    if to in TABLE:
        to = f"{to}.{_named(TABLE[to], meaning.rule)}"
    column, name, given = parse(to if "(" in to else f"{to}()")
    convention = _of_kind(column, name, meaning.rule)
    if convention is None:
        raise ValueError(f"the checkpoint is of {meaning.rule}, and {to} has another rule")
    _known(column, name)
    theirs = {**nearest_arguments(convention, meaning), **column.named(given)}
    settings = {name: theirs.get(name, argument.default) for name, argument in convention.arguments.items()}
    more = {} if convention.group is None else convention.group(settings, int(steps))
    return convention.read(to, theirs).rule, settings | more, convention


def _base(around: Mapping[str, Any], rule: Rule) -> float | None:
    return rule.lr if around["decay_form"] == "independent" else None


def _of_kind(column: Framework, name: str, rule: Rule) -> Convention | None:
    """The convention of a name, or that of its other parameters, whichever has a rule of the same class."""
    convention = column.find(name)
    both = (convention, convention.others)
    return next((x for x in both if x is not None and type(x.template) is type(rule)), None)


def _named(column: Framework, rule: Rule) -> str:
    """The one optimizer of a framework that has a rule of the same class."""
    names = [name for name, convention in column.names.items() if type(convention.template) is type(rule)]
    if len(names) != 1:
        raise ValueError(
            f"{column.name} has {', '.join(names) or 'nothing'} for the checkpoint's {type(rule).__name__}; name one, "
            f"as in {column.call.format((names or list(column.names))[0])}"
        )
    return names[0]


def _known(column: Framework, name: str) -> None:
    """Raise ``ValueError`` if it is not known what checkpoints of an optimizer look like."""
    if not column.find(name).saved:
        names = [x.call.format(name) for x in TABLE.values() for name, meant in x.names.items() if meant.saved]
        raise ValueError(
            f"checkpoints of {column.call.format(name)} cannot be converted; those of {OURS} can, and of "
            f"{', '.join(names)}"
        )


def _renamed(held: Mapping[str, Any], convention: Convention | None) -> dict[str, Any]:
    """A state by the names that it has in the checkpoints of a convention."""
    if convention is None:
        return dict(held)
    return {convention.keys.get(k, k): x for k, x in held.items() if k != "step" or convention.counted}
