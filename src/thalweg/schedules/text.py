"""Schedules from text and from JSON.  Nothing is evaluated: only literals and calls of `FORMS` are accepted."""

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, cast

from thalweg.schedules.base import FORMS, Schedule
from thalweg.schedules.settings import SettingError

_METHODS = ("then", "shift", "clip", "restarts")
_HIDDEN = {*_METHODS, "product", "lambda_"}


class ScheduleError(ValueError):
    """A text that is not a schedule; the message shows the position and what was expected there."""


def parse(text: str) -> Schedule:
    """A schedule from its text: ``"warmup(500).then(cosine(9500)) * 0.5"``; the inverse of ``str``.

    Raises:
        ScheduleError: a ValueError with the position, the text there and what was expected.
    """
    reader = _Reader(text)
    try:
        return reader.schedule(ast.parse(text.strip(), mode="eval").body)
    except ScheduleError:
        raise
    except SyntaxError as error:
        message = f"{error.msg}; expected a schedule such as cosine(1000)"
        reader.fail_at(error.lineno or 1, max((error.offset or 1) - 1, 0), message)
    except (RecursionError, MemoryError):
        raise ScheduleError("the schedule cannot be read: it is nested too deeply") from None
    except ValueError as error:  # characters that are not allowed in source code
        reader.fail_at(1, 0, f"{error}; expected a schedule such as cosine(1000)")


def from_json(data: Any) -> Schedule:
    """A schedule from the output of `Schedule.to_json`, also after a round trip through ``json``.

    Raises:
        ScheduleError: a ValueError with the path to the error, and what was expected there.
    """
    try:
        return _from_json(data, "$")
    except RecursionError:
        raise ScheduleError("the schedule cannot be read: it is nested too deeply") from None


class _Reader:
    """Reads one text and reports positions in it."""

    def __init__(self, text: str) -> None:
        self.lines = re.split(r"\r\n|\r|\n", text.strip())
        # Positions count the whitespace stripped from the front.
        self.before = len(text) - len(text.lstrip())

    def schedule(self, node: ast.expr) -> Schedule:
        found = self.value(node)
        if not isinstance(found, Schedule):
            self.fail(node, f"{found!r} is no schedule; expected one such as cosine(1000)")
        return found

    def value(self, node: ast.expr) -> Any:
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.BinOp):
            return self.product(node)
        if isinstance(node, ast.Name):
            self.fail(node, f"{node.id!r} is no literal; expected a number, a schedule with its brackets, or a 'text'")
        try:
            return ast.literal_eval(node)
        except (ValueError, TypeError):
            self.fail(node, "expected a number, a list of numbers, a 'text', None, or a schedule")

    def product(self, node: ast.BinOp) -> Schedule:
        left, right = self.value(node.left), self.value(node.right)
        if not isinstance(node.op, ast.Mult):
            self.fail(node, "expected a product, left * right: of the operators a schedule has only that")
        for side, found in ((node.left, left), (node.right, right)):
            if not isinstance(found, Schedule | int | float):
                self.fail(side, f"{found!r} is no factor; expected a schedule or a number")
        if not isinstance(left, Schedule) and not isinstance(right, Schedule):
            self.fail(node, "expected a schedule on one side of the product at least")
        try:
            return left * right
        except ValueError as error:
            self.fail(node, str(error))

    def call(self, node: ast.Call) -> Schedule:
        receiver: list[Any] = []
        if isinstance(node.func, ast.Name):
            name, names = node.func.id, [known for known in FORMS if known not in _HIDDEN]
        elif isinstance(node.func, ast.Attribute):
            receiver = [self.schedule(node.func.value)]
            name, names = node.func.attr, list(_METHODS)
        else:
            self.fail(node.func, "expected the name of a schedule")
        if name == "lambda_":
            self.fail(node.func, "a lambda_ holds a function, which no text can; expected another schedule")
        if name not in names:
            self.fail_name(node, name, names)
        given = [*receiver, *map(self.value, node.args)]
        named: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None:
                self.fail(keyword.value, "expected name=value")
            named[keyword.arg] = self.value(keyword.value)
        try:
            return _make(name, given, named)
        except SettingError as error:
            nodes = inspect.signature(FORMS[name]).bind(*[node] * len(receiver), *node.args, **_nodes(node)).arguments
            # A part may have another name for the setting than the composition.
            self.fail(nodes.get(error.setting, node), str(error))
        except ValueError as error:
            self.fail(node, str(error))

    def fail_name(self, node: ast.Call, name: str, names: Iterable[str]) -> NoReturn:
        method = isinstance(node.func, ast.Attribute)
        at = cast(int, node.func.end_col_offset) - len(name.encode()) if method else node.func.col_offset
        line = cast(int, node.func.end_lineno)
        kind = "method of a schedule" if method else "schedule"
        self.fail_at(line, self.characters(line, at), f"{name!r} is no {kind}; expected {_among(name, names)}")

    def fail(self, node: ast.expr, message: str) -> NoReturn:
        self.fail_at(node.lineno, self.characters(node.lineno, node.col_offset), message)

    def characters(self, line: int, column: int) -> int:
        # ast counts bytes of UTF-8.
        return len(self.lines[line - 1].encode()[:column].decode(errors="ignore"))

    def fail_at(self, line: int, column: int, message: str) -> NoReturn:
        """Raise `ScheduleError`; positions count characters from 1, in the text as it was given."""
        shown = self.lines[min(line, len(self.lines)) - 1]
        position = self.before + sum(len(one) + 1 for one in self.lines[: line - 1]) + column + 1
        start = max(column - 60, 0)
        raise ScheduleError(
            f"the schedule cannot be read at character {position}: {message}\n"
            f"  {shown[start : start + 100]}\n  {' ' * (column - start)}^"
        ) from None


def _make(name: str, given: list[Any], named: Mapping[str, Any]) -> Schedule:
    form = FORMS[name]
    try:
        inspect.signature(form).bind(*given, **named)
    except TypeError as error:
        raise ValueError(f"{error}; expected {_usage(name)}") from None
    return form(*given, **named)


def _nodes(call: ast.Call) -> dict[str, ast.expr]:
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg is not None}


def _usage(name: str) -> str:
    """The usage of a form: ``cosine(steps, end=0.0, cycles=0.5, k=1.0)``."""
    settings = list(inspect.signature(FORMS[name]).parameters.values())
    shown = [s.name if s.default is s.empty else f"{s.name}={s.default!r}" for s in settings]
    return f".{name}({', '.join(shown[1:])})" if name in _METHODS else f"{name}({', '.join(shown)})"


def spelled() -> dict[str, str]:
    """The usage of each form that is not a method, by name."""
    return {name: _usage(name) for name in FORMS if name not in _HIDDEN - {"lambda_"}}


def _among(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name.lower(), list(names), n=1)
    return f"{', '.join(sorted(names))}{f'; did you mean {close[0]!r}' if close else ''}"


def _from_json(data: Any, path: str) -> Schedule:
    if not isinstance(data, Mapping) or not isinstance(cast("Mapping[str, Any]", data).get("schedule"), str):
        raise ScheduleError(f"at {path}: {data!r:.80} is no schedule; expected an object with its name as 'schedule'")
    settings = dict(cast("Mapping[str, Any]", data))
    name = settings.pop("schedule")
    known = [form for form in FORMS if form != "lambda_"]
    if name not in known:
        raise ScheduleError(f"at {path}.schedule: {name!r} is no schedule; expected {_among(name, known)}")
    read = {
        key: _from_json(value, f"{path}.{key}") if isinstance(value, Mapping) else value
        for key, value in settings.items()
    }
    try:
        return _make(name, [], read)
    except SettingError as error:
        raise ScheduleError(f"at {path}.{error.setting}: {error}") from None
    except ValueError as error:
        raise ScheduleError(f"at {path}: {error}") from None
