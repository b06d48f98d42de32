"""The words for matrices, as in `thalweg.maths`: on tensors, with any number of batch dimensions first, and on symbols.

Besides these, ``@`` and ``.T`` are words.  A parameter of more than two axes becomes a matrix by `unfold`.
"""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportUnnecessaryIsInstance=false

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from thalweg.maths import Array, Number, Value
from thalweg.orthogonal import newton_schulz
from thalweg.symbols import WORDS, Symbol, array_word, node, refuse

T = TypeVar("T")

DTYPES = {"full": None, "float32": torch.float32, "bfloat16": torch.bfloat16}
"""What rules call a precision: that of all arithmetic, or another one."""

KELLER = (3.4445, -4.7750, 2.0315)
"""The coefficients of K. Jordan's Muon: fast to begin with, and then around 1 rather than at it."""


def _wholly(made: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation on matrices that are sharded over processes, too: each process does it on the whole."""

    def done(x: Tensor, *others: Any) -> Tensor:
        mesh = getattr(x, "device_mesh", None)
        if mesh is None:
            return made(x, *others)
        from torch.distributed.tensor import DTensor, Replicate

        parts = (y.full_tensor() if isinstance(y, DTensor) else y for y in (x, *others))
        return DTensor.from_local(made(*parts), mesh, [Replicate()] * mesh.ndim, run_check=False)

    return done


# A tensor as a matrix

_unfold = array_word(
    "unfold",
    lambda x, axis: x.movedim(axis, 0).reshape(x.shape[axis], -1),
    lambda how, x: (x.known()[how[0]], _rest(x, how[0])),
)
_fold = array_word(
    "fold",
    lambda x, like, axis: x.reshape(like.movedim(axis, 0).shape).movedim(0, axis),
    lambda how, x, like: like.known(),
)
_eye = array_word(
    "eye",
    _wholly(lambda x, axis: torch.eye(x.shape[axis], dtype=x.dtype, device=x.device)),
    lambda how, x: (x.known()[how[0]], x.known()[how[0]]),
)


def _rest(x: Symbol, axis: int) -> tuple[int, ...]:
    return tuple(k for j, dimension in enumerate(x.known()) if j != axis for k in dimension)


def unfold(x: Value, axis: int) -> Array:
    """A tensor as a matrix with a row for each index along `axis`; of a matrix, axis 1 gives the transpose."""
    return x if isinstance(x, Symbol) and x.ndim == 2 and axis == 0 else _unfold(x, how=(axis,))


def fold(x: Array, like: Value, axis: int) -> Value:
    """A matrix from `unfold`, in the shape that `like` has."""
    return x if isinstance(like, Symbol) and like.ndim == 2 and axis == 0 else _fold(x, like, how=(axis,))


def turned(x: Value, q: Array, axis: int) -> Value:
    """A tensor multiplied by qᵀ along an axis: with the columns of an orthogonal q, its coordinates along these."""
    if isinstance(x, Tensor | Symbol) and x.ndim == 2:
        return x @ q if axis else q.T @ x
    return fold(q.T @ unfold(x, axis), x, axis)


def eye(x: Value, axis: int) -> Array:
    """The identity matrix with as many rows as `x` has along `axis`."""
    return _eye(x, how=(axis,)) if isinstance(x, Tensor | Symbol) else cast(Any, 1.0)


_resolution = array_word("resolution", lambda x: torch.finfo(x.dtype).eps, lambda how, x: ())


def resolution(x: Value) -> Number:
    """The spacing of numbers at 1, in the type of `x`."""
    return _resolution(x) if isinstance(x, Tensor | Symbol) else sys.float_info.epsilon


# Orthogonal matrices


_rounded_tensor = array_word("rounded", lambda x, dtype: x.to(dtype).to(x.dtype), lambda how, x: x.axes)


def _rounded(x: Any, how: tuple[torch.dtype]) -> Any:
    if isinstance(x, Tensor | Symbol):
        return _rounded_tensor(x, how=how)
    return torch.tensor(x, dtype=torch.float64, device="cpu").to(how[0]).item()


WORDS["rounded"] = _rounded


def rounded(x: T, dtype: torch.dtype | None) -> T:
    """`x` rounded to another dtype, or as it is for None; its own type stays."""
    return x if dtype is None else _rounded(x, how=(dtype,))


Blocks = int | tuple[int, ...]
"""How many blocks of equal numbers of rows a matrix consists of, or the number of rows of each."""


def _in_blocks(x: Tensor, blocks: Blocks, made: Callable[[Tensor], Tensor]) -> Tensor:
    """What is `made` of each block of rows, one below the other; small blocks of one shape in one batch."""
    if isinstance(blocks, tuple):
        return torch.cat([made(part) for part in x.split(blocks, -2)], -2)
    parts = x.unflatten(-2, (blocks, -1))
    if parts.shape[-2] * parts.shape[-1] <= _SMALL:
        return made(parts).flatten(-3, -2)
    return torch.cat([made(part) for part in parts.unbind(-3)], -2)


_SMALL = 256 * 256  # elements: larger blocks gain nothing from being in a batch

_orthogonalize = array_word(
    "orthogonalize",
    _wholly(lambda x, steps, rows, dtype, blocks=1: (
        newton_schulz(x, steps, rows, dtype) if blocks == 1
        else _in_blocks(x, blocks, lambda part: newton_schulz(part, steps, rows, dtype))
    )),
    lambda how, x: x.matrix(),
)  # fmt: skip

_within = array_word(
    "within",
    _wholly(lambda x, blocks: _in_blocks(x, blocks, lambda part: part.sum(-2, keepdim=True).expand_as(part))),
    lambda how, x: x.known(),
)


_heights = array_word(
    "heights",
    _wholly(lambda x, blocks: _in_blocks(x[..., :1], blocks, lambda part: torch.full_like(part, part.shape[-2]))),
    lambda how, x: (x.known()[0], ()),
)


def heights(x: Array, blocks: Blocks) -> Array:
    """The number of rows of the block that a row is in, as a column."""
    return _heights(x, how=(blocks,))


def within(x: Array, blocks: Blocks) -> Array:
    """The sum of a column over each block of rows, in every row of the block."""
    return _within(x, how=(blocks,))


def orthogonalize(
    x: Array,
    steps: int = 5,
    coefficients: Sequence[float] | Sequence[Sequence[float]] = KELLER,
    dtype: torch.dtype | None = None,
    blocks: Blocks = 1,
) -> Array:
    """A matrix with the singular vectors of `x` and singular values near 1, by Newton and Schulz's iteration.

    In each step X ← aX + (bA + cA²)X with A = XXᵀ.  It converges if no singular value of `x` is above 1.

    Args:
        x: a matrix of norm 1 or less.
        steps: how many iterations.
        coefficients: a, b and c; or these for each iteration, the last ones for any more.
        dtype: of the products, if other than that of `x`; for a 16-bit type float32 is taken where that is faster.
        blocks: of rows, each of which is a matrix of its own.
    """
    rows = cast(Any, coefficients if isinstance(coefficients[0], Sequence) else (coefficients,))
    how = (int(steps), tuple(tuple(map(float, row)) for row in rows), dtype)
    return _orthogonalize(x, how=how if blocks == 1 else (*how, blocks))


_qr = array_word(
    "qr",
    _wholly(lambda x, dtype=None: torch.linalg.qr(x.to(dtype or x.dtype))[0].to(x.dtype)),
    lambda how, x: x.matrix(),
)


def qr(x: Array, dtype: torch.dtype | None = None) -> Array:
    """The orthogonal matrix Q of x = QR, computed in `dtype`, if that is given."""
    return _qr(x, how=() if dtype is None else (dtype,))


_eigenvectors = array_word("eigenvectors", _wholly(lambda x: torch.linalg.eigh(x)[1]), lambda how, x: x.matrix())
_eigenvalues = array_word(
    "eigenvalues", _wholly(lambda x: torch.linalg.eigh(x)[0].unsqueeze(-2)), lambda how, x: ((), x.matrix()[1])
)


def eigh(x: Array) -> tuple[Array, Array]:
    """The eigenvalues of a symmetric matrix, ascending, as a row, and its eigenvectors, as the columns of a matrix."""
    if isinstance(x, Tensor) and not hasattr(x, "device_mesh"):
        values, vectors = torch.linalg.eigh(x)
        return values.unsqueeze(-2), vectors
    return _eigenvalues(x), _eigenvectors(x)


def _inverse_root(x: Tensor, order: float) -> Tensor:
    # Singular values are never negative; the least eigenvalues can be, by rounding, and have no root then.
    left, values, right = torch.linalg.svd(x)
    return left * values.unsqueeze(-2) ** (-1 / order) @ right


_inverse = array_word("inverse_root", _wholly(_inverse_root), lambda how, x: x.matrix())


def inverse_root(x: Array, order: float) -> Array:
    """The power −1/order of a symmetric matrix with positive eigenvalues."""
    return _inverse(x, how=(float(order),))


_arranged = array_word(
    "arranged",
    _wholly(lambda x, key, axis: x.index_select(axis, key.flatten().argsort(descending=True))),
    lambda how, x, key: x.known(),
)


def arranged(x: T, key: Array, axis: int) -> T:
    """The slices of `x` along `axis`, those with the largest `key` first; `key` has one element for each."""
    return _arranged(x, key, how=(axis,))


# What is computed now and then


def when(condition: Any, new: Callable[[], T], old: T) -> T:
    """``new()`` if a condition on numbers holds, else `old`, without computing the other; a state, or several.

    Args:
        condition: a comparison of numbers.
        new: what computes an array or a tuple of arrays.
        old: the same without computation.
    """
    if not isinstance(condition, Symbol):
        return new() if condition else old
    if condition.kind != "number":
        refuse("decides for each element what to compute", "write where(condition, a, b) from thalweg.maths")
    made = cast(Any, new())
    if isinstance(made, tuple):
        pairs = zip(cast("tuple[Any, ...]", made), cast("tuple[Any, ...]", old), strict=True)
        return cast(Any, tuple(node("when", condition, a, b) for a, b in pairs))
    return cast(Any, node("when", condition, made, old))


WORDS["when"] = lambda condition, new, old: new if condition else old


def every(k: Number, t: Number, new: Callable[[], T], old: T) -> T:
    """``new()`` in the steps `t` that `k` divides, else `old`, without computing the other; see `when`."""
    return when(remainder(t, k) == 0, new, old)


def remainder(a: Number, b: Number) -> Number:
    """What is left of a number divided by another."""
    return cast(Any, node("remainder", a, b) if isinstance(a, Symbol) or isinstance(b, Symbol) else a % b)


WORDS["remainder"] = remainder
