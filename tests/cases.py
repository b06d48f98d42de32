"""Shared by the tests of the core: the rules with their options, the backends, gradients to step with."""

import gc
import itertools
import types
import typing
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import thalweg
from thalweg import rules
from thalweg.conventions import TABLE
from thalweg.fields import number_fields, shared_fields
from thalweg.rule import ABSENT, Rule, annotations
from thalweg.wrapping import Wrapper

# Add a backend here, and every test of the optimizer runs on it.
BACKENDS = ("eager", "numba")

RULES: dict[str, type[Rule]] = {
    name: cls for name, cls in rules.all().items() if cls.__module__.startswith("thalweg.rules.")
}

NAMED: list[str] = sorted(name for name, (cls, _) in rules.names().items() if cls.__module__.startswith("thalweg."))
"""The names of the library's rules in text; tests may have defined others."""

# Values for settings that choose a formula but are not a closed list of choices.
_OPTIONAL = {
    "momentum": (0.9,),
    "eps": (None,),
    "eps_root": (1e-4,),
    "warmup": (6.0,),
    "lambd": (0.1,),
    "clip": (None,),
    "beta2": (0.9,),
    "first": (1e-3,),
    "beta3": (0.9,),
    "growth": (1.5,),
    "trust_eps": (1e-3,),
    "most": (1.0,),
    "factor_beta": (0.8,),
    "decoupling": (10.0,),
}  # fmt: skip

# Further wrappers: around a rule with numbers of its own in the state, one whose step depends on the parameter, another
# wrapper.
_NESTED: tuple[Rule, ...] = tuple(
    rules.parse(text)
    for text in (
        "schedule_free(radam(beta1=0.0, below=stand))", "schedule_free(lamb, lambd=0.1)",
        "schedule_free(cautious(adam))", "cautious(nadam)", "cautious(schedule_free(rmsprop))", "cautious(nesterov)",
        "lookahead(asgd, k=3)", "lookahead(lookahead(madgrad, k=2), k=3)", "lookahead(rmsprop_nesterov, k=2)",
        "grafted(adagrad, novograd)", "grafted(cautious(lion), lamb)",
        *(name for name, (cls, _) in rules.names().items() if issubclass(cls, Wrapper)),
    )
)  # fmt: skip


def _choices(annotation: Any) -> tuple[Any, ...]:
    if annotation is bool:
        return (False, True)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(x for part in typing.get_args(annotation) for x in _choices(part))
    return typing.get_args(annotation) if typing.get_origin(annotation) is typing.Literal else ()


def variants(cls: type[Rule], pairs: bool = True) -> Iterator[Rule]:
    """A rule with every choice of its options, and every pair of choices."""
    default = cls.example()
    axes: dict[str, tuple[Any, ...]] = {}
    for name, hint in annotations(cls).items():
        choices = _OPTIONAL[name] if type(None) in typing.get_args(hint) else _choices(hint)
        if choices and hint is not Rule and name in default.numbers | default.options:
            axes[name] = choices
    chosen = itertools.combinations_with_replacement(axes, 2) if pairs else ((name, name) for name in axes)
    tried = [{a: x, b: y} for a, b in chosen for x, y in itertools.product(axes[a], axes[b])]
    seen = {default}
    yield default
    for settings in tried:
        try:
            rule = default.replace(**settings)
        except ValueError:  # valid separately, but not in combination
            continue
        if rule not in seen:
            seen.add(rule)
            yield rule


TOTAL = {name for name, cls in RULES.items() if not issubclass(cls, Wrapper) and shared_fields(cls.State)}
"""Rules whose step depends on all parameters together."""

FLAT = {name: cls for name, cls in RULES.items() if name not in TOTAL and not cls.example().fits}
"""Rules of which the formula is the same for parameters of any shape, and of each alone."""

TORCHS = tuple(name for name, meaning in TABLE["torch"].names.items() if not meaning.template.fits)
"""The names of torch whose rules are the same for parameters of any shape and type."""

ALL: list[Rule] = list(dict.fromkeys([*(rule for cls in FLAT.values() for rule in variants(cls)), *_NESTED]))
"""Every such rule with every choice of its options and every pair of them: each a formula of its own."""

SHAPED: list[Rule] = [rule for cls in RULES.values() if cls.example().fits for rule in variants(cls, False)]
"""Rules that depend on the shape of the parameter, with every choice of their options."""

EVERY: list[Rule] = [*ALL, *SHAPED, *(rule for name in sorted(TOTAL) for rule in variants(RULES[name]))]


def changes(rule: Rule) -> int:
    """The number of options that differ from the defaults."""
    default = type(rule)(**rule.bases)
    own = annotations(type(rule)).keys() & {**rule.options, **default.options}
    return sum(getattr(rule, name) != getattr(default, name) for name in own)


def well_posed(rule: Rule) -> bool:
    """False for rules whose corrected variance is 0 at the first step but for rounding: their numbers are arbitrary."""
    return not (rule.options.get("centered") and rule.options.get("bias_correction"))


STABLE: list[Rule] = [rule for rule in ALL if well_posed(rule)]

LOOKAHEAD: list[Rule] = [rule for rule in ALL if rule.looks_ahead]


def gradients(steps: int, size: int = 7, seed: int = 0) -> Tensor:
    """Random gradients, one row per step; zero in coordinate 0, and in coordinate 1 in steps 5 to 8."""
    g = torch.randn(steps, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    g[:, 0] = 0
    g[4:8, 1] = 0
    return g


def start(size: int = 7, seed: int = 1) -> Tensor:
    """A random point to start from."""
    return torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def model() -> list[torch.nn.Parameter]:
    """Parameters of several shapes."""
    generator = torch.Generator().manual_seed(5)
    shapes: list[tuple[int, ...]] = [(3, 4), (4,), (), (1, 2, 2), (1,)]
    return [torch.nn.Parameter(torch.randn(s, dtype=torch.float64, generator=generator)) for s in shapes]


def close(ours: Any, theirs: Any, equal_nan: bool = False) -> None:
    """Assert agreement to 1e-12 relative."""
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-15, equal_nan=equal_nan)


def same(ours: Any, theirs: Any) -> None:
    """Assert that parameters agree."""
    close([p.detach() for p in ours], [p.detach() for p in theirs])


def run(rule: Rule, p: Any, gs: Any) -> tuple[list[Any], Any]:
    """The reference: the points after each step, and the last state."""
    points: list[Any] = []
    state = rule.init(p)
    for t, g in enumerate(gs, 1):
        p, state = rule.update(p, g, state, t)
        points.append(p)
    return points, state


def values(rule: Rule, state: Any) -> dict[str, Any]:
    """The fields of a state that are present, without the numbers."""
    numbers = number_fields(rule.State)
    return {k: v for k, v in state._asdict().items() if v is not ABSENT and k not in numbers}


def optimizer(p: Any, rule: Rule, backend: str, **settings: Any) -> thalweg.Optimizer:
    """An optimizer of one parameter, or of several."""
    return thalweg.Optimizer([p] if isinstance(p, Tensor) else p, rule, backend=backend, **settings)


def parameter(values: Tensor | None = None, dtype: torch.dtype = torch.float64) -> torch.nn.Parameter:
    """A parameter of these values, by default those of `start`."""
    return torch.nn.Parameter((start() if values is None else values.clone()).to(dtype))


def drive(opt: torch.optim.Optimizer, params: list[Any], steps: int, seed: int = 0) -> None:
    """Steps with random gradients, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, dtype=torch.float64, generator=generator).to(p.dtype)
        opt.step()


def forget() -> None:
    """Forget rules defined by a test, so that other tests do not use them."""
    annotations.cache_clear()
    number_fields.cache_clear()
    gc.collect()
