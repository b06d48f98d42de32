"""Words for arrays, between the passes of a step: evaluated for all parameters of a bucket, equal shapes in batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.cutting import RESOLUTION
from thalweg.kernels.bucket import Bucket
from thalweg.kernels.kernel import count
from thalweg.kernels.records import FUSED
from thalweg.kernels.work import States, Work
from thalweg.orthogonal import symmetric
from thalweg.rule import number_fields
from thalweg.symbols import Symbol
from thalweg.trace import Graph, compute, operands


class Slots:
    """The words for arrays in one step of a bucket."""

    def __init__(self, bucket: Bucket, works: Sequence[Work], states: States) -> None:
        parameters = bucket.parameters
        active = parameters.records["active"][bucket.indices]
        self._bucket = bucket
        self._members = np.flatnonzero(active == FUSED).tolist()
        numbers = number_fields(bucket.rule.State)
        self._given: list[dict[str, Any]] = []
        self._entries: list[dict[str, Any]] = []
        for m in self._members:
            i = bucket.members[m]
            work, entry = works[parameters.group[i]], states.of(parameters.tensors[i])
            given: dict[str, Any] = {**work.named()}
            for name, x in entry.items():
                given[f"s.{name}"] = float(x) if name in numbers else x
            self._given.append(given | bucket.scratch[m] | {"t": float(entry["step"]) + 1})
            self._entries.append(entry)
        self._tensors = bucket.tensors()
        self._new: list[tuple[dict[str, Any], str, Any]] = []

    @torch.no_grad()
    def run(self, of: Graph, sums: dict[str, NDArray[np.float64]]) -> None:
        """Evaluate the words between two passes.

        Args:
            of: the words, as one of the parts of a step.
            sums: what passes have summed up, per member; these words' numbers are added.
        """
        bucket = self._bucket
        for m, given in zip(self._members, self._given, strict=True):
            for name, node in of.inputs.items():
                if name in sums:
                    given[name] = sums[name][m]
                elif name.partition(".")[0] == "n":
                    given[name] = count(self._tensors[m], name)
                elif name == RESOLUTION:
                    given[name] = torch.finfo(bucket.key.types.arithmetic).eps
                elif name in given and node.kind == "value":
                    given[name] = given[name].to(bucket.key.types.arithmetic)
        made = evaluate(of, self._given, [bucket.scratch[m] for m in self._members])
        for m, given, entry, new in zip(self._members, self._given, self._entries, made, strict=True):
            for name, x in new.items():
                kind = name.partition(".")[0]
                if kind == "r":
                    sums.setdefault(name, np.zeros(len(bucket.members)))[m] = float(x)
                elif kind in ("w", "y", "z"):
                    bucket.scratch[m][name].copy_(x)
                elif kind == "a":
                    given[name] = x
                else:
                    self._new.append((entry, name.removeprefix("s."), x))

    @torch.no_grad()
    def finish(self) -> None:
        """Keep the new arrays of the state, after everything has read the old ones."""
        for entry, name, x in self._new:
            entry[name].copy_(x)


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
