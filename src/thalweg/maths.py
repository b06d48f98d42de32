"""The functions that update rules are written in; they work on floats, on tensors and on symbols.

A rule says ``sqrt(v) + h.eps``.  Run on float64 tensors, that is the reference implementation; run on symbols, it is
the expression that kernels, LaTeX and browser code are printed from.  Each function (*word*) is declared once, and
listed in `thalweg.symbols.WORDS`: those of elements and sums here, those of matrices in `thalweg.matrices`.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import math
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar, cast, overload

import torch
from torch import Tensor

from thalweg.symbols import SHAPES, WORDS, Axes, Symbol, array_word, node, refuse

if TYPE_CHECKING:
    # Rules are typed as if they ran on tensors; floats and symbols obey the same arithmetic.
    Value: TypeAlias = Tensor
    Array: TypeAlias = Tensor
    Number: TypeAlias = float
    Shared: TypeAlias = float
else:

    class Value:
        """Marks a state field with one element per parameter."""

    class Array:
        """Marks a state field of another shape than the parameter, such as the sums of its rows."""

    class Number:
        """Marks a state field that is one number per parameter tensor, such as a product of momenta."""

    class Shared:
        """Marks a state field that is one number per optimizer; every parameter's state shows it."""


V = TypeVar("V", float, Tensor)


class Unary(Protocol):
    """A word of one argument."""

    def __call__(self, x: V, /) -> V: ...


class Binary(Protocol):
    """A word of two arguments, either of which may be a number."""

    def __call__(self, a: V, b: V | float, /) -> V: ...


def _unary(name: str, number: Callable[[float], float], tensor: Callable[[Tensor], Tensor], doc: str) -> Unary:
    def word(x: Any, /) -> Any:
        if isinstance(x, Tensor):
            return tensor(x)
        return node(name, x) if isinstance(x, Symbol) else _ieee(number, x)

    word.__name__, word.__doc__ = name, doc
    WORDS[name] = word
    return cast(Unary, word)


def _binary(
    name: str, number: Callable[[float, float], float], tensor: Callable[[Any, Any], Tensor], doc: str
) -> Binary:
    def word(a: Any, b: Any, /) -> Any:
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return tensor(a, b)
        if isinstance(a, Symbol) or isinstance(b, Symbol):
            return node(name, a, b)
        return number(a, b)

    word.__name__, word.__doc__ = name, doc
    WORDS[name] = word
    return cast(Binary, word)


def _ieee(number: Callable[[float], float], x: float) -> float:
    # Tensors give nan and inf where Python's math raises; `where` evaluates both sides, so floats must do the same.
    try:
        return number(x)
    except ValueError:
        return -math.inf if x == 0 else math.nan
    except OverflowError:
        return math.inf


def _single(x: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def _cbrt(x: Tensor) -> Tensor:
    y = x.sign() * x.abs().pow(1 / 3)
    # Since 1/3 is rounded, the power is off by tens of units in the last place, and one of Newton's steps is not.
    better = y - (y - x / (y * y)) / 3
    return torch.where(torch.isfinite(better), better, y)


def _clamped(least: bool) -> Callable[[Any, Any], Tensor]:
    pair = torch.maximum if least else torch.minimum

    def word(a: Any, b: Any) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return pair(a, b)
        x, bound = (a, b) if isinstance(a, Tensor) else (b, a)
        return torch.clamp(x, min=bound) if least else torch.clamp(x, max=bound)

    return word


sqrt = _unary("sqrt", math.sqrt, torch.sqrt, "The square root; nan below zero.")
cbrt = _unary("cbrt", math.cbrt, _cbrt, "The cube root, of negative numbers, too.")
abs = _unary("abs", math.fabs, torch.abs, "The magnitude.")
sign = _unary("sign", lambda x: float((x > 0) - (x < 0)), torch.sign, "-1, 0 or 1.")
exp = _unary("exp", math.exp, torch.exp, "The exponential.")
log = _unary("log", math.log, torch.log, "The natural logarithm; -inf at zero, nan below.")
sin = _unary("sin", math.sin, torch.sin, "The sine.")
cos = _unary("cos", math.cos, torch.cos, "The cosine.")
tanh = _unary("tanh", math.tanh, torch.tanh, "The hyperbolic tangent.")
single = _unary("single", _single, lambda x: x.to(torch.float32).to(x.dtype), "Rounded to float32.")
maximum = _binary("maximum", lambda a, b: b if a < b or b != b else a, _clamped(True), "The larger; nan if either is.")
minimum = _binary(
    "minimum", lambda a, b: b if a > b or b != b else a, _clamped(False), "The smaller; nan if either is."
)


@overload
def where(condition: Any, a: Tensor, b: Tensor | float) -> Tensor: ...
@overload
def where(condition: Any, a: float, b: Tensor) -> Tensor: ...
@overload
def where(condition: Any, a: float, b: float) -> float: ...
def where(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, `b` elsewhere; both are evaluated, as on tensors."""
    if isinstance(condition, Tensor):
        if isinstance(a, Tensor) or isinstance(b, Tensor):
            return torch.where(condition, a, b)
        return torch.where(condition, torch.tensor(a, dtype=torch.float64), b)
    if isinstance(condition, Symbol):
        return node("where", condition, a, b)
    return a if condition else b


WORDS["where"] = where


Over: TypeAlias = int | tuple[int, ...] | None
"""The axes that something is summed over, counted from the first; None for all of them."""


def _over(axis: int | tuple[int, ...]) -> tuple[int, ...]:
    return (axis,) if isinstance(axis, int) else axis


def _summed(how: tuple[int, ...], x: Symbol) -> Axes:
    left = tuple(() if k in how else a for k, a in enumerate(x.known()))
    return left if any(left) else ()


SHAPES["sum"] = SHAPES["size"] = SHAPES["total"] = lambda how, x: ()


def _count(x: Tensor, axes: tuple[int, ...]) -> float:
    return float(math.prod(x.shape[k] for k in axes))


_sum_over = array_word(
    "sum_over",
    lambda x, *axes: x.sum(axes, keepdim=True),
    _summed,
)
_amax_over = array_word("amax_over", lambda x, *axes: x.amax(axes, keepdim=True), _summed)
_size_over = array_word("size_over", lambda x, *axes: _count(x, axes), lambda how, x: ())


@overload
def sum(x: V) -> Number: ...
@overload
def sum(x: V, axis: int | tuple[int, ...]) -> V: ...
def sum(x: Any, axis: Over = None) -> Any:
    """The sum of all elements of a tensor, accumulated in float64: one number per parameter tensor.

    With `axis`, over these axes only, which are kept with one element, as with ``keepdim=True``.
    """
    if axis is not None:
        return _sum_over(x, how=_over(axis)) if axis != () else x
    if isinstance(x, Tensor):
        return x.sum(dtype=torch.float64) if x.ndim else x
    if isinstance(x, Symbol) and x.kind == "number":
        refuse("sums up what is one number", "thalweg.maths sums up what has an element per parameter")
    return node("sum", x) if isinstance(x, Symbol) else x


WORDS["sum"] = sum


def amax(x: V, axis: int | tuple[int, ...]) -> V:
    """The largest element along some axes, which are kept with one element; with none, `x` itself."""
    return _amax_over(x, how=_over(axis)) if axis != () else x


@overload
def size(x: V) -> Number: ...
@overload
def size(x: V, axis: Over) -> Number: ...
def size(x: Any, axis: Over = None) -> Any:
    """How many elements a tensor has, or has along some axes."""
    if axis is not None:
        return _size_over(x, how=_over(axis)) if isinstance(x, Tensor | Symbol) and axis != () else 1.0
    if isinstance(x, Tensor):
        return float(x.numel())
    return node("size", x) if isinstance(x, Symbol) else 1.0


WORDS["size"] = size


@overload
def mean(x: V) -> Number: ...
@overload
def mean(x: V, axis: int | tuple[int, ...]) -> V: ...
def mean(x: Any, axis: Any = None) -> Any:
    """The mean of all elements of a tensor, or over some axes; see `sum`."""
    return sum(x, axis) / size(x, axis)


@overload
def dot(a: V, b: V) -> Number: ...
@overload
def dot(a: V, b: V, axis: int | tuple[int, ...]) -> V: ...
def dot(a: Any, b: Any, axis: Any = None) -> Any:
    """The sum of the products of two tensors' elements, or over some axes; see `sum`."""
    if axis is None and isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim:
        return sum(a.to(torch.float64) * b.to(torch.float64))
    return sum(a * b) if axis is None else sum(a * b, axis)


@overload
def norm(x: V) -> Number: ...
@overload
def norm(x: V, axis: int | tuple[int, ...]) -> V: ...
def norm(x: Any, axis: Any = None) -> Any:
    """The 2-norm of a tensor, or over some axes; see `sum`."""
    return sqrt(dot(x, x, axis))


def total(x: V) -> Number:
    """The sum of a number, or of all elements of a tensor, over all parameters of the optimizer."""
    if isinstance(x, Symbol):
        return cast(Any, node("total", x if x.kind == "number" else sum(cast(Any, x))))
    return sum(x)


WORDS["total"] = total


def ndim(x: V) -> int:
    """How many axes a tensor has; a number has none."""
    return x.ndim if isinstance(x, Tensor | Symbol) else 0


def full_like(p: V, value: float) -> V:
    """`value` in the shape and dtype of `p`, for a rule's initial state; for complex `p`, in both components."""
    if isinstance(p, Tensor):
        # Added rather than filled in: under vmap `value` may be a traced tensor.
        zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
        return cast(Any, zeros + (value * complex(1, 1) if p.is_complex() else value))
    if isinstance(value, Symbol):  # a setting, when what a state begins with is printed
        return value
    return cast(Any, Symbol("const", (value,), "value", p.axes)) if isinstance(p, Symbol) else value


def zeros_like(p: V) -> V:
    """Zeros in the shape and dtype of `p`, for a rule's initial state."""
    return full_like(p, 0.0)
