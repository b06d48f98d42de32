"""Processes that end with the one that started them.

A process that is killed cannot clean up after itself, so the children that it forked must find out that it is gone.
On Linux the kernel can kill them at that moment, whatever they are doing (``PR_SET_PDEATHSIG``).  But to the kernel the
*thread* that forked is the parent, so a child forked by any thread but the main one polls for its parent instead, about
three times per second.  On other systems children only end with their process group: `end_group` kills a process that
leads a group together with the whole group.
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
_POLL = 0.3  # seconds between two looks for the parent
_held = 0
_closed_in_children: list[int] = []
_registered = False


@contextmanager
def holding() -> Generator[None]:
    """Within this context, forked processes end when this one does, even if it is killed.  On Linux only."""
    global _held
    _register()
    _held += 1
    try:
        yield
    finally:
        _held -= 1


def hold(*descriptors: int) -> None:
    """Let every process forked from now on end when this one does, and close `descriptors` in it."""
    global _held
    _register()
    _held += 1
    _closed_in_children.extend(descriptors)


def end_with(parent: int | None) -> None:
    """End this process when `parent`, the process that started it, ends; None undoes this.  On Linux only."""
    if _libc is not None:
        _libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL if parent else 0, 0, 0, 0)
        if parent and os.getppid() != parent:  # it ended before the call above
            os._exit(0)


def end_group(pid: int) -> None:
    """Kill the process `pid`, which must not have been waited for, and its process group if it leads one."""
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
    """What the forking thread leaves for the child, where it is the only thread."""

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
        time.sleep(_POLL)
    os.kill(os.getpid(), signal.SIGKILL)
