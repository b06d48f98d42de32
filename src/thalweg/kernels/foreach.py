"""The backend of torch's ``_foreach`` functions: all parameters that are stepped alike in one list.

For devices that printed kernels do not run on.  Parameters whose step is more than element by element, or in 16 bits,
are stepped by `thalweg.kernels.reference`.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg import trace
from thalweg.fields import number_fields
from thalweg.kernels import eager, lists, reference, sharded
from thalweg.kernels.work import States, Work

_torch: Any = torch  # which does not declare its functions of lists
_FORMULAS: dict[Any, trace.Graph | None] = {}


class Foreach(reference.Eager):
    """Steps lists of parameters; what is none of its business is the reference's."""

    def __init__(self) -> None:
        super().__init__()
        self._known: list[_Alike] = []

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        members = [(work, work.first + i, p) for work in works for i, p in enumerate(work.params)]
        return sharded.summed([p for _, _, p in members], squares(members, clipped, strict))

    def _step(self, members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
        found = list(members)
        if not self._again(found, states, zero_grad):
            self._known = step(found, states, zero_grad)

    @torch.no_grad()
    def _again(self, members: Sequence[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> bool:
        """Step the same parameters as the last time, if nothing has changed about them; False if it may have."""
        known = self._known
        if not known or sum(len(some.params) for some in known) != len(members):
            return False
        of = {p: (work, i) for work, i, p in members}
        for some in known:
            at = of.get(some.params[0])
            if at is None or at[0] is not some.work or at[1] != some.ordinal or not some.holds(of, states):
                return False
        grads = [[cast(Tensor, p.grad) for p in some.params] for some in known]
        if not all(map(_Alike.fits, known, grads)):
            return False
        for some, given in zip(known, grads, strict=True):
            _step(some, given)
            if zero_grad:
                _torch._foreach_zero_(given)
        return True


@torch.no_grad()
def squares(members: Sequence[tuple[Work, int, Tensor]], clipped: bool, strict: bool) -> NDArray[np.float64]:
    """See `thalweg.kernels.eager.squares`."""
    if any(clipped and (work.form.clip_value or work.form.clip_each) for work, _, _ in members):
        return eager.squares(members, clipped, strict)
    grads = [p.grad for _, _, p in members]
    found = np.zeros(len(members))
    groups: dict[Any, list[int]] = {}
    for k, g in enumerate(grads):
        if g is not None:
            plain = type(g) is Tensor and g.layout == torch.strided and g.is_floating_point()
            groups.setdefault((g.device, g.dtype) if plain else None, []).append(k)
    for kind, which in groups.items():
        if kind is None:
            found[which] = eager.squares([members[k] for k in which], clipped, strict)
            continue
        own = _torch._foreach_norm([cast(Tensor, grads[k]) for k in which], 2, dtype=torch.float64)
        norms: NDArray[np.float64] = torch.stack(list(own)).cpu().numpy()
        scales = np.array([members[k][0].scalars.unscale if members[k][0].form.unscale else 1.0 for k in which])
        found[which] = np.square(norms * scales)
    return found


@dataclass(frozen=True)
class _Form:
    """What a group's parameters have in common.

    Attributes:
        formula: of the step.
        kept: what a state holds.
        arrays: what of that is as large as the parameter.
        numbers: the numbers among it, but for the count of steps.
    """

    formula: trace.Graph
    kept: frozenset[str]
    arrays: tuple[str, ...]
    numbers: tuple[str, ...]


@dataclass(frozen=True)
class _Alike:
    """Parameters whose step is the same operations with the same numbers.

    Attributes:
        form: what they have in common.
        work: their group.
        ordinal: the number of the first among all.
        params: the parameters.
        held: the state of each.
        tensors: what is in it by name, as lists.
    """

    form: _Form
    work: Work
    ordinal: int
    params: list[Tensor]
    held: list[dict[str, Any]]
    tensors: dict[str, list[Tensor]]

    def holds(self, of: Mapping[Tensor, Any], states: States) -> bool:
        """Whether parameters and state are the same tensors, with one count of steps and the same numbers."""
        if self.work.form.clip_each or not all((at := of.get(p)) and at[0] is self.work for p in self.params):
            return False
        if not all(map(is_, map(states.mapping.get, self.params), self.held)):
            return False
        for name, known in self.tensors.items():
            found = [held.get(name) for held in self.held]
            if not all(map(is_, found, known)):
                return False
        return all(len({x.item() for x in self.tensors[name]}) == 1 for name in ("step", *self.form.numbers))

    def fits(self, grads: Sequence[Tensor]) -> bool:
        """Whether these are gradients that lists of operations can read."""
        params = self.params
        if params[0].dtype not in _DTYPES or not all(
            all(map(_like, self.tensors[name], params)) for name in self.form.arrays
        ):
            return False
        return (
            set(map(type, grads)) == {Tensor}
            and {(g.dtype, g.layout, g.device) for g in grads} == {(params[0].dtype, torch.strided, params[0].device)}
            and all(g.shape == p.shape and g.data_ptr() != p.data_ptr() for g, p in zip(grads, params, strict=True))
        )


@torch.no_grad()
def step(members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> list[_Alike]:
    """Step parameters that have a gradient, each with its group and its number among all.

    Returns:
        the lists that they were stepped in; empty if some were stepped otherwise.
    """
    alike: dict[Hashable, list[tuple[Work, int, Tensor, dict[str, Any]]]] = {}
    rest: list[tuple[Work, int, Tensor]] = []
    forms: dict[int, _Form | None] = {}
    for work, i, p in members:
        if id(work) not in forms:
            forms[id(work)] = _form(work, p)
        form = forms[id(work)]
        if form is None or not _plain(work, p):
            rest.append((work, i, p))
            continue
        held = states.of(p)
        if not form.kept <= held.keys():
            eager.start(work, p, held)
        if not all(_like(held[name], p) for name in form.arrays):
            rest.append((work, i, p))
            continue
        numbers = (held["step"].item(), *[held[name].item() for name in form.numbers])
        factor = float(work.factors[i - work.first]) if work.form.clip_each else 1.0
        alike.setdefault((id(work), numbers, factor, p.dtype, p.device), []).append((work, i, p, held))
    lists_of: list[_Alike] = []
    for some in alike.values():
        form = forms[id(some[0][0])]
        assert form is not None
        held = [held for _, _, _, held in some]
        tensors = {name: [x[name] for x in held] for name in ("step", *form.arrays, *form.numbers)}
        lists_of.append(_Alike(form, some[0][0], some[0][1], [p for _, _, p, _ in some], held, tensors))
        _step(lists_of[-1], [cast(Tensor, p.grad) for _, _, p, _ in some])
    if rest:
        reference.step(rest, states, zero_grad)
    for some in alike.values() if zero_grad else ():
        _torch._foreach_zero_([cast(Tensor, p.grad) for _, _, p, _ in some])
    return [] if rest else lists_of


def _form(work: Work, p: Tensor) -> _Form | None:
    """What a group's parameters have in common, if their step is element by element."""
    if work.fits or work.totals:
        return None
    key = (type(work.template), tuple(work.template.options.items()), work.names, work.form)
    if key not in _FORMULAS:
        of = trace.step(work.template, work.form)
        _FORMULAS[key] = trace.graph(of.outputs, reduce=True) if lists.elementwise(of) else None
    formula, kept = _FORMULAS[key], work.kept(p)
    numbers = number_fields(work.template.State) & kept
    return formula and _Form(formula, kept, tuple(sorted(kept - numbers - {"step"})), tuple(sorted(numbers)))


def _plain(work: Work, p: Tensor) -> bool:
    g = p.grad
    return (
        g is not None and type(p) in _KINDS and p.dtype in _DTYPES and g.dtype == p.dtype
        and g.layout == torch.strided and work.state_dtype in (None, p.dtype) and g.data_ptr() != p.data_ptr()
    )  # fmt: skip


_KINDS = (Tensor, torch.nn.Parameter)
_DTYPES = (torch.float32, torch.float64)


def _like(x: Tensor, p: Tensor) -> bool:
    """Whether a state is of the parameter's type, as it is unless somebody has replaced it."""
    return x.dtype == p.dtype and x.shape == p.shape and x.device == p.device


def _step(some: _Alike, grads: Sequence[Tensor]) -> None:
    work, form, tensors = some.work, some.form, some.tensors
    steps = tensors["step"]
    # On the CPU a number would be made a tensor anew for each.
    _torch._foreach_add_(steps, torch.ones((), dtype=steps[0].dtype) if steps[0].is_cpu else 1)
    given: dict[str, Any] = {
        "p": list(some.params), "g": grads, "t": float(steps[0]),
        **work.named(eager.scalars(work, some.ordinal)),
    }  # fmt: skip
    own: dict[str, Any] = {"p": given["p"]}
    for name in (*form.arrays, *form.numbers):
        key = name if name == "ema" else f"s.{name}"
        own[key] = tensors[name]
        given[key] = float(tensors[name][0]) if name in form.numbers else tensors[name]
    made = lists.evaluate(form.formula, given, own.keys())
    inputs: list[Any] = [x for x in given.values() if isinstance(x, list)]
    # What is kept as it was in another place is copied before it is overwritten.
    kept: dict[str, Any] = {name: [y.clone() for y in x] if x is not own[name] and any(x is y for y in inputs) else x
            for name, x in made.items()}  # fmt: skip
    for name, x in kept.items():
        if isinstance(x, float):
            _torch._foreach_zero_(own[name])
            _torch._foreach_add_(own[name], x)
        elif x is not own[name]:
            _torch._foreach_copy_(own[name], x)
