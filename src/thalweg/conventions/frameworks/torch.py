"""The meaning of torch 2.13's names, according to its source code."""

from dataclasses import replace

import torch

from thalweg.conventions.frameworks.shared import CORRECTION, SCALED, UNCORRECTED, Arguments
from thalweg.conventions.meaning import Argument, Convention, Framework, inert, number, several, switch, unset
from thalweg.rules import ASGD, SGD, Adadelta, Adafactor, Adagrad, Adam, Adamax, Momentum, Muon, RAdam, RMSProp, Rprop


def _arguments(rate: float, own: Arguments, decay: float | None = 0, *, fused: bool = False) -> Arguments:
    """Torch's arguments: the rate, the optimizer's own, and those of all optimizers."""
    return {
        "lr": number(rate, "lr"),
        **own,
        **({} if decay is None else {"weight_decay": number(decay, "weight_decay")}),
        "foreach": inert(None),
        "maximize": switch(False, "maximize", True, False),
        "differentiable": inert(False),
        **({"fused": inert(None)} if fused else {}),
    }


_CAPTURABLE = {"capturable": inert(False)}
_BETAS = {"betas": several((0.9, 0.999), "beta1", "beta2")}
_MOMENTS = {**_BETAS, "eps": number(1e-8, "eps")}
_AMSGRAD = {"amsgrad": switch(False, "amsgrad", True, False), **_CAPTURABLE}
_DECOUPLED = {"decoupled_weight_decay": switch(False, "decay_form", "scaled", "l2")}


def _default_dtype() -> str:
    """The precision of numbers in torch's state, such as the product of momenta."""
    return "float64" if torch.get_default_dtype() == torch.float64 else "float32"


_NAMES = {
    "SGD": Convention(
        Momentum,
        "torch.optim.SGD",
        _arguments(
            1e-3,
            {"momentum": unset(0, "momentum"), "dampening": number(0, "dampening"), "nesterov": CORRECTION},
            fused=True,
        ),
        without_momentum=SGD,
        sparse=True,
        counted=False,
    ),
    "Adagrad": Convention(
        Adagrad,
        "torch.optim.Adagrad",
        _arguments(
            1e-2,
            {
                "lr_decay": number(0, "lr_decay"),
                "initial_accumulator_value": number(0, "initial_accumulator"),
                "eps": number(1e-10, "eps"),
            },
            fused=True,
        ),
        sparse=True,
    ),
    "RMSprop": Convention(
        RMSProp,
        "torch.optim.RMSprop",
        _arguments(
            1e-2,
            {
                "alpha": number(0.99, "decay"),
                "eps": number(1e-8, "eps"),
                "momentum": unset(0, "momentum"),
                "centered": switch(False, "centered", True, False),
                **_CAPTURABLE,
            },
        ),
    ),
    "Adam": Convention(Adam, "torch.optim.Adam", _arguments(1e-3, {**_MOMENTS, **_AMSGRAD, **_DECOUPLED}, fused=True)),
    "AdamW": Convention(
        Adam, "torch.optim.AdamW", _arguments(1e-3, {**_MOMENTS, **_AMSGRAD}, 1e-2, fused=True), SCALED
    ),
    "NAdam": Convention(
        Adam,
        "torch.optim.NAdam",
        _arguments(
            2e-3,
            {**_MOMENTS, "momentum_decay": number(4e-3, "momentum_decay"), **_DECOUPLED, **_CAPTURABLE},
        ),
        {"nesterov": "scheduled", "product_in": _default_dtype},
    ),
    "RAdam": Convention(
        RAdam,
        "torch.optim.RAdam",
        _arguments(1e-3, {**_MOMENTS, **_DECOUPLED, **_CAPTURABLE}),
        UNCORRECTED,
    ),
    "Adamax": Convention(Adamax, "torch.optim.Adamax", _arguments(2e-3, {**_MOMENTS, **_CAPTURABLE})),
    "Adadelta": Convention(
        Adadelta,
        "torch.optim.Adadelta",
        _arguments(1.0, {"rho": number(0.9, "decay"), "eps": number(1e-6, "eps"), **_CAPTURABLE}),
    ),
    "ASGD": Convention(
        ASGD,
        "torch.optim.ASGD",
        _arguments(
            1e-2,
            {
                "lambd": number(1e-4, "lambd"),
                "alpha": number(0.75, "alpha"),
                "t0": number(1e6, "t0"),
                **_CAPTURABLE,
            },
        ),
        {"numbers_in": _default_dtype},
    ),
    "Rprop": Convention(
        Rprop,
        "torch.optim.Rprop",
        _arguments(
            1e-2,
            {
                "etas": several((0.5, 1.2), "eta_minus", "eta_plus"),
                "step_sizes": several((1e-6, 50), "step_min", "step_max"),
                **_CAPTURABLE,
            },
            decay=None,
        ),
    ),
    "Adafactor": Convention(
        Adafactor,
        "torch.optim.Adafactor",
        {
            "lr": number(1e-2, "lr"),
            "beta2_decay": number(-0.8, "decay"),
            "eps": several((None, 1e-3), "eps", "eps_scale"),
            "d": number(1.0, "clip"),
            "weight_decay": number(0.0, "lambd"),
            "foreach": inert(None),
            "maximize": switch(False, "maximize", True, False),
        },
    ),
    "Muon": Convention(
        Muon,
        "torch.optim.Muon",
        {
            "lr": number(1e-3, "lr"),
            "weight_decay": number(0.1, "weight_decay"),
            "momentum": number(0.95, "momentum"),
            "nesterov": switch(True, "nesterov", True, False),
            "ns_coefficients": Argument((3.4445, -4.775, 2.0315), ("coefficients",), shared=True),
            "eps": number(1e-7, "eps"),
            "ns_steps": number(5, "steps"),
            "adjust_lr_fn": Argument(
                None,
                ("scale",),
                {None: "original", "original": "original", "match_rms_adamw": "match_rms_adamw"},
                closed=True,
            ),
        },
        {"precision": "bfloat16", **SCALED},
        counted=False,
    ),
}

TORCH = Framework(
    "torch",
    "torch.optim.{}",
    "lr",
    {name: replace(convention, saved=True) for name, convention in _NAMES.items()},
    {
        "LBFGS": "it asks for the loss several times a step; thalweg.curvature has second-order methods",
        "SparseAdam": "it steps only the rows that a sparse gradient has",
    },
)
"""Torch's names."""
