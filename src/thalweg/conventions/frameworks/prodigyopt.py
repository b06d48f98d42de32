"""The meaning of the names of prodigyopt 1.1.2 and dadaptation 3.2, according to their source code."""

import math
from typing import Any

from thalweg.conventions.meaning import (
    INTO_RULE,
    Argument,
    Convention,
    Framework,
    inert,
    number,
    refused,
    several,
    switch,
)
from thalweg.rules import DAdaptAdam, Prodigy

_SHARDED = "gradients that are sharded over processes are not supported by rules with totals"


def _arguments(decouple: bool) -> dict[str, Argument]:
    """The arguments that both have."""
    return {
        "lr": number(1.0, "lr"),
        "betas": several((0.9, 0.999), "beta1", "beta2"),
        "eps": number(1e-8, "eps"),
        "weight_decay": number(0, "weight_decay"),
        "decouple": switch(decouple, "decay_form", INTO_RULE, "l2"),
        "use_bias_correction": switch(False, "bias_correction", True, False),
        "d0": number(1e-6, "d0"),
        "growth_rate": number(math.inf, "growth", {math.inf: None}),
        "fsdp_in_use": refused(False, _SHARDED),
    }


def _no_decay(found: dict[str, Any]) -> None:
    """The rules' own decay is a number, also where there is none."""
    found["lambd"] = found.get("lambd") or 0.0


PRODIGYOPT = Framework(
    "prodigyopt",
    "prodigyopt.{}",
    "lr",
    {
        "Prodigy": Convention(
            Prodigy,
            "prodigyopt.Prodigy",
            {
                **_arguments(True),
                "beta3": number(None, "beta3"),
                "safeguard_warmup": switch(False, "safeguard", True, False),
                "d_coef": number(1.0, "d_coef"),
                "slice_p": refused(1, "all elements count for the estimate"),
            },
            together=_no_decay,
        ),
    },
)
"""The names of prodigyopt."""

DADAPTATION = Framework(
    "dadaptation",
    "dadaptation.{}",
    "lr",
    {
        "DAdaptAdam": Convention(
            DAdaptAdam, "dadaptation.DAdaptAdam", {**_arguments(False), "log_every": inert(0)}, together=_no_decay
        ),
    },
    dict.fromkeys(
        ("DAdaptSGD", "DAdaptAdaGrad", "DAdaptLion", "DAdaptAdan"), "its form of D-Adaptation is not translated"
    ),
)
"""The names of dadaptation."""
