"""The signals that stop the command, and what must not hold up its end.

Before there is anything to save, signals end it at once.  In the first tenth of a second, before any of our code runs,
signals have Python's own handlers: Ctrl-C may then show a traceback.
"""

import functools
import os
import signal
import threading

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
HELD_UP = "mirror "
"""How the names of threads begin that may wait for a server without end; the command does not wait for them."""


def end_at_once(number: int, frame: object) -> None:
    """Name the signal and exit.  Raising is not enough: an import in progress may swallow or replace an exception."""
    said = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    os.write(2, f"thalweg: {said}\n".encode())
    os._exit(128 + number)


class _Forking(threading.local):
    """The signals that the forking thread had blocked before, to be restored afterwards."""

    blocked: set[int] = set()


_forking = _Forking()


def _wait() -> None:
    """Block signals while this thread forks: an exception raised in the functions that run at a fork is lost."""
    _forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.blocked)


def _as_before() -> None:
    """Restore Python's default handlers in a forked child; they end it even while it waits for a lock."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _go_on()


@functools.cache
def leave_children_alone() -> None:
    """Keep children forked from now on from inheriting our handlers."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_as_before)


def end_quietly() -> None:
    """Let these signals end the process with one line on stderr, unless they are ignored, as under nohup."""
    leave_children_alone()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)
