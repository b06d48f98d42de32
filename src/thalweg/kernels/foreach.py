"""The backend of torch's ``_foreach`` functions: all parameters that are stepped alike in one list.

For devices that printed kernels do not run on.  Parameters whose step is more than element by element, or in 16 bits,
are stepped by `thalweg.kernels.reference`.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
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

    def squares(self, works: list[Work], clipped: bool, strict: bool) -> NDArray[np.float64]:
        """See `thalweg.kernels.work.Backend`."""
        members = [(work, work.first + i, p) for work in works for i, p in enumerate(work.params)]
        return sharded.summed([p for _, _, p in members], squares(members, clipped, strict))

    def _step(self, members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
        step(members, states, zero_grad)


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


@torch.no_grad()
def step(members: Iterable[tuple[Work, int, Tensor]], states: States, zero_grad: bool) -> None:
    """Step parameters that have a gradient, each with its group and its number among all."""
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
    for some in alike.values():
        form = forms[id(some[0][0])]
        assert form is not None
        _step(form, some)
    if rest:
        reference.step(rest, states, zero_grad)
    for some in alike.values() if zero_grad else ():
        _torch._foreach_zero_([cast(Tensor, p.grad) for _, _, p, _ in some])


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


def _step(form: _Form, some: Sequence[tuple[Work, int, Tensor, dict[str, Any]]]) -> None:
    work, ordinal, _, held = some[0]
    _torch._foreach_add_([held["step"] for _, _, _, held in some], 1)
    given: dict[str, Any] = {
        "p": [p.detach() for _, _, p, _ in some], "g": [cast(Tensor, p.grad) for _, _, p, _ in some],
        "t": float(held["step"]), **work.named(eager.scalars(work, ordinal)),
    }  # fmt: skip
    own: dict[str, Any] = {"p": given["p"]}
    for name in (*form.arrays, *form.numbers):
        key = name if name == "ema" else f"s.{name}"
        tensors = [held[name] for _, _, _, held in some]
        own[key] = tensors
        given[key] = float(tensors[0]) if name in form.numbers else tensors
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
