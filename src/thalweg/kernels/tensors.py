"""What native functions ask of a tensor, in torch's own objects; compiled into each of them."""

from typing import Any

from numba import njit

from thalweg.kernels import memory
from thalweg.kernels.records import LAYOUT, PARAM, offsets

word: Any = memory.word
word16: Any = memory.word16

P, T = map(offsets, (PARAM, LAYOUT))

INLINE = 5  # dimensions, whose sizes and strides a tensor has in itself; those of more dimensions lie elsewhere


@njit(error_model="numpy")
def width(dtype: int) -> int:
    """The bytes of an element, by the number that torch has for a dtype that kernels can take."""
    return 4 if dtype == 6 else (8 if dtype == 7 else 2)


@njit(error_model="numpy")
def strided(tensor: int, o: int, ndim: int) -> tuple[int, int]:
    """Where a tensor's sizes and its strides stand."""
    sizes = tensor + word(o + T.sizes)
    if ndim > INLINE:
        sizes = word(sizes)
        return sizes, sizes + 8 * ndim
    return sizes, tensor + word(o + T.strides)


@njit(error_model="numpy")
def shaped(tensor: int, dtype: int, param: int, dims: int, o: int) -> bool:
    """Whether a tensor is plain, in this machine's memory, of this dtype, with a parameter's sizes and strides."""
    if word(tensor + word(o + T.keys)) != word(o + T.plain) or word16(tensor + word(o + T.dtype)) != dtype:
        return False
    ndim = word(param + P.ndim)
    if word(tensor + word(o + T.numel)) != word(param + P.numel) or word(tensor + word(o + T.ndim)) != ndim:
        return False
    sizes, strides = strided(tensor, o, ndim)
    known = dims + 8 * word(param + P.dims)
    for k in range(ndim):
        if word(sizes + 8 * k) != word(known + 8 * k):
            return False
        if word(strides + 8 * k) != word(known + 8 * (ndim + k)) and word(sizes + 8 * k) != 1:
            return False
    return True
