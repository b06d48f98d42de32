"""Translates optimizer calls between frameworks, and measures how far the nearest one deviates if none is equivalent.

Candidates come from the table and are compared by numbers: both calls take steps along a fixed sequence of gradients,
once at a constant rate and once with a rate that drops.
"""

import ast
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from thalweg.conventions.frameworks import TABLE
from thalweg.conventions.meaning import REQUIRED, Convention, Framework, Meaning
from thalweg.hyperparameters import nearest
from thalweg.optimizer import Optimizer
from thalweg.rule import Rule
from thalweg.rules import Cautious

STEPS = 50
EXACT = 1e-9
_STANDARD = 0.01
_OFF = (None, 0, False)


@dataclass(frozen=True)
class Translation:
    """A call translated into another framework's.

    Attributes:
        call: the call in the target framework.
        kind: ``exact``; ``constant``, exact while the rate is constant; or ``nearest``, not equivalent.
        strays: the distance between the two after the standard course, as a share of the distance that the source went.
    """

    call: str
    kind: Literal["exact", "constant", "nearest"]
    strays: float

    @property
    def sentence(self) -> str:
        """The meaning of `kind`, in a sentence."""
        if self.kind == "exact":
            return "Exact: the same numbers at every step, whatever the learning rate does."
        if self.kind == "constant":
            return (
                "Exact while the rate is constant. One keeps the rate inside its momentum and the other outside: where "
                "the rate changes from a to b, multiply the momentum buffer by a/b where the target applies the rate "
                "last (torch, optax.sgd), and by b/a where it keeps the rate inside (Keras, optax.rmsprop)."
            )
        return (
            f"Not expressible: this is the nearest, and over {STEPS} standard steps it strays by {self.strays:.2g} of "
            "the way that the original goes."
        )

    def __str__(self) -> str:
        return f"{self.call}\n{self.sentence}"


def translate(text: str, to: str) -> Translation:
    """Translate a call such as ``"keras.optimizers.SGD(learning_rate=0.1, momentum=0.9)"`` into framework `to`.

    Only names and literals are read; nothing is evaluated.  If the source requires a rate and `text` has none, 0.01 is
    used for the comparison.

    Raises:
        ValueError: the text cannot be read, or contains a name that is not in the table.
    """
    if to not in TABLE:
        raise ValueError(f"to is {to!r}{nearest(to, TABLE)}; the frameworks are {', '.join(TABLE)}")
    source, name, theirs = parse(text)
    if source.find(name).arguments[source.rate].default is REQUIRED:
        theirs.setdefault(source.rate, _STANDARD)
    meaning = source.read(name, theirs)
    constant, dropped = _course(meaning, False), _course(meaning, True)
    best: tuple[tuple[float, int, int], float, float, str] | None = None
    for call, found in _candidates(meaning, TABLE[to]):
        strays = _apart(constant, _course(found, False)), _apart(dropped, _course(found, True))
        # Differences in the last bits do not count; among equals the more similar and then the shorter call is better.
        near = 0.0 if max(strays) <= EXACT else float(f"{max(strays):.3g}")
        nearness = near, _unlike(found.rule, meaning.rule), len(call)
        if best is None or nearness < best[0]:
            best = nearness, *strays, call
    assert best is not None
    _, while_constant, when_dropped, call = best
    kind = "exact" if when_dropped <= EXACT else "constant" if while_constant <= EXACT else "nearest"
    return Translation(call, kind if while_constant <= EXACT else "nearest", while_constant)


def parse(text: str) -> tuple[Framework, str, dict[str, Any]]:
    """The framework, the name and the arguments of a call: literals only.

    Raises:
        ValueError: the text is not such a call; the message shows an example.
    """
    wanted = f"{text!r} cannot be read; write a call of literals, as in keras.optimizers.SGD(learning_rate=0.1)"
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or any(k.arg is None for k in call.keywords):
            raise ValueError
        path = ast.unparse(call.func).split(".")
        theirs = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
        given = [ast.literal_eval(x) for x in call.args]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError(wanted) from None
    if path[0] == "tf":
        path = path[1:]
    begins = (".".join(path[:i]) for i in range(len(path) - 1, 0, -1))
    if (known := next((name for name in begins if name in TABLE), None)) is None:
        raise ValueError(f"{wanted}; it begins with {path[0]!r}{nearest(path[0], TABLE)}: {', '.join(TABLE)} are known")
    framework = TABLE[known]
    names = list(framework.find(path[-1]).arguments)
    if len(given) > len(names) or any(name in theirs for name in names[: len(given)]):
        raise ValueError(f"{text!r} gives an argument twice, or too many; {path[-1]} has {', '.join(names)}")
    return framework, path[-1], {**dict(zip(names, given, strict=False)), **theirs}


def _candidates(meaning: Meaning, target: Framework) -> Iterator[tuple[str, Meaning]]:
    """Calls of the target that may be equivalent: those with the same rule, or all if there are none."""
    wanted: dict[str, Any] = {"decay_form": "l2", **meaning.rule.numbers, **meaning.rule.options, **meaning.around}
    if not wanted.get("weight_decay"):
        wanted.pop("decay_form", None)  # without decay the form does not matter
    conventions = {
        name: convention
        for name, convention in target.names.items()
        if _kind(meaning.rule) in (_kind(convention.template), [convention.without_momentum])
    }
    for name, convention in (conventions or target.names).items():
        possible = [_possible(convention, argument, wanted) for argument in convention.arguments]
        for values in itertools.product(*possible):
            theirs = {
                argument: value
                for (argument, means), value in zip(convention.arguments.items(), values, strict=True)
                if value != means.default and not (value in _OFF and means.default in _OFF)
            }
            said = ", ".join(f"{k}={v!r}" for k, v in theirs.items())
            try:
                yield f"{target.call.format(name)}({said})", convention.read(name, theirs)
            except ValueError:
                continue


def nearest_arguments(convention: Convention, meaning: Meaning) -> dict[str, Any]:
    """The arguments of a convention that give the settings of `meaning`, where it has such."""
    wanted: dict[str, Any] = {"decay_form": "l2", **meaning.rule.numbers, **meaning.rule.options, **meaning.around}
    found = {name: _possible(convention, name, wanted)[0] for name, means in convention.arguments.items() if means.ours}
    return {name: x for name, x in found.items() if x != convention.arguments[name].default}


def _possible(convention: Convention, argument: str, wanted: dict[str, Any]) -> list[Any]:
    """The candidate values of an argument: those that give our setting, else all its choices, else its default."""
    means = convention.arguments[argument]
    found = tuple(wanted.get(setting, REQUIRED) for setting in means.ours)
    if found and REQUIRED not in found:
        value = found if means.parts > 1 else _back(means.values, found[0])
        try:
            means.check(argument, value, convention.template)
        except ValueError:
            return list(means.values) if means.closed else [means.default]
        return [value]
    return [wanted["lr"] if means.default is REQUIRED else means.default]


def _kind(rule: Rule) -> list[type[Rule]]:
    """The class of a rule, and those of the rules inside it; not whether it is cautious, which is an argument."""
    if isinstance(rule, Cautious):
        rule = rule.rule
    return [type(rule), *(cls for base in rule.bases.values() for cls in _kind(base))]


def _unlike(one: Rule, other: Rule) -> int:
    """The number of options that are on in only one of the two."""
    names = {*one.options, *other.options}
    return sum(bool(one.options.get(name)) != bool(other.options.get(name)) for name in names)


def _back(values: Mapping[Any, Any], ours: Any) -> Any:
    """The framework's value for `ours`."""
    return next((theirs for theirs, x in values.items() if x is ours or (x == ours and type(x) is type(ours))), ours)


@cache
def _gradients() -> list[Tensor]:
    """The standard course: 12 elements from 10⁻³ to 10 in size, one without a gradient, one with a pause."""
    sizes = torch.logspace(-3, 1, 12, dtype=torch.float64)
    phases = torch.arange(12, dtype=torch.float64)
    course = [sizes * torch.sin(1.7 * t + 2.3 * phases + 0.1 * t * phases) for t in range(STEPS)]
    for t, g in enumerate(course):
        g[0] = 0.0
        if 5 <= t < 10:
            g[1] = 0.0
    return course


def _course(meaning: Meaning, drop: bool) -> list[Tensor]:
    """The points of an optimizer along the standard course; with `drop` the rate is halved half way."""
    p = torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4))
    around: dict[str, Any] = {"decay_form": "l2", **meaning.around}
    optimizer = Optimizer([p], meaning.rule, **around, backend="eager")
    points = [p.detach().clone()]
    for t, g in enumerate(_gradients()):
        if drop and t == STEPS // 2:
            optimizer.param_groups[0]["lr"] /= 2
        p.grad = g.reshape(3, 4).clone()
        optimizer.step()
        points.append(p.detach().clone())
    return points


def _apart(one: list[Tensor], other: list[Tensor]) -> float:
    """The largest distance between two walks, as a share of the distance that the first went."""
    way = max(_distance(p, one[0]) for p in one) or 1.0
    apart = max(_distance(p, q) for p, q in zip(one, other, strict=True)) / way
    return apart if math.isfinite(apart) else math.inf


def _distance(p: Tensor, q: Tensor) -> float:
    return math.sqrt(((p - q) ** 2).sum().item())
