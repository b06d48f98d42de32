"""The bytes that a step moves and the operations that it takes, from its formula."""

import math

import torch

from thalweg.cutting import Stage, lazy, moved, stages
from thalweg.rule import Rule
from thalweg.separation import COLUMN, ROW
from thalweg.stages import Stages
from thalweg.symbols import MATRICES, Symbol
from thalweg.trace import Graph, operands, step

__all__ = ["Stage", "bytes_per_parameter", "has_rows", "operations", "passes", "stages"]


def has_rows(of: Graph) -> bool:
    """Whether a step of matrices has numbers per row or per column."""
    return any(node.axes in (ROW, COLUMN) for node in of.nodes)


def passes(of: Graph, early: bool = False) -> tuple[Graph, ...]:
    """The passes over the elements among the stages of a step; `early` as for `thalweg.cutting.stages`."""
    return tuple(stage.elements for stage in stages(of, early=early) if stage.elements)


def bytes_per_parameter(
    rule: Rule, dtype: torch.dtype = torch.float32, state_dtype: torch.dtype | None = None, form: Stages = Stages()
) -> int:
    """The minimum number of bytes that a step moves per parameter: it reads what it uses and writes what it changes.

    Args:
        rule: the rule; one that depends on the shape, for matrices.
        dtype: of parameters and gradients.
        state_dtype: of the rule's state and the average of the weights; by default float32 for 16-bit parameters,
            else as the parameters.
        form: further stages of the step.
    """
    rule = rule.fit(rule.shown_for) if rule.fits else rule
    kept = state_dtype or (torch.float32 if dtype.itemsize < 4 else dtype)
    exact = dtype if dtype.itemsize > 2 else torch.float32
    made = stages(step(rule, form), rows=True, early=kept == exact)
    names = (name for name in moved(made) if not name.startswith("w."))
    return sum((dtype if name in ("p", "g") else kept).itemsize for name in names)


def operations(rule: Rule, shape: tuple[int, ...] | None = None) -> float:
    """The floating-point operations of a step of a parameter, without those that are done now and then.

    Each addition, product, root … of an element counts as one, a product of matrices of m × k and k × n as 2mkn,
    whatever the engine saves where a product is symmetric.
    """
    shape = rule.shown_for if shape is None else shape
    rule = rule.fit(shape) if rule.fits else rule
    total = 0.0
    for stage in stages(step(rule, Stages(), len(shape)), len(shape) == 2):
        for part in (stage.elements, stage.arrays):
            idle = lazy(part) if part else set[Symbol]()
            total += sum(_cost(node, shape) for node in (part.nodes if part else ()) if node not in idle)
    return total


_FREE = frozenset({"input", "const", "transpose", "unfold", "fold", "arranged", "when", "eye", "single", "rounded"})


def _cost(node: Symbol, shape: tuple[int, ...]) -> float:
    """The floating-point operations of a node for a parameter of a shape."""

    def extent(x: Symbol) -> list[int]:
        axes = tuple((k,) for k in range(len(shape))) if x.axes is None else x.axes
        return [math.prod(shape[k] for k in dimension) for dimension in axes]

    if node.op in _FREE or (node.kind == "number" and node.op not in MATRICES):
        return 0.0
    sizes = [extent(x) for x in operands(node)] or [[1]]
    if node.op == "matmul":
        return 2.0 * sizes[0][0] * sizes[0][1] * sizes[1][1]
    if node.op == "orthogonalize":
        rows, columns = sizes[0]
        blocks = node.how[3] if node.how[3:] else 1
        sides = [rows / blocks] * blocks if isinstance(blocks, int) else blocks
        pairs = [sorted((float(side), float(columns))) for side in sides]
        return float(node.how[0]) * math.fsum(4.0 * short**2 * long + 2.0 * short**3 for short, long in pairs)
    if node.op in ("qr", "eigenvectors", "eigenvalues", "inverse_root"):
        return {"qr": 4 / 3, "inverse_root": 15.0}.get(node.op, 9.0) * max(sizes[0]) ** 3
    return float(max(math.prod(extent(node)), *(math.prod(x) for x in sizes)))
