"""The meaning of pytorch_optimizer's rules that step each element by itself."""

import math
from typing import Any

from thalweg.conventions.frameworks.pytorch_optimizer_arguments import (
    ADANORM,
    CAUTIOUS,
    CENTRED,
    DEBIAS,
    DECAYS,
    EPS,
    FIXED,
    STABLE,
    arguments,
)
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
    ADOPT,
    MADGRAD,
    SGD,
    AdaBelief,
    Adam,
    Adan,
    AdEMAMix,
    Grams,
    LaProp,
    Lion,
    RAdam,
    ScheduleFree,
    Tiger,
    Yogi,
)


def _schedule_free(rate: float, own: Arguments) -> Arguments:
    """The arguments of the forms of Schedule-Free."""
    return {
        "lr": number(rate, "lr"),
        **own,
        "weight_decay": unset(0.0, "lambd"),
        "r": number(0.0, "r"),
        "weight_lr_power": number(2.0, "power"),
        "maximize": switch(False, "maximize", True, False),
        "foreach": inert(None),
    }


def _precise(found: dict[str, Any]) -> None:
    """LaProp's cautious steps are those of ``foreach=False``."""
    if found["cautious"]:
        found["numbers_in"] = "float64"


_WARMUP = {"warmup_steps": unset(0, "warmup")}

ELEMENTS = {
    "ScheduleFreeSGD": Convention(
        ScheduleFree(SGD()),
        "pytorch_optimizer.ScheduleFreeSGD",
        _schedule_free(1.0, {"momentum": number(0.9, "beta"), **_WARMUP, "eps": inert(1e-8)}),
    ),
    "ScheduleFreeAdamW": Convention(
        ScheduleFree(Adam(beta1=0.0, eps_root=1e-15)),
        "pytorch_optimizer.ScheduleFreeAdamW",
        _schedule_free(
            2.5e-3,
            {
                "betas": several((0.9, 0.999), "beta", "beta2"),
                **_WARMUP,
                "decoupling_c": unset(0, "decoupling"),
                "ams_bound": switch(False, "amsgrad", "corrected", False),
                **EPS,
            },
        ),
    ),
    "ScheduleFreeRAdam": Convention(
        ScheduleFree(RAdam(beta1=0.0, threshold=math.nextafter(4, 5), below="stand")),
        "pytorch_optimizer.ScheduleFreeRAdam",
        _schedule_free(
            2.5e-3,
            {
                "betas": several((0.9, 0.999), "beta", "beta2"),
                "silent_sgd_phase": refused(True, "the first steps have the rate 1 there, whatever lr is"),
                **EPS,
            },
        ),
    ),
    "AdaBelief": Convention(
        AdaBelief,
        "pytorch_optimizer.AdaBelief",
        arguments(
            1e-3,
            {
                **DECAYS,
                "eps": shared(1e-16, "eps", "eps_root"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "rectify": refused(False, "AdaBelief has no rectified rate here; thalweg.rules.RAdam has"),
                "n_sma_threshold": inert(5),
                "degenerated_to_sgd": inert(True),
                **FIXED,
                **ADANORM,
                **DEBIAS,
            },
            decouple=True,
        ),
    ),
    "Yogi": Convention(
        Yogi,
        "pytorch_optimizer.Yogi",
        arguments(
            1e-2,
            {
                **DECAYS,
                "initial_accumulator": number(1e-6, "initial_accumulator"),
                "eps": number(1e-3, "eps"),
                **FIXED,
                **DEBIAS,
            },
            decouple=True,
        ),
    ),
    "Adan": Convention(
        Adan,
        "pytorch_optimizer.Adan",
        {
            **arguments(
                1e-3,
                {
                    "betas": several((0.98, 0.92, 0.99), "beta1", "beta2", "beta3"),
                    "eps": shared(1e-8, "eps", "clip_eps"),
                    "max_grad_norm": unset(0.0, "clip_norm"),
                    "use_gc": CENTRED,
                    **ADANORM,
                },
                decouple=False,
                off=INTO_RULE,
            ),
            "maximize": refused(
                False, "its first difference is then twice the gradient; write maximize=True of thalweg.Optimizer"
            ),
        },
        {"clip_in": "float32"},
    ),
    "AdEMAMix": Convention(
        AdEMAMix,
        "pytorch_optimizer.AdEMAMix",
        arguments(
            1e-3,
            {
                "betas": several((0.9, 0.999, 0.9999), "beta1", "beta2", "beta3"),
                "alpha": number(5.0, "alpha"),
                "t_alpha_beta3": number(None, "warmup"),
                **EPS,
                **FIXED,
                "cautious": switch(False, "cautious", True, False),
                **STABLE,
            },
            decouple=False,
        ),
    ),
    "ADOPT": Convention(
        ADOPT,
        "pytorch_optimizer.ADOPT",
        arguments(
            1e-3,
            {
                "betas": several((0.9, 0.9999), "beta1", "beta2"),
                "clip_lambda": Argument("step ** 0.25", ("clip",), {"step ** 0.25": "current", None: False}, True),
                "eps": number(1e-6, "eps"),
                **FIXED,
                **CAUTIOUS,
                **STABLE,
            },
            decouple=False,
        ),
    ),
    "LaProp": Convention(
        LaProp,
        "pytorch_optimizer.LaProp",
        arguments(
            4e-4,
            {
                **DECAYS,
                "centered": switch(False, "centered", True, False),
                "steps_before_using_centered": number(10, "t0"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "eps": number(1e-15, "eps"),
                "foreach": Argument(None, ("numbers_in",), {None: "float32", True: "float32", False: "float64"}, True),
                **FIXED,
                "cautious": switch(False, "cautious", True, False),
            },
            decouple=True,
            on=INTO_RULE,
            off=NOWHERE,
        ),
        {"form": "velocity", "eps_at": "uncorrected", "eps_root": 1e-15},
        together=_precise,
    ),
    "Grams": Convention(
        Grams,
        "pytorch_optimizer.Grams",
        arguments(1e-3, {**DECAYS, "eps": number(1e-6, "eps")}, decouple=True, off=NOWHERE),
    ),
    "MADGRAD": Convention(
        MADGRAD,
        "pytorch_optimizer.MADGRAD",
        arguments(1e-3, {"momentum": unset(0.9, "momentum"), "eps": unset(1e-6, "eps")}, decouple=False, on=INTO_RULE),
    ),
    "Lion": Convention(
        Lion,
        "pytorch_optimizer.Lion",
        arguments(
            1e-4,
            {
                "betas": several((0.9, 0.99), "beta1", "beta2"),
                **FIXED,
                "use_gc": CENTRED,
                **ADANORM,
                **CAUTIOUS,
            },
            decouple=True,
        ),
    ),
    "Tiger": Convention(
        Tiger,
        "pytorch_optimizer.Tiger",
        arguments(1e-3, {"beta": number(0.965, "momentum"), **FIXED}, decay=1e-2, decouple=True),
    ),
}
