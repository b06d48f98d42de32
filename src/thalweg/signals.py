"""The signals that stop the command, and how it ends at once where there is nothing to keep.

In the first tenth of a second, before any code of ours runs, signals are Python's own: Ctrl-C may end in a traceback.
"""

import functools
import os
import signal
import threading

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def end_at_once(number: int, frame: object) -> None:
    """Say which signal it was, and end; an exception may be lost, or become another, while modules are imported."""
    said = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    os.write(2, f"thalweg: {said}\n".encode())
    os._exit(128 + number)


class _Forking(threading.local):
    """Of the thread that forks: which signals wait in it otherwise."""

    blocked: set[int] = set()


_forking = _Forking()


def _wait() -> None:
    """Let signals wait while this thread forks: a handler's exception would be lost in what runs at a fork."""
    _forking.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.blocked)


def _as_before() -> None:
    """In a forked child: signals do what they do in a process that is not ours, even where it waits for a lock."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    _go_on()


@functools.cache
def leave_children_alone() -> None:
    """From now on, let no forked child inherit the handlers."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait, after_in_parent=_go_on, after_in_child=_as_before)


def end_quietly() -> None:
    """Have them end the process with a sentence, unless they are ignored, as by nohup."""
    leave_children_alone()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)
