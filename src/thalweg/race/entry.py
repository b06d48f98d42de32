"""Entries of a race: a rule with the options that belong to the entry rather than to the rule."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any, Literal, cast

from thalweg import rules, schedules
from thalweg.hyperparameters import check, nearest
from thalweg.optimizer import RANGES, Optimizer
from thalweg.parsing import Call, parse_nested
from thalweg.rule import Linear, Log, Rule
from thalweg.schedules import Schedule
from thalweg.switch import Switch, is_switch, read_call

_AROUND = ("weight_decay", "decay_form", "clip_norm", "clip_value", "ema")
OPTIONS = ("batch_size", "others", "schedule", *_AROUND)
"""The options of an entry besides its rule; see `thalweg.Optimizer`."""

# The optimizer's own, except that it warns if it has to choose a form of weight decay by itself.
DEFAULTS: dict[str, Any] = {name: signature(Optimizer).parameters[name].default for name in _AROUND} | {
    "decay_form": "l2"
}


_KEPT = ("weight_decay", "decay_form")
_OTHERS = "others."
"""The prefix of the numbers of the rule for all other parameters."""


@dataclass(frozen=True)
class Choice:
    """A search space of `count` choices, by index."""

    count: int

    def at(self, u: float) -> float:
        """The index at a fraction `u` in [0, 1] of the way."""
        return float(min(int(u * self.count), self.count - 1))


class Entry:
    """A contender in a race.

    Settings that are given are fixed; the rest of the rule's search space is tuned.  So the learning rate of ``adam``
    is tuned, while ``adam(lr=0.01)`` runs at 0.01, in a single trial because there is nothing to tune.  In
    ``switch(adam(lr=0.01), sgd, at=0.5)`` only the rate of the second rule, ``then.lr``, is tuned.  Text may give the
    spaces to search: ``adam(lr=1e-4..1, eps=1e-10..1)``, on a logarithmic scale where the lower end is positive, or
    ``momentum(momentum=0.5..0.99:linear)``.  As in torch, ``adamw`` is Adam with a decoupled weight decay of 0.01, and
    ``sgd(momentum=0.9)`` is momentum.

    Args:
        rule: a rule, a `thalweg.Switch`, or text such as ``adam(beta2=0.99)``, which may set the options below as well:
            ``sgd(batch_size=full)``, ``switch(adam, sgd, at=0.5, weight_decay=0.01, decay_form=scaled)``.
        name: its name in the race; by default its text.
        search: the space of each hyperparameter to tune, in place of the rule's own; empty to tune none.  Under
            ``schedule``, a list of schedules to choose from, as for the option below.
        **options: ``batch_size``: examples per step, or ``"full"`` for gradient descent; by default the problem's.
            ``others``: a rule for all parameters but the hidden matrices, which `rule` steps alone, as in
            ``muon(others=adam)``; see `thalweg.groups.hidden_matrices`.  It is tuned, too, as ``others.lr``.
            ``schedule``: of the learning rates, or its text, as in ``adam(schedule="warmup(0.1).then(cosine(0.9))")``;
            fractions refer to the entry's own steps.  Of several in a list, the best is chosen by tuning.
            ``weight_decay``, ``decay_form``, ``clip_norm``, ``clip_value``, ``ema``: as in `thalweg.Optimizer`.

    Attributes:
        rule: the rule or the switch, before tuning.
        others: the rule for all parameters but the hidden matrices, before tuning, or None.
        batch_size: as given; None for the problem's.
        options: the arguments of the optimizer besides the rule that differ from the defaults, and the weight decay and
            its form if they are given; a schedule is text, or a list of several to choose from.

    Raises:
        ValueError: unknown names, or values out of their range.
        TypeError: `rule` is neither a rule nor text.
    """

    def __init__(
        self,
        rule: Rule | Switch | str,
        name: str | None = None,
        *,
        search: Mapping[str, Log | Linear | Sequence[Schedule | str]] | None = None,
        **options: Any,
    ) -> None:
        spaces: dict[str, Log | Linear] = {}
        if isinstance(rule, str):
            read, given, in_text, spaces = _read_switch(rule) if is_switch(rule) else _read(rule)
            options = {**in_text, **options}
        elif isinstance(cast(Any, rule), Rule | Switch):
            read, given = rule, _given(rule)
        else:
            raise TypeError(f"an entry's rule is {rule!r}; write a rule or its name, as in Entry('adam(beta2=0.99)')")
        if spaces and search is not None:
            raise ValueError(
                f"the entry's {min(spaces)} has a space in its text, and it has a search; write one of them"
            )
        self.rule: Rule | Switch = read
        own = {n: spaces.get(n, s) for n, s in {**read.search, **spaces}.items() if n not in given}
        wanted: dict[str, Any] = own if search is None else dict(search)
        if "schedule" in wanted:
            if "schedule" in options:
                raise ValueError("the entry's schedule is an option, and in its search too; write it once")
            options["schedule"] = wanted.pop("schedule")
        for option in options:
            if option not in OPTIONS:
                raise ValueError(
                    f"an entry has no option {option!r}; it has {', '.join(OPTIONS)}{nearest(option, OPTIONS)}"
                )
        self.batch_size: int | Literal["full"] | None = _size(options.pop("batch_size", None))
        self.others, own = _others(self.rule, options.pop("others", None))
        wanted = wanted | own if search is None else wanted
        schedule = options.pop("schedule", None)
        checked = {n: check(f"the entry's {n}", x, RANGES[n]) for n, x in options.items()}
        # What is given is kept where another default may apply: a training has a weight decay of its own.
        self.options: dict[str, Any] = {n: x for n, x in checked.items() if x != DEFAULTS[n] or n in _KEPT}
        if schedule is not None:
            self.options["schedule"] = _texts(schedule)
        if self.others is not None:
            self.options["others"] = repr(self.others)
        self.name = name or (" ".join(rule.split()) if isinstance(rule, str) else self._written())
        if "\0" in self.name or self.name != self.name.encode(errors="replace").decode():
            raise ValueError(f"an entry's name is {self.name!r}; allowed is text in UTF-8 without null characters")
        self.search: dict[str, Log | Linear | Choice] = wanted
        self._check_search()
        if isinstance(self.options.get("schedule"), list):
            self.search["schedule"] = Choice(len(self.options["schedule"]))

    @property
    def schedules(self) -> list[str]:
        """Its schedule, or the schedules to choose from, as text; empty if it has none."""
        given = self.options.get("schedule", [])
        return [given] if isinstance(given, str) else given

    def set(self, tuned: Mapping[str, float]) -> tuple[Rule | Switch, dict[str, Any]]:
        """The rule and the options of a run with these tuned settings."""
        numbers = {name: x for name, x in tuned.items() if name != "schedule"}
        options = dict(self.options)
        if "schedule" in tuned:
            options["schedule"] = options["schedule"][int(tuned["schedule"])]
        if self.others is not None:
            options["others"] = self.others.replace(**_of_others(numbers))
            numbers = {name: x for name, x in numbers.items() if not name.startswith(_OTHERS)}
        return self.rule.replace(**numbers), options

    @property
    def numbers(self) -> dict[str, float]:
        """The hyperparameters that are numbers, before tuning."""
        more = {} if self.others is None else self.others.numbers
        return {**self.rule.numbers, **{_OTHERS + name: x for name, x in more.items()}}

    def annotation(self, name: str) -> Any:
        """The annotation of one of its numbers, with its range."""
        if name.startswith(_OTHERS) and self.others is not None:
            return self.others.annotation(name.removeprefix(_OTHERS))
        return self.rule.annotation(name)

    def _written(self) -> str:
        head, _, settings = str(self.rule).partition("(")
        sizes = {} if self.batch_size is None else {"batch_size": self.batch_size}
        written = [settings.removesuffix(")"), *(f"{n}={x}" for n, x in {**sizes, **self.options}.items())]
        inside = ", ".join(filter(None, written))
        return f"{head}({inside})" if inside else head

    def _check_search(self) -> None:
        for name, space in self.search.items():
            if name not in self.numbers:
                known = ", ".join(self.numbers)
                raise ValueError(f"{self.name} cannot be tuned in {name!r}; its numbers are {known}")
            if not isinstance(space, Log | Linear):
                raise ValueError(f"{self.name} is searched in {name} in {space!r}; allowed is a Log or a Linear space")
            if not space.low < space.high:
                swapped = f"; write {name}={space.high:g}..{space.low:g}" if space.low > space.high else ""
                raise ValueError(
                    f"{self.name} is searched in {name} from {space.low:g} to {space.high:g}; low must be less{swapped}"
                )
            if isinstance(space, Log) and space.low <= 0:
                raise ValueError(
                    f"{self.name} is searched in {name} from {space.low:g} on a logarithmic scale; low must be positive"
                )
            for end in (space.low, space.high):
                self.set({name: end})

    def __repr__(self) -> str:
        return f"Entry({self.name!r}, {self.rule})"


def _others(rule: Rule | Switch, given: Any) -> tuple[Rule | None, dict[str, Log | Linear]]:
    """The rule for all parameters but the hidden matrices, and the spaces in which it is tuned."""
    if given is None:
        return None, {}
    if isinstance(rule, Switch):
        raise ValueError(f"{rule} switches for all parameters; leave others={given} out")
    if isinstance(given, Rule):
        other, fixed, spaces = given, _given(given), dict[str, Log | Linear]()
    else:
        call = given if isinstance(given, Call) else parse_nested(_quoted(str(given)))
        other = rules.built(_fixed(call))
        settings = rules.given(call, other)
        spaces = {n: _space(call.name, n, x) for n, x in settings.items() if _is_space(x)}
        fixed = settings.keys() - spaces.keys()
    return other, {_OTHERS + n: x for n, x in {**other.search, **spaces}.items() if n not in fixed}


def _of_others(numbers: Mapping[str, float]) -> dict[str, float]:
    """The numbers of the rule for other parameters, by their names there."""
    return {name.removeprefix(_OTHERS): x for name, x in numbers.items() if name.startswith(_OTHERS)}


def _size(size: Any) -> int | Literal["full"] | None:
    if size is None or size == "full" or (isinstance(size, int) and not isinstance(size, bool) and size >= 1):
        return size
    raise ValueError(f"the entry's batch_size is {size!r}; allowed is a whole number >= 1, or 'full'")


def _texts(schedule: Any) -> str | list[str]:
    """A schedule's text, or those of several."""
    given = cast("list[Any]", schedule) if isinstance(schedule, list | tuple) else [schedule]
    texts = list(dict.fromkeys(str(schedules.parse(str(one))) for one in given))
    if not texts:
        raise ValueError("the entry's schedule is an empty list; give at least one, or leave it out")
    return texts[0] if len(texts) == 1 else texts


def _given(rule: Rule | Switch) -> set[str]:
    """The names of numbers that differ from their defaults."""
    if isinstance(rule, Switch):
        return _given(rule.first) | {f"then.{name}" for name in _given(rule.then)}
    return rule.changed & rule.numbers.keys()


_Read = tuple[Any, set[str], dict[str, Any], dict[str, Log | Linear]]
"""A rule or switch, the names of given settings, the options of the entry, and the spaces to search."""


def _read_switch(text: str) -> _Read:
    phases, settings = read_call(_quoted(text))
    (first, given, wrong, spaces), (then, later, wrong_too, more) = map(_read, phases)
    if misplaced := [*wrong, *wrong_too]:
        raise ValueError(f"{misplaced[0]} in {text} is of the whole entry; write it after the rules, beside at")
    options = {n: settings.pop(n) for n in list(settings) if n in OPTIONS}
    known = ["at", "tolerance", *OPTIONS]
    for setting in settings:
        if setting not in known:
            raise ValueError(f"{text} has no setting {setting!r}; it has {', '.join(known)}{nearest(setting, known)}")
    spaces = {**spaces, **{f"then.{name}": space for name, space in more.items()}}
    return Switch(first, then, **settings), given | {f"then.{name}" for name in later}, options, spaces


def _read(text: str) -> _Read:
    call = _as_torch(parse_nested(_quoted(text)))
    own = rules.built(rules.bare(_fixed(call)))
    settings = {**own.numbers, **own.options}
    options = {n: x for n, x in call.settings.items() if n in OPTIONS and n not in settings}
    call = call._replace(settings={n: x for n, x in call.settings.items() if n not in options})
    known = [*settings, *OPTIONS]
    for setting in call.settings:
        if setting not in known:
            raise ValueError(f"{text} has no setting {setting!r}; it has {', '.join(known)}{nearest(setting, known)}")
    rule = rules.built(_fixed(call))
    given = rules.given(call, rule)
    spaces = {n: _space(text, n, x) for n, x in given.items() if _is_space(x)}
    return rule, given.keys() - spaces.keys(), options, spaces


def _as_torch(call: Call) -> Call:
    """A call of what torch has under other names: ``adamw``, and ``sgd(momentum=0.9)``, as the rule that it is."""
    name, settings = call.name.lower(), dict(call.settings)
    if name == "adamw":
        return call._replace(name="adam", settings={"weight_decay": 0.01, "decay_form": "scaled", **settings})
    if name == "sgd" and "momentum" in settings:
        if settings.get("nesterov") is True:
            settings["nesterov"] = "correction"
        return call._replace(name="momentum", settings=settings)
    return call


def _fixed(call: Call) -> Call:
    """A call without the settings that give a space to search."""
    settings = {n: _fixed(x) if isinstance(x, Call) else x for n, x in call.settings.items() if not _is_space(x)}
    return call._replace(inside=tuple(map(_fixed, call.inside)), settings=settings)


def _is_space(x: Any) -> bool:
    return isinstance(x, str) and _SPACE.fullmatch(x) is not None


_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_SPACE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::(\w+))?")


def _quoted(text: str) -> str:
    """The text with spaces such as ``1e-4..1`` as literals that Python can read."""
    return re.sub(rf"(=\s*)({_SPACE.pattern})", r"\1'\2'", text)


def _space(text: str, name: str, written: str) -> Log | Linear:
    """The space that ``1e-4..1`` or ``0.5..0.9:linear`` stands for."""
    low, high, scale = cast("re.Match[str]", _SPACE.fullmatch(written)).groups()
    ends = float(low), float(high)
    if scale not in (None, "log", "linear"):
        raise ValueError(
            f"{name}={written} in {text} has the scale {scale}; write log or linear{nearest(scale, ('log', 'linear'))}"
        )
    return Log(*ends) if scale == "log" or (scale is None and ends[0] > 0) else Linear(*ends)
