"""The signals that stop the command, and how it ends at once where there is nothing to keep.

In the first tenth of a second, before any code of ours runs, signals are Python's own: Ctrl-C may end in a traceback.
"""

import functools
import os
import signal

STOPPING = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


def end_at_once(number: int, frame: object) -> None:
    """Say which signal it was, and end; an exception may be lost, or become another, while modules are imported."""
    said = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    os.write(2, f"thalweg: {said}\n".encode())
    os._exit(128 + number)


def _as_before() -> None:
    """In a forked child: signals do what they do in a process that is not ours, even where it waits for a lock."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@functools.cache
def leave_children_alone() -> None:
    """From now on, let no forked child inherit the handlers."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_as_before)


def end_quietly() -> None:
    """Have them end the process with a sentence, unless they are ignored, as by nohup."""
    leave_children_alone()
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)
