"""A step as the passes that every printer for a compiler prints, and the words for arrays between them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from thalweg.cutting import RESOLUTION, Stage, stages
from thalweg.printers.lowering import Types, lower
from thalweg.separation import separated
from thalweg.symbols import Symbol
from thalweg.trace import Graph


@dataclass(frozen=True)
class Pass:
    """A pass over the elements.

    Attributes:
        graph: what it computes; see `thalweg.cutting.Stage`.
        names: the arrays of the table, the same for all passes of a step.
        held: the numbers of the state, in the order in which they are kept.
        zero_grad: whether it leaves the gradient zero.
        last: whether it is the one that writes the parameter.
    """

    graph: Graph
    names: tuple[str, ...]
    held: tuple[str, ...]
    zero_grad: bool = False
    last: bool = False

    @property
    def writes(self) -> bool:
        """Whether it writes anything but sums."""
        return self.last or not all(map(summed_up, self.graph.outputs))


def passes(
    traced: Graph, types: Types, zero_grad: bool, rows: bool = False, totalled: Sequence[Graph] = ()
) -> tuple[Pass | Graph, ...]:
    """What runs one after the other in a whole step, of a graph from `thalweg.trace.step`.

    Args:
        traced: the step.
        types: its types.
        zero_grad: whether the gradient is left zero, by the last pass that can.
        rows: whether passes go over matrices row by row; see `thalweg.cutting.stages`.
        totalled: what is to be totalled over all parameters before; see `thalweg.trace.rounds`.

    Returns:
        the passes, and the graphs of words for arrays that come between them; and after what is summed up for totals,
        the graph of these.
    """
    of = separated(traced) if rows and not types.exact else traced
    *before, last = stages(of, rows, early=types.state == types.arithmetic)
    assert last.elements is not None, "a step writes parameters"
    earlier = [stage for part in totalled for stage in stages(part)] + before
    lowered = [lower(stage.elements, types) for stage in (*earlier, last) if stage.elements]
    found = dict.fromkeys(["p", "g"])
    for one in lowered:
        found |= dict.fromkeys([*one.read, *one.lines, *one.changed])
        found |= {f"part{name[1:]}": None for name in one.changed if name.startswith("z.")}
    names, held = _ordered(found), tuple(lowered[-1].kept)
    zeroing = _zeroing((*before, last)) if zero_grad else None
    parts: list[Pass | Graph] = []
    for stage in earlier:
        if stage.elements and all(node.kind == "number" for node in stage.elements.outputs.values()):
            parts.append(stage.elements)
            continue
        if stage.elements:
            parts.append(Pass(stage.elements, names, held, stage is zeroing))
        if stage.arrays:
            parts.append(stage.arrays)
    return (*parts, Pass(last.elements, names, held, zeroing is last, last=True))


def _ordered(found: dict[str, None]) -> tuple[str, ...]:
    """The arrays of the table: parameters, gradients, state, and what only this step needs."""
    order = ("w", "y", "z", "part")
    place = {name: 1 + order.index(kind) if (kind := name.partition(".")[0]) in order else 0 for name in found}
    return tuple(sorted((name for name in found if not name.startswith("r.")), key=place.__getitem__))


def _zeroing(of: Sequence[Stage]) -> Stage:
    """The pass that sets the gradient to zero: the last to read it, if it writes anything at all."""
    for stage in reversed(of):
        if stage.elements and "g" in stage.elements.inputs:
            return of[-1] if all(map(summed_up, stage.elements.outputs)) else stage
    return of[-1]


def summed_up(name: str) -> bool:
    """Whether a result of a pass is summed up: over the tensor, its rows or its columns."""
    return name.startswith(("r.", "y.", "z."))


def is_own(name: str) -> bool:
    """Whether a number is another for each parameter: how many elements it has, what they sum up to, its clipping."""
    return name in ("n", "c.clip_each") or name.startswith(("r.", "n.", "q."))


def of_group(name: str) -> bool:
    """Whether a number is known for a group before the step, rather than of a parameter or counted."""
    return not (is_own(name) or name in ("t", RESOLUTION) or name.startswith("s."))


def rounded_at_random(name: str, dtype: torch.dtype) -> bool:
    """Whether an array is stored rounded up or down at random: what a state gathers in small steps would be lost."""
    return dtype == torch.bfloat16 and name not in ("p", "g") and not name.startswith("w.")


def factors(x: Symbol) -> tuple[Symbol, ...]:
    """What a term of a sum is the product of, in float64: products, as of norms, may be beyond float32."""
    found = {"mul": x.args, "pow": x.args[:1] * 2}.get(x.op, ())
    product = len(found) == 2 and all(a.kind == "value" for a in found)
    if x.op == "pow" and not (x.args[1].op == "const" and x.args[1].args[0] == 2):
        product = False
    return found if product else (x,)
