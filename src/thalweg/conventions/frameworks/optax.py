"""The meaning of optax 0.2.8's names, according to its source code."""

from typing import Any

from thalweg.conventions.frameworks.shared import CORRECTION, INSIDE, SCALED, Arguments
from thalweg.conventions.meaning import REQUIRED, Convention, Framework, number, refused, switch, unset
from thalweg.rules import (
    LAMB,
    LARS,
    SGD,
    SM3,
    AdaBelief,
    Adadelta,
    Adafactor,
    Adagrad,
    Adam,
    Adamax,
    Adan,
    Fromage,
    Lion,
    Momentum,
    NovoGrad,
    RAdam,
    RMSProp,
    Yogi,
)


def arguments(own: Arguments, decay: float | None = None) -> Arguments:
    """Optax's arguments: the rate, the optimizer's own, and weight decay if it has any."""
    decayed = {"weight_decay": number(decay, "weight_decay"), "mask": MASK}
    return {"learning_rate": number(REQUIRED, "lr"), **own, **({} if decay is None else decayed)}


_MASKED = "give the parameters without decay a group of their own, with weight_decay=0"
MASK = refused(None, _MASKED)
_INSIDE_DECAY = {"weight_decay": number(0.0, "lambd")}  # part of the step, before its norm is taken
MU_DTYPE = {"mu_dtype": refused(None, "moments are kept in float32 or wider; thalweg.Optimizer has state_dtype")}


def moments(eps: float = 1e-8) -> Arguments:
    """The decays of both moments, and ε."""
    return {"b1": number(0.9, "beta1"), "b2": number(0.999, "beta2"), "eps": number(eps, "eps")}


_EPS_ROOT = {"eps_root": unset(0.0, "eps_root")}


def _adam(nesterov: bool = False) -> Arguments:
    return {
        **moments(),
        **_EPS_ROOT,
        **MU_DTYPE,
        "nesterov": switch(nesterov, "nesterov", "constant", False),
    }


def _corrected(found: dict[str, Any]) -> None:
    """Which of both moments is corrected for its start at zero."""
    which = found.pop("first"), found.pop("second")
    found["bias_correction"] = {(True, False): "first", (False, True): "second"}.get(which, which[0])


def _falling(found: dict[str, Any]) -> None:
    """The exponent of the second moment's decay is given without its sign."""
    found["decay"] = -found["power"]


_NAMES = {
    "sgd": Convention(
        Momentum,
        "optax.sgd",
        arguments(
            {
                "momentum": number(None, "momentum"),
                "nesterov": CORRECTION,
                "accumulator_dtype": refused(None, "momentum is kept in float32 or wider"),
            }
        ),
        without_momentum=SGD,
    ),
    "rmsprop": Convention(
        RMSProp,
        "optax.rmsprop",
        arguments(
            {
                "decay": number(0.9, "decay"),
                "eps": number(1e-8, "eps"),
                "initial_scale": number(0.0, "initial_accumulator"),
                "eps_in_sqrt": switch(True, "eps_at", "inside", "outside"),
                "centered": switch(False, "centered", True, False),
                "momentum": number(None, "momentum"),
                "nesterov": CORRECTION,
                "bias_correction": switch(False, "bias_correction", True, False),
            }
        ),
        {"momentum_form": "velocity"},
    ),
    "adagrad": Convention(
        Adagrad,
        "optax.adagrad",
        arguments(
            {
                "initial_accumulator_value": number(0.1, "initial_accumulator"),
                "eps": unset(1e-7, "eps"),
            }
        ),
        INSIDE,
    ),
    "adam": Convention(Adam, "optax.adam", arguments(_adam())),
    "adamw": Convention(Adam, "optax.adamw", arguments(_adam(), 1e-4), SCALED),
    "nadam": Convention(Adam, "optax.nadam", arguments(_adam(True))),
    "nadamw": Convention(Adam, "optax.nadamw", arguments(_adam(True), 1e-4), SCALED),
    "amsgrad": Convention(
        Adam,
        "optax.amsgrad",
        arguments(
            {
                **moments(),
                **_EPS_ROOT,
                **MU_DTYPE,
                "bias_correction_mu": switch(True, "first", True, False),
                "bias_correction_nu": switch(True, "second", True, False),
            }
        ),
        {"amsgrad": "corrected"},
        together=_corrected,
    ),
    "adamax": Convention(Adamax, "optax.adamax", arguments(moments())),
    "adamaxw": Convention(Adamax, "optax.adamaxw", arguments(moments(), 1e-4), SCALED),
    "radam": Convention(
        RAdam,
        "optax.radam",
        arguments(
            {
                **moments(),
                **_EPS_ROOT,
                "threshold": number(5.0, "threshold"),
                "nesterov": switch(False, "nesterov", True, False),
            }
        ),
    ),
    "adadelta": Convention(
        Adadelta,
        "optax.adadelta",
        arguments(
            {
                "rho": number(0.9, "decay"),
                "eps": number(1e-6, "eps"),
                "weight_decay": number(0.0, "weight_decay"),
                "weight_decay_mask": MASK,
            }
        ),
    ),
    "lion": Convention(
        Lion,
        "optax.lion",
        arguments({"b1": number(0.9, "beta1"), "b2": number(0.99, "beta2"), **MU_DTYPE}, 1e-3),
        SCALED,
    ),
    "adabelief": Convention(
        AdaBelief,
        "optax.adabelief",
        arguments(
            {
                **moments(eps=1e-16),
                "eps_root": number(1e-16, "eps_root"),
                "nesterov": switch(False, "nesterov", True, False),
            }
        ),
    ),
    "yogi": Convention(Yogi, "optax.yogi", arguments(moments(eps=1e-3))),
    "adan": Convention(
        Adan,
        "optax.adan",
        arguments(
            {
                "b1": number(0.98, "beta1"),
                "b2": number(0.92, "beta2"),
                "b3": number(0.99, "beta3"),
                "eps": number(1e-8, "eps"),
                "eps_root": number(1e-8, "eps_root"),
            },
            0.0,
        ),
        {"weight": "complement", **SCALED},
    ),
    "lamb": Convention(
        LAMB, "optax.lamb", arguments({**moments(eps=1e-6), **_EPS_ROOT, **_INSIDE_DECAY, "mask": MASK})
    ),
    "lars": Convention(
        LARS,
        "optax.lars",
        arguments(
            {
                **_INSIDE_DECAY,
                "weight_decay_mask": refused(True, _MASKED),
                "trust_coefficient": number(0.001, "trust"),
                "eps": number(0.0, "eps"),
                "trust_ratio_mask": refused(True, "give the parameters without it a group of their own, of momentum"),
                "momentum": number(0.9, "momentum"),
                "nesterov": switch(False, "nesterov", True, False),
            }
        ),
    ),
    "adafactor": Convention(
        Adafactor,
        "optax.adafactor",
        {
            "learning_rate": number(None, "lr", {None: 1.0}),
            "min_dim_size_to_factor": number(128, "least_size"),
            "decay_rate": number(0.8, "power"),
            "decay_offset": number(0, "offset"),
            "multiply_by_parameter_scale": switch(True, "parameter_scale", True, False),
            "clipping_threshold": number(1.0, "clip"),
            "momentum": number(None, "momentum"),
            "dtype_momentum": refused("float32", "an average of the steps is rounded to float32"),
            "weight_decay_rate": unset(None, "lambd", off=0.0),
            "eps": number(1e-30, "eps"),
            "factored": switch(True, "factor", "largest", "none"),
            "weight_decay_mask": MASK,
        },
        {"eps_at": "squares", "relative": False, "decay_at": "plain", "numbers_in": "float32"},
        together=_falling,
    ),
    "sm3": Convention(SM3, "optax.sm3", arguments({"momentum": number(0.9, "momentum")})),
    "fromage": Convention(Fromage, "optax.fromage", arguments({"min_norm": number(1e-6, "least")})),
    "novograd": Convention(
        NovoGrad,
        "optax.novograd",
        arguments(
            {
                "b1": number(0.9, "beta1"),
                "b2": number(0.25, "beta2"),
                "eps": number(1e-6, "eps"),
                "eps_root": number(0.0, "eps_root"),
                **_INSIDE_DECAY,
            }
        ),
    ),
}

OPTAX = Framework(
    "optax",
    "optax.{}",
    "learning_rate",
    _NAMES,
    {
        "muon": "it is optax.contrib.muon",
        "lbfgs": "it searches along a line; thalweg.curvature has second-order methods",
    },
)
"""Optax's names."""
