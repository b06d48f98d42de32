"""The native functions, to be called from Python with its lock held: they read Python's and torch's own objects."""

import ctypes
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from thalweg.kernels import build

_RETURNS: dict[str, tuple[Any, int]] = {
    "look": (ctypes.c_int64, 1),
    "again": (ctypes.c_int64, 2),
    "enroll": (ctypes.c_int64, 3),
    "write": (None, 3),
    "held": (ctypes.c_int64, 3),
    "alone": (ctypes.c_int64, 3),
    "renew": (None, 3),
    "assign": (ctypes.c_int64, 1),
    "finish": (None, 1),
    "drop": (ctypes.c_int64, 1),
}
"""What each function of `thalweg.kernels.native` returns, and how many int64 it takes."""


@cache
def native() -> Any:
    """The functions of `thalweg.kernels.native` by name, each to be called with addresses and numbers."""
    found = build.native()
    calls: dict[str, Callable[..., Any]] = {
        name: ctypes.PYFUNCTYPE(returns, *count * [ctypes.c_int64])(getattr(found, name).address)
        for name, (returns, count) in _RETURNS.items()
    }
    return SimpleNamespace(**calls)
