"""The meaning of optax.contrib 0.2.8's names, according to its source code."""

from thalweg.conventions.frameworks.optax import MU_DTYPE, arguments, moments
from thalweg.conventions.frameworks.shared import ORTHOGONAL, SCALED, TOTAL, WRAPS
from thalweg.conventions.meaning import Convention, Framework, number, refused, switch
from thalweg.rules import ADOPT, MADGRAD, AdEMAMix

_NAMES = {
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

OPTAX_CONTRIB = Framework(
    "optax.contrib",
    "optax.contrib.{}",
    "learning_rate",
    _NAMES,
    {
        "muon": ORTHOGONAL,
        "prodigy": TOTAL,
        "dog": TOTAL,
        "dowg": TOTAL,
        "dadapt_adamw": TOTAL,
        "schedule_free": WRAPS,
        "schedule_free_adamw": WRAPS,
        "schedule_free_sgd": WRAPS,
    },
)
"""The names of optax.contrib."""
