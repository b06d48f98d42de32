"""Nodes of traced expressions, which a rule's update is turned into when it is run on symbols.

There are three kinds of symbol.  A *number* is computed once per step, by the host in float64: what depends only on
hyperparameters and the step count, and what a tensor is summed up to.  A *value* has one element per parameter.  An
*array* has another shape: sums over rows or columns, the factors of a matrix.  Its shape is known in terms of the
parameter's axes, so a formula with arrays is traced for a number of axes.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import linecache
import operator
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeAlias

import torch

Axes: TypeAlias = tuple[tuple[int, ...], ...]
"""A shape: for each dimension the axes of the parameter that it runs over, none where it has one element."""

_HERE = {str(Path(__file__).with_name(name)) for name in ("symbols.py", "maths.py", "matrices.py")}


class TraceError(TypeError):
    """A rule did something that cannot be traced; the message names the line and what to write instead."""


class Symbol:
    """A node of a traced expression: an operation on other nodes, an input, or a constant.

    Attributes:
        op: ``"input"``, ``"const"``, an operator (``"add"``, ``"lt"`` …) or the name of a word.
        args: the operands; for an input its name, for a constant its float.
        kind: ``"number"`` if it is one number per step or tensor, ``"value"`` if it has one element per parameter,
            ``"array"`` if it has another shape.
        axes: the shape, in the parameter's axes; None for a value in a formula that holds for any number of axes.
        how: what else an operation depends on, such as the axes that are summed over.
    """

    __slots__ = ("args", "axes", "how", "kind", "op")

    op: str
    args: tuple[Any, ...]
    kind: Literal["number", "value", "array"]
    axes: Axes | None
    how: tuple[Any, ...]

    def __init__(
        self,
        op: str,
        args: tuple[Any, ...],
        kind: Literal["number", "value"] | None = None,
        axes: Axes | None = None,
        how: tuple[Any, ...] = (),
    ) -> None:
        self.op = op
        self.args = args
        self.how = how
        if kind == "number":
            axes = ()
        elif kind is None:
            axes = SHAPES.get(op, _broadcast)(how, *args)
        self.axes = axes
        self.kind = "number" if axes == () else "value" if axes is None or _is_whole(axes) else "array"

    def __repr__(self) -> str:
        if self.op in ("input", "const"):
            return str(self.args[0])
        return f"{self.op}({', '.join(map(repr, self.args))})"

    def __add__(self, other: Any) -> "Symbol":
        return node("add", self, other)

    def __radd__(self, other: Any) -> "Symbol":
        return node("add", other, self)

    def __sub__(self, other: Any) -> "Symbol":
        return node("sub", self, other)

    def __rsub__(self, other: Any) -> "Symbol":
        return node("sub", other, self)

    def __mul__(self, other: Any) -> "Symbol":
        return node("mul", self, other)

    def __rmul__(self, other: Any) -> "Symbol":
        return node("mul", other, self)

    def __truediv__(self, other: Any) -> "Symbol":
        return node("div", self, other)

    def __rtruediv__(self, other: Any) -> "Symbol":
        return node("div", other, self)

    def __matmul__(self, other: Any) -> "Symbol":
        return node("matmul", self, other)

    @property
    def T(self) -> "Symbol":
        """The transpose of a matrix."""
        return self.args[0] if self.op == "transpose" else node("transpose", self)

    @property
    def ndim(self) -> int:
        """How many dimensions it has."""
        return len(self.known())

    def known(self) -> Axes:
        """Its shape, which must be known."""
        if self.axes is None:
            refuse(
                "depends on the shape of the parameter",
                "give it a method fit(self, shape), which returns the rule as it is for parameters of a shape",
            )
        return self.axes

    def matrix(self) -> Axes:
        """Its shape, which must be that of a matrix."""
        axes = self.known()
        if len(axes) != 2:
            refuse(f"uses a tensor of {len(axes)} axes as a matrix", "write unfold(x, axis) from thalweg.matrices")
        return axes

    def __pow__(self, other: Any) -> "Symbol":
        return node("pow", self, other)

    def __rpow__(self, other: Any) -> "Symbol":
        return node("pow", other, self)

    def __neg__(self) -> "Symbol":
        return node("neg", self)

    def __pos__(self) -> "Symbol":
        return self

    def __abs__(self) -> "Symbol":
        return node("abs", self)

    def __lt__(self, other: Any) -> "Symbol":
        return node("lt", self, other)

    def __le__(self, other: Any) -> "Symbol":
        return node("le", self, other)

    def __gt__(self, other: Any) -> "Symbol":
        return node("gt", self, other)

    def __ge__(self, other: Any) -> "Symbol":
        return node("ge", self, other)

    def __eq__(self, other: object) -> "Symbol":  # type: ignore[override]
        return node("eq", self, other)

    def __ne__(self, other: object) -> "Symbol":  # type: ignore[override]
        return node("ne", self, other)

    __hash__ = object.__hash__

    def __bool__(self) -> NoReturn:
        refuse(
            "branches on a value that is only known when the rule runs",
            "write where(condition, a, b) from thalweg.maths instead of if, and, or, not, min or max",
        )

    def __float__(self) -> NoReturn:
        refuse("turns a traced value into a float", "write it with the words of thalweg.maths, not with math or float")

    def __int__(self) -> NoReturn:
        refuse("turns a traced value into an int", "write it with the words of thalweg.maths")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        refuse(f"uses .{name} of a tensor", f"write it with the words of thalweg.maths: {', '.join(sorted(WORDS))}")

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        name = getattr(func, "__name__", str(func))
        hint = f"write thalweg.maths.{name}" if name in WORDS else f"thalweg.maths has {', '.join(sorted(WORDS))}"
        refuse(f"calls torch's {name}", hint)


def _lacking(written: str, instead: str) -> Callable[..., NoReturn]:
    def method(*_: object) -> NoReturn:
        refuse(f"uses {written}, which a formula does not have", instead)

    return method


for _names, _written, _instead in (
    ("mod rmod divmod rdivmod floordiv rfloordiv", "%, // or divmod", "write it with / and where from thalweg.maths"),
    ("round floor ceil trunc", "rounding", "write it with where from thalweg.maths"),
    ("and rand or ror xor rxor invert", "&, |, ^ or ~", "write where inside where, from thalweg.maths"),
    ("getitem len iter", "elements by index", "rules are of all elements alike, in the words of thalweg.maths"),
):
    for _name in _names.split():
        setattr(Symbol, f"__{_name}__", _lacking(_written, _instead))


def refuse(what: str, instead: str) -> NoReturn:
    """Raise `TraceError` naming the line of the rule, the first frame outside the words."""
    frame = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame.f_back is not None and frame.f_code.co_filename in (*_HERE, torch.overrides.__file__):
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    source = linecache.getline(file, line).strip()
    raise TraceError(f"{file}, line {line}: the rule {what}; {instead}." + (f"\n    {source}" if source else ""))


def symbol(x: Any) -> Symbol:
    """A symbol as it is, a number as a constant."""
    if isinstance(x, Symbol):
        return x
    if isinstance(x, (bool, int, float)):
        return Symbol("const", (float(x),), "number")
    refuse(f"mixes a traced value with {x!r}", "only numbers and the values that the rule was given can be mixed")


def node(op: str, *args: Any, how: tuple[Any, ...] = ()) -> Symbol:
    """The node of an operation on symbols and numbers."""
    return Symbol(op, tuple(symbol(a) for a in args), how=how)


def _is_whole(axes: Axes) -> bool:
    """Whether a shape is the parameter's own."""
    return all(dimension == (k,) for k, dimension in enumerate(axes))


def _broadcast(how: object, *args: Symbol) -> Axes | None:
    """The shape of an operation that is done element by element."""
    shapes = [x.axes for x in args if x.axes != ()]
    if not shapes:
        return ()
    first = shapes[0]
    if all(axes == first for axes in shapes):
        return first
    known = [x.known() for x in args if x.axes != ()]
    found = list(known[0])
    for axes in known[1:]:
        if len(axes) != len(found) or any(a != b and a and b for a, b in zip(axes, found, strict=True)):
            refuse(f"combines the shapes {known[0]} and {axes}, by axes of the parameter", "make them equal")
        found = [a or b for a, b in zip(axes, found, strict=True)]
    return tuple(found)


def _product(how: object, a: Symbol, b: Symbol) -> Axes:
    left, right = a.matrix(), b.matrix()
    if left[1] != right[0]:
        refuse(f"multiplies matrices of shapes {left} and {right}, by axes of the parameter", "transpose one of them")
    return left[0], right[1]


SHAPES: dict[str, Callable[..., Axes | None]] = {}
"""The shape of each operation that is not done element by element, from its ``how`` and its operands."""


MATRICES: set[str] = set()
"""The names of the words that are not done element by element, nor sum up a whole tensor."""

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


def array_word(name: str, tensor: Callable[..., Any], axes: Callable[..., Axes | None]) -> Callable[..., Any]:
    """A word for arrays, listed in `WORDS`; of a number it is that number, as of an array of one element.

    Args:
        name: its name.
        tensor: the word on tensors, with what is in ``how`` as its last arguments.
        axes: its shape; see `SHAPES`.
    """

    def word(x: Any, *others: Any, how: tuple[Any, ...] = ()) -> Any:
        if isinstance(x, Symbol):
            return node(name, x, *others, how=how)
        return tensor(x, *others, *how) if isinstance(x, torch.Tensor) else x

    SHAPES[name] = axes
    WORDS[name] = word
    MATRICES.add(name)
    return word


array_word("matmul", torch.matmul, _product)
array_word("transpose", lambda x: x.mT, lambda how, x: x.matrix()[::-1])
