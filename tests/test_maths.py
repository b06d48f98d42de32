"""The functions for rules: equal on floats, tensors and symbols."""

import math
import operator
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from thalweg import maths, matrices
from thalweg.maths import full_like, where, zeros_like
from thalweg.symbols import OPERATORS, WORDS, Symbol, TraceError

UNARY = ("sqrt", "cbrt", "abs", "sign", "single", "exp", "log", "sin", "cos", "tanh")
BINARY = ("maximum", "minimum")
WHOLE = ("sum", "size", "total")
ARRAYS = (
    "sum_over", "amax_over", "size_over", "unfold", "fold", "eye", "orthogonalize", "qr", "eigenvectors",
    "eigenvalues", "inverse_root", "arranged", "when", "remainder", "matmul", "transpose", "resolution",
    "rounded", "within", "heights",
)  # fmt: skip
EDGES = (0.0, -0.0, 1.0, -1.0, 0.5, 1e300, -1e300, 1e-320, 1000.0, math.inf, -math.inf, math.nan)


def t(x: float) -> Any:
    return torch.tensor([x], dtype=torch.float64)


def same(a: float, b: Any) -> None:
    torch.testing.assert_close(t(a), b, rtol=1e-14, atol=0, equal_nan=True)


def test_the_table_is_the_words() -> None:
    assert matrices.orthogonalize.__doc__
    assert set(WORDS) == {*UNARY, *BINARY, *WHOLE, "where", *ARRAYS}
    assert all(getattr(maths, name) is WORDS[name] and WORDS[name].__doc__ for name in (*UNARY, *BINARY, *WHOLE))


@pytest.mark.parametrize("x", EDGES)
@pytest.mark.parametrize("name", UNARY)
def test_a_float_gives_what_a_tensor_gives(name: str, x: float) -> None:
    same(WORDS[name](x), WORDS[name](t(x)))


@pytest.mark.parametrize("b", EDGES)
@pytest.mark.parametrize("a", EDGES)
@pytest.mark.parametrize("name", BINARY)
def test_two_floats_give_what_tensors_give(name: str, a: float, b: float) -> None:
    word = WORDS[name]
    for pair in ((t(a), t(b)), (a, t(b)), (t(a), b)):
        same(word(a, b), word(*pair))


@given(x=st.floats(allow_subnormal=False), y=st.floats(allow_subnormal=False))
def test_where_takes_one_of_two(x: float, y: float) -> None:
    for condition in (True, False):
        expected = x if condition else y
        same(where(condition, x, y), t(expected))
        mask = torch.tensor([condition])
        for pair in ((t(x), t(y)), (x, t(y)), (t(x), y), (x, y)):
            same(expected, where(mask, *pair))


def test_where_keeps_the_type_of_its_tensors() -> None:
    mask, x = torch.tensor([True, False]), torch.ones(2)
    for made in (where(mask, x, 0.1), where(mask, 0.1, x), maths.maximum(x, 0.1), maths.minimum(x, 0.1)):
        assert made.dtype == torch.float32


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_recorded(name: str) -> None:
    x, y = Symbol("input", ("x",), "value"), Symbol("input", ("y",), "number")
    apply = OPERATORS[name]
    made = apply(x) if apply is operator.neg else apply(x, y)
    assert made.op == name
    assert made.kind == "value"
    if apply is not operator.neg:
        for other in (apply(x, 2), apply(2.0, y)):
            assert isinstance(other, Symbol)
        assert apply(y, y).kind == "number"


def test_pythons_own_abs_is_recorded() -> None:
    x = Symbol("input", ("x",), "value")
    assert (+x) is x
    assert (abs(x).op, repr(abs(x))) == ("abs", "abs(x)")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_first_states(dtype: torch.dtype) -> None:
    p = torch.ones(2, 3, dtype=dtype).t()
    assert (full_like(p, 0.5).dtype, full_like(p, 0.5).stride()) == (dtype, p.stride())
    parts = torch.view_as_real(full_like(p, 0.5)) if dtype.is_complex else full_like(p, 0.5)
    assert torch.equal(parts, torch.full_like(parts, 0.5))
    assert not zeros_like(p).any()
    assert (full_like(2.0, 0.5), zeros_like(2.0)) == (0.5, 0.0)


@given(xs=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=20))
def test_words_of_a_whole_tensor(xs: list[float]) -> None:
    x, y = torch.tensor(xs, dtype=torch.float64), torch.tensor(xs[::-1], dtype=torch.float64)
    assert float(maths.sum(x)) == pytest.approx(math.fsum(xs), rel=1e-12, abs=1e-12)
    assert float(maths.mean(x)) == pytest.approx(math.fsum(xs) / len(xs), rel=1e-12, abs=1e-12)
    assert float(maths.dot(x, y)) == pytest.approx(
        math.fsum(a * b for a, b in zip(xs, xs[::-1], strict=True)), abs=1e-8
    )
    assert float(maths.norm(x)) == pytest.approx(math.hypot(*xs), rel=1e-12, abs=1e-12)


def test_a_float_is_a_tensor_of_one_element() -> None:
    words: tuple[Any, ...] = (maths.sum, maths.mean, maths.norm)
    for word in words:
        same(word(-3.0), word(t(-3.0)).reshape(1))
    dot: Any = maths.dot
    same(dot(-3.0, 2.0), dot(t(-3.0), t(2.0)).reshape(1))


def test_a_norm_of_a_small_type_is_not_beyond_it() -> None:
    assert float(maths.norm(torch.full((4,), 3e38))) == pytest.approx(6e38, rel=1e-6)


def test_what_a_tensor_is_summed_up_to_is_a_number() -> None:
    x: Any = Symbol("input", ("x",), "value")
    y: Any = Symbol("input", ("y",), "number")
    words: tuple[Any, ...] = (maths.sum, maths.size, maths.mean, maths.norm)
    for word in words:
        assert word(x).kind == "number"
        assert (word(x) * x).kind == "value"
    with pytest.raises(TraceError, match="sums up what is one number"):
        maths.mean(y)
