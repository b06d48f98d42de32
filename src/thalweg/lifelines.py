"""Processes that end with the one that started them.

A process that is killed cannot tidy up behind itself.  What it has forked must find out by itself that it is gone:
on Linux the kernel tells it (``PR_SET_PDEATHSIG``), at once and whatever it is doing.  The kernel means the thread that
forked, though, so a child of another thread than the main one looks for itself, a few times a second.  Elsewhere than
on Linux children are left to their groups: `end_group` ends a process that leads one, and all its children with it.
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

_SET_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of linux/prctl.h
_libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
_LOOK = 0.3  # seconds
_held = 0
_closed_in_children: list[int] = []
_registered = False


@contextmanager
def holding() -> Generator[None]:
    """While this lasts, processes that are forked end when this one does, even if it is killed.  On Linux only."""
    global _held
    _register()
    _held += 1
    try:
        yield
    finally:
        _held -= 1


def hold(*descriptors: int) -> None:
    """The same from now on; and `descriptors` are closed in what is forked."""
    global _held
    _register()
    _held += 1
    _closed_in_children.extend(descriptors)


def end_with(parent: int | None) -> None:
    """End this process when `parent`, which has started it, ends; None to do so no longer.  On Linux only."""
    if _libc is not None:
        _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL if parent else 0, 0, 0, 0)
        if parent and os.getppid() != parent:  # it was gone before that
            os._exit(0)


def end_group(pid: int) -> None:
    """Kill the process `pid`, which has not been waited for, and those in the group that it leads."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg") and os.getpgid(pid) == pid:
            os.killpg(pid, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)


def _register() -> None:
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before, after_in_child=_in_child)
        _registered = True


class _Forking(threading.local):
    """Of the thread that forks, for the child, in which that is the only thread there is."""

    parent: int | None = None
    of_main = False


_forking = _Forking()


def _before() -> None:
    _forking.parent = os.getpid() if _held else None
    _forking.of_main = threading.current_thread() is threading.main_thread()


def _in_child() -> None:
    for descriptor in _closed_in_children:
        with suppress(OSError):
            os.close(descriptor)
    _closed_in_children.clear()
    if _forking.parent is None:
        return
    if _forking.of_main:
        end_with(_forking.parent)
    elif _libc is not None:
        threading.Thread(target=_watch, args=(_forking.parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os.kill(os.getpid(), signal.SIGKILL)
