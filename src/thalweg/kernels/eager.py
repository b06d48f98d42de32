"""The reference: the formula of a whole step, run operation by operation on tensors."""

import itertools
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg import plan, stages, trace
from thalweg.fields import array_fields, leaves, number_fields, several_fields
from thalweg.kernels import rounding, sharded
from thalweg.kernels.work import StateMemoryError, Work
from thalweg.printers import noise
from thalweg.rule import ABSENT, Rule
from thalweg.stages import Scalars


def arithmetic(dtype: torch.dtype) -> torch.dtype:
    """The type that a parameter's step is computed in: float32 for the 16-bit ones, else its own."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def scalars(work: Work, ordinal: int) -> Scalars:
    """The numbers of the stages for the gradient of a parameter, the `ordinal`-th of all."""
    if not work.form.clip_each:
        return work.scalars
    return work.scalars._replace(clip_each=float(work.factors[ordinal - work.first]))


@torch.no_grad()
def squares(members: Iterable[tuple[Work, int, Tensor]], clipped: bool, strict: bool) -> NDArray[np.float64]:
    """See `thalweg.kernels.work.Backend`; of a sharded gradient, the square of the part that this process has.

    Args:
        members: parameters, each with its group and its number among all.
        clipped: as the backend's.
        strict: as the backend's.
    """
    each: list[Tensor] = []
    for work, ordinal, p in members:
        g = sharded.gathered(p) if sharded.is_sharded(p) else p.grad
        if g is None:
            each.append(torch.zeros((), dtype=torch.float64, device=p.device))
            continue
        form = work.form if clipped else work.form.unscaled
        g = stages.gradient(form, real(g if g.layout == torch.strided else g.coalesce().values()),
                            scalars(work, ordinal) if form.clip_each else work.scalars, strict)  # fmt: skip
        each.append(cast(Any, torch.linalg.vector_norm(g, dtype=torch.float64)))
    found = cast("list[float]", torch.stack([x.to(each[0].device) for x in each]).tolist() if each else [])
    return np.square(found)


def step(work: Work, p: Tensor, held: dict[str, Any], zero_grad: bool, ordinal: int) -> None:
    """Step one parameter, the `ordinal`-th of all."""
    g = p.grad
    if g is None:  # another thread has dropped it meanwhile
        return
    if work.fits and p.is_complex():
        raise RuntimeError(f"{type(work.template).__name__} does not support complex parameters")
    if not work.kept(p) <= held.keys():
        start(work, p, held)
    with torch.no_grad():
        if g.layout == torch.strided:
            _step(work, p, g, held, ordinal)
        else:
            _sparse(work, p, g, held, ordinal)
        if zero_grad:
            g.zero_()


def _sparse(work: Work, p: Tensor, g: Tensor, held: dict[str, Any], ordinal: int) -> None:
    """Step the rows that a sparse gradient has, where the rule leaves all others as they are."""
    if work.form.decay == "l2":
        raise RuntimeError("weight_decay option is not compatible with sparse gradients")
    if _rests(work.template):
        g = g.coalesce()
        at = tuple(g.indices())
        rows = p[at]
        own = {name: held[name][at] if held[name].ndim else held[name] for name in work.kept(p)}
        _step(work, rows, g.values(), own, ordinal)
        p[at] = rows
        for name, x in own.items():
            if x.ndim:
                held[name][at] = x
    elif work.densify:
        _step(work, p, g.to_dense(), held, ordinal)
    else:
        raise RuntimeError(
            f"{type(work.template).__name__} does not support sparse gradients: a parameter of shape "
            f"{tuple(p.shape)} has one; make it dense (sparse=False in the embedding), or leave the parameter to "
            "torch.optim.SparseAdam"
        )


@cache
def _rests(rule: Rule) -> bool:
    """Whether rows without a gradient stay as they are, in parameter and state, and do not bear on the others."""
    if rule.fits or len(plan.passes(trace.rule(rule))) > 1:
        return False
    p = torch.ones(1, dtype=torch.float64)
    number_names = number_fields(rule.State)
    kept = {n: x if n in number_names or x is ABSENT else p / 2 for n, x in rule.init(p)._asdict().items()}
    before = rule.State(**kept)
    return rule.update(p, torch.zeros_like(p), before, 3) == (p, before)


def _step(work: Work, p: Tensor, g: Tensor, held: dict[str, Any], ordinal: int) -> None:
    rule, before, after = (work.fitted(p).bind(numbers) for numbers in (work.numbers, work.before, work.after))
    held["step"] += 1
    x, g, state, ema = operands(work, p, g, held)
    new = stages.step(work.form, rule, before, after, x, g, state, ema, int(held["step"]), scalars(work, ordinal))
    write(work, p, held, {"p": new.p, **leaves(new.state), "ema": new.ema}, ordinal)


def operands(work: Work, p: Tensor, g: Tensor, held: Mapping[str, Any]) -> tuple[Tensor, Tensor, Any, Tensor | None]:
    """Parameter, gradient, state and average, in the type of the arithmetic."""
    dtype = arithmetic(p.dtype)
    ema = _widened(_paired(held["ema"], p)) if work.form.ema else None
    return real(p.to(dtype)), real(g.to(dtype)), read(work.template, held, p), ema


def write(work: Work, p: Tensor, held: dict[str, Any], new: Mapping[str, Any], ordinal: int) -> None:
    """Keep what a step has computed: the parameter as ``p``, the average as ``ema``, the state by name."""
    state = work.template.State
    for name, value in new.items():
        if name == "p":
            real(p).copy_(value)
        elif isinstance(value, Tensor) and name in number_fields(state):
            held[name].copy_(sharded.whole(value))
        elif isinstance(value, Tensor) and name.partition(".")[0] in array_fields(state):
            held[name].copy_(value)
        elif isinstance(value, Tensor):
            salt = noise.salt(work.seed, int(held["step"]), ordinal)
            _keep(_paired(held[name], p), value, salt, name if name == "ema" else f"s.{name}")
        elif value is not None:
            held[name].fill_(value)


def _keep(held: Tensor, x: Tensor, salt: int, name: str) -> None:
    """Copy into a state; into bfloat16 rounded at random, as what it gathers would be lost otherwise."""
    held.copy_(rounding.to_bfloat16(x.float(), salt, name) if held.dtype == torch.bfloat16 else x)


def count_dtype() -> torch.dtype:
    """The dtype of a count of steps: float32, but float64 where that is torch's default, as torch has it."""
    return torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32


def start(work: Work, p: Tensor, held: dict[str, Any]) -> None:
    """Fill in what is missing in the state of a parameter.

    Raises:
        StateMemoryError: there is no memory for it.
    """
    try:
        _start(work, p, held)
    except torch.OutOfMemoryError as error:
        raise StateMemoryError(p) from error


def _start(work: Work, p: Tensor, held: dict[str, Any]) -> None:
    first = p.detach().to(arithmetic(p.dtype))
    held.setdefault("step", torch.tensor(0.0, dtype=count_dtype(), device="cpu"))
    arrays = array_fields(work.template.State)
    for name, value in leaves(work.fitted(p).bind(work.numbers).init(first)).items():
        if name in held:
            continue
        if name.partition(".")[0] in arrays:
            held[name] = value.clone()
        elif isinstance(value, Tensor):
            held[name] = value.to(work.state_dtype, copy=True)  # it may be the parameter itself
        else:
            held[name] = torch.tensor(value, dtype=work.number_dtype, device="cpu")
    if work.form.ema and "ema" not in held:
        held["ema"] = first.to(work.state_dtype, copy=True)


def narrows(work: Work, arrays: Iterable[str]) -> bool:
    """Whether kernels with these arrays would keep sums along axes in `work.state_dtype`, which they are not of."""
    known = array_fields(work.template.State)
    return work.state_dtype is not None and any(
        name.startswith("s.") and name.split(".")[1] in known for name in arrays
    )


def read(rule: Rule, held: Mapping[str, Any], p: Tensor) -> Any:
    """The state of a parameter by a rule, from its tensors: values and arrays as they are, numbers as floats."""
    numbers, several = number_fields(rule.State), several_fields(rule.State)

    def found(name: str) -> Any:
        if name in several:
            parts = (f"{name}.{k}" for k in itertools.count())
            return tuple(held[part] for part in itertools.takewhile(held.__contains__, parts))
        if name not in held:
            return ABSENT
        return held[name].item() if name in numbers else _widened(_paired(held[name], p))

    return rule.State(*map(found, rule.State._fields))


def _paired(x: Tensor, p: Tensor) -> Tensor:
    """A state as it is stepped: complex numbers are pairs of real ones if their parameter's are."""
    return real(x) if p.is_complex() else x


def _widened(x: Tensor) -> Tensor:
    return x.to(arithmetic(x.dtype))


def real(x: Tensor) -> Tensor:
    """A tensor of real numbers over the same memory: complex parameters are stepped as pairs, as torch does."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x
