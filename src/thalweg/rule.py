"""What a rule is: hyperparameters that check themselves, a named state, and the update as its formula.

A rule is a frozen dataclass.  Hyperparameters annotated with a `Range` are *numbers*: they may be scheduled, changed
in a parameter group or differ between the rows of a population, and never recompile anything.  All others (a
``Literal``, a ``bool``, a number that is ``None``) are *options*: each choice is a formula of its own.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, Union, cast, dataclass_transform

from thalweg.maths import Array, Number, Shared, Value, zeros_like

ABSENT: Value = cast(Any, None)
"""The default of a state field that exists only with some options."""


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


class NoState(NamedTuple):
    """The state of a rule without state."""


@dataclass_transform(frozen_default=True)
class Rule:
    """An update rule: subclass it with hyperparameters, a ``State`` and an ``update``; it is discovered by its name.

    Attributes:
        lr: the learning rate η.
        State: a named tuple of the state of one parameter tensor, with torch.optim's names; fields annotated ``Value``
            have the shape of the parameter, fields annotated ``Number`` are one number.
        search: the search space of a race, by hyperparameter.
        decomposes: whether matrices made from gradients are decomposed, so that gradients must be finite.
        one_rate: whether all parameters must have one learning rate, or zero, since it is estimated for them together.
        kept_by: the options that decide what the state means, besides `units` and which fields there are; None for all.
        variants: other names for this rule with certain settings, as ``{"nadam": {"nesterov": "scheduled"}}``.
    """

    lr: Rate
    State: ClassVar[type[Any]] = NoState
    search: ClassVar[Mapping[str, Log | Linear]] = {"lr": Log(1e-4, 1.0)}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    one_rate: ClassVar[bool] = False
    decomposes: ClassVar[bool] = False
    kept_by: ClassVar[tuple[str, ...] | None] = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, repr=False)(cls)

    def __post_init__(self) -> None:
        hints = annotations(type(self))
        for field in dataclasses.fields(cast(Any, self)):
            checked = check(f"{type(self).__name__}'s {field.name}", getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, checked)
        self.check()

    def check(self) -> None:
        """Raise ``ValueError`` for settings that are valid separately but not in combination."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """A rule from its settings by name; ``ValueError`` names an unknown one and the nearest known."""
        known = [f.name for f in dataclasses.fields(cast(Any, cls))]
        for name in settings:
            if name not in known:
                raise ValueError(
                    f"{cls.__name__} has no setting {name!r}; it has {', '.join(known)}{nearest(name, known)}"
                )
        return cls(**settings)

    @classmethod
    def example(cls) -> Self:
        """The rule with its default settings; one that wraps others, around simple ones."""
        return cls()

    @property
    def bases(self) -> dict[str, "Rule"]:
        """The rules that this one wraps, by setting; see `thalweg.wrapping`."""
        return {}

    @property
    def needs_finite(self) -> bool:
        """Whether it, or a rule that it wraps, decomposes matrices made from gradients."""
        return self.decomposes or any(rule.needs_finite for rule in self.bases.values())

    @property
    def common(self) -> dict[str, type["Rule"]]:
        """The numbers that must be one for all parameters, or zero: by name, the rule that asks for it."""
        return {"lr": type(self)} if self.one_rate else {}

    def init(self, p: Value) -> Any:
        """The initial state for a parameter `p`, a float or a tensor, of its shape and dtype."""
        return zeros(self.State, p)

    def update(self, p: Value, g: Value, s: Any, t: Number) -> tuple[Value, Any]:
        """The new parameter and the new state, from the gradient `g` at step `t` = 1, 2, …; pure."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def fit(self, shape: tuple[int, ...]) -> Self:
        """The rule as it is for parameters of a shape, if that matters: with other options, such as for vectors.

        A rule that has this method is traced for the number of axes.

        Raises:
            ValueError: parameters of this shape cannot be stepped by the rule.
        """
        return self

    @property
    def shown_for(self) -> tuple[int, int]:
        """The shape of the matrix for which the formula, bytes and operations are shown, neither small nor large."""
        return 1_024, 1_024

    @property
    def fits(self) -> bool:
        """Whether the rule depends on the shape of the parameter; see `fit`."""
        return type(self).fit is not Rule.fit

    @property
    def units(self) -> Mapping[str, float]:
        """The factor with which gradients enter a field of the state, for each field where settings decide it."""
        return {}

    def carried(self, other: "Rule", held: Mapping[str, Any]) -> dict[str, Any]:
        """The state that another rule has left, as this rule would have left it.

        Args:
            other: a rule of the same class, with other options and the numbers that the state was made with; both
                rules as they are for the parameter's shape, see `fit`.
            held: its state by name, as of `leaves`; further entries are returned as they are.

        Raises:
            ValueError: the state of one does not determine that of the other.
        """
        own, theirs = self.options, other.options
        if type(self) is not type(other) or self.looks_ahead != other.looks_ahead or self.State != other.State:
            raise ValueError(f"the state was left by {other}, and that of {self} cannot be computed from it")
        for name in theirs if self.kept_by is None else self.kept_by:
            if own[name] != theirs[name]:
                raise ValueError(
                    f"the state was left by {type(other).__name__} with {name}={theirs[name]!r}, and what it would be "
                    f"with {name}={own[name]!r} cannot be computed from it"
                )
        units, before = self.bind(other.numbers).units, other.units
        if any(not before[name] for name in units):
            raise ValueError(f"the state that {other} has left is zero, whatever the gradients were")
        scaled = {name: held[name] * (unit / before[name]) for name, unit in units.items() if unit != before[name]}
        return {**held, **scaled}

    def lookahead(self, s: Any) -> Value | None:
        """The offset from θ to the lookahead point, where the next gradient is taken; None if that is θ itself."""
        return None

    @property
    def looks_ahead(self) -> bool:
        """Whether the gradient is taken at a lookahead point other than θ; see `lookahead`."""
        if type(self).lookahead is Rule.lookahead:
            return False
        return self.lookahead(self.init(cast(Any, 0.0))) is not None

    def rate(self, t: Number) -> Number:
        """The learning rate of step `t`: η, except in rules that have their own warm-up."""
        return self.lr

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters that may change without changing the formula."""
        return {k: v for k, v in self._settings() if isinstance(v, float)}

    @property
    def options(self) -> dict[str, Any]:
        """The hyperparameters that choose the formula."""
        return {k: v for k, v in self._settings() if not isinstance(v, float)}

    @property
    def changed(self) -> set[str]:
        """The names of the settings that differ from their defaults."""
        default = {f.name: f.default for f in dataclasses.fields(cast(Any, self))}
        return {name for name, x in self._settings() if x != default[name]}

    def annotation(self, name: str) -> Any:
        """The annotation of the setting `name`, with its range."""
        return annotations(type(self))[name]

    def bind(self, numbers: Mapping[str, Any]) -> Self:
        """The same rule with other numbers, unchecked: for values that are already checked, or symbols."""
        bound = object.__new__(type(self))
        bound.__dict__.update(self.__dict__)
        bound.__dict__.update(numbers)
        return bound

    def replace(self, **settings: Any) -> Self:
        """The same rule with other settings, checked as in the constructor."""
        return self.of({**dict(self._settings()), **settings})

    def _settings(self) -> Iterator[tuple[str, Any]]:
        return ((f.name, getattr(self, f.name)) for f in dataclasses.fields(cast(Any, self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._settings())})"

    def __str__(self) -> str:
        """The settings that differ from the defaults, in a form that `thalweg.rules.parse` reads back."""
        changed = self.changed
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._settings() if k in changed)})"


def zeros(state: type[Any], p: Value) -> Any:
    """A state of zeros for a parameter `p`."""
    numbers = number_fields(state)
    return state(*(0.0 if name in numbers else zeros_like(p) for name in state._fields))


@cache
def annotations(cls: type[Rule]) -> dict[str, Any]:
    """The annotations of a rule's hyperparameters, with their ranges."""
    return typing.get_type_hints(cls, include_extras=True)


@cache
def number_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are one number per parameter tensor, or per optimizer."""
    return frozenset(name for name, hint in typing.get_type_hints(state).items() if hint in (Number, Shared))


@cache
def shared_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are one number per optimizer."""
    return frozenset(name for name, hint in typing.get_type_hints(state).items() if hint is Shared)


@cache
def array_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that have another shape than the parameter, or are several such arrays."""
    hints = typing.get_type_hints(state).items()
    return several_fields(state) | {name for name, hint in hints if hint is Array}


@cache
def several_fields(state: type[Any]) -> frozenset[str]:
    """The fields of a state that are tuples of arrays, such as a factor for each axis."""
    hints = typing.get_type_hints(state).items()
    return frozenset(name for name, hint in hints if typing.get_origin(hint) is tuple)


def leaves(state: Any) -> dict[str, Any]:
    """What is in a state by name, without what is absent; several arrays in a field are ``name.0``, ``name.1`` …"""
    found: dict[str, Any] = {}
    for name, x in state._asdict().items():
        if isinstance(x, tuple):
            found.update({f"{name}.{k}": part for k, part in enumerate(cast("tuple[Any, ...]", x))})
        elif x is not ABSENT:
            found[name] = x
    return found


def gathered(like: Any, find: Callable[[str, Any], Any]) -> Any:
    """A state like another, with what `find` returns for the name and the entry of each of its `leaves`."""
    return type(like)(*(
        tuple(find(f"{name}.{k}", part) for k, part in enumerate(cast("tuple[Any, ...]", x)))
        if isinstance(x, tuple) else ABSENT if x is ABSENT else find(name, x)
        for name, x in like._asdict().items()
    ))  # fmt: skip


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
    if choice is Rule:
        return "a rule, as in thalweg.rules.Adam(lr=1e-3)"
    return "None" if choice is type(None) else repr(choice)


def check(name: str, value: Any, annotation: Any) -> Any:
    """`value` converted to its annotated type; otherwise ``ValueError`` names the value and what is allowed."""
    for choice in choices(annotation):
        if typing.get_origin(choice) is Annotated:
            kind = choice.__metadata__[0]
            read = _within(kind, value) if isinstance(kind, Range) else kind.read(value)
            if read is not None:
                return read
        elif choice is bool or choice is Rule:
            if isinstance(value, choice):
                return value
        elif choice is type(None) or choice is None:
            if value is None:
                return None
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
