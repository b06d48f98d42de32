"""The parity table of the printed kernels: rules × options × types, against the reference computed in the same types.

The rules and options are those of the CPU's tests.  Each case steps a parameter of each type in one optimizer: float32,
bfloat16 and float16.  Pairs of options are tried with one of the types, in turn; and each case with one type of state
and one form of services, in turn.  With ``THALWEG_PARITY=whole`` all of these are tried with each other.
"""

import os
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
from cases import EVERY, changes, well_posed
from test_triton import FORMS, MATRICES, PLACE, on_device
from test_triton import pytestmark as pytestmark
from thalweg.rule import Rule

TYPES = (torch.float32, torch.bfloat16, torch.float16)
STATES = (None, torch.bfloat16)
SERVICES: tuple[dict[str, Any], ...] = ({}, *FORMS.values())
WHOLE = os.environ.get("THALWEG_PARITY") == "whole"

Case = tuple[Rule, tuple[torch.dtype, ...], torch.dtype | None, int]


def table() -> list[Case]:
    rules = [rule for rule in EVERY if well_posed(rule)]
    if WHOLE:
        return [(rule, TYPES, state, k) for rule in rules for state in STATES for k in range(len(SERVICES))]
    return [
        (
            rule,
            TYPES if changes(rule) <= 1 else TYPES[i % 3 :][:1],
            STATES[(i + i // len(SERVICES)) % 2],
            i % len(SERVICES),
        )
        for i, rule in enumerate(rules)
    ]


def shapes(rule: Rule) -> tuple[tuple[int, ...], ...]:
    if not rule.fits:
        return ((4, 3),)
    try:
        rule.fit((5,))
    except ValueError:
        return MATRICES
    return (4, 3), (5,)


def trained(case: Case, backend: str) -> tuple[list[torch.nn.Parameter], thalweg.Optimizer]:
    rule, types, state, k = case
    g = torch.Generator().manual_seed(0)
    values = [(torch.randn(s, generator=g) / 4, dtype) for dtype in types for s in shapes(rule)]
    params = [torch.nn.Parameter(x.to(PLACE, dtype)) for x, dtype in values]
    optimizer = thalweg.Optimizer(params, rule, backend=backend, state_dtype=state, seed=3, **SERVICES[k])
    for _ in range(2):
        for p in params:
            p.grad = torch.randn(p.shape, generator=g).to(PLACE, p.dtype)
        optimizer.step()
    return params, optimizer


def agree(ours: Tensor, theirs: Tensor, what: str) -> None:
    """Numbers of 16 bits are equal, but where float32 was rounded otherwise in its last bit: there the next one is."""
    assert ours.dtype == theirs.dtype, what
    if ours.dtype in (torch.float32, torch.float64):
        torch.testing.assert_close(ours, theirs.to(ours.device), rtol=5e-6, atol=5e-6, msg=lambda m: f"{what}: {m}")
        return
    x, y = ours.float().cpu(), theirs.float().cpu()
    unit = torch.finfo(ours.dtype).eps * y.abs() + 1e-6
    assert bool((((x - y).abs() <= unit) | (x.isnan() & y.isnan())).all()), f"{what}: {x} and {y}"
    assert (x != y).float().mean() <= 0.1, f"{what}: {x} and {y}"


@pytest.mark.parametrize("case", table(), ids=str)
def test_parity(case: Case) -> None:
    (params, ours), (others, theirs) = (trained(case, backend) for backend in ("triton", "eager"))
    assert on_device(ours)
    for p, q in zip(params, others, strict=True):
        what = f"{p.dtype} of shape {tuple(p.shape)}"
        agree(p.detach(), q.detach(), what)
        assert ours.state[p].keys() == theirs.state[q].keys()
        for name, x in theirs.state[q].items():
            agree(ours.state[p][name], x, f"{name} of {what}")
