"""Derivatives of traced expressions against autograd: every operation, and what is refused."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg import maths
from thalweg.derivative import FLAT, PULLED, gradient
from thalweg.matrices import eye
from thalweg.symbols import TraceError
from thalweg.trace import evaluate, graph, number, value

CASES: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + (y + 1.5),
    "sub": lambda x, y: (2.0 - x) - y,
    "mul": lambda x, y: x * y * y,
    "div": lambda x, y: x / (y * y + 1.0) + 3.0 / (x * x + 2.0),
    "pow": lambda x, y: (x * x + 1.0) ** y + x**3 + 2.0**x,
    "neg": lambda x, y: -(x * y),
    "sqrt": lambda x, y: maths.sqrt(x * x + y * y + 1.0),
    "cbrt": lambda x, y: maths.cbrt(x + 7.0),
    "abs": lambda x, y: maths.abs(x - y),
    "exp": lambda x, y: maths.exp(-x * y),
    "log": lambda x, y: maths.log(x * x + 0.5),
    "sin": lambda x, y: maths.sin(x * y),
    "cos": lambda x, y: maths.cos(x - 2.0 * y),
    "tanh": lambda x, y: maths.tanh(x + y),
    "maximum": lambda x, y: maths.maximum(x, y * y),
    "minimum": lambda x, y: maths.minimum(x * y, 0.3),
    "where": lambda x, y: maths.where(x > y, x * x, y),
    "single": lambda x, y: maths.single(x) * y,
    "sign": lambda x, y: maths.sign(x) * y,
}


def test_every_operation_has_a_case():
    assert set(CASES) == (set(PULLED) | FLAT) - {"lt", "le", "gt", "ge", "eq", "ne"}


@pytest.mark.parametrize("op", CASES)
@given(st.floats(-3, 3), st.floats(-3, 3))
def test_an_operation_is_differentiated_as_by_autograd(op: str, a: float, b: float):
    x, y = number("x"), number("y")
    found = graph(dict(zip("xy", gradient(CASES[op](x, y), (x, y)), strict=True)))
    point = torch.tensor([a, b], dtype=torch.float64, requires_grad=True)
    if abs(a - b) < 1e-6 or abs(a - b * b) < 1e-6 or abs(a * b - 0.3) < 1e-6 or abs(a) < 1e-6:
        return  # at an edge each side has a slope of its own
    expected = torch.autograd.grad(CASES[op](point[0], point[1]), point, allow_unused=True)[0]
    got = evaluate(found, {"x": point[0].detach(), "y": point[1].detach()})
    # torch does not differentiate through rounding to float32 exactly: it rounds the derivative, too.
    exact = 1e-6 if op == "single" else 1e-12
    assert [float(got["x"]), float(got["y"])] == pytest.approx(expected.tolist(), rel=exact, abs=exact)


def test_what_is_not_taken_may_be_infinite():
    x, y = number("x"), number("y")
    (by,) = gradient(maths.where(x > 0, maths.sqrt(maths.where(x > 0, x, 1.0)), 0.0) + 0 * y, (x,))
    assert evaluate(graph({"x": by}), {"x": torch.tensor(0.0), "y": torch.tensor(0.0)})["x"] == 0


def test_an_input_that_is_not_used_has_a_slope_of_zero():
    x, y = number("x"), number("y")
    assert [node.args for node in gradient(x * x, (y,))] == [(0.0,)]
    assert math.isclose(float(evaluate(graph({"x": gradient(x * x, (x,))[0]}), {"x": 3.0})["x"]), 6)


def test_a_matrix_is_refused():
    x = value("x", ((0,), (1,)))
    refused: Any = maths.sum(x @ (eye(x, 1) * maths.sum(x)))
    with pytest.raises(TraceError, match="sum cannot be differentiated; a surface is written with add, sub"):
        gradient(refused, (x,))
