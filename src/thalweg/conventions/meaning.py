"""The parts of the table of conventions, and how a framework's call is read by them."""

import inspect
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from torch import Tensor

from thalweg.hyperparameters import check, nearest
from thalweg.optimizer import Optimizer
from thalweg.rule import Rule
from thalweg.rules import Cautious

REQUIRED = inspect.Parameter.empty
"""The default of an argument that must be given."""

_SEVERAL = {2: "a pair of"}


@dataclass(frozen=True)
class Argument:
    """The meaning of a framework's argument.

    Attributes:
        default: its default value, or `REQUIRED`.
        ours: the settings of our rule or of `Optimizer` that it determines: none, one, or one for each of its parts.
        values: the translations of some values; all others stay the same.
        closed: whether no other values are allowed.
        shared: whether each of `ours` gets the whole value instead of a part.
        refused: the reason to show when the argument has no counterpart here and is given a non-default value; empty if
            it never affects the numbers (``foreach``, ``fused``).
    """

    default: Any
    ours: tuple[str, ...] = ()
    values: Mapping[Any, Any] = field(default_factory=dict[Any, Any])
    closed: bool = False
    refused: str = ""
    shared: bool = False

    @property
    def parts(self) -> int:
        """The number of values in one argument."""
        return 1 if self.shared else len(self.ours)

    def read(self, value: Any) -> dict[str, Any]:
        """Our settings for a value of it."""
        if self.parts > 1:
            return dict(zip(self.ours, value, strict=True))
        value = self.values.get(value, value) if isinstance(value, Hashable) else value
        return dict.fromkeys(self.ours, value)

    def check(self, said: str, value: Any, rule: Rule) -> None:
        """Raise ``ValueError``, which calls the argument `said`, if the value is not supported."""
        if (value is None and self.default is None) or (isinstance(value, Hashable) and value in self.values):
            return  # the default, or one that the table translates
        if self.refused and value != self.default:
            raise ValueError(f"{said} is {value!r}; allowed is {self.default!r}: {self.refused}")
        if self.closed and not any(value is known or value == known for known in self.values):
            raise ValueError(f"{said} is {value!r}; allowed is {' or '.join(map(repr, self.values))}")
        if callable(value) and self.ours and not self.closed:
            raise ValueError(
                f"{said} is a function; write a number, and give thalweg.Optimizer a schedule of "
                f"{' and '.join(self.ours)}"
            )
        several = self.parts
        if several > 1 and not (isinstance(value, Iterable) and len(list(cast("Iterable[Any]", value))) == several):
            raise ValueError(f"{said} is {value!r}; allowed is {_SEVERAL.get(several, several)} numbers")
        for name, setting in self.read(value).items():
            if name in settings_of(rule):
                check(said, setting, rule.annotation(name))


def settings_of(rule: Rule) -> dict[str, Any]:
    """The settings of a rule, of the rules inside it, too."""
    return {**rule.numbers, **rule.options}


def inert(default: Any) -> Argument:
    """An argument that does not affect the numbers."""
    return Argument(default)


def number(default: Any, ours: str, values: Mapping[Any, Any] | None = None) -> Argument:
    """A number; `values` are translated."""
    return Argument(default, (ours,), values or {})


def unset(default: float | None, ours: str, off: float | None = None) -> Argument:
    """A number for which 0 and None mean `off`."""
    return Argument(default, (ours,), {0: off, None: off})


def several(default: tuple[float | None, ...], *ours: str) -> Argument:
    """Several numbers in one argument."""
    return Argument(default, ours)


def shared(default: float, *ours: str) -> Argument:
    """One number for several of our settings."""
    return Argument(default, ours, shared=True)


INTO_RULE, NOWHERE = "lambd", "none"
"""Values of ``decay_form`` in the table: the weight decay is the rule's own ``lambd``, or it has no effect."""


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


def is_matrix(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether a parameter has two axes."""
    return p.ndim == 2


@dataclass(frozen=True)
class Convention:
    """The meaning of one name.

    Attributes:
        rule: our rule; or one with settings of its own, such as one that wraps another.
        source: its full name or its place in the literature.
        arguments: the framework's arguments, in order.
        fixed: the settings of our rule and of `Optimizer` that the name implies; functions are called for the value.
        without_momentum: the rule to use if the momentum is None; arguments that it has no setting for are ignored.
        sparse: whether the framework's optimizer accepts sparse gradients.
        counted: whether the framework's state counts steps.
        together: what several arguments determine together: changes our settings, in place.
        others: the meaning of the same arguments for other parameters, if it is another one.
        chosen: whether a parameter, in a group with its settings, is not one of these others; ``ValueError`` if it can
            be neither.
        flags: the settings of a group that only `chosen` reads.
        group_names: what the settings of a group of other parameters are called among the arguments of `others`.
        saved: whether its checkpoints can be converted; see `thalweg.conventions.checkpoints`.
        keys: the names of our state in these, where they differ from ours.
        group: what else a group has in these, from its settings and its number of steps.
    """

    rule: type[Rule] | Rule
    source: str
    arguments: Mapping[str, Argument]
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    without_momentum: type[Rule] | None = None
    sparse: bool = False
    counted: bool = True
    together: Callable[[dict[str, Any]], None] | None = None
    others: "Convention | None" = None
    chosen: Callable[[Tensor, Mapping[str, Any]], bool] = is_matrix
    flags: tuple[str, ...] = ()
    group_names: Mapping[str, str] = field(default_factory=dict[str, str])
    saved: bool = False
    keys: Mapping[str, str] = field(default_factory=dict[str, str])
    group: Callable[[dict[str, Any], int], dict[str, Any]] | None = None

    @property
    def template(self) -> Rule:
        """Our rule, to be given settings."""
        return self.rule if isinstance(self.rule, Rule) else self.rule()

    def settings(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Our settings of the rule and of `Optimizer` for the framework's arguments, unchecked; others are ignored."""
        found = {name: value() if callable(value) else value for name, value in self.fixed.items()}
        for name, argument in self.arguments.items():
            found.update(argument.read(theirs.get(name, argument.default)))
        if (form := found.get("decay_form")) in (INTO_RULE, NOWHERE):
            decay = found["weight_decay"]
            found |= {
                "weight_decay": 0.0,
                "decay_form": "l2",
                **({"lambd": decay or None} if form == INTO_RULE else {}),
            }
        if self.together is not None:
            self.together(found)
        return found

    def meaning(self, settings: Mapping[str, Any]) -> Meaning:
        """The rule of `settings`, and the arguments of `Optimizer` among them."""
        rule, of_rule = self._of(settings)
        rule = rule.replace(**of_rule)
        if (scale := settings.get("cautious")) and "cautious" not in of_rule:
            rule = Cautious(rule, scale=scale)
        return Meaning(rule, {name: x for name, x in settings.items() if name in OPTIMIZER})

    def rule_of(self, settings: Mapping[str, Any]) -> Rule:
        """The rule of `settings`, unchecked, with any value that the framework accepts."""
        rule, of_rule = self._of(settings)
        whole = {name for name, x in rule.options.items() if type(x) is int}
        return rule.bind({name: float(x) if type(x) is int and name not in whole else x for name, x in of_rule.items()})

    def _of(self, settings: Mapping[str, Any]) -> tuple[Rule, dict[str, Any]]:
        """The rule to be given settings, and those of it."""
        rule = self.template
        if self.without_momentum is not None and settings["momentum"] is None:
            rule = self.without_momentum()
        known = settings_of(rule)
        return rule, {name: x for name, x in settings.items() if name in known}

    def read(self, said: str, theirs: Mapping[str, Any]) -> Meaning:
        """The meaning of the name with these arguments; a ``ValueError`` begins with `said`."""
        for name, value in theirs.items():
            if name not in self.arguments:
                known = list(self.arguments)
                raise ValueError(f"{said} has no argument {name!r}{nearest(name, known)}; it has {', '.join(known)}")
            self.arguments[name].check(f"{said}'s {name}", value, self.template)
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
        any_case: whether the names are also found in upper or lower case only.
        notes: sentences for the page, about what the table does not show.
    """

    name: str
    call: str
    rate: str
    names: Mapping[str, Convention]
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    any_case: bool = False
    notes: tuple[str, ...] = ()

    def find(self, name: str) -> Convention:
        """The meaning of a name; ``ValueError`` names the nearest known one, or says why it cannot be expressed."""
        if self.any_case:
            name = next((known for known in (*self.names, *self.refused) if known.lower() == name.lower()), name)
        if name in self.refused:
            raise ValueError(f"{self.name}'s {name} cannot be expressed: {self.refused[name]}")
        if name not in self.names:
            similar = nearest(name, map(str.lower, self.names) if self.any_case else self.names)
            raise ValueError(f"{self.name} has no optimizer {name!r}{similar}; it has {', '.join(self.names)}")
        return self.names[name]

    def read(self, name: str, theirs: Mapping[str, Any]) -> Meaning:
        """The meaning of a call; ``lr`` is understood as the learning rate in every framework."""
        return self.find(name).read(f"{self.name}'s {name}", self.named(theirs))

    def named(self, theirs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments with the framework's own name of the learning rate in place of ``lr``."""
        arguments = dict(theirs)
        if "lr" in arguments and self.rate not in arguments:
            arguments[self.rate] = arguments.pop("lr")
        return arguments


_OF_RULES = {"self", "params", "rule", "lr"}
OPTIMIZER: frozenset[str] = frozenset(inspect.signature(Optimizer.__init__).parameters) - _OF_RULES
"""The arguments of `Optimizer` that do not belong to a rule."""
