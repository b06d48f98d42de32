"""The kinds of settings that schedules have, given by annotations and checked when a schedule is constructed.

A length is an ``int``, a number of steps, or a ``float``, a fraction of a total that becomes known later.
"""

import math
import numbers
import types
import typing
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, Union, cast


@dataclass(frozen=True)
class Length:
    """Steps as an ``int``, at least `low`, or a fraction of a total as a ``float``; negative only if `low` is."""

    low: float = 0

    def __call__(self, x: Any) -> float:
        """`x` as an ``int`` or a ``float``; ``ValueError`` if it is neither a number of steps nor a fraction."""
        if not _real(x):
            raise ValueError
        if isinstance(x, numbers.Integral):
            steps = int(x)
            if steps < self.low:
                raise ValueError
            return steps
        fraction = float(x)
        if not 0 < (abs(fraction) if self.low < 0 else fraction) <= 1:
            raise ValueError
        return fraction

    def __str__(self) -> str:
        if self.low < 0:
            return "a whole number of steps, or a fraction of the total from -1.0 to 1.0"
        return f"a whole number of steps >= {self.low:g}, or a fraction of the total above 0 and up to 1.0"


@dataclass(frozen=True)
class Between:
    """A finite number from `low` to `high`; `low` itself is excluded if `above`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False

    def __call__(self, x: Any) -> float:
        """`x` as a ``float``; ``ValueError`` if it lies outside."""
        if not _real(x):
            raise ValueError
        number = float(x)
        if not (math.isfinite(number) and self.low <= number <= self.high) or (self.above and number == self.low):
            raise ValueError
        return number

    def __str__(self) -> str:
        low = "" if math.isinf(self.low) else f" {'>' if self.above else '>='} {self.low:g}"
        return f"a finite number{low}{'' if math.isinf(self.high) else f' and <= {self.high:g}'}"


@dataclass(frozen=True)
class Count:
    """A whole number, at least `low`."""

    low: int

    def __call__(self, x: Any) -> int:
        """`x` as an ``int``; ``ValueError`` if it is not a whole number or too small."""
        if not _real(x) or not isinstance(x, numbers.Integral) or int(x) < self.low:
            raise ValueError
        return int(x)

    def __str__(self) -> str:
        return f"a whole number >= {self.low}"


@dataclass(frozen=True)
class Each:
    """One or more of `item`, in a tuple or a list."""

    item: Length | Between

    def __call__(self, x: Any) -> tuple[float, ...]:
        """`x` as a tuple; ``ValueError`` if it is empty or contains an item that is not allowed."""
        if not isinstance(x, tuple | list) or not x:
            raise ValueError
        return tuple(self.item(element) for element in cast("tuple[Any, ...]", x))

    def __str__(self) -> str:
        return f"a list of which each is {self.item}"


Steps = Annotated[float, Length(0)]
Period = Annotated[float, Length(1)]
Offset = Annotated[float, Length(-math.inf)]
Times = Annotated[tuple[float, ...], Each(Length(0))]
Numbers = Annotated[tuple[float, ...], Each(Between())]
Number = Annotated[float, Between()]
Share = Annotated[float, Between(0, 1)]
Nonnegative = Annotated[float, Between(0)]
Positive = Annotated[float, Between(0, above=True)]
Stretch = Annotated[float, Between(1)]
Whole = Annotated[int, Count(1)]
Natural = Annotated[int, Count(0)]


class SettingError(ValueError):
    """A setting that is not allowed; `setting` is its name."""

    def __init__(self, setting: str, message: str) -> None:
        super().__init__(message)
        self.setting = setting


def checked(form: str, name: str, value: Any, hint: Any) -> Any:
    """`value` converted to its annotated kind; otherwise `SettingError` names it, the value and what is allowed.

    An annotation is a kind from above, a ``Literal``, ``bool``, a class, or any of these ``| None``.
    """
    allowed: list[str] = []
    for choice in _choices(hint):
        if typing.get_origin(choice) is Annotated:
            kind = choice.__metadata__[0]
            try:
                return kind(value)
            except (ValueError, OverflowError):
                allowed.append(str(kind))
        elif typing.get_origin(choice) is Literal:
            if isinstance(value, str) and value in typing.get_args(choice):
                return value
            allowed.extend(repr(option) for option in typing.get_args(choice))
        elif isinstance(value, choice):
            return value
        else:
            allowed.append(_CLASSES[choice.__name__])
    raise SettingError(name, f"{form}'s {name} is {value!r}; allowed is {' or '.join(allowed)}")


_CLASSES = {
    "NoneType": "None",
    "bool": "True or False",
    "Schedule": "a schedule",
    "Decay": "cosine, linear, polynomial or tanh",
    "Callable": "a function of t",
}


def is_length(hint: Any) -> bool:
    """Whether an annotation is that of one or several lengths."""
    kinds = [choice.__metadata__[0] for choice in _choices(hint) if typing.get_origin(choice) is Annotated]
    return any(isinstance(kind.item if isinstance(kind, Each) else kind, Length) for kind in kinds)


def is_pending(length: Any) -> bool:
    """Whether a length, or one of several, is a fraction of an unknown total."""
    if isinstance(length, tuple):
        return any(map(is_pending, cast("tuple[Any, ...]", length)))
    return isinstance(length, float)


def real(length: float, total: float) -> float:
    """A length in steps, not rounded if it is a fraction of `total`."""
    return length * total if isinstance(length, float) else length


def whole(length: Any, total: int, start: float) -> Any:
    """A length, or each of several, in whole steps, when it starts at `start`.

    The end is rounded rather than the length, so that the parts of a composition fill the total exactly.
    """
    if isinstance(length, tuple):
        return tuple(whole(one, total, start) for one in cast("tuple[Any, ...]", length))
    return _round(start + length * total) - _round(start) if isinstance(length, float) else length


def _round(x: float) -> int:
    # Slightly above one half, so that 0.1 + 0.2 and 0.3 of a total round alike.
    return math.floor(x + 0.5 + 1e-9)


def _real(x: Any) -> bool:
    return not isinstance(x, bool) and isinstance(x, numbers.Real)


@cache
def _choices(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in (Union, types.UnionType):
        return typing.get_args(hint)
    # A callable is only checked for being callable, not for its signature.
    return (typing.get_origin(hint) if typing.get_origin(hint) not in (None, Annotated, Literal) else hint,)
