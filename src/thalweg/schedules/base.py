"""`Schedule`: an immutable object that maps t, the number of updates already applied, to a number."""

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
"""The forms that a text may call, by name.  If `method` is set, a form is a method of its first setting."""


@dataclass_transform(frozen_default=True, eq_default=False)
class Schedule:
    """A value as a function of t = 0, 1, …  Subclasses define settings and `evaluate`; text finds them by name.

    Settings are checked once, by their annotation (`thalweg.schedules.settings`).  Two schedules are equal if their
    texts are equal; ``cosine(1)``, of one step, is not ``cosine(1.0)``, of the whole total.

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
        """Raise ``ValueError`` for settings that cannot be combined; `_keep` values that `evaluate` can reuse."""

    def evaluate(self, t: float) -> float:
        """The number at `t` ≥ 0, defined by each form.  Users call the schedule, which checks that it is resolved."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluate")

    def span(self, total: float) -> float | None:
        """The number of steps after which it is constant, with fractions of `total` not rounded; None if it never is.

        By default that is its setting `steps`.
        """
        steps: float | None = getattr(self, "steps", None)
        return None if steps is None else real(steps, total)

    def __call__(self, t: float) -> float:
        """The factor at `t` (see `absolute`), from t = 0 before the first update.

        Raises:
            ValueError: a length is a fraction of an unknown total; see `resolve`.
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
        """The steps after which it is constant; None if it never is.  ``ValueError`` if it is not resolved."""
        if self._pending:
            self._unresolved()
        return cast("int | None", self.span(0))

    # Lengths as fractions of a total

    @property
    def resolved(self) -> bool:
        """Whether every length is known in steps."""
        return not self._pending

    def resolve(self, total: int) -> "Schedule":
        """The same with every fraction turned into steps of `total`; the parts of a composition fill it exactly."""
        if isinstance(total, bool) or not isinstance(cast(Any, total), int) or total < 1:
            raise ValueError(f"total is {total!r}; allowed is a whole number of steps >= 1")
        try:
            return self.settle(total, 0.0)
        except ValueError as error:
            raise ValueError(f"{self!r} cannot be laid out over {total} steps: {error}") from None

    def settle(self, total: int, start: float) -> "Schedule":
        """`resolve` for a part of a composition that begins at `start`."""
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
        """A sentence if the schedule is longer or shorter than `total` steps, else None."""
        schedule = self.resolve(total)
        length = schedule.length
        if length is None or length == total:
            return None
        if length < total:
            return f"it is {length:,} steps long: it holds {schedule(length):.6g} for the other {total - length:,}"
        return f"it is {length:,} steps long: training stops after {total:,}, at {schedule(total - 1):.6g}"

    # Composition

    def then(self, next: "Schedule", at: float | None = None) -> "Schedule":
        """The same, followed by `next` from its end or from step `at`; `next` starts at its own t = 0."""
        return FORMS["then"](self, next, at)

    def shift(self, steps: float) -> "Schedule":
        """The same, `steps` later, with its first value until then; earlier if `steps` is negative."""
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

    # State; only `plateau` has any

    @property
    def data_driven(self) -> bool:
        """Whether it, or a part of it, depends on observed metrics."""
        return any(part.data_driven for part in self.parts)

    def observe(self, metric: float, t: int | None = None) -> None:
        """Pass a metric to a data-driven schedule; with `t`, only to the part of a composition that is active then."""
        for part in self.parts:
            part.observe(metric, t)

    def state_dict(self) -> dict[str, Any]:
        """The state of data-driven parts, by the name of the setting; empty for closed forms."""
        return {name: part.state_dict() for name, part in self._driven()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict` of an equal schedule; ``ValueError`` if it belongs to a different one."""
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
        """``name(settings)``; settings with a default are written by name, and omitted at their default."""

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
            ValueError: it contains a function (`lambda_`), which cannot be saved.
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

    # Conversions and displays

    def as_torch(self, optimizer: Optimizer, last_epoch: int = -1) -> LRScheduler:
        """A ``torch.optim.lr_scheduler.LRScheduler`` that applies the schedule to a torch optimizer's ``lr``."""
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
        # Immutable for users, but not for its own constructor.  Values kept besides the settings are declared as
        # ClassVar, so that they are not settings: not part of the text, of equality, or of `dataclasses.replace`.
        object.__setattr__(self, name, value)

    def _unresolved(self) -> typing.NoReturn:
        raise ValueError(f"{self!r} has lengths that are fractions of a total; say which with .resolve(total)")


def _plain(setting: Any) -> Any:
    if isinstance(setting, Schedule):
        return setting.to_json()
    return list(cast("tuple[float, ...]", setting)) if isinstance(setting, tuple) else setting


@cache
def hints(cls: type[Schedule]) -> dict[str, Any]:
    """The annotations of a schedule's settings, in order."""
    every = typing.get_type_hints(cls, include_extras=True)
    return {field.name: every[field.name] for field in dataclasses.fields(cast(Any, cls))}
