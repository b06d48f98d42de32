"""The meaning of Keras 3.15's names, according to its source code."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thalweg.conventions.frameworks.schedulefree import SECOND_MOMENT
from thalweg.conventions.frameworks.shared import (
    CORRECTION,
    INSIDE,
    SCALED,
    UNCORRECTED,
    Arguments,
)
from thalweg.conventions.meaning import Argument, Convention, Framework, inert, number, refused, switch, unset
from thalweg.rules import (
    LAMB,
    SGD,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    Lion,
    Momentum,
    Muon,
    RMSProp,
    ScheduleFree,
)


def _arguments(rate: float, own: Arguments, decay: float | None = None) -> Arguments:
    """Keras's arguments: the rate, the optimizer's own, and those of all optimizers."""
    return {
        "learning_rate": number(rate, "lr"),
        **own,
        "weight_decay": number(decay, "weight_decay", {None: 0.0}),
        "clipnorm": unset(None, "clip_each"),
        "clipvalue": unset(None, "clip_value"),
        "global_clipnorm": unset(None, "clip_norm"),
        "use_ema": refused(False, "its average begins elsewhere; write ema=0.99 of thalweg.Optimizer"),
        "ema_momentum": inert(0.99),
        "ema_overwrite_frequency": refused(None, "no average is put into the weights while they are trained"),
        "loss_scale_factor": refused(None, "use torch.amp.GradScaler"),
        "gradient_accumulation_steps": refused(None, "call backward several times before a step"),
        "name": inert(None),
    }


def _moments(beta2: float = 0.999) -> Arguments:
    return {"beta_1": number(0.9, "beta1"), "beta_2": number(beta2, "beta2")}


# Keras's weight decay is decoupled from the gradient in every optimizer, and it adds no 10⁻⁶ to norms.
_AS_KERAS = {**SCALED, "clip_eps": 0.0}
_EPSILON = {"epsilon": number(1e-7, "eps")}
_ADAM = {**_moments(), **_EPSILON, "amsgrad": switch(False, "amsgrad", True, False)}


def _muon(own: Arguments) -> Arguments:
    """The arguments of Muon, each part of which ignores those of the other."""
    ignored = {
        "adam_beta_1": 0.9, "adam_beta_2": 0.999, "adam_weight_decay": 4e-3, "epsilon": 1e-7, "adam_lr_ratio": 1,
        "muon_a": 3.4445, "muon_b": -4.775, "muon_c": 2.0315, "momentum": 0.95, "ns_steps": 5, "nesterov": True,
        "rms_rate": 0.2,
    }  # fmt: skip
    given = {
        "exclude_layers": refused(None, "give these parameters a group of their own, with use_muon=False"),
        "exclude_embeddings": inert(True),
    }
    return _arguments(1e-3, {name: own.get(name) or inert(x) for name, x in ignored.items()} | given, 4e-3)


def _is_hidden(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether a parameter is Muon's: a matrix, unless its group says otherwise."""
    return p.ndim == 2 and bool(group.get("use_muon", True))


def _moonlights(found: dict[str, Any]) -> None:
    """Three coefficients, and a scale only with a rate."""
    found["coefficients"] = tuple(found.pop(name) for name in ("a", "b", "c"))
    if found["rms"] is None:
        found |= {"rms": 0.2, "scale": "none"}


def _adams(found: dict[str, Any]) -> None:
    ratio = found.pop("ratio")
    found["lr"] *= ratio
    found["weight_decay"] = (found.pop("own_decay") or 0.0) / ratio  # the ratio is not that of the decay


_NAMES = {
    "SGD": Convention(
        Momentum,
        "keras.optimizers.SGD",
        _arguments(1e-2, {"momentum": unset(0.0, "momentum"), "nesterov": CORRECTION}),
        {"form": "velocity", **_AS_KERAS},
        without_momentum=SGD,
    ),
    "RMSprop": Convention(
        RMSProp,
        "keras.optimizers.RMSprop",
        _arguments(
            1e-3,
            {
                "rho": number(0.9, "decay"),
                "momentum": unset(0.0, "momentum"),
                **_EPSILON,
                "centered": switch(False, "centered", True, False),
            },
        ),
        {"momentum_form": "velocity", **INSIDE, **_AS_KERAS},
    ),
    "Adagrad": Convention(
        Adagrad,
        "keras.optimizers.Adagrad",
        _arguments(1e-3, {"initial_accumulator_value": number(0.1, "initial_accumulator"), **_EPSILON}),
        {**INSIDE, **_AS_KERAS},
    ),
    "Adam": Convention(Adam, "keras.optimizers.Adam", _arguments(1e-3, _ADAM), {**UNCORRECTED, **_AS_KERAS}),
    "AdamW": Convention(Adam, "keras.optimizers.AdamW", _arguments(1e-3, _ADAM, 4e-3), {**UNCORRECTED, **_AS_KERAS}),
    "Nadam": Convention(
        Adam,
        "keras.optimizers.Nadam",
        _arguments(1e-3, {**_moments(), **_EPSILON}),
        {"nesterov": "scheduled", "momentum_decay": 1.0, **_AS_KERAS},
    ),
    "Adamax": Convention(
        Adamax,
        "keras.optimizers.Adamax",
        _arguments(1e-3, {**_moments(), **_EPSILON}),
        {"eps_at": "outside", **_AS_KERAS},
    ),
    "Adadelta": Convention(
        Adadelta, "keras.optimizers.Adadelta", _arguments(1e-3, {"rho": number(0.95, "decay"), **_EPSILON}), _AS_KERAS
    ),
    "Lamb": Convention(LAMB, "keras.optimizers.Lamb", _arguments(1e-3, {**_moments(), **_EPSILON}), _AS_KERAS),
    "Adafactor": Convention(
        Adafactor,
        "keras.optimizers.Adafactor",
        _arguments(
            1e-3,
            {
                "beta_2_decay": number(-0.8, "decay"),
                "epsilon_1": number(1e-30, "eps"),
                "epsilon_2": number(1e-3, "eps_scale"),
                "clip_threshold": number(1.0, "clip"),
                "relative_step": inert(True),
            },
        ),
        {"eps_at": "squares", **_AS_KERAS},
    ),
    "Muon": Convention(
        Muon,
        "keras.optimizers.Muon",
        _muon(
            {
                "muon_a": number(3.4445, "a"),
                "muon_b": number(-4.775, "b"),
                "muon_c": number(2.0315, "c"),
                "momentum": number(0.95, "momentum"),
                "ns_steps": number(5, "steps"),
                "nesterov": switch(True, "nesterov", True, False),
                "rms_rate": number(0.2, "rms", {None: None}),
            }
        ),
        {"form": "accumulated", "scale": "match_rms_adamw", "eps": 1e-7, "eps_at": "added", **_AS_KERAS},
        together=_moonlights,
        others=Convention(
            Adam,
            "keras.optimizers.AdamW",
            _muon(
                {
                    "adam_beta_1": number(0.9, "beta1"),
                    "adam_beta_2": number(0.999, "beta2"),
                    "adam_weight_decay": number(4e-3, "own_decay"),
                    "epsilon": number(1e-7, "eps"),
                    "adam_lr_ratio": number(1, "ratio"),
                }
            ),
            {**UNCORRECTED, **_AS_KERAS},
            together=_adams,
        ),
        chosen=_is_hidden,
        flags=("use_muon",),
    ),
    "ScheduleFreeAdamW": Convention(
        ScheduleFree(SECOND_MOMENT, power=0.0),
        "keras.optimizers.ScheduleFreeAdamW",
        {
            **_arguments(
                2.5e-3,
                {
                    "beta_1": number(0.9, "beta"),
                    "beta_2": number(0.999, "decay"),
                    "epsilon": number(1e-8, "eps"),
                    "warmup_steps": unset(0, "warmup"),
                },
            ),
            "weight_decay": Argument(
                None,
                ("weight_decay",),
                {None: 0.0, 0: 0.0},
                refused="it moves the point of the gradient there, and not the points that are averaged",
            ),
        },
        _AS_KERAS,
    ),
    "Lion": Convention(Lion, "keras.optimizers.Lion", _arguments(1e-3, _moments(0.99)), _AS_KERAS),
}

KERAS = Framework(
    "keras",
    "keras.optimizers.{}",
    "learning_rate",
    _NAMES,
    {
        "Ftrl": "its step is the solution of a regularised problem, not a change of the parameter",
        "LossScaleOptimizer": "it scales another optimizer's loss; use torch.amp.GradScaler",
    },
    notes=(
        "`Muon` leaves embeddings and `exclude_layers` to AdamW by their names in Keras; here, give them a group with "
        "`use_muon=False`. `Adafactor`'s rate is at most 1/√t there, whatever `relative_step` says. "
        "`ScheduleFreeAdamW` is as with JAX and TensorFlow; with torch, Keras 3.15 overwrites what it averages with.",
    ),
)
"""Keras's names."""
