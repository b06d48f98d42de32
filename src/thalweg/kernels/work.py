"""What an optimizer hands to a backend, and what a backend is."""

import threading
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg import trace
from thalweg.fields import leaves
from thalweg.rule import Rule
from thalweg.stages import Scalars, Stages

_ROUNDS: dict[Any, tuple[trace.Graph, ...]] = {}


@dataclass
class Work:
    """A parameter group: the formula of its step, and this step's numbers.

    Attributes:
        template: the rule; its options are the formula's, its numbers are not used.
        form: which stages there are around the rule.
        params: the group's parameters; those without a gradient are left out.
        first: the number of the group's first parameter among all of the optimizer's.
        member: the number of the optimizer, where several step together.
        state_dtype: of the values of the state, or None for that of the arithmetic.
        seed: of rounding to a 16-bit state.
        densify: whether a sparse gradient is made dense, where the rule needs more than its rows.
        number_dtype: of the numbers of the state.
        titles: the names of the parameters, if they are known.
        numbers: the rule's numbers in this step.
        before: the numbers that the lookahead points were made with.
        after: the numbers of the next step.
        scalars: the numbers of the stages.
        factors: what each parameter's gradient is multiplied by, where `form` clips it by its own norm.
        names: the rule's numbers by name.
        looks_ahead: whether the parameters hold lookahead points.
        fits: whether the rule depends on the shape of the parameter.
    """

    template: Rule
    form: Stages
    params: list[Tensor]
    first: int = 0
    member: int = 0
    state_dtype: torch.dtype | None = None
    seed: int = 0
    densify: bool = False
    number_dtype: torch.dtype = torch.float64
    titles: Sequence[str] = ()
    numbers: dict[str, float] = field(default_factory=dict[str, float])
    before: dict[str, float] = field(default_factory=dict[str, float])
    after: dict[str, float] = field(default_factory=dict[str, float])
    scalars: Scalars = field(default_factory=Scalars)
    factors: NDArray[np.float64] = field(default_factory=lambda: np.ones(0))
    names: tuple[str, ...] = field(init=False)
    looks_ahead: bool = field(init=False)
    fits: bool = field(init=False)
    _fitted: dict[Any, tuple[Rule, frozenset[str]]] = field(init=False, default_factory=dict[Any, Any])

    def __post_init__(self) -> None:
        self.names = tuple(self.template.numbers)
        self.looks_ahead = self.template.looks_ahead
        self.fits = self.template.fits

    def title(self, ordinal: int) -> str:
        """What messages call a parameter, given its number among all: its name, or that number."""
        at = ordinal - self.first  # whoever adds to a group's list of parameters may add no name
        return repr(self.titles[at]) if at < len(self.titles) else str(ordinal)

    def fitted(self, p: Tensor) -> Rule:
        """The rule as it is for a parameter."""
        return self._of(p)[0]

    def kept(self, p: Tensor) -> frozenset[str]:
        """What the state of a parameter holds, by name."""
        return self._of(p)[1]

    @cached_property
    def totals(self) -> bool:
        """Whether a step needs totals over all parameters."""
        return bool(self.params) and len(self.rounds(self.params[0])) > 1

    def rounds(self, p: Tensor) -> tuple[trace.Graph, ...]:
        """The step of a parameter, cut where totals over all parameters must be known."""
        rule = self.fitted(p)
        ndim = p.ndim if rule.fits else 0
        key = (type(rule), tuple(rule.options.items()), self.names, self.form, ndim)
        if key not in _ROUNDS:
            _ROUNDS[key] = trace.rounds(trace.step(rule, self.form, ndim))
        return _ROUNDS[key]

    def _of(self, p: Tensor) -> tuple[Rule, frozenset[str]]:
        shape = tuple(p.shape) if self.fits else ()
        if shape not in self._fitted:
            rule = self.template.fit(shape) if self.fits else self.template
            first = rule.init(torch.empty(shape, device="meta") if rule.fits else cast(Any, 0.0))
            self._fitted[shape] = rule, frozenset({"step", *leaves(first), *(["ema"] if self.form.ema else [])})
        return self._fitted[shape]

    def named(self, scalars: Scalars | None = None) -> dict[str, float]:
        """The numbers of this step by the names of the trace; with the stages' numbers of one parameter, if given."""
        stages = (self.scalars if scalars is None else scalars)._asdict()
        groups = {"h": self.numbers, "before": self.before, "after": self.after, "c": stages}
        return {f"{group}.{name}": x for group, found in groups.items() for name, x in found.items()}

    def clip_each(self, squares: NDArray[np.float64], most: float) -> None:
        """Set `factors` so that no gradient's norm is above `most`, given the squares of all parameters' norms."""
        norms = np.sqrt(squares[self.first : self.first + len(self.params)])
        self.factors = most / np.maximum(norms, most)


class StateMemoryError(torch.OutOfMemoryError):
    """There is no memory for the state of a parameter."""

    def __init__(self, parameter: Tensor, message: str = "there is no memory for the state of a parameter") -> None:
        super().__init__(message)
        self.parameter = parameter


@dataclass(frozen=True)
class Guard:
    """What a step asks of all gradients together, where that is decided on their device.

    Attributes:
        clip_norm: the largest global norm, if it is clipped.
        clip_eps: what is added to the norm.
        single: whether the parameters' norms are added up in float32.
        clip_each: the largest norm of each gradient, if each is clipped by its own.
        skip: whether a step with a norm that is not finite is left out.
        scale: what the gradients are to be divided by, on a device.
        found: not 0 if the step is to be left out, on a device.
    """

    clip_norm: float | None = None
    clip_eps: float = 0.0
    single: bool = False
    clip_each: float | None = None
    skip: bool = False
    scale: Tensor | None = None
    found: Tensor | None = None

    @property
    def may_skip(self) -> bool:
        """Whether the step may be left out."""
        return self.skip or self.found is not None


class States:
    """The state of an optimizer: what ``optimizer.state`` shows, and what nobody has asked for yet.

    Until somebody asks, a backend may keep the state of parameters wherever it likes.  `shown` has it bring all of it
    into one mapping of ordinary dictionaries and tensors, as ``torch.optim`` has it; from then on whoever holds any of
    these may change, replace or delete it, and the backend must look at each step what became of it.

    Attributes:
        mapping: parameter → name → tensor.  Only backends use it directly; everybody else asks for `shown`.
        exposed: whether somebody outside may hold any part of `mapping`.
        reveal: what brings the rest of the state into `mapping`; set by a backend.
        lock: held during a step, and while state is shown: what one thread has prepared is not for another to change.
    """

    def __init__(self, mapping: MutableMapping[Tensor, dict[str, Any]], exposed: bool) -> None:
        self.mapping = mapping
        self.exposed = exposed
        self.reveal: Callable[[], None] | None = None
        self.lock = threading.RLock()

    @property
    def shown(self) -> MutableMapping[Tensor, dict[str, Any]]:
        """All of the state, in `mapping`."""
        with self.lock:
            if self.reveal is not None:
                self.reveal()
            self.exposed = True
            return self.mapping

    def hand_over(self) -> None:
        """Take all of the state from the backend that has kept it, which is given up."""
        with self.lock:
            if self.reveal is not None:
                self.reveal()
            self.reveal = None

    def of(self, p: Tensor) -> dict[str, Any]:
        """The dictionary of a parameter in `mapping`, empty at first."""
        return self.mapping.setdefault(p, {})


class Backend(Protocol):
    """Steps all groups of one optimizer."""

    def prepare(self, works: list[Work], states: States) -> None:
        """Look at groups, parameters, gradients and state anew: once a step, before the rest."""
        ...

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """The squares of the 2-norms of all parameters' gradients, in order; 0 for those without one.

        Args:
            works: the groups.
            clipped: whether of the gradients as they are clipped on their own, or only unscaled.
            strict: whether one is finite only if the gradient was, before it was clipped.

        Returns:
            Accumulated in float64; of parameters sharded over several processes, those of the whole.
        """
        ...

    def step(self, works: list[Work], states: States, zero_grad: bool) -> None:
        """Step every parameter that has a gradient, in place, filling the state of those stepped first."""
        ...

    def leave_out(self, works: list[Work]) -> None:
        """Do not step the parameters of these groups this time, although they have gradients."""
        ...

    def drop(self, groups: Sequence[list[Tensor]]) -> bool:
        """Set the gradients of all groups' parameters to None, and True; or False if it has no quick way."""
        ...
