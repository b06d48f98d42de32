"""The meaning of pytorch_optimizer 4.1.0's names, according to its source code."""

from typing import Any

from thalweg.conventions.frameworks.muons import flagged
from thalweg.conventions.frameworks.shared import TRUST, Arguments
from thalweg.conventions.meaning import (
    INTO_RULE,
    NOWHERE,
    Argument,
    Convention,
    Framework,
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
    CAME,
    LAMB,
    MADGRAD,
    MARS,
    SM3,
    SOAP,
    AdaBelief,
    Adam,
    Adan,
    AdEMAMix,
    Grams,
    LaProp,
    Lion,
    Muon,
    Shampoo,
    StableAdamW,
    Tiger,
    Yogi,
)


def _arguments(
    rate: float, own: Arguments, *, decay: float = 0.0, decouple: bool, on: str = "scaled", off: str = "l2"
) -> Arguments:
    """The package's arguments: the rate, the optimizer's own, and those of all optimizers.

    Args:
        decay: the default weight decay.
        decouple: the default of ``weight_decouple``.
        on: the form of weight decay with ``weight_decouple``.
        off: the form without.
    """
    return {
        "lr": number(rate, "lr"),
        **own,
        "weight_decay": number(decay, "weight_decay"),
        "weight_decouple": switch(decouple, "decay_form", on, off),
        "maximize": switch(False, "maximize", True, False),
        **({} if "foreach" in own else {"foreach": inert(None)}),
    }


_FIXED = {
    "fixed_decay": refused(
        False, "write decay_form='independent' of thalweg.Optimizer, which is the same while the rate is constant"
    )
}
_WHOLE = "its sums over whole tensors are not translated"
_CAUTIOUS = {"cautious": switch(False, "cautious", "count", False)}
_STABLE = {"stable_adamw": refused(False, _WHOLE)}
_ADANORM = {"adanorm": refused(False, _WHOLE)}
_DEBIAS = {"adam_debias": refused(False, "both moments are corrected for their start at zero")}
_DECAYS = {"betas": several((0.9, 0.999), "beta1", "beta2")}
_EPS = {"eps": number(1e-8, "eps")}


def _normed(settings: dict[str, Any]) -> None:
    """LAMB clips by the global norm only if asked to; its own decay is a number, also where there is none."""
    _no_decay(settings)
    if not settings["pre_norm"]:
        settings["clip_norm"] = None


def _relative(settings: dict[str, Any]) -> None:
    """The rate of vectors is a factor of the other."""
    settings["vector_rate"] = settings["vector_rate"] / settings["lr"] if settings["lr"] else 0.0


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


_NAMES = {
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
    "AdaBelief": Convention(
        AdaBelief,
        "pytorch_optimizer.AdaBelief",
        _arguments(
            1e-3,
            {
                **_DECAYS,
                "eps": shared(1e-16, "eps", "eps_root"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "rectify": refused(False, "AdaBelief has no rectified rate here; thalweg.rules.RAdam has"),
                "n_sma_threshold": inert(5),
                "degenerated_to_sgd": inert(True),
                **_FIXED,
                **_ADANORM,
                **_DEBIAS,
            },
            decouple=True,
        ),
    ),
    "Yogi": Convention(
        Yogi,
        "pytorch_optimizer.Yogi",
        _arguments(
            1e-2,
            {
                **_DECAYS,
                "initial_accumulator": number(1e-6, "initial_accumulator"),
                "eps": number(1e-3, "eps"),
                **_FIXED,
                **_DEBIAS,
            },
            decouple=True,
        ),
    ),
    "Adan": Convention(
        Adan,
        "pytorch_optimizer.Adan",
        {
            **_arguments(
                1e-3,
                {
                    "betas": several((0.98, 0.92, 0.99), "beta1", "beta2", "beta3"),
                    "eps": shared(1e-8, "eps", "clip_eps"),
                    "max_grad_norm": unset(0.0, "clip_norm"),
                    "use_gc": refused(False, _WHOLE),
                    **_ADANORM,
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
        _arguments(
            1e-3,
            {
                "betas": several((0.9, 0.999, 0.9999), "beta1", "beta2", "beta3"),
                "alpha": number(5.0, "alpha"),
                "t_alpha_beta3": number(None, "warmup"),
                **_EPS,
                **_FIXED,
                "cautious": refused(False, "it masks one moment; thalweg.rules.Cautious masks the whole step"),
                **_STABLE,
            },
            decouple=False,
        ),
    ),
    "ADOPT": Convention(
        ADOPT,
        "pytorch_optimizer.ADOPT",
        _arguments(
            1e-3,
            {
                "betas": several((0.9, 0.9999), "beta1", "beta2"),
                "clip_lambda": Argument("step ** 0.25", ("clip",), {"step ** 0.25": "current", None: False}, True),
                "eps": number(1e-6, "eps"),
                **_FIXED,
                **_CAUTIOUS,
                **_STABLE,
            },
            decouple=False,
        ),
    ),
    "LaProp": Convention(
        LaProp,
        "pytorch_optimizer.LaProp",
        _arguments(
            4e-4,
            {
                **_DECAYS,
                "centered": switch(False, "centered", True, False),
                "steps_before_using_centered": number(10, "t0"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "eps": number(1e-15, "eps"),
                "foreach": Argument(None, ("numbers_in",), {None: "float32", True: "float32", False: "float64"}, True),
                **_FIXED,
                "cautious": refused(False, "its weight decay, which is not masked, is inside the rule here"),
            },
            decouple=True,
            on=INTO_RULE,
            off=NOWHERE,
        ),
        {"form": "velocity", "eps_at": "uncorrected", "eps_root": 1e-15},
    ),
    "Grams": Convention(
        Grams,
        "pytorch_optimizer.Grams",
        _arguments(1e-3, {**_DECAYS, "eps": number(1e-6, "eps")}, decouple=True, off=NOWHERE),
    ),
    "MADGRAD": Convention(
        MADGRAD,
        "pytorch_optimizer.MADGRAD",
        _arguments(1e-3, {"momentum": unset(0.9, "momentum"), "eps": unset(1e-6, "eps")}, decouple=False, on=INTO_RULE),
    ),
    "CAME": Convention(
        CAME,
        "pytorch_optimizer.CAME",
        _arguments(
            2e-4,
            {
                "betas": several((0.9, 0.999, 0.9999), "beta1", "beta2", "beta3"),
                "clip_threshold": number(1.0, "clip"),
                "ams_bound": switch(False, "amsgrad", True, False),
                "eps1": number(1e-30, "eps"),
                "eps2": number(1e-16, "eps_res"),
                **_FIXED,
            },
            decouple=True,
        ),
    ),
    "Lion": Convention(
        Lion,
        "pytorch_optimizer.Lion",
        _arguments(
            1e-4,
            {
                "betas": several((0.9, 0.99), "beta1", "beta2"),
                **_FIXED,
                "use_gc": refused(False, _WHOLE),
                **_ADANORM,
                **_CAUTIOUS,
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
            for name, argument in _arguments(
                1e-3,
                {
                    "momentum": number(0.0, "momentum"),
                    "preconditioning_compute_steps": number(1, "every"),
                    "matrix_eps": number(1e-6, "eps"),
                    **_FIXED,
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
        _arguments(
            1e-3,
            {
                **_DECAYS,
                "rectify": refused(False, "LAMB has no rectified rate here"),
                "degenerated_to_sgd": inert(False),
                "n_sma_threshold": inert(5),
                "grad_averaging": switch(True, "grad_averaging", True, False),
                "max_grad_norm": unset(1.0, "clip_norm"),
                "adam": refused(False, "the step is then Adam's; write thalweg.rules.Adam"),
                "pre_norm": switch(False, "pre_norm", True, False),
                "eps": shared(1e-6, "eps", "trust_eps", "clip_eps"),
                **_FIXED,
                **_ADANORM,
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
        _arguments(
            1e-3,
            {"betas": several((0.9, 0.99), "beta1", "beta2"), "kahan_sum": inert(True), **_EPS},
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
            "mars_type": refused("adamw", "the forms of Lion and Shampoo are not translated"),
            "optimize_1d": switch(False, "form", "all", "matrices"),
            "lr_1d": number(3e-3, "vector_rate"),
            "betas_1d": several((0.9, 0.95), "vector_beta1", "vector_beta2"),
            "weight_decay": number(0.0, "lambd"),
            "weight_decay_1d": number(0.1, "vector_lambd"),
            "weight_decouple": refused(True, "otherwise it is added to the gradient that the next step subtracts"),
            **_FIXED,
            "ams_bound": switch(False, "amsgrad", True, False),
            "cautious": switch(False, "cautious", True, False),
            **_EPS,
            "maximize": switch(False, "maximize", True, False),
            "foreach": inert(None),
        },
        {"eps_root": 1e-15},
        together=_relative,
    ),
    "Tiger": Convention(
        Tiger,
        "pytorch_optimizer.Tiger",
        _arguments(1e-3, {"beta": number(0.965, "momentum"), **_FIXED}, decay=1e-2, decouple=True),
    ),
}

PYTORCH_OPTIMIZER = Framework(
    "pytorch_optimizer",
    "pytorch_optimizer.{}",
    "lr",
    _NAMES,
    {
        "LARS": TRUST,
        "Prodigy": "it adds up its sums in float32, one parameter after the other; prodigyopt's is translated",
        "AdaMuon": "its second moment of orthogonal matrices is not translated",
    },
    any_case=True,
    notes=(
        "Names may be written in lower case, as for `pytorch_optimizer.load_optimizer`.",
        "`weight_decouple`: with `'lambd'` the weight decay is the rule's own, at the end of its step; with `'none'` "
        "it has no effect, because the package adds it to the gradient after the gradient was used.",
        "`LaProp` rounds the correction of its momentum to float32, whatever the parameters are, unless given "
        "`foreach=False`; the rule rounds there, too. `Adan` adds up the norm for `max_grad_norm` in float32, and so "
        "does `Lamb` with `pre_norm`: `clip_in='float32'`.",
    ),
)
"""The names of pytorch_optimizer."""
