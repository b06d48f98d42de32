"""Hyperparameters: what each may be, said in its annotation; what one is is checked against that.

An annotation has alternatives: ranges of numbers, as in ``Rate``; a ``Literal``; ``bool``; None; or a class that says
what it is ``in_words``.
"""

import difflib
import math
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, cast


@dataclass(frozen=True)
class Range:
    """The allowed range of a hyperparameter: finite, from `low` to `high`, ends included unless marked as open."""

    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False

    def __contains__(self, x: float) -> bool:
        above = x > self.low if self.low_open else x >= self.low
        below = x < self.high if self.high_open else x <= self.high
        return above and below and math.isfinite(x)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "a finite number"
        if math.isinf(self.high):
            return f"a finite number {'>' if self.low_open else '>='} {self.low:g}"
        return f"a number in {'(' if self.low_open else '['}{self.low:g}, {self.high:g}{')' if self.high_open else ']'}"


@dataclass(frozen=True)
class Count:
    """The allowed range of an option that is a whole number, ends included."""

    low: int = 0
    high: int = 2**31

    def read(self, value: Any) -> int | None:
        """The value, or None if it is not allowed."""
        whole = isinstance(value, int) and not isinstance(value, bool)
        return value if whole and self.low <= value <= self.high else None

    def __str__(self) -> str:
        return (
            f"a whole number from {self.low} to {self.high}" if self.high < 2**31 else f"a whole number >= {self.low}"
        )


@dataclass(frozen=True)
class Row:
    """An option that is a tuple: of numbers, `width` of them, or of rows of these; of whole numbers if `whole`."""

    width: int | None = None
    whole: bool = False

    def read(self, value: Any) -> tuple[Any, ...] | None:
        """The value as a tuple, or None if it is not allowed."""
        if not isinstance(value, tuple | list) or (self.width is not None and not value):
            return None
        parts: Sequence[Any] = cast("Sequence[Any]", value)
        if self.width is not None and all(isinstance(x, tuple | list) for x in parts):
            rows = tuple(self._flat(x) for x in parts)
            return None if None in rows else rows
        return self._flat(parts)

    def _flat(self, parts: Sequence[Any]) -> tuple[Any, ...] | None:
        read = Count(0).read if self.whole else _finite
        found = tuple(read(x) for x in parts)
        return None if None in found or self.width not in (None, len(found)) else found

    def __str__(self) -> str:
        if self.width is None:
            return f"a tuple of {'whole ' if self.whole else ''}numbers"
        return f"{self.width} numbers, or a tuple of such"


@dataclass(frozen=True)
class Log:
    """A search space on a logarithmic scale, from `low` to `high`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The point a fraction `u` in [0, 1] of the way."""
        return math.exp(math.log(self.low) + u * (math.log(self.high) - math.log(self.low)))


@dataclass(frozen=True)
class Linear:
    """A search space on a linear scale, from `low` to `high`."""

    low: float
    high: float

    def at(self, u: float) -> float:
        """The point a fraction `u` in [0, 1] of the way."""
        return self.low + u * (self.high - self.low)


Rate = Annotated[float, Range(0)]
Decay = Annotated[float, Range(0, 1, high_open=True)]
Epsilon = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, low_open=True)]
Axes = Annotated[tuple[int, ...], Row(whole=True)]
EpsAt = Literal["outside", "inside"]


def range_of(annotation: Any) -> Range:
    """The range in the annotation of a number."""
    for choice in choices(annotation):
        if typing.get_origin(choice) is Annotated and isinstance(choice.__metadata__[0], Range):
            return choice.__metadata__[0]
    raise KeyError(f"{annotation} is of no number")


def choices(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of an annotation: ranges as ``Annotated`` types, literals as they are, ``bool`` and None."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return tuple(c for a in typing.get_args(annotation) for c in choices(a))
    if typing.get_origin(annotation) is Literal:
        return typing.get_args(annotation)
    return (Annotated[float, Range()] if annotation in (float, int) else annotation,)


def allowed(annotation: Any) -> list[str]:
    """The alternatives that `check` accepts, in words."""
    return [_words(choice) for choice in choices(annotation)]


def _words(choice: Any) -> str:
    if typing.get_origin(choice) is Annotated:
        return str(choice.__metadata__[0])
    if choice is bool:
        return "True or False"
    if choice is type(None):
        return "None"
    return cast(Any, choice).in_words if isinstance(choice, type) else repr(choice)


def check(name: str, value: Any, annotation: Any) -> Any:
    """`value` converted to its annotated type; otherwise ``ValueError`` names the value and what is allowed."""
    for choice in choices(annotation):
        if typing.get_origin(choice) is Annotated:
            kind = choice.__metadata__[0]
            read = _within(kind, value) if isinstance(kind, Range) else kind.read(value)
            if read is not None:
                return read
        elif choice is type(None) or choice is None:
            if value is None:
                return None
        elif isinstance(choice, type):
            if isinstance(value, choice):
                return value
        elif type(value) is type(choice) and value == choice:
            return value
    words = allowed(annotation)
    message = f"{name} is {value!r}; allowed is {' or '.join(words)}"
    if isinstance(value, str):
        message += nearest(value, [word.strip("'") for word in words])
    raise ValueError(message)


def _within(allowed: Range, value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and number in allowed else None


def _finite(value: Any) -> float | None:
    return _within(Range(), value)


def _number(value: Any) -> float | None:
    if isinstance(value, (bool, str, bytes)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def nearest(name: str, names: Iterable[str]) -> str:
    """``; did you mean 'adam'``, or empty if no name is similar."""
    known, name = list(names), name.lower()[:100]
    turned = [name[:i] + name[i + 1] + name[i] + name[i + 2 :] for i in range(len(name) - 1)]
    close = [other for other in known if other in turned] or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}" if close else ""
