"""The meaning of optax.contrib 0.2.8's names, according to its source code."""

from typing import Any

from thalweg.conventions.frameworks.optax import MASK, MU_DTYPE, arguments, moments
from thalweg.conventions.frameworks.schedulefree import SECOND_MOMENT
from thalweg.conventions.frameworks.shared import SCALED, WRAPS, Arguments
from thalweg.conventions.meaning import Argument, Convention, Framework, inert, number, refused, several, switch, unset
from thalweg.rules import ADOPT, MADGRAD, SGD, Adam, AdEMAMix, DAdaptAdam, DoG, DoWG, Muon, Prodigy, ScheduleFree
from thalweg.rules.orthogonal import TABLES


def _schedule_free(rate: float, own: Arguments, decay: float | None) -> Arguments:
    return {
        "learning_rate": number(rate, "lr"),
        "warmup_steps": number(None, "warmup"),  # over 0 steps the rate stays at 0 there
        **own,
        "weight_decay": unset(decay, "lambd"),
        "weight_lr_power": number(2.0, "power"),
        "state_dtype": refused(None, "thalweg.Optimizer has state_dtype"),
    }


_names = {
    "ademamix": Convention(
        AdEMAMix,
        "optax.contrib.ademamix",
        arguments(
            {
                **moments(),
                "b3": number(0.9999, "beta3"),
                "alpha": number(5.0, "alpha"),
                "eps_root": number(0.0, "eps_root"),
                **MU_DTYPE,
            },
            0.0,
        ),
        SCALED,
    ),
    "adopt": Convention(
        ADOPT,
        "optax.contrib.adopt",
        arguments(
            {
                "b1": number(0.9, "beta1"),
                "b2": number(0.9999, "beta2"),
                "eps": number(1e-6, "eps"),
                **MU_DTYPE,
                "nesterov": switch(False, "nesterov", True, False),
                "use_clipping": switch(True, "clip", "previous", False),
                "clip_value_fn": refused(None, "the limit is the fourth root of the number of steps before this one"),
            }
        ),
    ),
    "schedule_free_adamw": Convention(
        ScheduleFree(SECOND_MOMENT, warmup_from="zero", numbers_in="float32"),
        "optax.contrib.schedule_free_adamw",
        _schedule_free(
            2.5e-3,
            {"b1": number(0.9, "beta"), "b2": number(0.999, "decay"), "eps": number(1e-8, "eps")},
            0.0,
        ),
    ),
    "schedule_free_sgd": Convention(
        ScheduleFree(SGD(), warmup_from="zero", numbers_in="float32"),
        "optax.contrib.schedule_free_sgd",
        _schedule_free(1.0, {"b1": number(0.9, "beta")}, None),
    ),
    "madgrad": Convention(
        MADGRAD,
        "optax.contrib.madgrad",
        arguments(
            {
                "momentum": number(0.9, "momentum"),
                "weight_decay": number(0.0, "weight_decay"),
                "eps": number(1e-6, "eps"),
            }
        ),
        {"at_zero": "moved", "numbers_in": "float32"},
    ),
}

_ESTIMATED = {
    "learning_rate": number(1.0, "lr"),
    "betas": several((0.9, 0.999), "beta1", "beta2"),
    "eps": number(1e-8, "eps"),
    "estim_lr0": number(1e-6, "d0"),
    "weight_decay": number(0.0, "lambd"),
}
_DISTANCE = {"weight_decay": unset(None, "weight_decay", off=0.0), "mask": MASK}
_names |= {
    "prodigy": Convention(
        Prodigy,
        "optax.contrib.prodigy",
        {
            **_ESTIMATED,
            "beta3": number(None, "beta3"),
            "estim_lr_coef": number(1.0, "d_coef"),
            "safeguard_warmup": switch(False, "safeguard", True, False),
        },
        {"bias_correction": True},
    ),
    "dadapt_adamw": Convention(DAdaptAdam, "optax.contrib.dadapt_adamw", _ESTIMATED, {"bias_correction": True}),
    "dog": Convention(
        DoG,
        "optax.contrib.dog",
        {
            "learning_rate": number(1.0, "lr"),
            "init_step": Argument(("heuristic", 1e-6), ("first", "size")),
            "eps": number(1e-8, "eps"),
            **_DISTANCE,
        },
    ),
    "dowg": Convention(
        DoWG,
        "optax.contrib.dowg",
        {
            "learning_rate": number(1.0, "lr"),
            "init_estim_sq_dist": number(None, "first"),
            "eps": number(1e-4, "eps"),
            **_DISTANCE,
        },
    ),
}

_TABLES = {"standard": "original", "dion": "quintic"}


def _muon(own: Arguments) -> Arguments:
    """The arguments of muon, each part of which ignores those of the other."""
    ignored = {
        "ns_coeffs": (3.4445, -4.775, 2.0315), "ns_steps": 5, "beta": 0.95, "eps": 1e-8, "weight_decay": 0.0,
        "nesterov": True, "adaptive": False, "preconditioning": "frobenius", "adam_b1": 0.9, "adam_b2": 0.999,
        "adam_eps_root": 0.0, "adam_weight_decay": 0.0, "adam_learning_rate": None, "consistent_rms": None,
    }  # fmt: skip
    given = {
        "weight_decay_mask": MASK,
        **MU_DTYPE,
        "muon_weight_dimension_numbers": refused(None, "matrices are of inputs by outputs, and all others Adam's"),
    }
    return arguments({name: own.get(name) or inert(default) for name, default in ignored.items()} | given)


def _rows(found: dict[str, Any]) -> None:
    """As many steps as there are rows of coefficients; and optax's scale."""
    rows = found["coefficients"]
    rows = TABLES[rows] if isinstance(rows, str) and rows != "original" else rows
    if not isinstance(rows, str) and isinstance(rows[0], tuple | list):
        if len(rows) > found["steps"]:
            raise ValueError(
                f"optax.contrib's muon's ns_coeffs has {len(rows)} rows; allowed are at most ns_steps={found['steps']}"
            )
        found["steps"] = len(rows)
    if found["normalize"] in ("rows", "schatten"):  # the square of the norm is at least 1e-8, whatever ε
        found |= {"eps": 1e-4, "eps_at": "least"}
    if found["rms"] is None:
        found["rms"] = 0.2
    else:
        found["scale"] = "match_rms_adamw"


def _adam_rate(found: dict[str, Any]) -> None:
    if found["own_lr"] is not None:
        found["lr"] = found["own_lr"]


_names["muon"] = Convention(
    Muon,
    "optax.contrib.muon",
    _muon(
        {
            "ns_coeffs": Argument((3.4445, -4.775, 2.0315), ("coefficients",), _TABLES, shared=True),
            "ns_steps": number(5, "steps"),
            "beta": number(0.95, "momentum"),
            "eps": number(1e-8, "eps"),
            "weight_decay": number(0.0, "weight_decay"),
            "nesterov": switch(True, "nesterov", True, False),
            "adaptive": switch(False, "adaptive", True, False),
            "preconditioning": Argument(
                "frobenius",
                ("normalize",),
                {"frobenius": "frobenius", "spectral": "spectral", "schatten": "schatten", "aol": "rows"},
                closed=True,
            ),
            "consistent_rms": number(None, "rms"),
        }
    ),
    {"bias_correction": True, "scale": "transposed", "eps_at": "added", **SCALED},
    together=_rows,
    others=Convention(
        Adam,
        "optax.adamw",
        _muon(
            {
                "eps": number(1e-8, "eps"),
                "nesterov": switch(True, "nesterov", "constant", False),
                "adam_b1": number(0.9, "beta1"),
                "adam_b2": number(0.999, "beta2"),
                "adam_eps_root": unset(0.0, "eps_root"),
                "adam_weight_decay": number(0.0, "weight_decay"),
                "adam_learning_rate": number(None, "own_lr"),
            }
        ),
        SCALED,
        together=_adam_rate,
    ),
)

OPTAX_CONTRIB = Framework(
    "optax.contrib",
    "optax.contrib.{}",
    "learning_rate",
    _names,
    {
        "schedule_free": f"{WRAPS}; write thalweg.rules.ScheduleFree around a rule",
    },
)
"""The names of optax.contrib."""
