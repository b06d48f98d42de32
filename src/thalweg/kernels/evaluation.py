"""Graphs of words for arrays, evaluated for many parameters: equal shapes in batches."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from thalweg import trace
from thalweg.orthogonal import symmetric
from thalweg.symbols import Symbol
from thalweg.trace import Graph, compute, operands

_BATCHED = ("matmul", "orthogonalize")
_SMALL = 256 * 256  # elements: larger matrices gain nothing from being in a batch


def evaluate(
    of: Graph, given: Sequence[Mapping[str, Any]], room: Sequence[Mapping[str, Tensor]] | None = None
) -> list[dict[str, Any]]:
    """The outputs of a graph for the inputs of each parameter; what is not needed this time is not computed.

    Args:
        of: the graph.
        given: the inputs of each parameter.
        room: memory for some outputs of each; products are made there.
    """
    if not any(node.op in _BATCHED for node in of.nodes):
        return [trace.evaluate(of, own) for own in given]
    uses = of.uses()
    names = {node: name for name, node in of.outputs.items() if node.op == "matmul" and room}
    found: dict[Symbol, dict[int, Any]] = {node: {} for node in of.nodes}

    def find(node: Symbol, which: Sequence[int]) -> dict[int, Any]:
        values = found[node]
        missing = [i for i in which if i not in values]
        if not missing:
            return values
        if node.op == "input":
            values.update({i: given[i][node.args[0]] for i in missing})
        elif node.op == "const":
            values.update(dict.fromkeys(missing, node.args[0]))
        elif node.op == "when":
            condition, new, old = node.args
            holds = find(condition, missing)
            for branch, chosen in (
                (new, [i for i in missing if holds[i]]),
                (old, [i for i in missing if not holds[i]]),
            ):
                made = find(branch, chosen) if chosen else {}
                values.update({i: made[i] for i in chosen})
        else:
            average = _average(node, uses)
            if average:
                beta, old, weight, x = (find(part, missing) for part in average)
                fused = [i for i in missing if _is_large(x[i])]
                for i in fused:
                    values[i] = symmetric(x[i], x[i].mT, (old[i], float(beta[i]), float(weight[i])))
                missing = [i for i in missing if i not in values]
            parts = [find(x, missing) for x in operands(node)] if missing else []
            for some in _alike(node, parts, missing) if missing else []:
                if len(some) > 1:
                    stacked = [torch.stack([part[i] for i in some]) for part in parts]
                    values.update(zip(some, compute(node, stacked).unbind(), strict=True))
                elif _is_square(node):
                    values[some[0]] = symmetric(parts[0][some[0]], parts[1][some[0]])
                elif room and node in names and _is_place(into := room[some[0]].get(names[node]), parts, some[0]):
                    values[some[0]] = torch.mm(parts[0][some[0]], parts[1][some[0]], out=into)
                else:
                    values[some[0]] = compute(node, [part[some[0]] for part in parts])
        return values

    everyone = range(len(given))
    outputs = {name: find(node, everyone) for name, node in of.outputs.items()}
    return [{name: values[i] for name, values in outputs.items()} for i in everyone]


def _is_square(node: Symbol) -> bool:
    """Whether a node is the product of a matrix and its transpose."""
    return node.op == "matmul" and node.args[1].op == "transpose" and node.args[1].args[0] is node.args[0]


def _average(node: Symbol, uses: Mapping[Symbol, int]) -> tuple[Symbol, ...] | None:
    """β, L, w and x of βL + wxxᵀ, which is one operation; None if a node is no such average."""
    if node.op != "add" or not all(x.op == "mul" and x.args[0].kind == "number" for x in node.args):
        return None
    (beta, old), (weight, product) = (x.args for x in node.args)
    if not _is_square(product) or uses[product] > 1 or uses[node.args[1]] > 1:
        return None
    return beta, old, weight, product.args[0]


def _is_large(x: Any) -> bool:
    """Whether to fuse a product into what it is added to: not in float64, whose users want the formula's numbers."""
    return isinstance(x, Tensor) and x.ndim == 2 and x.numel() > _SMALL and x.dtype == torch.float32


def _is_place(into: Tensor | None, parts: Sequence[dict[int, Any]], i: int) -> bool:
    """Whether a product can be made in a tensor."""
    a, b = parts[0][i], parts[1][i]
    return into is not None and a.dtype == into.dtype and into.shape == (a.shape[0], b.shape[-1]) and a.ndim == 2


def _alike(node: Symbol, parts: Sequence[dict[int, Any]], which: Sequence[int]) -> list[list[int]]:
    """The parameters for which a word is one operation on a batch."""
    if node.op not in _BATCHED or len(which) == 1:
        return [[i] for i in which]
    groups: dict[Any, list[int]] = {}
    for i in which:
        xs = [part[i] for part in parts]
        batch = all(isinstance(x, Tensor) and x.numel() <= _SMALL for x in xs)
        groups.setdefault(tuple((x.shape, x.dtype) for x in xs) if batch else i, []).append(i)
    return list(groups.values())


def count(p: Tensor, name: str) -> float:
    """How many elements a parameter has, ``n``, or has along some of its axes, ``n.0.1``."""
    axes = name.split(".")[1:]
    return float(math.prod(p.shape[int(axis)] for axis in axes) if axes else p.numel())
