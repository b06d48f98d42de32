"""The user's own: a function in a Python file that returns a `Problem`, or one that trains."""

import os
import re
import shlex
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from thalweg.hyperparameters import nearest
from thalweg.problems import sources
from thalweg.problems.blame import line_of
from thalweg.problems.problem import Problem
from thalweg.problems.training import Training, is_script, of_function, of_script, trains

_PROBLEM = "a thalweg.Problem"


_WITH_ARGUMENTS = re.compile(r"(.*?\.py(?::\w+)?)\s+(.+)", re.DOTALL)


def is_file(text: str) -> bool:
    """Whether the text names a Python file rather than a built-in problem."""
    text, _ = _arguments(text)
    return text.rpartition(":")[0].endswith(".py") or text.endswith(".py")


def _arguments(text: str) -> tuple[str, tuple[str, ...]]:
    """The file with its function, and the command line that follows it, as in ``train.py --epochs 2``."""
    found = None if os.path.isfile(text) else _WITH_ARGUMENTS.fullmatch(text)
    if found is None:
        return text, ()
    try:
        return found[1], tuple(shlex.split(found[2]))
    except ValueError as error:
        raise ValueError(f"the arguments of {found[1]} cannot be read ({error}): {found[2]}") from None


def load_named(text: str, wanted: str) -> Any:
    """What has a name in a file, from ``path/to/file.py:name``.  The file is run as by ``python file.py``.

    Args:
        text: the file and the name.
        wanted: what it should be, for the messages.

    Raises:
        ValueError: one sentence that names the file, the line where there is one, and what was expected.
    """
    file, _, name = text.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise ValueError(f"{text!r} names nothing in a file; write the file and the name, as in my_file.py:name")
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {file}; wanted is a Python file with {name}: {wanted}")
    module = _run(file, path.resolve(), wanted)
    if not hasattr(module, name):
        known = [other for other in vars(module) if not other.startswith("_")]
        raise ValueError(f"{file} has no {name}{nearest(name, known)}; wanted is {wanted}")
    return getattr(module, name)


def load_user(text: str) -> Problem | Training:
    """The problem returned by ``path/to/file.py:function``, or the training that the function is.

    A function of one argument is a training.  The file is run as by ``python file.py``.  A file without a function is
    a training, too, if it asks for its run with `thalweg.current_run`.  What follows a training's file is its command
    line, as in ``train.py --epochs 2``.

    Raises:
        ValueError: one sentence that names the file, the line where there is one, and what was expected.
    """
    whole, (text, arguments) = text, _arguments(text)
    file, _, function = text.rpartition(":")
    script = Path(text).expanduser()
    if text.endswith(".py") and not script.is_file():
        raise ValueError(f"there is no file {text}; wanted is a Python file")
    if text.endswith(".py") and is_script(script):
        return of_script(text, arguments)
    if not file.endswith(".py") or not function.isidentifier():
        raise ValueError(
            f"{whole!r} names no function; write the file and the function, as in my_problem.py:make; a file that "
            "trains as a whole asks for its run with thalweg.current_run()"
        )
    path = Path(file).expanduser()
    if not path.is_file():
        raise ValueError(f"there is no file {file}; wanted is a Python file with a function {function}")
    module = _run(file, path.resolve())
    make = getattr(module, function, None)
    if not callable(make):
        known = [name for name, thing in vars(module).items() if callable(thing) and not name.startswith("_")]
        is_what = "has no" if make is None else f"has a {type(make).__name__}, not a"
        raise ValueError(f"{file} {is_what} function {function}{nearest(function, known)}")
    if trains(make):
        return of_function(make, file, arguments)
    if arguments:
        raise ValueError(f"{whole}: {function}() makes a problem, which reads no command line; leave the rest out")
    try:
        problem = make()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # including SystemExit
        raise _failure(file, path.resolve(), f"{function}()", error) from error
    if not isinstance(problem, Problem):
        raise ValueError(
            f"{_at(file, make)}: {function}() returns a {type(problem).__name__}; wanted is a thalweg.Problem"
        )
    object.__setattr__(problem, "folder", path.resolve().parent)  # immutable for users
    return problem


def _run(file: str, path: Path, wanted: str = _PROBLEM) -> ModuleType:
    try:
        return sources.run(f"thalweg_user_{path.stem}", path)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _failure(file, path, "the file", error, wanted) from error


def _at(file: str, function: Any) -> str:
    place = line_of(function)
    return file + place[place.index(",") :] if place else file


def _failure(file: str, path: Path, what: str, error: BaseException, wanted: str = _PROBLEM) -> ValueError:
    if isinstance(error, SyntaxError) and error.filename == os.fspath(path):
        line = error.lineno
    else:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == os.fspath(path)]
        line = lines[-1] if lines else None
    where = f"{file}, line {line}" if line else file
    said = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return ValueError(f"{where}: {what} raises {type(error).__name__}: {said}; wanted is {wanted}")
