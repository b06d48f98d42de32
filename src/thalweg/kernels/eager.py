"""The referee: the formula of a whole step, run word by word on tensors."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from thalweg import stages
from thalweg.kernels.work import Work
from thalweg.rule import ABSENT, Rule, number_fields


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The type that a parameter's step is computed in: float32 for the 16-bit ones, else its own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def step(work: Work) -> None:
    """Take one step of every parameter, in place."""
    for p, held in zip(work.params, work.states, strict=True):
        g = p.grad
        assert g is not None
        if not held:
            start(work, p, held)
        held["step"] += 1
        _step(work, p, g, held)


def start(work: Work, p: Tensor, held: dict[str, Any]) -> None:
    """Fill the state of a parameter that was never stepped."""
    first = p.to(arithmetic(p.dtype))
    held["step"] = torch.tensor(0.0)
    for name, value in work.rule.init(first)._asdict().items():
        if value is not ABSENT:
            held[name] = value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)
    if work.stages.ema:
        held["ema"] = first.clone(memory_format=torch.preserve_format)


def read(rule: Rule, held: dict[str, Any]) -> Any:
    """A rule's state from its tensors: values as they are, numbers as floats."""
    numbers = number_fields(rule.State)
    return rule.State(*(
        ABSENT if name not in held else held[name].item() if name in numbers else _real(held[name])
        for name in rule.State._fields
    ))  # fmt: skip


def _real(x: Tensor) -> Tensor:
    # Complex parameters are stepped as pairs of reals, as torch does.
    return torch.view_as_real(x) if x.is_complex() else x


def _step(work: Work, p: Tensor, g: Tensor, held: dict[str, Any]) -> None:
    dtype = arithmetic(p.dtype)
    s = read(work.rule, held)
    new = stages.step(
        work.stages, work.rule, work.before, work.after,
        _real(p.to(dtype)), _real(g.to(dtype)), s, held.get("ema"), int(held["step"].item()), work.scalars,
    )  # fmt: skip
    _real(p).copy_(new.p)
    for name, value in new.state._asdict().items():
        if isinstance(value, Tensor):
            _real(held[name]).copy_(value)
        elif value is not ABSENT:
            held[name].fill_(value)
    if new.ema is not None:
        held["ema"].copy_(new.ema)


def norm(works: Iterable[Work]) -> float:
    """The global 2-norm of all gradients, unscaled and clipped by value, accumulated in float64."""
    each: list[Tensor] = [
        torch.linalg.vector_norm(stages.gradient(w.stages, _real(p.grad), w.scalars), dtype=torch.float64)
        for w in works
        for p in w.params
        if p.grad is not None
    ]
    return float(torch.linalg.vector_norm(torch.stack(each)).item()) if each else 0.0
