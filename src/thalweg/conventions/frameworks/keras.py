"""The meaning of Keras 3.15's names, according to its source code."""

from thalweg.conventions.frameworks.shared import (
    CORRECTION,
    FACTORED,
    INSIDE,
    ORTHOGONAL,
    SCALED,
    UNCORRECTED,
    Arguments,
)
from thalweg.conventions.meaning import Convention, Framework, inert, number, refused, switch, unset
from thalweg.rules import LAMB, SGD, Adadelta, Adagrad, Adam, Adamax, Lion, Momentum, RMSProp


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
    "Lion": Convention(Lion, "keras.optimizers.Lion", _arguments(1e-3, _moments(0.99)), _AS_KERAS),
}

KERAS = Framework(
    "keras",
    "keras.optimizers.{}",
    "learning_rate",
    _NAMES,
    {
        "Ftrl": "its step is the solution of a regularised problem, not a change of the parameter",
        "Adafactor": FACTORED,
        "Muon": ORTHOGONAL,
        "ScheduleFreeAdamW": "its average is interleaved with the steps",
        "LossScaleOptimizer": "it scales another optimizer's loss; use torch.amp.GradScaler",
    },
)
"""Keras's names."""
