"""How the command ends: 0; 2 for a user's mistake; 1 for a fault of ours; 130 when interrupted."""

import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import typer

# typer exports one of its errors about the command line, and not their common base.
_UsageError: Any = typer.BadParameter.__base__


class Mistake(Exception):
    """A user's mistake, in one sentence."""


class Interrupted(Exception):
    """The user pressed Ctrl-C; the sentence says how to go on."""


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
        return _say(str(interrupted), 130)
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
