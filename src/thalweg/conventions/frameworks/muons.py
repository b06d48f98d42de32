"""The meaning of Muon's names in the repositories that have it: Keller Jordan's, Moonlight's, dion's and timm's.

According to the source code of KellerJordan/Muon (00ba60d), MoonshotAI/Moonlight's example, microsoft/dion (NorMuon at
0333cc1) and timm 1.0.31.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from thalweg.conventions.frameworks.shared import SCALED, UNCORRECTED, Arguments
from thalweg.conventions.meaning import Argument, Convention, Framework, inert, number, refused, several, switch
from thalweg.rules import Adam, Lion, Muon

_FLAGS = ("use_muon", "use_fallback", "algorithm")
_NESTEROV = switch(True, "nesterov", True, False)
_BFLOAT16 = {"precision": "bfloat16", **SCALED}
_AS_ADDED = {"eps": 1e-7, "eps_at": "added"}


def flagged(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether a parameter is for Muon, which its group says; ``ValueError`` if it does not."""
    if "use_muon" not in group:
        raise ValueError("a group has no use_muon; set it to True for hidden matrices and to False for all others")
    return bool(group["use_muon"])


# Keller Jordan's

_KELLERS: Arguments = {
    "lr": number(0.02, "lr"),
    "weight_decay": number(0, "weight_decay"),
    "momentum": number(0.95, "momentum"),
}
_AUXILIARY = Convention(
    Adam,
    "Adam in KellerJordan/Muon",
    {
        "lr": number(3e-4, "lr"),
        "betas": several((0.9, 0.95), "beta1", "beta2"),
        "eps": number(1e-10, "eps"),
        "weight_decay": number(0, "weight_decay"),
    },
    SCALED,
    group=lambda settings, steps: {"use_muon": False},
)


def _always(p: Tensor, group: Mapping[str, Any]) -> bool:
    return True


def _using(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    return {"use_muon": True}


def _kellers(name: str, auxiliary: bool) -> Convention:
    return Convention(
        Muon,
        f"KellerJordan/Muon, muon.{name}",
        _KELLERS,
        {"scale": "last", **_AS_ADDED, **_BFLOAT16},
        counted=False,
        others=_AUXILIARY if auxiliary else None,
        chosen=flagged if auxiliary else _always,
        flags=_FLAGS,
        saved=True,
        group=_using if auxiliary else None,
    )


KELLER = Framework(
    "muon",
    "muon.{}",
    "lr",
    {
        name: _kellers(name, name.endswith("Adam"))
        for name in ("SingleDeviceMuon", "Muon", "SingleDeviceMuonWithAuxAdam", "MuonWithAuxAdam")
    },
    notes=(
        "This is K. Jordan's repository, whose module is called `muon`. The scale of a kernel of a convolution is that "
        "of its last two axes there, `scale='last'`; a missing gradient, which counts as zero there, is left out.",
    ),
)
"""The names of K. Jordan's repository."""

# Moonlight's

MOONLIGHT = Framework(
    "moonlight",
    "moonlight.{}",
    "lr",
    {
        "Muon": Convention(
            Muon,
            "MoonshotAI/Moonlight, examples/toy_train.py",
            {
                "lr": number(1e-3, "lr"),
                "wd": number(0.1, "weight_decay"),
                "momentum": number(0.95, "momentum"),
                "nesterov": _NESTEROV,
                "ns_steps": number(5, "steps"),
                "adamw_betas": inert((0.9, 0.95)),
                "adamw_eps": inert(1e-8),
            },
            {"form": "accumulated", "scale": "match_rms_adamw", **_AS_ADDED, **_BFLOAT16},
            counted=False,
            others=Convention(
                Adam,
                "AdamW in Moonlight",
                {
                    "lr": number(1e-3, "lr"),
                    "wd": number(0.1, "weight_decay"),
                    "adamw_betas": several((0.9, 0.95), "beta1", "beta2"),
                    "adamw_eps": number(1e-8, "eps"),
                },
                SCALED,
            ),
            flags=_FLAGS,
            saved=True,
        )
    },
    notes=("Instead of `muon_params` and `adamw_params`, matrices are Muon's and all other parameters are AdamW's.",),
)
"""The names of Moonlight's repository."""

# dion's

_DIONS = {
    "lr": number(0.01, "lr"),
    "mu": number(0.95, "momentum"),
    "betas": inert((0.9, 0.95)),
    "weight_decay": number(0.01, "weight_decay"),
    "nesterov": switch(False, "nesterov", True, False),
    "adjust_lr": Argument(
        "spectral_norm",
        ("scale",),
        {"spectral_norm": "rms_to_rms", "rms_norm": "match_rms_adamw", None: "none"},
        closed=True,
    ),
    "flatten": inert(False),
    "use_triton": inert(False),
}
_DIONS_ADAMW = Convention(
    Adam,
    "AdamW in dion",
    {
        "lr": number(0.01, "lr"),
        "betas": several((0.9, 0.95), "beta1", "beta2"),
        "weight_decay": number(0.01, "weight_decay"),
        "epsilon": number(1e-8, "eps"),
    },
    SCALED,
    counted=False,
    keys={"exp_avg": "momentum", "exp_avg_sq": "variance"},
    group=lambda settings, steps: {**_group(settings, steps), "algorithm": "adamw"},
)


def _dions(p: Tensor, group: Mapping[str, Any]) -> bool:
    algorithm = group.get("algorithm", "muon")
    if algorithm not in ("muon", "normuon", "adamw"):
        raise ValueError(f"a group's algorithm is {algorithm!r}; allowed is 'muon', 'normuon' or 'adamw'")
    if algorithm != "adamw" and p.ndim > 2 and not group.get("flatten"):
        raise ValueError(
            f"a parameter has the shape {tuple(p.shape)}, and without flatten=True dion takes its last two axes for "
            "many matrices, which Muon does not here; give its group flatten=True"
        )
    return algorithm != "adamw"


def _group(settings: dict[str, Any], steps: int) -> dict[str, Any]:
    first, second = settings["betas"]
    return {"beta1": first, "beta2": second, "algorithm": "muon", "step": steps}


def _table(found: dict[str, Any]) -> None:
    """Without Polar Express dion has the table of modded-nanogpt, and no margin."""
    if found.pop("polar_express", False):
        found |= {"coefficients": "dion", "safety": 1.02}


DION = Framework(
    "dion",
    "dion.{}",
    "lr",
    {
        "Muon": Convention(
            Muon,
            "microsoft/dion, dion.Muon",
            {
                **_DIONS,
                "epsilon": number(1e-8, "eps"),
                "use_polar_express": switch(True, "polar_express", True, False),
            },
            {"form": "accumulated", "coefficients": "quintic", "eps_at": "added", **_BFLOAT16},
            counted=False,
            together=_table,
            others=_DIONS_ADAMW,
            chosen=_dions,
            flags=_FLAGS,
            saved=True,
            keys={"momentum_buffer": "momentum"},
            group=_group,
        ),
        "NorMuon": Convention(
            Muon,
            "microsoft/dion, dion.NorMuon",
            {
                **_DIONS,
                "muon_beta2": number(0.95, "beta2"),
                "cautious_wd": refused(False, "weight decay does not depend on the step here"),
                "epsilon": refused(1e-8, "the norms of rows have another ε there, 1e-8"),
                "use_polar_express": switch(True, "polar_express", True, False),
                "use_gram_newton_schulz": refused(False, "the iteration is that of Newton and Schulz"),
            },
            {"form": "accumulated", "coefficients": "quintic", "row_norms": "preserved", "eps": 1e-8,
             "eps_at": "added", **_BFLOAT16},
            counted=False,
            together=_table,
            others=_DIONS_ADAMW,
            chosen=_dions,
            flags=_FLAGS,
            saved=True,
            keys={"momentum_buffer": "momentum", "second_momentum_buffer": "variance_neuron"},
            group=lambda settings, steps: {**_group(settings, steps), "algorithm": "normuon"},
        ),
    },
    notes=("A group's `algorithm` says whether it is Muon's or AdamW's, as in dion.",),
)  # fmt: skip
"""The names of dion."""

# timm's


def _suitable(p: Tensor, group: Mapping[str, Any]) -> bool:
    """Whether timm steps a parameter by Muon: by the group's flags, or else by its shape."""
    if group.get("use_fallback"):
        return False
    if "use_muon" in group:
        return bool(group["use_muon"])
    shape = p.shape
    if p.ndim < 2 or sum(n > 1 for n in shape) < 2 or 1 in shape[:2]:
        return False
    sides = shape[0], math.prod(shape[1:])
    return min(sides) >= 4 and max(sides) <= 128 * min(sides)


def _fallback(found: dict[str, Any]) -> None:
    found["lr"] *= found.pop("share")


_TIMMS = {
    "lr": number(0.02, "lr"),
    "weight_decay": number(0, "weight_decay"),
    "momentum": number(0.95, "momentum"),
    "nesterov": switch(False, "nesterov", True, False),
    "ns_steps": number(5, "steps"),
    "ns_coefficients": Argument("quintic", ("coefficients",), shared=True),
    "eps": number(1e-7, "eps"),
    "safety_factor": number(1.0, "safety"),
    "adjust_lr_fn": Argument(
        "match_rms_adamw",
        ("scale",),
        {"original": "original", "match_rms_adamw": "match_rms_adamw", "rms_to_rms": "rms_to_rms", None: "none"},
        closed=True,
    ),
    "conv_mode": refused("flatten", "kernels of convolutions are matrices of their first axis by all others"),
    "normalize_spatial": inert(True),
    "fallback_lr_scale": inert(1.0),
    "betas": inert((0.9, 0.95)),
    "algo": refused("muon", "AdaMuon's second moment is not translated"),
    "scale_eps": refused(False, "ε does not depend on the shape here"),
    "capturable": inert(False),
    "verbose": inert(False),
}
_LIONS = {
    "lr": number(1e-4, "lr"),
    "betas": several((0.9, 0.99), "beta1", "beta2"),
    "weight_decay": number(0.0, "weight_decay"),
}
_CAUTION = {
    "caution": switch(False, "cautious", "mean", False),
    "corrected_weight_decay": refused(False, "weight decay is proportional to the rate, not to its square"),
    "maximize": switch(False, "maximize", True, False),
    "foreach": inert(None),
}


TIMM = Framework(
    "timm",
    "timm.optim.{}",
    "lr",
    {
        "Muon": Convention(
            Muon,
            "timm.optim.Muon",
            _TIMMS,
            _BFLOAT16,
            counted=False,
            others=Convention(
                Adam,
                "AdamW in timm.optim.Muon",
                {
                    "lr": number(0.02, "lr"),
                    "weight_decay": number(0, "weight_decay"),
                    "betas": several((0.9, 0.95), "beta1", "beta2"),
                    "eps": number(1e-7, "eps"),
                    "fallback_lr_scale": number(1.0, "share"),
                    "nesterov": refused(False, "its form of NAdamW is not translated; give vectors an own optimizer"),
                },
                SCALED,
                together=_fallback,
            ),
            chosen=_suitable,
            flags=_FLAGS,
            saved=True,
        ),
        "AdamWLegacy": Convention(
            Adam,
            "timm.optim.AdamWLegacy",
            {
                "lr": number(1e-3, "lr"),
                "betas": several((0.9, 0.999), "beta1", "beta2"),
                "eps": number(1e-8, "eps"),
                "weight_decay": number(1e-2, "weight_decay"),
                "amsgrad": switch(False, "amsgrad", True, False),
                **_CAUTION,
                "capturable": inert(False),
                "clipping_threshold": refused(None, "thalweg.rules.StableAdamW bounds the size of its update"),
            },
            SCALED,
            saved=True,
        ),
        "Lion": Convention(
            Lion,
            "timm.optim.Lion",
            {**_LIONS, **_CAUTION},
            SCALED,
            counted=False,
            saved=True,
        ),
    },
    notes=("Parameters that are too small or too long for Muon are AdamW's, as in timm.",),
)
"""The names of timm."""

# those of "Cautious Optimizers"

C_OPTIM = Framework(
    "c_optim",
    "c_optim.{}",
    "lr",
    {
        "AdamW": Convention(
            Adam,
            "kyleliang919/C-Optim, c_adamw.AdamW",
            {
                "lr": number(1e-3, "lr"),
                "betas": several((0.9, 0.999), "beta1", "beta2"),
                "eps": number(1e-6, "eps"),
                "weight_decay": number(0.0, "weight_decay"),
                "correct_bias": switch(True, "bias_correction", True, False),
                "no_deprecation_warning": inert(False),
            },
            {"cautious": "mean", **UNCORRECTED, **SCALED},
            saved=True,
        ),
        "Lion": Convention(
            Lion,
            "kyleliang919/C-Optim, c_lion.Lion",
            _LIONS,
            {"cautious": "count", **SCALED},
            counted=False,
            saved=True,
        ),
    },
    {"Muon": "it leaves elements out before the matrix is made orthogonal"},
    notes=('This is the code of Liang et al. 2024, "Cautious Optimizers".',),
)
"""The names of the authors' code of cautious optimizers."""
