"""`Switch`: one rule followed by another.  It is accepted wherever a rule is."""

import ast
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, cast

from thalweg import rules
from thalweg.hyperparameters import check
from thalweg.parsing import parse_call
from thalweg.rule import Linear, Log, Positive, Rule
from thalweg.rules import swats
from thalweg.schedules.settings import Period, checked, is_pending, whole

_THEN = "then."
"""The prefix of the second rule's numbers; those of the first have no prefix."""


@dataclass(frozen=True, repr=False)
class Switch:
    """`first` for a number of steps, then `then`, which starts with a new state.

    Args:
        first: the first rule.
        then: the second rule.
        at: the number of applied steps before the switch: an ``int``; a ``float``, a fraction of the total given to
            `resolve`; or ``"auto"``, when the first rule's own steps indicate it: SWATS (Keskar & Socher 2017,
            Algorithm 1).  The first rule must then have ``beta1`` and ``beta2``, as Adam has, and `then` is
            ``SGD()``: as in the paper its momentum is β₁, with the velocity ``averaged``, and its rate Λ is
            estimated.  A `Momentum` of that form keeps its own momentum.
        tolerance: with ``"auto"``, ε of the algorithm: the largest difference between the average rate and the latest.

    Raises:
        ValueError: a setting is out of its range, or cannot be combined with ``at="auto"``.
        TypeError: `first` or `then` is not a rule.
    """

    first: Rule
    then: Rule
    at: float | Literal["auto"]
    tolerance: float = 1e-9

    def __post_init__(self) -> None:
        for name in ("first", "then"):
            if not isinstance(rule := getattr(self, name), Rule):
                raise TypeError(f"Switch's {name} is {rule!r}, which is no thalweg.Rule; write thalweg.rules.Adam()")
        self._keep("at", checked("Switch", "at", self.at, Period | Literal["auto"]))
        self._keep("tolerance", check("Switch's tolerance", self.tolerance, Positive))
        if self.at == "auto":
            self._keep("then", swats.successor(self.first, self.then))
        elif self.tolerance != Switch.tolerance:
            raise ValueError(f"Switch's tolerance is {self.tolerance!r} with at={self.at!r}; only at='auto' has one")

    @classmethod
    def parse(cls, text: str) -> Self:
        """A switch from text: ``switch(adam, sgd(lr=0.1), at=0.5)``.  Literals only, nothing is evaluated.

        Raises:
            ValueError: the text cannot be read, or a setting is unknown or not allowed.
        """
        phases, settings = read_call(text)
        known = [field.name for field in dataclasses.fields(cls) if field.name not in ("first", "then")]
        if unknown := settings.keys() - set(known):
            raise ValueError(f"{text} has no setting {min(unknown)!r}; it has {', '.join(known)}")
        first, then = map(rules.parse, phases)
        return cls(first, then, **settings)

    # A total, as schedules have it

    @property
    def resolved(self) -> bool:
        """Whether `at` is a number of steps or ``"auto"``."""
        return not is_pending(self.at)

    def resolve(self, total: int) -> Self:
        """The same with a fraction turned into steps of `total`; ``ValueError`` if that is less than one step."""
        if self.resolved:
            return self
        try:
            return dataclasses.replace(self, at=whole(self.at, total, 0.0))
        except ValueError as error:
            raise ValueError(f"{self} cannot be laid out over {total} steps: {error}") from None

    def mismatch(self, total: int) -> str | None:
        """A sentence if training for `total` steps never reaches the second rule, else None."""
        at = self.resolve(total).at
        if at == "auto" or at < total:
            return None
        return f"it switches after {at:,} steps: training stops after {total:,}, with the first rule"

    def averaged(self, numbers: Mapping[str, float], average: float, rate: float, k: int) -> tuple[float, float]:
        """With ``at="auto"``: the average of the rates equivalent to the steps; see `thalweg.rules.swats.averaged`."""
        return swats.averaged(numbers, average, rate, k)

    # Numbers, options and search space, as rules have them: those of `then` are called then.lr …

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters that are numbers; not a rate that is still to be estimated."""
        return self._both(lambda rule: rule.numbers)

    @property
    def search(self) -> dict[str, Log | Linear]:
        """The search spaces of both rules, for a race."""
        return self._both(lambda rule: rule.search)

    def annotation(self, name: str) -> Any:
        """The annotation of the setting `name` of one of its rules, with its range."""
        rule = self.then if name.startswith(_THEN) else self.first
        return rule.annotation(name.removeprefix(_THEN))

    def _both(self, of: Callable[[Rule], Any]) -> dict[str, Any]:
        second = {_THEN + name: x for name, x in of(self.then).items() if not (self.at == "auto" and name == "lr")}
        return {**of(self.first), **second}

    def replace(self, **settings: Any) -> Self:
        """The same with other settings of its rules, checked: ``switch.replace(**{"lr": 0.01, "then.lr": 0.1})``."""
        second = {name.removeprefix(_THEN): x for name, x in settings.items() if name.startswith(_THEN)}
        first = {name: x for name, x in settings.items() if not name.startswith(_THEN)}
        return dataclasses.replace(self, first=self.first.replace(**first), then=self.then.replace(**second))

    def __str__(self) -> str:
        """The text that `parse` reads back; settings at their defaults are left out."""
        return self._text(str)

    def __repr__(self) -> str:
        return self._text(repr)

    def _text(self, write: Callable[[Rule], str]) -> str:
        tolerance = "" if self.tolerance == Switch.tolerance else f", tolerance={self.tolerance!r}"
        return f"Switch({write(self.first)}, {write(self.then)}, at={self.at!r}{tolerance})"

    def _keep(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # frozen for its users, not for its own constructor


def read(given: Any) -> Rule | Switch:
    """A rule or a switch, given as such or as text: ``"adam(lr=1e-3)"``, ``"switch(adam, sgd, at=1000)"``.

    Raises:
        ValueError: the text cannot be read, or a setting is unknown or not allowed.
        TypeError: it is something else.
    """
    if isinstance(given, str):
        return Switch.parse(given) if is_switch(given) else rules.parse(given)
    if not isinstance(given, Rule | Switch):
        raise TypeError(
            f"rule is {given!r}, which is no thalweg.Rule; write thalweg.rules.Adam(lr=1e-3) or 'adam(lr=1e-3)'"
        )
    return given


def is_switch(text: str) -> bool:
    """Whether a text means a switch rather than a rule."""
    return text.partition("(")[0].strip().lower() == "switch"


def read_call(text: str) -> tuple[list[str], dict[str, Any]]:
    """``"switch(adam(lr=0.1), sgd, at=0.5)"`` → ``(["adam(lr=0.1)", "sgd"], {"at": 0.5})``: nothing is evaluated.

    Raises:
        ValueError: the text is not a switch between two rules.
    """
    text = text.strip()
    try:
        call = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        call = None
    if not is_switch(text) or not isinstance(call, ast.Call) or len(call.args) != 2:
        raise ValueError(f"{text!r} cannot be read; write two rules and when, as in switch(adam, sgd(lr=0.1), at=0.5)")
    phases, said = ([cast(str, ast.get_source_segment(text, node)) for node in nodes]
                    for nodes in (call.args, call.keywords))  # fmt: skip
    _, settings = parse_call(f"switch({', '.join(said)})")
    if "at" not in settings:
        raise ValueError(f"{text} does not say when to switch; add at=, a number of steps, a fraction or auto")
    return phases, settings
