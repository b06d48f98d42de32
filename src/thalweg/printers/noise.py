"""The noise that 16-bit state is rounded with: a number for each element, from a counter.

Which way an element is rounded depends on the seed, the step, the parameter, the array and the element alone: runs
repeat bit for bit, on any number of threads and in every backend, and no two tensors share their noise.
"""

import zlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SEED, STEP, TENSOR = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
"""Odd factors of 32 bits that spread seeds, steps and parameters over all salts."""

LOW = 0xFFFFFFFF
"""The bits of a salt."""


def salt(seed: int, step: int, tensor: int) -> int:
    """Where a parameter's noise begins in a step: 32 bits, to which the number of the element is added."""
    return (seed * SEED + step * STEP + tensor * TENSOR) & LOW


def of_array(name: str) -> int:
    """What is added to the salt for an array, by its name in the trace: 32 bits."""
    return zlib.crc32(name.encode())


def mix(x: T, xor: Callable[[T, T], T], shift: Callable[[T, int], T], times: Callable[[T, int], T]) -> T:
    """32 bits that look random, from 32 bits that do not: the finalizer of MurmurHash3, in whatever arithmetic."""
    for by, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = times(xor(x, shift(x, by)), factor)
    return xor(x, shift(x, 16))
