"""Rules that wrap rules: their settings, numbers, state and text are their own and those of the rules inside."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self, cast

from thalweg import trace
from thalweg.fields import zeros
from thalweg.hyperparameters import nearest
from thalweg.maths import Number, Value, zeros_like
from thalweg.parsing import Call
from thalweg.rule import Linear, Log, NoState, Rule, annotations


class Wrapper(Rule):
    """A rule that wraps others, its *bases*: subclass it with settings annotated ``Rule`` and with its `Own` state.

    The numbers, options and state of a base are the wrapper's, too.  Those of the base that `leads` keep their names,
    so that ``lr`` in a parameter group is its learning rate.  A name that the wrapper has itself, and all names of
    other bases, are preceded by the base's: ``direction.beta1`` among the settings, ``direction_exp_avg`` in the state.

    Attributes:
        Own: a named tuple of the state besides that of the bases.
        leads: the setting with the base whose learning rate is the wrapper's.
        simple: what `example` wraps, by setting.
    """

    Own: ClassVar[type[Any]] = NoState
    leads: ClassVar[str] = "rule"
    simple: ClassVar[Mapping[str, Rule]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        # Kept beside the settings, since each step asks for it.
        object.__setattr__(self, "_inside", dict(self._placed()))

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Self:
        """See `Rule.of`; settings of the bases may be among them, under the names that they have here."""
        fields = {f.name for f in dataclasses.fields(cast(Any, cls))}
        own = {name: x for name, x in settings.items() if name in fields}
        bases = [name for name, hint in annotations(cls).items() if hint is Rule]
        if any(base not in own for base in bases):
            shown = ", ".join(type(rule).__name__.lower() for rule in cls.simple.values())
            wanted, what = (
                ("a rule", "it") if len(bases) == 1 else (f"{len(bases)} rules, {' and '.join(bases)}", "them")
            )
            raise ValueError(
                f"{cls.__name__} wraps {wanted}; write {what} in its brackets, as in {cls.__name__}({shown})"
            )
        inside = {name: x for name, x in settings.items() if name not in own}
        return cls(**own).replace(**inside) if inside else cls(**own)

    @classmethod
    def example(cls) -> Self:
        """The wrapper with its default settings, around `simple` rules."""
        return cls(**cls.simple)

    @property
    def bases(self) -> dict[str, Rule]:
        """The rules that this one wraps, by setting."""
        return {name: x for name, x in self._settings() if isinstance(x, Rule)}

    def _placed(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Each number and option of the bases by its name here: the base that has it, and its name there."""
        own = {name for name, _ in self._settings()}
        for base, rule in self.bases.items():
            for name in (*rule.numbers, *rule.options):
                yield name if base == self.leads and name not in own else f"{base}.{name}", (base, name)

    def here(self, base: str, name: str) -> str:
        """The name here of a setting of a base."""
        return next(ours for ours, theirs in self._inside.items() if theirs == (base, name))

    def _placed_for(self, of: Callable[[Rule], Mapping[str, Any]]) -> dict[str, Any]:
        """What `of` returns for the bases, by the names that it has here."""
        found = {base: of(rule) for base, rule in self.bases.items()}
        return {name: found[base][there] for name, (base, there) in self._inside.items() if there in found[base]}

    if typing.TYPE_CHECKING:
        _inside: ClassVar[Mapping[str, tuple[str, str]]]

    @property
    def lr(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride] -- an attribute of other rules
        """The learning rate of the base that leads."""
        return self.bases[self.leads].lr

    @property
    def search(self) -> Mapping[str, Log | Linear]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The search spaces of the bases."""
        return self._placed_for(lambda rule: rule.search)

    @property
    def numbers(self) -> dict[str, float]:
        """See `Rule.numbers`: its own, then its bases'."""
        return super().numbers | self._placed_for(lambda rule: rule.numbers)

    @property
    def options(self) -> dict[str, Any]:
        """See `Rule.options`: its own, with the class of each base, then its bases'."""
        own = {name: type(x) if isinstance(x, Rule) else x for name, x in super().options.items()}
        return own | self._placed_for(lambda rule: rule.options)

    @property
    def changed(self) -> set[str]:
        """See `Rule.changed`; of its bases, the settings that they have changed."""
        inside = self._placed_for(lambda rule: dict.fromkeys(rule.changed))
        return (super().changed - self.bases.keys()) | inside.keys()

    @property
    def common(self) -> dict[str, type[Rule]]:
        """See `Rule.common`; those of its bases."""
        return self._placed_for(lambda rule: rule.common)

    def annotation(self, name: str) -> Any:
        """See `Rule.annotation`."""
        if name in self._inside:
            base, there = self._inside[name]
            return self.bases[base].annotation(there)
        return super().annotation(name)

    def bind(self, numbers: Mapping[str, Any]) -> Self:
        """See `Rule.bind`."""
        inside: dict[str, dict[str, Any]] = {}
        for name, x in numbers.items():
            base, there = self._inside.get(name, ("", name))
            inside.setdefault(base, {})[there] = x
        own = inside.pop("", {})
        return super().bind(own | {base: getattr(self, base).bind(x) for base, x in inside.items()})

    def replace(self, **settings: Any) -> Self:
        """See `Rule.replace`; a base is replaced first, then its settings."""
        fields = dict(self._settings())
        new = type(self)(**fields | {name: x for name, x in settings.items() if name in fields})
        inside: dict[str, dict[str, Any]] = {}
        for name, x in settings.items():
            if name in new._inside:
                base, there = new._inside[name]
                inside.setdefault(base, {})[there] = x
            elif name not in fields:
                known = [*new.numbers, *new.options]
                raise ValueError(f"{new} has no setting {name!r}; it has {', '.join(known)}{nearest(name, known)}")
        if not inside:
            return new
        return type(self)(**dict(new._settings()) | {base: new.bases[base].replace(**x) for base, x in inside.items()})

    def __repr__(self) -> str:
        return self._text(repr, {name for name, _ in self._settings()})

    def __str__(self) -> str:
        return self._text(str, super().changed)

    def _text(self, write: Callable[[Rule], str], said: set[str]) -> str:
        inside = [write(rule) for rule in self.bases.values()]
        own = [f"{k}={v!r}" for k, v in self._settings() if k in said and not isinstance(v, Rule)]
        return f"{type(self).__name__}({', '.join([*inside, *own])})"

    @property
    def State(self) -> type[Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """See `Rule.State`: the fields of `Own`, then those of the bases."""
        return _joined(self.Own, self.leads, tuple((name, rule.State) for name, rule in self.bases.items()))

    def split(self, s: Any) -> tuple[Any, ...]:
        """A state as `Own`, and the state of each base."""
        parts: list[Any] = []
        for state in (self.Own, *(rule.State for rule in self.bases.values())):
            count = len(state._fields)
            parts.append(state(*s[:count]))
            s = s[count:]
        return tuple(parts)

    def join(self, *parts: Any) -> Any:
        """A state from `Own` and the state of each base."""
        return self.State(*(x for part in parts for x in part))

    def begin(self, p: Value) -> Any:
        """The initial `Own` for a parameter `p`."""
        return zeros(self.Own, p)

    def init(self, p: Value) -> Any:
        """See `Rule.init`."""
        return self.join(self.begin(p), *(rule.init(p) for rule in self.bases.values()))

    @property
    def fits(self) -> bool:
        """See `Rule.fits`: whether a base depends on the shape."""
        return any(rule.fits for rule in self.bases.values())

    def fit(self, shape: tuple[int, ...]) -> Self:
        """See `Rule.fit`: with its bases as they are for a shape."""
        return super().bind({base: rule.fit(shape) for base, rule in self.bases.items()})

    @property
    def looks_ahead(self) -> bool:
        """See `Rule.looks_ahead`: whether the base that leads does."""
        return self.bases[self.leads].looks_ahead

    def lookahead(self, s: Any) -> Value | None:
        """See `Rule.lookahead`: that of the base that leads."""
        _, *states = self.split(s)
        return self.bases[self.leads].lookahead(dict(zip(self.bases, states, strict=True))[self.leads])


@cache
def _joined(own: type[Any], leads: str, bases: tuple[tuple[str, type[Any]], ...]) -> type[Any]:
    """The named tuple of a wrapper's own state and that of its bases."""
    fields = dict(typing.get_type_hints(own))
    for name, state in bases:
        for field, hint in typing.get_type_hints(state).items():
            fields[field if name == leads and field not in fields else f"{name}_{field}"] = hint
    return cast(Any, NamedTuple)("State", list(fields.items()))


def move(rule: Rule, p: Value, g: Value, s: Any, t: Number) -> tuple[Value, Any]:
    """How far `rule` steps from `p`, and its new state.

    Where the step does not depend on `p` it is computed from zero, since a difference of two points loses digits.
    """
    if is_free(rule, p.ndim if rule.fits else 0):
        return rule.update(zeros_like(p), g, s, t)
    new, s = rule.update(p, g, s, t)
    return new - p, s


def is_free(rule: Rule, ndim: int) -> bool:
    """`thalweg.trace.is_free`, determined once for each formula."""
    key = ndim, type(rule), *rule.options.items(), *rule.numbers
    if key not in _FREE:
        _FREE[key] = trace.is_free(rule, ndim)
    return _FREE[key]


_FREE: dict[Any, bool] = {}


def read_like(call: Call, like: Rule) -> Rule | None:
    """The rule that a call means if its rules are of the same classes as those of `like`, else None.

    Raises:
        ValueError: a setting is unknown or not allowed.
    """
    if call.name != type(like).__name__ or len(call.inside) > len(like.bases):
        return None
    settings = dict(call.settings)
    given = dict(zip(like.bases, call.inside, strict=False)) | {n: x for n, x in settings.items() if n in like.bases}
    for name, inner in given.items():
        settings[name] = read_like(inner, like.bases[name]) if isinstance(inner, Call) else None
        if settings[name] is None:
            return None
    return like.of(settings)
