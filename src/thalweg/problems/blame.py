"""One sentence about an error in the user's code, with its file and line."""

import inspect
import os
import traceback
from typing import Any

from thalweg.problems.sources import is_library


def told(error: BaseException, when: str = "") -> str:
    """An error in a sentence: ``"IndexError at step 3 (mine.py, line 7): list index out of range"``."""
    place = where(error)
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}{when}{f' ({place})' if place else ''}: {said}".removesuffix(": ")


def where(error: BaseException) -> str:
    """The last line of the user's code in an error's traceback: ``"mine.py, line 7"``, or empty."""
    if isinstance(error, SyntaxError) and error.filename and not is_library(error.filename):
        return f"{os.path.basename(error.filename)}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [(f.filename, f.lineno) for f in frames if f.lineno and os.path.isfile(f.filename)]
    own = [(file, line) for file, line in lines if not is_library(file)]
    return f"{os.path.basename(own[-1][0])}, line {own[-1][1]}" if own else ""


def here() -> str:
    """The line of the user's code from which this was called: ``"mine.py, line 7"``, or empty."""
    frame = inspect.currentframe()
    while frame is not None and (is_library(frame.f_code.co_filename) or frame.f_code.co_filename.startswith("<")):
        frame = frame.f_back
    return f"{os.path.basename(frame.f_code.co_filename)}, line {frame.f_lineno}" if frame else ""


def line_of(thing: Any) -> str:
    """The first line of a function or class of the user's: ``"mine.py, line 7"``, or empty."""
    code = getattr(thing, "__code__", None)
    try:
        file = code.co_filename if code else inspect.getsourcefile(thing)
        line = code.co_firstlineno if code else inspect.getsourcelines(thing)[1]
    except (OSError, TypeError):
        return ""
    return f"{os.path.basename(file)}, line {line}" if file and not is_library(file) else ""
