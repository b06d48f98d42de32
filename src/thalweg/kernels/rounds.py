"""Steps that need totals over all parameters: evaluated from their graphs, in rounds, on tensors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg import trace
from thalweg.fields import leaves, shared_fields
from thalweg.kernels import eager
from thalweg.kernels.work import States, Work


@torch.no_grad()
def step(members: Sequence[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
    """Step parameters that have a gradient, each with its group and its number among all.

    Totals are over those of rules of one class in one optimizer.  A number that parameters share is the same in the
    state of all.
    """
    for of in dict.fromkeys((type(work.template), work.member) for work, _, _ in members):
        _step([member for member in members if (type(member[0].template), member[0].member) == of], states)
    if zero_grad:
        for _, _, p in members:
            assert p.grad is not None
            p.grad.zero_()


def _step(members: Sequence[tuple[Work, int, Tensor]], states: States) -> None:
    inputs: list[dict[str, Any]] = []
    parts: list[tuple[trace.Graph, ...]] = []
    shared = _shared(members, states)
    for work, i, p in members:
        held = states.of(p)
        if not work.kept(p) <= held.keys():
            eager.start(work, p, held)
        for name, value in shared.items():
            held[name].fill_(value)
        inputs.append(_inputs(work, i, p, held))
        parts.append(work.rounds(p))
    for k in range(max(map(len, parts)) - 1):
        totals: dict[str, Any] = {}
        for part, given in zip(parts, inputs, strict=True):
            for name, x in trace.evaluate(part[k], given).items() if k < len(part) - 1 else ():
                totals[name] = totals.get(name, 0.0) + float(x)
        for given in inputs:  # as tensors, whose quotients by zero are no errors
            given.update({name: torch.tensor(x, dtype=torch.float64) for name, x in totals.items()})
    for (work, i, p), part, given in zip(members, parts, inputs, strict=True):
        held = states.of(p)
        held["step"] += 1
        new = trace.evaluate(part[-1], given)
        eager.write(work, p, held, {name.removeprefix("s."): x for name, x in new.items()}, i)
    _share(members, states)


def _inputs(work: Work, i: int, p: Tensor, held: dict[str, Any]) -> dict[str, Any]:
    """What a step is computed from, by the names of the trace."""
    assert p.grad is not None
    x, g, state, ema = eager.operands(work, p, p.grad.to_dense(), held)
    return {
        "p": x, "g": g, "ema": ema, "t": float(held["step"]) + 1,
        **{f"s.{name}": value for name, value in leaves(state).items()},
        **work.named(eager.scalars(work, i)),
    }  # fmt: skip


def _shared(members: Sequence[tuple[Work, int, Tensor]], states: States) -> dict[str, float]:
    """The numbers that parameters share, from one that was stepped; none if none was."""
    fields = shared_fields(members[0][0].template.State)
    for work, _, _ in members:
        for p in work.params:
            held = states.mapping.get(p)
            if held and fields <= held.keys():
                return {name: float(held[name]) for name in fields}
    return {}


def _share(members: Sequence[tuple[Work, int, Tensor]], states: States) -> None:
    """Show shared numbers in the state of all parameters of these groups, also of those without a gradient."""
    work, _, p = members[0]
    held = states.of(p)
    shared = {name: float(held[name]) for name in shared_fields(work.template.State)}
    for params in {id(work): work.params for work, _, _ in members}.values():
        for p in params:
            for name in shared.keys() & (states.mapping.get(p) or {}).keys():
                states.mapping[p][name].fill_(shared[name])
