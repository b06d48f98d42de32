"""The functions that update rules are written in; they work on floats, on tensors and on symbols.

A rule says ``sqrt(v) + h.eps``.  Run on float64 tensors, that is the reference implementation; run on symbols, it is
the expression that kernels, LaTeX and browser code are printed from.  Each function (*word*) is declared once, below,
and listed in `WORDS`.

There are two kinds of symbol.  A *number* is computed once per step, by the host in float64: what depends only on
hyperparameters and the step count, and what a tensor is summed up to.  A *value* has one element per parameter.
"""

import linecache
import math
import operator
import struct
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Protocol, TypeAlias, TypeVar, cast, overload

import torch
from torch import Tensor

if TYPE_CHECKING:
    # Rules are typed as if they ran on tensors; floats and symbols obey the same arithmetic.
    Value: TypeAlias = Tensor
    Number: TypeAlias = float
else:

    class Value:
        """Marks a state field with one element per parameter."""

    class Number:
        """Marks a state field that is one number per parameter tensor, such as a product of momenta."""


V = TypeVar("V", float, Tensor)

_ORIGIN = __file__


class TraceError(TypeError):
    """A rule did something that cannot be traced; the message names the line and what to write instead."""


class Symbol:
    """A node of a traced expression: an operation on other nodes, an input, or a constant.

    Attributes:
        op: ``"input"``, ``"const"``, an operator (``"add"``, ``"lt"`` …) or the name of a word.
        args: the operands; for an input its name, for a constant its float.
        kind: ``"number"`` if it is one number per step or tensor, ``"value"`` if it has one element per parameter.
    """

    __slots__ = ("args", "kind", "op")

    op: str
    args: tuple[Any, ...]
    kind: Literal["number", "value"]

    def __init__(self, op: str, args: tuple[Any, ...], kind: Literal["number", "value"] | None = None) -> None:
        self.op = op
        self.args = args
        if kind is None:
            values = any(a.kind == "value" for a in cast("tuple[Symbol, ...]", args))
            kind = "value" if values and op not in ("sum", "size") else "number"
        self.kind = kind

    def __repr__(self) -> str:
        if self.op in ("input", "const"):
            return str(self.args[0])
        return f"{self.op}({', '.join(map(repr, self.args))})"

    def __add__(self, other: Any) -> "Symbol":
        return _node("add", self, other)

    def __radd__(self, other: Any) -> "Symbol":
        return _node("add", other, self)

    def __sub__(self, other: Any) -> "Symbol":
        return _node("sub", self, other)

    def __rsub__(self, other: Any) -> "Symbol":
        return _node("sub", other, self)

    def __mul__(self, other: Any) -> "Symbol":
        return _node("mul", self, other)

    def __rmul__(self, other: Any) -> "Symbol":
        return _node("mul", other, self)

    def __truediv__(self, other: Any) -> "Symbol":
        return _node("div", self, other)

    def __rtruediv__(self, other: Any) -> "Symbol":
        return _node("div", other, self)

    def __pow__(self, other: Any) -> "Symbol":
        return _node("pow", self, other)

    def __rpow__(self, other: Any) -> "Symbol":
        return _node("pow", other, self)

    def __neg__(self) -> "Symbol":
        return _node("neg", self)

    def __pos__(self) -> "Symbol":
        return self

    def __abs__(self) -> "Symbol":
        return _node("abs", self)

    def __lt__(self, other: Any) -> "Symbol":
        return _node("lt", self, other)

    def __le__(self, other: Any) -> "Symbol":
        return _node("le", self, other)

    def __gt__(self, other: Any) -> "Symbol":
        return _node("gt", self, other)

    def __ge__(self, other: Any) -> "Symbol":
        return _node("ge", self, other)

    def __eq__(self, other: object) -> "Symbol":  # type: ignore[override]
        return _node("eq", self, other)

    def __ne__(self, other: object) -> "Symbol":  # type: ignore[override]
        return _node("ne", self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        _refuse(
            "branches on a value that is only known when the rule runs",
            "write where(condition, a, b) from thalweg.maths instead of if, and, or, not, min or max",
        )

    def __float__(self) -> NoReturn:
        _refuse("turns a traced value into a float", "write it with the words of thalweg.maths, not with math or float")

    def __int__(self) -> NoReturn:
        _refuse("turns a traced value into an int", "write it with the words of thalweg.maths")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"uses .{name} of a tensor", f"write it with the words of thalweg.maths: {', '.join(sorted(WORDS))}")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(func, "__name__", str(func))
        hint = f"write thalweg.maths.{name}" if name in WORDS else f"thalweg.maths has {', '.join(sorted(WORDS))}"
        _refuse(f"calls torch's {name}", hint)


def _lacking(written: str, instead: str) -> Callable[..., NoReturn]:
    def method(*_: object) -> NoReturn:
        _refuse(f"uses {written}, which a formula does not have", instead)

    return method


for _names, _written, _instead in (
    ("mod rmod divmod rdivmod floordiv rfloordiv", "%, // or divmod", "write it with / and where from thalweg.maths"),
    ("round floor ceil trunc", "rounding", "write it with where from thalweg.maths"),
    ("and rand or ror xor rxor invert", "&, |, ^ or ~", "write where inside where, from thalweg.maths"),
    ("matmul rmatmul", "@", "rules have no matrices; write it with the words of thalweg.maths"),
    ("getitem len iter", "elements by index", "rules are of all elements alike, in the words of thalweg.maths"),
):
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _lacking(_written, _instead))


def _refuse(what: str, instead: str) -> NoReturn:
    """Raise `TraceError` naming the line of the rule, the first frame outside this module."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename in (_ORIGIN, torch.overrides.__file__):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line).strip()
    raise TraceError(f"{file}, line {line}: the rule {what}; {instead}." + (f"\n    {source}" if source else ""))


def _symbol(x: Any) -> Symbol:
    if isinstance(x, Symbol):
        return x
    if isinstance(x, (bool, int, float)):
        return Symbol("const", (float(x),), "number")
    _refuse(f"mixes a traced value with {x!r}", "only numbers and the values that the rule was given can be mixed")


def _node(op: str, *args: Any) -> Symbol:
    return Symbol(op, tuple(_symbol(a) for a in args))


class Unary(Protocol):
    """A word of one argument."""

    def __call__(self, x: V, /) -> V: ...


class Binary(Protocol):
    """A word of two arguments, either of which may be a number."""

    def __call__(self, a: V, b: V | float, /) -> V: ...


WORDS: dict[str, Callable[..., Any]] = {}
"""Every word by name."""

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "pow": operator.pow,
    "neg": operator.neg,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "ne": operator.ne,
}
"""Every operator that a symbol records, by name.  Graphs consist of these and of the words."""


def _unary(name: str, number: Callable[[float], float], tensor: Callable[[Tensor], Tensor], doc: str) -> Unary:
    def word(x: Any, /) -> Any:
        if isinstance(x, Tensor):
            return tensor(x)
        return _node(name, x) if isinstance(x, Symbol) else _ieee(number, x)

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
            return _node(name, a, b)
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


def _clamped(least: bool) -> Callable[[Any, Any], Tensor]:
    pair = torch.maximum if least else torch.minimum

    def word(a: Any, b: Any) -> Tensor:
        if isinstance(a, Tensor) and isinstance(b, Tensor):
            return pair(a, b)
        x, bound = (a, b) if isinstance(a, Tensor) else (b, a)
        return torch.clamp(x, min=bound) if least else torch.clamp(x, max=bound)

    return word


sqrt = _unary("sqrt", math.sqrt, torch.sqrt, "The square root; nan below zero.")
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
        return _node("where", condition, a, b)
    return a if condition else b


WORDS["where"] = where


def sum(x: V) -> Number:
    """The sum of all elements of a tensor, accumulated in float64: one number per parameter tensor."""
    if isinstance(x, Tensor):
        return cast(Any, x.sum(dtype=torch.float64) if x.ndim else x)
    if isinstance(x, Symbol) and x.kind != "value":
        _refuse("sums up what is one number", "thalweg.maths sums up what has an element per parameter")
    return cast(Any, _node("sum", x)) if isinstance(x, Symbol) else x


WORDS["sum"] = sum


def size(x: V) -> Number:
    """How many elements a tensor has."""
    if isinstance(x, Tensor):
        return float(x.numel())
    return cast(Any, _node("size", x)) if isinstance(x, Symbol) else 1.0


WORDS["size"] = size


def mean(x: V) -> Number:
    """The mean of all elements of a tensor; see `sum`."""
    return sum(x) / size(x)


def dot(a: V, b: V) -> Number:
    """The sum of the products of two tensors' elements; see `sum`."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.ndim:
        return sum(a.to(torch.float64) * b.to(torch.float64))
    return sum(a * b)


def norm(x: V) -> Number:
    """The 2-norm of a tensor; see `sum`."""
    return sqrt(dot(x, x))


def full_like(p: V, value: float) -> V:
    """`value` in the shape and dtype of `p`, for a rule's initial state; for complex `p`, in both components."""
    if isinstance(p, Tensor):
        # Added rather than filled in: under vmap `value` may be a traced tensor.
        zeros = torch.zeros_like(p, memory_format=torch.preserve_format)
        return cast(Any, zeros + (value * complex(1, 1) if p.is_complex() else value))
    return value


def zeros_like(p: V) -> V:
    """Zeros in the shape and dtype of `p`, for a rule's initial state."""
    return full_like(p, 0.0)
