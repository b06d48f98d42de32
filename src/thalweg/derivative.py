"""Derivatives of traced expressions, which are expressions again: exact, and printed like any other.

What a derivative of each operation is stands in `PULLED`, in the words of `thalweg.maths`, once: `gradient` uses it on
graphs, and the browser, where a formula is typed in, gets the same table.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from thalweg.maths import cos, log, sign, sin, where
from thalweg.symbols import Symbol, TraceError
from thalweg.trace import graph, operands

PULLED: Mapping[str, Callable[..., tuple[Any, ...]]] = {
    "add": lambda d, y, a, b: (d, d),
    "sub": lambda d, y, a, b: (d, -d),
    "mul": lambda d, y, a, b: (d * b, d * a),
    "div": lambda d, y, a, b: (d / b, -(d * y / b)),
    # The second is only taken where the exponent varies, so a negative base with a constant exponent is differentiable.
    "pow": lambda d, y, a, b: (d * (b * a ** (b - 1.0)), d * (y * log(a))),
    "neg": lambda d, y, a: (-d,),
    "sqrt": lambda d, y, a: (d * 0.5 / y,),
    "cbrt": lambda d, y, a: (d / (3.0 * (y * y)),),
    "abs": lambda d, y, a: (d * sign(a),),
    "exp": lambda d, y, a: (d * y,),
    "log": lambda d, y, a: (d / a,),
    "sin": lambda d, y, a: (d * cos(a),),
    "cos": lambda d, y, a: (-(d * sin(a)),),
    "tanh": lambda d, y, a: (d * (1.0 - y * y),),
    "maximum": lambda d, y, a, b: (where(a >= b, d, 0.0), where(a >= b, 0.0, d)),
    "minimum": lambda d, y, a, b: (where(a <= b, d, 0.0), where(a <= b, 0.0, d)),
    # The factor is chosen, not multiplied by 0 or 1: what is not taken may be infinite.
    "where": lambda d, y, c, a, b: (0.0, where(c, d, 0.0), where(c, 0.0, d)),
    "single": lambda d, y, a: (d,),
}
"""For each operation, what it passes on to each operand: from the derivative `d` by its result, the result `y` and the
operands.  An operation that is not listed is flat: the sign, comparisons."""

FLAT = frozenset({"sign", "lt", "le", "gt", "ge", "eq", "ne"})
"""The operations whose derivative is zero wherever there is one."""


def gradient(of: Symbol, by: Iterable[Symbol]) -> tuple[Symbol, ...]:
    """The derivatives of an expression by some of its inputs.

    Args:
        of: the expression, of numbers.
        by: inputs, such as ``x`` and ``y`` of a surface.

    Raises:
        TraceError: the expression has an operation that cannot be differentiated here, such as a matrix product.
    """
    traced = graph({"f": of})
    names = [x.args[0] for x in by]
    varies: set[Symbol] = set()
    for node in traced.nodes:
        if (node.op == "input" and node.args[0] in names) or any(x in varies for x in operands(node)):
            varies.add(node)
    sums: dict[Symbol, Any] = {traced.outputs["f"]: Symbol("const", (1.0,), "number")}
    for node in reversed(traced.nodes):
        if node not in varies or node not in sums or node.op == "input" or node.op in FLAT:
            continue
        if node.op not in PULLED:
            raise TraceError(f"{node.op} cannot be differentiated; a surface is written with {', '.join(PULLED)}")
        # Only what varies is asked for, so that nothing is computed of an exponent that is a constant.
        for operand, part in zip(node.args, PULLED[node.op](sums[node], node, *node.args), strict=True):
            if operand in varies:
                sums[operand] = sums[operand] + part if operand in sums else part
    found = {x.args[0]: sums.get(x, 0.0) for x in traced.nodes if x.op == "input" and x in varies}
    made = graph({name: found.get(name, 0.0) for name in names})
    return tuple(made.outputs[name] for name in names)
