"""What a rule is: hyperparameters that check themselves, a named state, and the update as its formula.

A rule is a frozen dataclass.  Hyperparameters annotated with a `Range` are *numbers*: they may be scheduled, changed
in a parameter group or differ between the rows of a population, and never recompile anything.  All others (a
``Literal``, a ``bool``, a number that is ``None``) are *options*: each choice is a formula of its own.
"""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self, cast, dataclass_transform

from thalweg.fields import ABSENT, NoState, zeros
from thalweg.hyperparameters import (
    Axes,
    Count,
    Decay,
    EpsAt,
    Epsilon,
    Fraction,
    Linear,
    Log,
    Positive,
    Range,
    Rate,
    Row,
    check,
    nearest,
)
from thalweg.maths import Number, Value

__all__ = [
    "ABSENT",
    "Axes",
    "Count",
    "Decay",
    "EpsAt",
    "Epsilon",
    "Fraction",
    "Linear",
    "Log",
    "NoState",
    "Positive",
    "Range",
    "Rate",
    "Row",
    "Rule",
    "annotations",
]  # fmt: skip


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
        in_words: what a setting that is a rule must be.
        variants: other names for this rule with certain settings, as ``{"nadam": {"nesterov": "scheduled"}}``.
    """

    lr: Rate
    State: ClassVar[type[Any]] = NoState
    search: ClassVar[Mapping[str, Log | Linear]] = {"lr": Log(1e-4, 1.0)}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    one_rate: ClassVar[bool] = False
    decomposes: ClassVar[bool] = False
    kept_by: ClassVar[tuple[str, ...] | None] = None
    in_words: ClassVar[str] = "a rule, as in thalweg.rules.Adam(lr=1e-3)"

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


@cache
def annotations(cls: type[Rule]) -> dict[str, Any]:
    """The annotations of a rule's hyperparameters, with their ranges."""
    return typing.get_type_hints(cls, include_extras=True)
