"""Newton and Schulz's iteration for the nearest orthogonal matrix, with as few products as the shape allows.

Each iteration is X ← aX + (bA + cA²)X with A = XXᵀ.  XXᵀ, A² and all polynomials of A are symmetric, so of large ones
only the blocks on one side of the diagonal are computed.  For long matrices the iterations are done on A alone, since
X_{k+1} = P_k X_k gives A_{k+1} = P_k A_k P_k; X is multiplied once, by the product of all P_k.
"""

import time
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

_BLOCK = 160  # rows: smaller products run at a lower rate
_SMALL = 64  # rows: smaller matrices take no time in any type, so they are computed as torch's Muon does
_SAVED = 0.6  # a symmetric product's share of the cost of any other


def newton_schulz(x: Tensor, steps: int, coefficients: Sequence[Sequence[float]], dtype: torch.dtype | None) -> Tensor:
    """See `thalweg.matrices.orthogonalize`; of a batch, each matrix."""
    rows = [tuple(coefficients[min(k, len(coefficients) - 1)]) for k in range(steps)]
    tall = x.shape[-2] > x.shape[-1]
    y = x.mT if tall else x
    m, n = y.shape[-2:]
    dtype = dtype or x.dtype
    if dtype.itemsize < 3 and m < _SMALL:
        y = _rounded_once(y.to(dtype), rows)
        return (y.mT if tall else y).to(x.dtype)
    y = y.to(_faster(dtype, x.dtype))
    rounds = len(rows)
    whole = rounds * ((1 + _SAVED) * n + _SAVED * m)
    alone = (1 + _SAVED) * n + (4 * rounds - 3) * _SAVED * m
    if alone < whole and y.dtype in (torch.float32, torch.float64):
        y = _long(y, rows)
    else:
        for row in rows:
            y = _polynomial(symmetric(y, y.mT), row) @ y
    return (y.mT if tall else y).to(x.dtype)


def _rounded_once(x: Tensor, rows: Sequence[tuple[float, ...]]) -> Tensor:
    """The iterations as torch.optim.Muon does them: in 16 bits each sum of a matrix and a product is rounded once."""
    add = torch.addmm if x.ndim == 2 else torch.baddbmm
    y = x.reshape(-1, *x.shape[-2:]) if x.ndim > 2 else x
    for a, b, c in rows:
        square = y @ y.mT
        y = add(y, add(square, square, square, beta=b, alpha=c), y, beta=a)
    return y.reshape(x.shape)


def _long(x: Tensor, rows: Sequence[tuple[float, ...]]) -> Tensor:
    """The iterations on A, and one product with x."""
    a = symmetric(x, x.mT)
    product: Tensor | None = None
    for k, row in enumerate(rows):
        p = _polynomial(a, row)
        product = p if product is None else symmetric(p, product)
        if k < len(rows) - 1:
            a = symmetric(p, symmetric(a, p))
    return x if product is None else product @ x


def _polynomial(x: Tensor, row: tuple[float, ...]) -> Tensor:
    a, b, c = row
    p = symmetric(x, x).mul_(c).add_(x, alpha=b)
    p.diagonal(dim1=-2, dim2=-1).add_(a)
    return p


def symmetric(a: Tensor, b: Tensor, onto: tuple[Tensor, float, float] | None = None) -> Tensor:
    """The product of two matrices, which is known to be symmetric.

    Args:
        a: the first; of a batch, each.
        b: the second.
        onto: of two matrices, a symmetric one and two factors; the sum of that and the product, each by its factor.
    """
    n = a.shape[-2]
    if onto is None and (a.ndim > 2 or n < 2 * _BLOCK):
        return a @ b
    made = a.new_empty(n, n)
    height = -(-n // -(-n // _BLOCK))
    for first in range(0, n, height):
        # Rows up to their part on the diagonal; what is beyond it in rows before is the same, mirrored.
        own, until = slice(first, first + height), slice(None, min(first + height, n))
        if onto is None:
            torch.mm(a[own], b[:, until], out=made[own, until])
        else:
            torch.addmm(onto[0][own, until], a[own], b[:, until], beta=onto[1], alpha=onto[2], out=made[own, until])
        made[:first, own] = made[own, :first].mT
    return made


def _faster(dtype: torch.dtype, given: torch.dtype) -> torch.dtype:
    """A 16-bit type for products, or float32 where these are faster in it, as on processors without such products."""
    if dtype.itemsize > 2 or given.itemsize < 4:
        return dtype
    return dtype if _seconds(dtype) < _seconds(torch.float32) else torch.float32


@cache
def _seconds(dtype: torch.dtype) -> float:
    """The time of a product in a type, measured once in a process."""
    x = torch.ones(128, 128, dtype=dtype, device="cpu")
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        torch.mm(x, x)
        best = min(best, time.perf_counter() - begin)
    return best
