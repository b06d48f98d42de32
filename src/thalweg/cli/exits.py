"""Exit codes: 0; 2 for a user's mistake; 1 for a fault of ours; 130, 143 or 129 after a signal."""

import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer

from thalweg.passwords import masked
from thalweg.signals import STOPPING, end_at_once, leave_children_alone

_LONGEST = 200  # letters of one word, such as a path or an argument
_MOST = 1_500  # letters of a sentence

# The common base of typer's errors about the command line, which typer does not export.
_UsageError: Any = typer.BadParameter.__base__


class Mistake(Exception):
    """A user's mistake, in one sentence."""


class Interrupted(Exception):
    """A signal stopped the command; the message says how to continue."""

    def __init__(self, sentence: str, code: int = 130) -> None:
        super().__init__(sentence)
        self.code = code


class Stopped(KeyboardInterrupt):
    """Raised by a signal; it contains the signal's name and the exit code."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


@contextmanager
def stoppable() -> Generator[None]:
    """Make Ctrl-C, a shutdown and a closed terminal raise `Stopped` here, and end the command as `Interrupted`.

    A second signal ends it at once.  Signals that were ignored, as by nohup, stay ignored.
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
    """Encloses code that reads the user's input: errors of these kinds, by default ``ValueError``, become a `Mistake`.

    So does an ``OSError``: a file or folder that cannot be read or written.  Code that computes lists the kinds that
    are meant for the user, so that faults of ours are not blamed on them.
    """
    try:
        yield
    except OSError as error:
        raise Mistake(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from error
    except kinds as error:
        raise Mistake(str(error)) from error


def place(text: str) -> Path:
    """A file or folder named by the user; ``typer.BadParameter`` if it cannot be one."""
    if not text.strip():
        raise typer.BadParameter("it is empty; name a file or a folder")
    if "://" in text:
        raise typer.BadParameter(
            "it is a URL, and wanted is a file or a folder; to keep a race's runs in a database, write --store URL"
        )
    return Path(text)


def ended(command: Callable[[], Any]) -> int:
    """Run a command, print its error message to stderr, and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # if it accepts only ASCII, other characters become "?"
    try:
        code = _run(command)
    except OSError as error:
        why = _unwritable()
        if why is None:
            return _fault(error)
        if isinstance(why, BrokenPipeError):
            return 1  # the reader has closed the pipe, which is not an error
        return _say(f"the output cannot be written ({why.strerror})", 2)
    return code


def _unwritable() -> OSError | None:
    """The reason why standard output fails; it is closed, so that Python does not try again at exit."""
    try:
        print(end="", flush=True)
    except OSError as error:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
        return error
    return None


def _run(command: Callable[[], Any]) -> int:
    try:
        code = command()
        print(end="", flush=True)
    except Mistake as mistake:
        return _say(str(mistake), 2)
    except _UsageError as error:
        return _say(f"{error.format_message().rstrip('.')}; thalweg --help shows what there is", 2)
    except Interrupted as interrupted:
        return _say(str(interrupted), interrupted.code)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", 130)
    except ModuleNotFoundError:
        raise  # __main__ reports a missing lab extra
    except OSError:
        raise
    except Exception as error:
        return _fault(error)
    if code == 130:  # from newer versions of typer, for Ctrl-C
        return _say("interrupted", 130)
    return code if isinstance(code, int) else 0


def _fault(error: Exception) -> int:
    traceback.print_exception(error)
    return _say(f"a fault of thalweg's own ({type(error).__name__}); please report it with the lines above", 1)


def _say(sentence: str, code: int) -> int:
    with suppress(OSError):  # if the message cannot be shown, the exit code remains
        print(f"thalweg: {readable(sentence)}", file=sys.stderr, flush=True)
    return code


def readable(sentence: str) -> str:
    """A sentence on one line, without passwords and control characters, and shortened if it is very long."""
    words = (_cut(word, _LONGEST) for word in masked(sentence).split())
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(words))
    return _cut(text, _MOST)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most // 2]} … {text[-most // 2 :]}"
