"""The derived part of a page: rules, surfaces, schedules and the words of formulas, as one JavaScript module."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalweg.derivative import FLAT, PULLED
from thalweg.playground import catalogue
from thalweg.printers import javascript
from thalweg.problems import Surface
from thalweg.rule import Rule
from thalweg.schedules import Schedule, parse
from thalweg.symbols import OPERATORS, Symbol
from thalweg.trace import graph, number

STEPS = 500
"""The steps over which a schedule is laid out."""

SCHEDULES = (
    "step(0.2, factor=0.5)",
    "cosine(1.0)",
    "linear(1.0)",
    "exponential(0.99)",
    "inverse_sqrt(0.05)",
    "warmup(0.1)",
    "warmup(0.1).then(cosine(0.9))",
    "warmup(0.1).then(linear(0.9))",
    "anneal(0.5, 0.9, 0.5)",
    "anneal(0.9, 0.99, 0.5)",
)
"""The schedules of a page: the lectures', and momentum annealed; fractions are of `STEPS`."""

_ARGUMENTS = {"where": 3} | dict.fromkeys(
    ("maximum", "minimum", "pow", "add", "sub", "mul", "div", "lt", "le", "gt", "ge", "eq", "ne"), 2
)
"""How many operands an operation has, if not one."""


def module(
    surfaces: Mapping[str, Surface], rules: Sequence[str] = (), own: Mapping[str, Rule] | None = None,
    schedules: Sequence[Schedule] = (),
) -> str:  # fmt: skip
    """The text of the module ``printed.js``.

    Args:
        surfaces: the surfaces of the page by name.
        rules: rules in text, of which those that wrap others get a family of their own.
        own: rules of the user's own, by name.
        schedules: further schedules.

    Raises:
        TraceError: a surface branches on a value, or uses what `thalweg.maths` does not have.
        ValueError: a rule cannot be read, or a schedule cannot be laid out.
    """
    known = catalogue.families(rules, own)
    data = {
        "FAMILIES": known["families"],
        "PRESETS": known["presets"],
        "LEFT_OUT": known["left_out"],
        "SCHEDULES": {str(each): _tabulated(each) for each in (*map(parse, SCHEDULES), *schedules)},
        "PULLED": _pulled(),
    }
    forms = ",\n".join(known["forms"])
    parts = [
        *(f"export const {name} = {javascript.literal(x)};" for name, x in data.items()),
        f"export const FORMS = [\n{forms},\n];",
        f"export const SURFACES = {{\n{''.join(_surface(n, s) for n, s in surfaces.items())}}};",
        f"export const OPERATIONS = {{\n{''.join(_operation(op) for op in _operations())}}};",
    ]
    return "// Printed by thalweg from the rules' and surfaces' formulas.\n" + "\n".join(parts) + "\n"


def _surface(name: str, surface: Surface) -> str:
    data = {
        "doc": surface.doc,
        "minima": [list(point) for point in surface.minima],
        "window": [*surface.window[0], *surface.window[1]],
        "start": list(surface.start),
        "lr": surface.lr,
        "noise": surface.noise,
    }
    functions = {
        "height": ("f",),
        "slope": ("gx", "gy"),
        "curvature": ("hxx", "hxy", "hyy"),
    }
    found = surface.derivatives.outputs
    text = ", ".join(
        f"{function}: {javascript.numbers({n: found[n] for n in outputs}, ('x', 'y'))}"
        for function, outputs in functions.items()
    )
    return f"{javascript.literal(name)}: {{ data: {javascript.literal(data)}, {text} }},\n"


def _tabulated(schedule: Schedule) -> dict[str, Any]:
    """A schedule's values at t = 0, 1, …, `STEPS`; after that it holds the last."""
    schedule = schedule.resolve(STEPS)
    return {"absolute": schedule.absolute, "values": [schedule(t) for t in range(STEPS + 1)]}


def _operations() -> list[str]:
    """Every operation that a formula in the page can have."""
    return [op for op in javascript.SYNTAX.formats if op in PULLED or op in FLAT or op in OPERATORS]


def _operation(op: str) -> str:
    return f"{op}: {javascript.operation(op, _ARGUMENTS.get(op, 1))},\n"


def _pulled() -> dict[str, Any]:
    """`thalweg.derivative.PULLED` as trees: ``[op, …]``, a number, or ``d``, ``y``, ``a``, ``b``, ``c`` by name."""
    found: dict[str, Any] = {}
    for op, pulled in PULLED.items():
        count = _ARGUMENTS.get(op, 1)
        parts = pulled(number("d"), number("y"), *(number("abc"[k]) for k in range(count)))
        found[op] = [_tree(graph({"part": part}).outputs["part"]) for part in parts]
    return found


def _tree(node: Symbol) -> Any:
    if node.op in ("input", "const"):
        return node.args[0]
    return [node.op, *map(_tree, node.args)]
