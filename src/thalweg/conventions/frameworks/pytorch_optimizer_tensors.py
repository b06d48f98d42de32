"""The meaning of pytorch_optimizer's rules that see whole tensors and matrices."""

import math
from typing import Any

import torch

from thalweg.conventions.frameworks.muons import flagged
from thalweg.conventions.frameworks.pytorch_optimizer_arguments import ADANORM, DECAYS, EPS, FIXED, arguments
from thalweg.conventions.frameworks.shared import Arguments
from thalweg.conventions.meaning import (
    INTO_RULE,
    NOWHERE,
    Argument,
    Convention,
    inert,
    number,
    refused,
    several,
    shared,
    switch,
    unset,
)
from thalweg.rules import (
    CAME,
    LAMB,
    LARS,
    MARS,
    SM3,
    SOAP,
    Adafactor,
    Adam,
    DAdaptAdam,
    Fromage,
    Muon,
    NovoGrad,
    Prodigy,
    Shampoo,
    StableAdamW,
)


def _normed(settings: dict[str, Any]) -> None:
    """LAMB clips by the global norm only if asked to; its own decay is a number, also where there is none."""
    _no_decay(settings)
    if not settings["pre_norm"]:
        settings["clip_norm"] = None


def _relative(settings: dict[str, Any]) -> None:
    """The rate of vectors is a factor of the other; matrices are made orthogonal in bfloat16."""
    settings["vector_rate"] = settings["vector_rate"] / settings["lr"] if settings["lr"] else 0.0
    if settings["kind"] == "shampoo":
        settings["precision"] = "bfloat16"


_MERGED = "each axis has a factor of its own; reshape the parameter, so that small axes are one"


def _no_decay(found: dict[str, Any]) -> None:
    """The rule's own decay is a number, also where there is none."""
    found["lambd"] = found.get("lambd") or 0.0


_ADAMW = {
    "adamw_lr": number(3e-4, "lr"),
    "adamw_betas": several((0.9, 0.95), "beta1", "beta2"),
    "adamw_wd": number(0.0, "weight_decay"),
    "adamw_eps": number(1e-10, "eps"),
}
_OF_ALL = {
    "weight_decouple": switch(True, "decay_form", "scaled", "l2"),
    "maximize": switch(False, "maximize", True, False),
    "foreach": inert(None),
}


def _muon(source: str, own: Arguments, fixed: dict[str, Any]) -> Convention:
    """Muon's form for the groups that say so, and AdamW's for all others."""
    arguments: Arguments = {
        "lr": number(2e-2, "lr"),
        "momentum": number(0.95, "momentum"),
        "weight_decay": number(0.0, "weight_decay"),
        "nesterov": switch(True, "nesterov", True, False),
        "ns_steps": number(5, "steps"),
        "ns_coeffs": Argument("original", ("coefficients",), shared=True),
        "use_adjusted_lr": switch(False, "scale", "match_rms_adamw", "original"),
        **own,
    }
    return Convention(
        Muon,
        source,
        {**arguments, **{name: inert(x.default) for name, x in _ADAMW.items()}, **_OF_ALL},
        {"precision": "bfloat16", **fixed},
        counted=False,
        others=Convention(
            Adam,
            source,
            {**{name: inert(x.default) for name, x in arguments.items()}, **_ADAMW, **_OF_ALL},
            counted=False,
            group=lambda settings, steps: {
                "use_muon": False,
                "step": steps,
                "lr": settings["adamw_lr"],
                "betas": settings["adamw_betas"],
                "weight_decay": settings["adamw_wd"],
                "eps": settings["adamw_eps"],
            },
        ),
        saved=True,
        group=lambda settings, steps: {"use_muon": True, "step": steps},
        chosen=flagged,
        flags=("use_muon",),
        group_names={"lr": "adamw_lr", "betas": "adamw_betas", "weight_decay": "adamw_wd", "eps": "adamw_eps"},
    )


def _without_momentum(found: dict[str, Any]) -> None:
    """Dampening and Nesterov's step belong to the momentum."""
    if not found["momentum"]:
        found |= {"dampening": 0.0, "nesterov": False}


def _relative_step(found: dict[str, Any]) -> None:
    """The relative rate is at most 0.01, whatever `lr` is; an own decay is a number, also where there is none."""
    _no_decay(found)
    if found["relative"]:
        found["lr"] = 1e-2


def _estimated(own: Arguments, *, decouple: bool, off: str) -> Arguments:
    """The arguments of the optimizers that estimate the distance to the solution."""
    both: Arguments = {
        **DECAYS,
        "d0": number(1e-6, "d0"),
        "growth_rate": number(math.inf, "growth", {math.inf: None}),
        **own,
        "bias_correction": switch(False, "bias_correction", True, False),
        **FIXED,
        **EPS,
    }
    return arguments(1.0, both, decouple=decouple, on=INTO_RULE, off=off)


TENSORS = {
    "LARS": Convention(
        LARS,
        "pytorch_optimizer.LARS",
        {
            "lr": number(1e-3, "lr"),
            "weight_decay": number(0.0, "lambd"),
            "momentum": number(0.9, "momentum"),
            "dampening": number(0.0, "dampening"),
            "trust_coefficient": number(1e-3, "trust"),
            "nesterov": switch(False, "nesterov", True, False),
            "foreach": inert(None),
            "maximize": switch(False, "maximize", True, False),
        },
        {"form": "accumulated", "ratio": "parts", "scaled": "matrices"},
        together=_without_momentum,
    ),
    "NovoGrad": Convention(
        NovoGrad,
        "pytorch_optimizer.NovoGrad",
        arguments(
            1e-3,
            {
                "betas": several((0.95, 0.98), "beta1", "beta2"),
                "grad_averaging": switch(False, "grad_averaging", True, False),
                **EPS,
                **FIXED,
                "adam_debias": refused(False, "the rate is that of every step"),
            },
            decouple=False,
            off=INTO_RULE,
        ),
        together=_no_decay,
    ),
    "Fromage": Convention(
        Fromage,
        "pytorch_optimizer.Fromage",
        {
            "lr": number(1e-2, "lr"),
            "p_bound": refused(None, "norms of parameters are not bounded here"),
            "maximize": switch(False, "maximize", True, False),
            "foreach": inert(None),
        },
        {"least": 0.0},
    ),
    "AdaFactor": Convention(
        Adafactor,
        "pytorch_optimizer.AdaFactor",
        arguments(
            1e-3,
            {
                "betas": several((0.9, 0.999), "momentum", "beta2"),
                "decay_rate": number(-0.8, "decay"),
                "clip_threshold": number(1.0, "clip"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "scale_parameter": switch(True, "parameter_scale", True, False),
                "relative_step": switch(True, "relative", True, False),
                "warmup_init": refused(False, "give thalweg.Optimizer a schedule"),
                "eps1": number(1e-30, "eps"),
                "eps2": number(1e-3, "eps_scale"),
                "momentum_dtype": Argument(
                    torch.bfloat16,
                    ("momentum_in",),
                    {torch.bfloat16: "bfloat16", torch.float32: "float32", torch.float64: "full"},
                    closed=True,
                ),
                **FIXED,
            },
            decouple=True,
            on=INTO_RULE,
        ),
        {"eps_at": "squares", "decay_at": "step"},
        together=_relative_step,
    ),
    "Prodigy": Convention(
        Prodigy,
        "pytorch_optimizer.Prodigy",
        _estimated(
            {
                "beta3": number(None, "beta3"),
                "d_coef": number(1.0, "d_coef"),
                "safeguard_warmup": switch(False, "safeguard", True, False),
            },
            decouple=True,
            off=NOWHERE,
        ),
        together=_no_decay,
    ),
    "DAdaptAdam": Convention(
        DAdaptAdam, "pytorch_optimizer.DAdaptAdam", _estimated({}, decouple=False, off="l2"), together=_no_decay
    ),
    "Muon": _muon(
        "pytorch_optimizer.Muon",
        {
            "ns_method": refused("newton_schulz", "the iteration is that of Newton and Schulz"),
            "ns_reset_steps": inert((2,)),
        },
        {"eps": 1e-7},
    ),
    "NorMuon": _muon(
        "pytorch_optimizer.NorMuon",
        {
            "beta2": number(0.95, "beta2"),
            "update_scale": Argument(
                "preserve_norm", ("row_norms",), {"preserve_norm": "preserved", "match_rms": "fixed"}, closed=True
            ),
            "eps": number(1e-10, "eps"),
        },
        {},
    ),
    "CAME": Convention(
        CAME,
        "pytorch_optimizer.CAME",
        arguments(
            2e-4,
            {
                "betas": several((0.9, 0.999, 0.9999), "beta1", "beta2", "beta3"),
                "clip_threshold": number(1.0, "clip"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "eps1": number(1e-30, "eps"),
                "eps2": number(1e-16, "eps_res"),
                **FIXED,
            },
            decouple=True,
        ),
    ),
    "SOAP": Convention(
        SOAP,
        "pytorch_optimizer.SOAP",
        {
            "lr": number(3e-3, "lr"),
            "betas": several((0.95, 0.95), "beta1", "beta2"),
            "shampoo_beta": number(None, "factor_beta"),
            "weight_decay": number(1e-2, "lambd"),
            "precondition_frequency": number(10, "every"),
            "max_precondition_dim": number(10000, "max_size"),
            "merge_dims": refused(False, _MERGED),
            "precondition_1d": switch(False, "vectors", True, False),
            "correct_bias": switch(True, "bias_correction", True, False),
            "normalize_gradient": switch(False, "normalize", True, False),
            "data_format": refused("channels_first", _MERGED),
            "eps": number(1e-8, "eps"),
            "maximize": switch(False, "maximize", True, False),
        },
        {"precision": "float32"},
    ),
    "Shampoo": Convention(
        Shampoo,
        "pytorch_optimizer.Shampoo",
        {
            name: argument
            for name, argument in arguments(
                1e-3,
                {
                    "momentum": number(0.0, "momentum"),
                    "preconditioning_compute_steps": number(1, "every"),
                    "matrix_eps": number(1e-6, "eps"),
                    **FIXED,
                },
                decouple=False,
                off=INTO_RULE,
            ).items()
            if name != "foreach"
        },
        together=_no_decay,
    ),
    "SM3": Convention(
        SM3,
        "pytorch_optimizer.SM3",
        {
            "lr": number(1e-1, "lr"),
            "momentum": number(0.0, "momentum"),
            "beta": unset(0.0, "beta2"),
            "eps": number(1e-30, "eps"),
            "maximize": switch(False, "maximize", True, False),
            "foreach": inert(None),
        },
    ),
    "Lamb": Convention(
        LAMB,
        "pytorch_optimizer.Lamb",
        arguments(
            1e-3,
            {
                **DECAYS,
                "rectify": refused(False, "LAMB has no rectified rate here"),
                "degenerated_to_sgd": inert(False),
                "n_sma_threshold": inert(5),
                "grad_averaging": switch(True, "grad_averaging", True, False),
                "max_grad_norm": unset(1.0, "clip_norm"),
                "adam": refused(False, "the step is then Adam's; write thalweg.rules.Adam"),
                "pre_norm": switch(False, "pre_norm", True, False),
                "eps": shared(1e-6, "eps", "trust_eps", "clip_eps"),
                **FIXED,
                **ADANORM,
                "adam_debias": switch(False, "bias_correction", False, "rate"),
            },
            decouple=True,
            off=INTO_RULE,
        ),
        {"most": 10.0, "clip_in": "float32"},
        together=_normed,
    ),
    "StableAdamW": Convention(
        StableAdamW,
        "pytorch_optimizer.StableAdamW",
        arguments(
            1e-3,
            {"betas": several((0.9, 0.99), "beta1", "beta2"), "kahan_sum": inert(True), **EPS},
            decay=1e-2,
            decouple=True,
            on=INTO_RULE,
        ),
    ),
    "MARS": Convention(
        MARS,
        "pytorch_optimizer.MARS",
        {
            "lr": number(3e-3, "lr"),
            "betas": several((0.95, 0.99), "beta1", "beta2"),
            "gamma": number(0.025, "gamma"),
            "mars_type": Argument("adamw", ("kind",), {x: x for x in ("adamw", "lion", "shampoo")}, closed=True),
            "optimize_1d": switch(False, "form", "all", "matrices"),
            "lr_1d": number(3e-3, "vector_rate"),
            "betas_1d": several((0.9, 0.95), "vector_beta1", "vector_beta2"),
            "weight_decay": number(0.0, "lambd"),
            "weight_decay_1d": number(0.1, "vector_lambd"),
            "weight_decouple": refused(True, "otherwise it is added to the gradient that the next step subtracts"),
            **FIXED,
            "ams_bound": switch(False, "amsgrad", True, False),
            "cautious": switch(False, "cautious", True, False),
            **EPS,
            "maximize": switch(False, "maximize", True, False),
            "foreach": inert(None),
        },
        {"eps_root": 1e-15},
        together=_relative,
    ),
}
