"""The native functions, to be called from Python with its lock held: they read Python's and torch's own objects."""

import ctypes
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

from thalweg.kernels import build

_FUNCTIONS: dict[str, tuple[str, Any, int]] = {
    "look": ("native", ctypes.c_int64, 1),
    "enroll": ("native", None, 4),
    "write": ("native", None, 3),
    "changed": ("watch", ctypes.c_int64, 3),
    "held": ("watch", ctypes.c_int64, 3),
    "renew": ("watch", None, 3),
    "drop": ("native", ctypes.c_int64, 1),
    "assign": ("rows", ctypes.c_int64, 1),
    "finish": ("rows", None, 1),
    "count": ("counting", None, 2),
}
"""Each function: the module that has it, what it returns, and how many int64 it takes."""


@cache
def native() -> Any:
    """The functions of `thalweg.kernels.native` and `thalweg.kernels.rows`, to be called with addresses and numbers."""
    return _of("native", "rows")


@cache
def watch() -> Any:
    """Those of `thalweg.kernels.watch`, which are compiled when state is first shown."""
    return _of("watch")


@cache
def counting() -> Any:
    """That of `thalweg.kernels.counting`, which is compiled when parameters on a device are first stepped."""
    return _of("counting")


def _of(*modules: str) -> SimpleNamespace:
    calls: dict[str, Callable[..., Any]] = {
        name: ctypes.PYFUNCTYPE(returns, *count * [ctypes.c_int64])(getattr(build.native(module), name).address)
        for name, (module, returns, count) in _FUNCTIONS.items()
        if module in modules
    }
    return SimpleNamespace(**calls)
