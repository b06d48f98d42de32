"""Rounding to bfloat16 up or down at random, so that the mean is right and what is gathered in small steps is kept.

Which way depends on the seed, the step, the parameter, the array and the element alone: runs repeat bit for bit, on any
number of threads and in every backend, and no two tensors share their noise.
"""

import zlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

SEED, STEP, TENSOR = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
"""Odd factors of 32 bits that spread seeds, steps and parameters over all salts."""

_LOW = 0xFFFFFFFF


def salt(seed: int, step: int, tensor: int) -> int:
    """Where a parameter's noise begins in a step: 32 bits, to which the number of the element is added."""
    return (seed * SEED + step * STEP + tensor * TENSOR) & _LOW


def of_array(name: str) -> int:
    """What is added to the salt for an array, by its name in the trace: 32 bits."""
    return zlib.crc32(name.encode())


def mix(x: T, xor: Callable[[T, T], T], shift: Callable[[T, int], T], times: Callable[[T, int], T]) -> T:
    """32 bits that look random, from 32 bits that do not: the finalizer of MurmurHash3, in whatever arithmetic."""
    for by, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = times(xor(x, shift(x, by)), factor)
    return xor(x, shift(x, 16))


def to_bfloat16(x: Tensor, salt: int, name: str) -> Tensor:
    """`x`, float32, rounded at random: float32 numbers that bfloat16 has.

    Args:
        x: the new values of a state, of the parameter's shape and strides.
        salt: see `salt`.
        name: of the array; see `of_array`.
    """
    reach = 1 + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    element = torch.arange(reach, device=x.device).as_strided(x.shape, x.stride())
    mixed = mix(
        (element + (salt + of_array(name))) & _LOW,
        xor=torch.bitwise_xor,
        shift=_shifted,
        times=lambda x, by: (x * by) & _LOW,
    )
    bits: Any = x.view(torch.int32)
    return torch.where(x.isfinite(), ((bits + (mixed & 0xFFFF).to(torch.int32)) & -0x10000).view(torch.float32), x)


def _shifted(x: Tensor, by: int) -> Tensor:
    return x >> by
