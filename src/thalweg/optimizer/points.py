"""Which point the parameters hold: the one they are trained at, or the one to evaluate.

A method that looks ahead trains at its interim point, θ and a move that follows from its state; what is to be evaluated
is θ.  Where the weights are averaged it is their average.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from thalweg.kernels import eager
from thalweg.rule import Rule


@torch.no_grad()
def follow(group: dict[str, Any], state: Mapping[Tensor, dict[str, Any]], after: dict[str, float]) -> None:
    """Note the numbers that a group's interim points now have; those of parameters that were not stepped follow."""
    before, group["interim"] = group.get("interim"), after
    if before in (None, after):
        return
    old, new = (group["rule"].bind(numbers) for numbers in (before, after))
    for p in group["params"]:
        if p.grad is None and state.get(p):
            held = eager.read(old, state[p])
            p.add_(_of(p, new.interim(held) - old.interim(held)))


@torch.no_grad()
def show(p: Tensor, held: dict[str, Any], rule: Rule) -> None:
    """Put the point to evaluate into a parameter with this state; the training point is kept there, for `hide`."""
    ahead = rule.interim(eager.read(rule, held))
    if ahead is None and "ema" not in held:
        return
    held["training"] = p.clone(memory_format=torch.preserve_format)
    if "ema" in held:
        p.copy_(held["ema"])
    elif ahead is not None:
        p.sub_(_of(p, ahead))


@torch.no_grad()
def hide(p: Tensor, held: dict[str, Any]) -> None:
    """Put the training point back."""
    if "training" in held:
        p.copy_(held.pop("training"))


def _of(p: Tensor, move: Tensor) -> Tensor:
    """A move as numbers of the parameter's kind: complex ones are pairs in the state."""
    return torch.view_as_complex(move) if p.is_complex() else move
