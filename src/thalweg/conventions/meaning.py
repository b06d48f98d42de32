"""The parts of the table of conventions, and how a framework's call is read by them."""

import inspect
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from thalweg.optimizer import Optimizer
from thalweg.rule import Rule, annotations, check, nearest

REQUIRED = inspect.Parameter.empty
"""The default of an argument that must be given."""


@dataclass(frozen=True)
class Argument:
    """The meaning of a framework's argument.

    Attributes:
        default: its default value, or `REQUIRED`.
        ours: the settings of our rule or of `Optimizer` that it determines: none, one or a pair.
        values: the translations of some values; all others stay the same.
        closed: whether no other values are allowed.
        refused: the reason to show when the argument has no counterpart here and is given a non-default value; empty if
            it never affects the numbers (``foreach``, ``fused``).
    """

    default: Any
    ours: tuple[str, ...] = ()
    values: Mapping[Any, Any] = field(default_factory=dict[Any, Any])
    closed: bool = False
    refused: str = ""

    def read(self, value: Any) -> dict[str, Any]:
        """Our settings for a value of it."""
        if len(self.ours) == 2:
            return dict(zip(self.ours, value, strict=True))
        if not self.ours:
            return {}
        return {self.ours[0]: self.values.get(value, value) if isinstance(value, Hashable) else value}

    def check(self, said: str, value: Any, rule: type[Rule]) -> None:
        """Raise ``ValueError``, which calls the argument `said`, if the value is not supported."""
        if self.refused and value != self.default:
            raise ValueError(f"{said} is {value!r}; allowed is {self.default!r}: {self.refused}")
        if self.closed and not any(value is known or value == known for known in self.values):
            raise ValueError(f"{said} is {value!r}; allowed is {' or '.join(map(repr, self.values))}")
        if len(self.ours) == 2 and not (isinstance(value, Iterable) and len(list(cast("Iterable[Any]", value))) == 2):
            raise ValueError(f"{said} is {value!r}; allowed is a pair of numbers")
        for name, setting in self.read(value).items():
            if name in annotations(rule):
                check(said, setting, annotations(rule)[name])


def inert(default: Any) -> Argument:
    """An argument that does not affect the numbers."""
    return Argument(default)


def number(default: Any, ours: str, values: Mapping[Any, Any] | None = None) -> Argument:
    """A number; `values` are translated."""
    return Argument(default, (ours,), values or {})


def unset(default: float | None, ours: str) -> Argument:
    """A number for which 0 and None mean off."""
    return Argument(default, (ours,), {0: None, None: None})


def pair(default: tuple[float, float], first: str, second: str) -> Argument:
    """A pair of numbers in one argument."""
    return Argument(default, (first, second))


def switch(default: bool, ours: str, on: Any, off: Any) -> Argument:
    """True or False, translated to one of our options."""
    return Argument(default, (ours,), {True: on, False: off}, closed=True)


def refused(default: Any, why: str) -> Argument:
    """An argument that has no counterpart here."""
    return Argument(default, refused=why)


class Meaning(NamedTuple):
    """The meaning of a framework's call: our rule and the arguments of `Optimizer`."""

    rule: Rule
    around: dict[str, Any]


@dataclass(frozen=True)
class Convention:
    """The meaning of one name.

    Attributes:
        rule: our rule.
        source: its full name or its place in the literature.
        arguments: the framework's arguments, in order.
        fixed: the settings of our rule and of `Optimizer` that the name implies; functions are called for the value.
        without_momentum: the rule to use if the momentum is None; arguments that it has no setting for are ignored.
        sparse: whether the framework's optimizer accepts sparse gradients.
        counted: whether the framework's state counts steps.
    """

    rule: type[Rule]
    source: str
    arguments: Mapping[str, Argument]
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    without_momentum: type[Rule] | None = None
    sparse: bool = False
    counted: bool = True

    def settings(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Our settings of the rule and of `Optimizer` for the framework's arguments, unchecked; others are ignored."""
        found = {name: value() if callable(value) else value for name, value in self.fixed.items()}
        for name, argument in self.arguments.items():
            found.update(argument.read(theirs.get(name, argument.default)))
        return found

    def meaning(self, settings: Mapping[str, Any]) -> Meaning:
        """The rule of `settings`, and the arguments of `Optimizer` among them."""
        rule = self._of(settings)
        of_rule = {name: x for name, x in settings.items() if name in annotations(rule)}
        return Meaning(rule(**of_rule), {name: x for name, x in settings.items() if name in OPTIMIZER})

    def rule_of(self, settings: Mapping[str, Any]) -> Rule:
        """The rule of `settings`, unchecked, with any value that the framework accepts."""
        rule = self._of(settings)
        of_rule = {name: x for name, x in settings.items() if name in annotations(rule)}
        return rule().bind({name: float(x) if type(x) is int else x for name, x in of_rule.items()})

    def _of(self, settings: Mapping[str, Any]) -> type[Rule]:
        plain = self.without_momentum is not None and settings["momentum"] is None
        return self.without_momentum if plain and self.without_momentum else self.rule

    def read(self, said: str, theirs: Mapping[str, Any]) -> Meaning:
        """The meaning of the name with these arguments; a ``ValueError`` begins with `said`."""
        for name, value in theirs.items():
            if name not in self.arguments:
                known = list(self.arguments)
                raise ValueError(f"{said} has no argument {name!r}{nearest(name, known)}; it has {', '.join(known)}")
            self.arguments[name].check(f"{said}'s {name}", value, self.rule)
        for name, argument in self.arguments.items():
            if argument.default is REQUIRED and name not in theirs:
                raise ValueError(f"{said} needs {name}: it has no default there")
        return self.meaning(self.settings(theirs))


@dataclass(frozen=True)
class Framework:
    """A column of the table.

    Attributes:
        name: the framework's name.
        call: a template for the full name of an optimizer.
        rate: the framework's name for the learning rate.
        names: the meaning of each optimizer.
        refused: optimizers that cannot be expressed, and why.
    """

    name: str
    call: str
    rate: str
    names: Mapping[str, Convention]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])

    def find(self, name: str) -> Convention:
        """The meaning of a name; ``ValueError`` names the nearest known one, or says why it cannot be expressed."""
        if name in self.refused:
            raise ValueError(f"{self.name}'s {name} cannot be expressed: {self.refused[name]}")
        if name not in self.names:
            raise ValueError(
                f"{self.name} has no optimizer {name!r}{nearest(name, self.names)}; it has {', '.join(self.names)}"
            )
        return self.names[name]

    def read(self, name: str, theirs: Mapping[str, Any]) -> Meaning:
        """The meaning of a call; ``lr`` is understood as the learning rate in every framework."""
        arguments = dict(theirs)
        if "lr" in arguments and self.rate not in arguments:
            arguments[self.rate] = arguments.pop("lr")
        return self.find(name).read(f"{self.name}'s {name}", arguments)


_OF_RULES = {"self", "params", "rule", "lr"}
OPTIMIZER: frozenset[str] = frozenset(inspect.signature(Optimizer.__init__).parameters) - _OF_RULES
"""The arguments of `Optimizer` that do not belong to a rule."""
