"""Lowered passes as Python source for Numba: the host's numbers, then a loop over the elements of each chunk."""

from collections.abc import Sequence
from textwrap import indent
from typing import Any

import torch

from thalweg.printers.lowering import Lowered, Types, lower
from thalweg.printers.passes import passes, summed_up
from thalweg.printers.rows import by_rows
from thalweg.printers.source import Loop, Source, module, term
from thalweg.trace import Graph

_STEP = """\
{head}
{begin}
    for i in range(count):
{body}
{end}"""

# In several places at once: a core reads a single stream at two thirds of the speed, or less.
_SUMS = """\
@njit(error_model="numpy", fastmath={contract})
def terms({bases}, scalars, i):
    zero, one = {real}(0), {real}(1)
{lifted}
{body}


{head}
{begin}
    part = {part}
{split}
    for i in range({places} * part, count):
{rest}
{end}"""


def step(
    traced: Graph, types: Types, zero_grad: bool, rows: bool = False, totalled: Sequence[Graph] = ()
) -> tuple[Source | Graph, ...]:
    """What runs one after the other in a whole step, of a graph from `thalweg.trace.step`.

    Args:
        traced: the step.
        types: its types.
        zero_grad: whether the last pass leaves gradients zero.
        rows: whether passes go over matrices row by row; see `thalweg.cutting.stages`.
        totalled: what is to be totalled over all parameters before; see `thalweg.trace.rounds`.

    Returns:
        the source of each pass over the elements, and the graphs of words for arrays that come between them; and after
        what is summed up for totals, the graph of these.
    """
    parts: list[Source | Graph] = []
    for part in passes(traced, types, zero_grad, rows, totalled):
        if isinstance(part, Graph):
            parts.append(part)
        elif rows:
            parts.append(by_rows(lower(part.graph, types), types, part.names, part.zero_grad, part.held))
        elif part.writes:
            parts.append(_writing(lower(part.graph, types), types, part.names, part.zero_grad, part.held))
        else:
            parts.append(sums(part.graph, types, part.names, part.held))
    return tuple(parts)


def _writing(lowered: Lowered, types: Types, names: tuple[str, ...], zero_grad: bool, held: tuple[str, ...]) -> Source:
    """A pass that writes arrays, and may sum up over the tensor."""
    loop = Loop.of(lowered, names, types, zero_grad)
    summed = tuple(filter(summed_up, lowered.changed))
    adding = [f"t{k} = add(t{k}, {term(lowered, lowered.changed[name])})" for k, name in enumerate(summed)]
    chunk = _STEP.format(
        head=loop.head,
        begin="\n".join(f"    t{k} = float64(0)" for k in range(len(summed))),
        body=indent("\n".join([*loop.loads, *loop.values, *adding, *loop.stores]), " " * 8),
        end="\n".join(f"    save_real64(totals + {8 * k}, t{k})" for k in range(len(summed))),
    )  # fmt: skip
    return module(lowered, chunk, names, types, zero_grad, summed, held)


def sums(traced: Graph, types: Types, names: tuple[str, ...] = ("p", "g"), held: tuple[str, ...] = ()) -> Source:
    """The source of sums over a tensor.

    Args:
        traced: a graph whose outputs are the terms.
        types: its types.
        names: the arrays of the table.
        held: the numbers of the state, in the order in which a row has them.
    """
    lowered = lower(traced, Types(types.parameter, types.state, torch.float32))
    loop = Loop.of(lowered, names, types)
    terms = [term(lowered, x) for x in lowered.graph.outputs.values()]
    summed = tuple(lowered.graph.outputs)
    chunk = _SUMS.format(
        head=loop.head, bases=loop.bases, real=loop.real, lifted=loop.lifted, contract=loop.contract,
        body=indent("\n".join([*loop.loads, *loop.values, f"return ({', '.join(terms)},)"]), " " * 4),
        **_adding(len(summed), loop.bases, len(lowered.read)),
    )  # fmt: skip
    return module(lowered, chunk, names, types, False, summed, held)


def _adding(count: int, bases: str, read: int) -> dict[str, Any]:
    """The lines that add up so many terms of so many arrays."""
    places = max(4 // max(read, 1), 1)
    begin, split, rest, end = list[str](), ["    for i in range(part):"], list[str](), list[str]()
    # A sum for each place, and no name for a tuple: Numba would not vectorise the loop well, or not at all.
    for k in range(count):
        own = [f"t{k}_{place}" for place in range(places)]
        begin.append(f"    {' = '.join(own)} = float64(0)")
        split += [f"        {t} = add({t}, terms({bases}, scalars, i + {j} * part)[{k}])" for j, t in enumerate(own)]
        rest.append(f"        {own[0]} = add({own[0]}, terms({bases}, scalars, i)[{k}])")
        end.append(f"    save_real64(totals + {8 * k}, {' + '.join(own)})")
    lines = {"begin": begin, "split": split if places > 1 else [], "rest": rest, "end": end}
    part = f"count // {places}" if places > 1 else "0"
    return {"places": places, "part": part} | {name: "\n".join(text) for name, text in lines.items()}
