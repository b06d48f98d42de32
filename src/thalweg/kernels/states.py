"""The state of fused parameters: contiguous blocks of memory, seen through ordinary tensors."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor

from thalweg.kernels import launch
from thalweg.kernels.work import Work
from thalweg.rule import ABSENT, number_fields

_ALIGNED = 16  # elements: every parameter's state begins on a cache line
_GRAIN = 32_768  # elements: up to so many torch stays on the thread that calls it, and cannot hang in a forked child


def adopt(
    params: list[Tensor], works: list[Work], state: Mapping[Tensor, dict[str, Any]], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Give every parameter its state: what it has, or a view of a new block where that is missing or does not fit.

    Args:
        params: the parameters, dense and of one dtype.
        works: the group of each.
        state: the optimizer's state, which is filled.
        dtype: of the values of the state.

    Returns:
        The step counts and the numbers of the state by name, each for all parameters together.
    """
    number_names = number_fields(works[0].template.State)
    firsts = {id(work): _first(work) for work in works}
    names = list(firsts[id(works[0])])
    together = _numbers([(state[p], firsts[id(w)]) for p, w in zip(params, works, strict=True)], number_names)
    for name in names:
        if name in number_names:
            continue
        missing = [(p, w) for p, w in zip(params, works, strict=True) if not _fits(p, state[p].get(name), dtype)]
        views = _block([p for p, _ in missing], dtype)
        for (p, work), view in zip(missing, views, strict=True):
            held = state[p]
            if name in held:
                view.copy_(held[name])
            elif name == "ema":
                view.copy_(p)
            else:
                _begin(view, firsts[id(work)][name], work, p, name)
            held[name] = view
    return together


def _first(work: Work) -> dict[str, Any]:
    """What a state begins with: numbers, or tensors' recipes as None where they depend on the parameter."""
    rule = work.template.bind(work.numbers)
    first = {name: x for name, x in rule.init(cast(Any, 0.0))._asdict().items() if x is not ABSENT}
    if rule.init(cast(Any, 1.0))._asdict() != rule.init(cast(Any, 0.0))._asdict():
        # The rule begins with something of the parameter, not with a constant.
        first |= dict.fromkeys(first.keys() - number_fields(rule.State))
    return first | ({"ema": None} if work.form.ema else {})


def _begin(view: Tensor, first: float | None, work: Work, p: Tensor, name: str) -> None:
    if first is None:
        view.copy_(getattr(work.template.bind(work.numbers).init(p.detach().to(view.dtype)), name))
    elif first:
        view.fill_(first)


def _fits(p: Tensor, held: Tensor | None, dtype: torch.dtype) -> bool:
    return held is not None and held.dtype == dtype and held.stride() == p.stride() and held.device == p.device


def _block(params: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Zeros for every parameter, of its shape and strides, side by side in one block."""
    offsets = [0]
    for p in params:
        offsets.append(offsets[-1] + -(-p.numel() // _ALIGNED) * _ALIGNED)
    block = torch.empty(offsets[-1], dtype=dtype)
    for part in torch.split(block, _GRAIN) if launch.forked() else (block,):
        part.zero_()
    return [torch.as_strided(block, p.shape, p.stride(), at) for p, at in zip(params, offsets, strict=False)]


def _numbers(held: list[tuple[dict[str, Any], dict[str, Any]]], names: frozenset[str]) -> dict[str, Tensor]:
    """Bring the step counts and the numbers of the state together, so that one operation steps them all."""
    together = {"step": torch.zeros(len(held))}
    together |= {name: torch.zeros(len(held), dtype=torch.float64) for name in names & held[0][1].keys()}
    for name, numbers in together.items():
        for i, (kept, first) in enumerate(held):
            numbers[i] = kept.get(name, first.get(name, 0.0))
            kept[name] = numbers[i]
    return together
