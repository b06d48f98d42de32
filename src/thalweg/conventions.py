"""What each framework and book means by a name, as one table.

``textbook`` is Goodfellow, Bengio & Courville 2016, chapter 8, with the variants of lecture notes: the book's own
letters, α for the momentum, ρ for decays, δ for the small constant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.optim.optimizer import ParamsT

from thalweg.optimizer import Optimizer
from thalweg.rule import Rule, nearest
from thalweg.rules import SGD, Adagrad, Adam, Momentum, RMSProp


@dataclass(frozen=True)
class Convention:
    """What one name means.

    Attributes:
        rule: our rule.
        arguments: their arguments: what each is called here, and its default there.
        fixed: the settings of our rule that the name implies.
        source: where the name stands.
    """

    rule: type[Rule]
    source: str
    arguments: Mapping[str, tuple[str, float]] = field(default_factory=dict[str, tuple[str, float]])
    fixed: Mapping[str, Any] = field(default_factory=dict[str, Any])


_ALPHA = {"alpha": ("momentum", 0.9)}
_RHO = {"rho": ("decay", 0.9)}
_MOMENTS = {"rho1": ("beta1", 0.9), "rho2": ("beta2", 0.999), "delta": ("eps", 1e-8)}
_LOOKAHEAD = {"nesterov": "lookahead"}

TABLE: dict[str, dict[str, Convention]] = {
    "textbook": {
        "sgd": Convention(SGD, "Algorithm 8.1"),
        "momentum": Convention(Momentum, "Algorithm 8.2", _ALPHA, {"form": "velocity"}),
        "nesterov": Convention(Momentum, "Algorithm 8.3", _ALPHA, {"form": "velocity", **_LOOKAHEAD}),
        "adagrad": Convention(Adagrad, "Algorithm 8.4", {"delta": ("eps", 1e-7)}),
        "adagrad_inside": Convention(Adagrad, "lecture notes", {"delta": ("eps", 1e-8)}, {"eps_at": "inside"}),
        "rmsprop": Convention(RMSProp, "Algorithm 8.5", {**_RHO, "delta": ("eps", 1e-6)}, {"eps_at": "inside"}),
        "rmsprop_outside": Convention(RMSProp, "lecture notes", {**_RHO, "delta": ("eps", 1e-8)}),
        "rmsprop_nesterov": Convention(
            RMSProp, "Algorithm 8.6", {**_RHO, **_ALPHA}, {"eps": None, "momentum_form": "velocity", **_LOOKAHEAD}
        ),
        "adam": Convention(Adam, "Algorithm 8.7", _MOMENTS),
        "adam_inside": Convention(Adam, "lecture notes", _MOMENTS, {"eps_at": "inside"}),
        "adam_uncorrected": Convention(Adam, "Kingma & Ba 2015, section 2", _MOMENTS, {"eps_at": "uncorrected"}),
        "adam_no_correction": Convention(Adam, "lecture notes", _MOMENTS, {"bias_correction": False}),
    }
}
"""Every name of every framework."""


def _find(framework: str, name: str) -> Convention:
    if framework not in TABLE:
        raise ValueError(
            f"there is no framework {framework!r}{nearest(framework, TABLE)}; the frameworks are {', '.join(TABLE)}"
        )
    if name not in TABLE[framework]:
        raise ValueError(
            f"{framework} has no optimizer {name!r}{nearest(name, TABLE[framework])}; "
            f"it has {', '.join(TABLE[framework])}"
        )
    return TABLE[framework][name]


def rule(framework: str, name: str, **theirs: Any) -> Rule:
    """The rule that a framework means by a name.

    Args:
        framework: ``textbook``.
        name: the optimizer, as the framework calls it.
        theirs: arguments under the framework's names; ``lr`` is the learning rate.

    Raises:
        ValueError: an unknown framework, name or argument (the nearest is named), or a value out of its range.
    """
    found = _find(framework, name)
    settings = dict(found.fixed)
    if "lr" in theirs:
        settings["lr"] = theirs.pop("lr")
    for argument, (ours, default) in found.arguments.items():
        settings[ours] = theirs.pop(argument, default)
    for unknown in theirs:
        known = ["lr", *found.arguments]
        raise ValueError(
            f"{framework}'s {name} has no argument {unknown!r}{nearest(unknown, known)}; it has {', '.join(known)}"
        )
    return found.rule(**settings)


def optimizer(framework: str, name: str, params: ParamsT, **keywords: Any) -> Optimizer:
    """The optimizer that a framework means by a name: `rule`'s arguments, and further ones of `Optimizer`.

    Raises:
        ValueError: as `rule` and `Optimizer` raise it.
    """
    theirs = {"lr", *_find(framework, name).arguments}
    ours = {k: keywords.pop(k) for k in list(keywords) if k in _OPTIMIZER and k not in theirs}
    return Optimizer(params, rule(framework, name, **keywords), **ours)


_OPTIMIZER = frozenset(Optimizer.__init__.__annotations__) - {"params", "rule", "return"}
