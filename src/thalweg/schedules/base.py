"""What a schedule is: a frozen value that maps t, the number of updates already applied, to a number."""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast, dataclass_transform

from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from thalweg.schedules import show
from thalweg.schedules.scheduler import Scheduler
from thalweg.schedules.settings import checked, is_length, is_pending, real, whole

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

FORMS: dict[str, Callable[..., "Schedule"]] = {}
"""What a text may call, by name.  A form whose class says `method` is written as a method of its first setting."""


@dataclass_transform(frozen_default=True, eq_default=False)
class Schedule:
    """A value as a function of t = 0, 1, …: subclass it with settings and `evaluate`; a text finds it by its name.

    Settings are checked once, by their annotation (`thalweg.schedules.settings`).  Two schedules are equal if they
    are written the same; ``cosine(1)``, of one step, is not ``cosine(1.0)``, of the whole total.

    Attributes:
        method: whether its text is a method of its first setting, as in ``warmup(500).then(…)``.
        infix: whether its text is an operator between two schedules.
    """

    method: ClassVar[bool] = False
    infix: ClassVar[bool] = False
    _absolute: ClassVar[bool] = False
    _pending: ClassVar[bool] = False

    def __init_subclass__(cls, form: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclass(frozen=True, repr=False, eq=False)(cls)
        if form:
            FORMS[cls.__name__.lower()] = cls

    def __post_init__(self) -> None:
        for name, hint in hints(type(self)).items():
            self._keep(name, checked(type(self).__name__.lower(), name, getattr(self, name), hint))
        lengths = [getattr(self, name) for name, hint in hints(type(self)).items() if is_length(hint)]
        self._keep("_pending", any(map(is_pending, lengths)) or any(part._pending for part in self.parts))
        self.prepare()

    def prepare(self) -> None:
        """Raise ``ValueError`` for settings that do not go together; `_keep` what `evaluate` need not compute again."""

    def evaluate(self, t: float) -> float:
        """The number at `t` ≥ 0; what a form defines.  Users call the schedule itself, which checks that it can be."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluate")

    def span(self, total: float) -> float | None:
        """After how many steps it rests, fractions taken of `total` and not rounded; None if it never does.

        That is its setting `steps`, unless a form knows better.
        """
        steps: float | None = getattr(self, "steps", None)
        return None if steps is None else real(steps, total)

    def __call__(self, t: float) -> float:
        """The factor at `t` (see `absolute`), from t = 0 before the first update.

        Raises:
            ValueError: a length is a fraction of a total that is not known yet.
        """
        if self._pending:
            self._unresolved()
        return self.evaluate(t)

    def value(self, base: Any, t: float) -> Any:
        """The hyperparameter at `t`, from its `base` value, a float or a tensor."""
        return self(t) if self._absolute else base * self(t)

    @property
    def absolute(self) -> bool:
        """Whether it gives the value itself, as `anneal` does, rather than a factor of the base value."""
        return self._absolute

    @property
    def length(self) -> int | None:
        """The steps after which it holds its value; None if it goes on.  ``ValueError`` if it is not resolved."""
        if self._pending:
            self._unresolved()
        return cast("int | None", self.span(0))

    # Lengths as fractions of a total

    @property
    def resolved(self) -> bool:
        """Whether every length is known in steps."""
        return not self._pending

    def resolve(self, total: int) -> "Schedule":
        """The same with every fraction turned into steps of `total`; those of a composition fill it exactly."""
        if isinstance(total, bool) or not isinstance(cast(Any, total), int) or total < 1:
            raise ValueError(f"total is {total!r}; allowed is a whole number of steps >= 1")
        try:
            return self.settle(total, 0.0)
        except ValueError as error:
            raise ValueError(f"{self!r} cannot be laid out over {total} steps: {error}") from None

    def settle(self, total: int, start: float) -> "Schedule":
        """What `resolve` does for a part of a composition that begins at `start`."""
        if not self._pending:
            return self
        changes: dict[str, Any] = {}
        for name, hint in hints(type(self)).items():
            setting = getattr(self, name)
            if is_length(hint):
                changes[name] = whole(setting, total, start)
            elif isinstance(setting, Schedule):
                changes[name] = setting.settle(total, start)
        return self._replace(**changes)

    def mismatch(self, total: int) -> str | None:
        """A sentence if the schedule is longer or shorter than `total` steps, or None."""
        schedule = self.resolve(total)
        length = schedule.length
        if length is None or length == total:
            return None
        if length < total:
            return f"it is {length:,} steps long: it holds {schedule(length):.6g} for the other {total - length:,}"
        return f"it is {length:,} steps long: training stops after {total:,}, at {schedule(total - 1):.6g}"

    # Composition

    def then(self, next: "Schedule", at: float | None = None) -> "Schedule":
        """The same, and from its end on, or from step `at`, `next`, which starts at its own t = 0 there."""
        return FORMS["then"](self, next, at)

    def shift(self, steps: float) -> "Schedule":
        """The same, `steps` later, holding its first value until then; earlier if `steps` is below zero."""
        return FORMS["shift"](self, steps)

    def clip(self, low: float | None = None, high: float | None = None) -> "Schedule":
        """The same, no lower than `low` and no higher than `high`."""
        return FORMS["clip"](self, low, high)

    def __mul__(self, other: "Schedule | float") -> "Schedule":
        return FORMS["product"](self, other if isinstance(other, Schedule) else FORMS["constant"](other))

    def __rmul__(self, other: float) -> "Schedule":
        return FORMS["product"](FORMS["constant"](other), self)

    @property
    def parts(self) -> tuple["Schedule", ...]:
        """The schedules that this one is composed of."""
        settings = (getattr(self, name) for name in hints(type(self)))
        return tuple(setting for setting in settings if isinstance(setting, Schedule))

    # State, which only `plateau` has

    @property
    def data_driven(self) -> bool:
        """Whether it, or a part of it, changes with what it observes."""
        return any(part.data_driven for part in self.parts)

    def observe(self, metric: float, t: int | None = None) -> None:
        """Tell a data-driven schedule a metric; with `t`, only the part of a composition that is in force then."""
        for part in self.parts:
            part.observe(metric, t)

    def state_dict(self) -> dict[str, Any]:
        """What a data-driven schedule remembers, by the setting that it stands in; empty for closed forms."""
        return {name: part.state_dict() for name, part in self._driven()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take a `state_dict` of an equal schedule back; ``ValueError`` if it is one of another."""
        driven = dict(self._driven())
        if set(state) != set(driven):
            raise ValueError(f"the state has {sorted(state)}, but {self!r} remembers {sorted(driven)}; load its own")
        for name, part in driven.items():
            part.load_state_dict(state[name])

    def _driven(self) -> Iterator[tuple[str, "Schedule"]]:
        for name in hints(type(self)):
            part = getattr(self, name)
            if isinstance(part, Schedule) and part.data_driven:
                yield name, part

    # Text and JSON

    def __str__(self) -> str:
        """The text that `thalweg.schedules.parse` reads back."""
        return self.text(str)

    def __repr__(self) -> str:
        return self.text(repr)

    def text(self, write: Callable[[Any], str]) -> str:
        """``name(settings)``; those with a default are named, and left out where they have it."""

        def written(setting: Any) -> str:
            return write(setting) if isinstance(setting, Schedule) else repr(setting)

        required = [written(setting) for _, setting in self._required()]
        named = [f"{name}={written(setting)}" for name, setting in self._chosen()]
        name = type(self).__name__.lower()
        if self.method:
            receiver = f"({required[0]})" if self.parts[0].infix else required[0]
            return f"{receiver}.{name}({', '.join(required[1:] + named)})"
        return f"{name}({', '.join(required + named)})"

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``json.dumps``, which `thalweg.schedules.from_json` reads back.

        Raises:
            ValueError: it holds a function (`lambda_`), which cannot be saved.
        """
        settings = {name: _plain(setting) for name, setting in [*self._required(), *self._chosen()]}
        return {"schedule": type(self).__name__.lower(), **settings}

    def _required(self) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(cast(Any, self)):
            if field.default is MISSING:
                yield field.name, getattr(self, field.name)

    def _chosen(self) -> Iterator[tuple[str, Any]]:
        for field in dataclasses.fields(cast(Any, self)):
            setting = getattr(self, field.name)
            if field.default is not MISSING and repr(setting) != repr(field.default):
                yield field.name, setting

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    # What others make of it

    def as_torch(self, optimizer: Optimizer, last_epoch: int = -1) -> LRScheduler:
        """The same on the ``lr`` of any torch optimizer, as a ``torch.optim.lr_scheduler.LRScheduler``."""
        return Scheduler(optimizer, self, last_epoch)

    def preview(self, total: int, width: int = 60, base: float | None = None) -> str:
        """A few lines of text: the curve over `total` steps, its first, peak and last value, and `mismatch`."""
        return show.preview(self, total, width, base)

    def summary(self, total: int, base: float | None = None) -> show.Summary:
        """Its first, peak and last value over `total` steps, and `mismatch`."""
        return show.summary(self, total, base)

    def plot(self, total: int, base: float | None = None) -> "Figure":
        """A Plotly figure of it over `total` steps; see `thalweg.schedules.plot` for several."""
        return show.plot({repr(self): self}, total, {} if base is None else {repr(self): base})

    def _replace(self, **changes: Any) -> Self:
        return dataclasses.replace(cast(Any, self), **changes)

    def _keep(self, name: str, value: Any) -> None:
        # Frozen for its users, not for its own constructor.  What is kept besides the settings is declared a ClassVar,
        # so that it is no setting: no part of the text, of equality or of what `dataclasses.replace` passes on.
        object.__setattr__(self, name, value)

    def _unresolved(self) -> typing.NoReturn:
        raise ValueError(f"{self!r} has lengths that are fractions of a total; say which with .resolve(total)")


def _plain(setting: Any) -> Any:
    if isinstance(setting, Schedule):
        return setting.to_json()
    return list(cast("tuple[float, ...]", setting)) if isinstance(setting, tuple) else setting


@cache
def hints(cls: type[Schedule]) -> dict[str, Any]:
    """The annotations of the settings of a schedule, in their order."""
    every = typing.get_type_hints(cls, include_extras=True)
    return {field.name: every[field.name] for field in dataclasses.fields(cast(Any, cls))}
