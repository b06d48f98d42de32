"""Lowered graphs as JavaScript: rules and surfaces for a browser, in float64 and in the order of the formula."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from thalweg.printers.lowering import COMPARISONS, INFIX, Lowered, Syntax, Types, lower
from thalweg.symbols import MATRICES, Symbol
from thalweg.trace import Graph, TraceError, graph, number

ELEMENTS = 2
"""How many numbers a parameter has: the coordinates of a point on a surface."""


def constant(x: float) -> str:
    """A number as a literal."""
    if math.isnan(x):
        return "NaN"
    if math.isinf(x):
        return "Infinity" if x > 0 else "(-Infinity)"
    text = repr(x).removesuffix(".0")
    return f"({text})" if text.startswith("-") else text


SYNTAX = Syntax(
    INFIX
    | {
        "eq": "{0} === {1}",
        "ne": "{0} !== {1}",
        "pow": "{0} ** {1}",
        **{word: f"Math.{word}({{0}})" for word in ("sqrt", "cbrt", "abs", "sign", "exp", "log", "sin", "cos", "tanh")},
        "single": "Math.fround({0})",
        "maximum": "Math.max({0}, {1})",
        "minimum": "Math.min({0}, {1})",
        "where": "({0} ? {1} : {2})",
        "when": "({0} ? {1} : {2})",
        "remainder": "({0} - {1} * Math.floor({0} / {1}))",
        "resolution": constant(torch.finfo(torch.float64).eps),
    },
    "({0} ? 1 : 0)",
    constant,
)

_EXACT = Types(torch.float64, torch.float64, torch.float64)
_WORDS = frozenset({*SYNTAX.formats, "sum", "sum_over", "size", "size_over", "total", "input", "const"})


def numbers(outputs: Mapping[str, Any], inputs: Sequence[str]) -> str:
    """A function ``(inputs…) => [outputs…]`` of numbers, such as a surface with its derivatives.

    Raises:
        TraceError: an operation has no counterpart in JavaScript.
    """
    lowered = _lowered(graph(outputs))
    names = lowered.inputs
    taken = ", ".join(names.get(name, f"_{k}") for k, name in enumerate(inputs))
    given = ", ".join(_element(lowered, x, 0) for x in lowered.graph.outputs.values())
    return f"({taken}) => {{{_lines(lowered)} return [{given}]; }}"


def step(traced: Graph, state: Mapping[str, int], settings: Sequence[str], shown: Sequence[Symbol] = ()) -> str:
    """A function ``(p, g, s, t, h, out, seen)`` of a parameter of two elements: a step, an initial state, an offset.

    ``p``, ``g`` and ``s`` are arrays of the point, its gradient and the state, whose fields follow each other; ``h``
    has the settings.  ``out`` receives what the graph gives of the new point, first, and the state, after it; ``seen``,
    if there is one, the value of each of the nodes `shown`, a number or two.

    Args:
        traced: a graph of ``p``, the state, or both, as from `thalweg.trace.rule` for parameters of one axis.
        state: the fields of the state with how many elements each has, 1 or 2, in order.
        settings: the names of the settings that are numbers, in the order of ``h``.
        shown: nodes of the graph.

    Raises:
        TraceError: the rule needs more than the coordinates of a point, such as a matrix.
    """
    rows = {f"row.{k}": node for k, node in enumerate(shown)}
    lowered = _lowered(graph({**traced.outputs, **rows}))
    slots: dict[str, int] = {}
    for name in state:
        slots[name] = sum(state[before] for before in slots)
    found: list[str] = []
    for name, own in lowered.inputs.items():
        group, _, rest = name.partition(".")
        if name in ("p", "g"):
            found += [f"{own}_{k} = {name}[{k}]" for k in range(ELEMENTS)]
        elif name == "t":
            found.append(f"{own} = t")
        elif group == "h":
            found.append(f"{own} = h[{settings.index(rest)}]")
        elif state[rest] == 1:
            found.append(f"{own} = s[{slots[rest]}]")
        else:
            found += [f"{own}_{k} = s[{slots[rest] + k}]" for k in range(ELEMENTS)]
    begin = f"const {', '.join(found)};" if found else ""
    outputs = lowered.graph.outputs
    end: list[str] = []
    for name, width, base in [("p", ELEMENTS, 0), *((f"s.{n}", w, ELEMENTS + slots[n]) for n, w in state.items())]:
        if name in traced.outputs:
            end += [f"out[{base + k}] = {_element(lowered, outputs[name], k)};" for k in range(width)]
    seen = ", ".join(
        f"[{', '.join(_element(lowered, outputs[name], k) for k in range(ELEMENTS))}]"
        if outputs[name].kind == "value" else _element(lowered, outputs[name], 0) for name in rows
    )  # fmt: skip
    more = f" if (seen) seen.push({seen});" if rows else ""
    return f"(p, g, s, t, h, out, seen) => {{{begin}{_lines(lowered)} {' '.join(end)}{more} }}"


def operation(op: str, count: int) -> str:
    """A function of an operation or word on numbers, such as ``(a, b) => a + b``."""
    node = Symbol(op, tuple(number("abc"[k]) for k in range(count)), "number")
    text = SYNTAX.formats[op].format(*"abc"[:count])
    return f"({', '.join('abc'[:count])}) => {SYNTAX.truth.format(text) if node.op in COMPARISONS else text}"


def _lowered(traced: Graph) -> Lowered:
    for node in traced.nodes:
        if node.op in MATRICES - _WORDS or node.op not in _WORDS or node.kind == "array":
            raise TraceError(f"it computes with {node.op}, which needs a matrix; a point on a surface is two numbers")
    return lower(traced, _EXACT)


def _lines(lowered: Lowered) -> str:
    lines = [f"{name} = {text}" for name, text in lowered.unrolled(SYNTAX, ELEMENTS)]
    return f" const {', '.join(lines)};" if lines else ""


def _element(lowered: Lowered, node: Symbol, k: int) -> str:
    text = lowered.element(node, k)
    return SYNTAX.truth.format(text) if node.op in COMPARISONS else text


def literal(data: Any) -> str:
    """Plain data as a literal that is safe inside a script element: no ``<``, so no end of the element."""
    return json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
