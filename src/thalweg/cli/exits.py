"""How the command ends: 0; 2 for a user's mistake; 1 for a fault of ours; 130, 143 or 129 when a signal stops it."""

import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer

from thalweg.signals import STOPPING, end_at_once, leave_children_alone

# typer exports one of its errors about the command line, and not their common base.
_UsageError: Any = typer.BadParameter.__base__


class Mistake(Exception):
    """A user's mistake, in one sentence."""


class Interrupted(Exception):
    """A signal stopped the command; the sentence says how to go on."""

    def __init__(self, sentence: str, code: int = 130) -> None:
        super().__init__(sentence)
        self.code = code


class Stopped(KeyboardInterrupt):
    """What a signal raises; it says which, and the exit code for it."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable() -> Generator[None]:
    """Have Ctrl-C, a shutdown and a closed terminal raise `Stopped` here, and end the command as `Interrupted`.

    The second signal ends it at once.  A signal that was ignored, as by nohup, stays so.
    """
    before: dict[int, Any] = {}

    def raise_once(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, end_at_once)
        raise Stopped(number)

    leave_children_alone()
    if threading.current_thread() is threading.main_thread():
        for number in STOPPING:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, raise_once)
    try:
        yield
    except KeyboardInterrupt as stop:
        raise Interrupted(str(stop) or "interrupted", getattr(stop, "code", 130)) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def users_input(kinds: tuple[type[Exception], ...] = (ValueError,)) -> Generator[None]:
    """Around code that reads what the user gave: errors of these kinds, by default ``ValueError``, are a `Mistake`.

    So is an ``OSError``: a file or folder that cannot be read or written.  Code that computes names the kinds that it
    means for the user, so that a fault of ours is not blamed on them.
    """
    try:
        yield
    except OSError as error:
        raise Mistake(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except kinds as error:
        raise Mistake(str(error)) from error


def ended(command: Callable[[], Any]) -> int:
    """Run a command; the exit code, with the sentence for it on stderr."""
    try:
        code = command()
    except Mistake as mistake:
        return _say(str(mistake), 2)
    except _UsageError as error:
        return _say(f"{error.format_message().rstrip('.')}; thalweg --help shows what there is", 2)
    except Interrupted as interrupted:
        return _say(str(interrupted), interrupted.code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except ModuleNotFoundError:
        raise  # where the lab extra is missing, __main__ says so
    except Exception as error:
        traceback.print_exc()
        return _say(f"a fault of thalweg's own ({type(error).__name__}); please report it with the lines above", 1)
    if code == 130:  # what newer versions of typer make of Ctrl-C
        return _say("interrupted", 130)
    return code if isinstance(code, int) else 0


def _say(sentence: str, code: int) -> int:
    print(f"thalweg: {' '.join(sentence.split())}", file=sys.stderr)
    return code
