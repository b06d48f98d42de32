"""Switches parameters between the point at which they are trained and the point to evaluate.

A lookahead method trains at its lookahead point, θ plus an offset computed from its state; the point to evaluate is θ
or, with averaging, the average of the weights.  `thalweg.stages` moves from one lookahead point to the next within a
step; everything else concerning these points is here.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.kernels import States, eager
from thalweg.optimizer.course import KEY, Course, of
from thalweg.rule import Rule


def made_with(group: Mapping[str, Any], numbers: dict[str, float]) -> dict[str, float]:
    """The numbers of the rule that a group's lookahead points were made with; its own `numbers` if there are none."""
    return of(group).ahead or numbers


@torch.no_grad()
def follow(group: dict[str, Any], states: States, after: dict[str, float]) -> None:
    """Note the numbers that a group's lookahead points now have; those of parameters not stepped are moved there."""
    course: Course = group[KEY]
    before, course.ahead = course.ahead, after
    if before in (None, after):
        return
    state = states.shown
    old, new = (group["rule"].bind(numbers) for numbers in (before, after))
    for p in group["params"]:
        if p.grad is None and state.get(p):
            held = eager.read(old, state[p], p)
            p.add_(_of(p, new.lookahead(held) - old.lookahead(held)))


@torch.no_grad()
def leave(p: Tensor, held: Mapping[str, Any], rule: Rule) -> None:
    """Move a parameter with this state from its lookahead point to θ; one that has none stays where it is.

    Args:
        p: the parameter.
        held: its state.
        rule: the rule with the numbers that the point was made with.
    """
    ahead = rule.lookahead(eager.read(rule, held, p))
    if ahead is not None:
        p.sub_(_of(p, ahead))


@torch.no_grad()
def show(p: Tensor, held: dict[str, Any], rule: Rule) -> None:
    """Put the point to evaluate into a parameter with this state; the training point is kept there, for `hide`."""
    if not rule.looks_ahead and "ema" not in held:
        return
    held["training"] = p.clone(memory_format=torch.preserve_format)
    if "ema" in held:
        p.copy_(held["ema"])
    else:
        leave(p, held, rule)


@torch.no_grad()
def hide(p: Tensor, held: dict[str, Any]) -> None:
    """Put the training point back."""
    if "training" in held:
        p.copy_(held.pop("training"))


def _of(p: Tensor, move: Tensor) -> Tensor:
    """A move as numbers of the parameter's kind: complex ones are pairs in the state."""
    return torch.view_as_complex(move) if p.is_complex() else move
