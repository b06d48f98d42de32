"""The meaning of schedulefree 1.4.1's names, according to its source code."""

import math

from thalweg.conventions.frameworks.shared import WRAPS, Arguments
from thalweg.conventions.meaning import Convention, Framework, inert, number, several, switch, unset
from thalweg.rules import SGD, RAdam, RMSProp, ScheduleFree

# The moment of AdamW that is left without momentum.
SECOND_MOMENT = RMSProp(decay=0.999, bias_correction=True)


def _arguments(rate: float, own: Arguments, *, warmup: bool = True) -> Arguments:
    """The package's arguments: the rate, the optimizer's own, and those of all optimizers."""
    return {
        "lr": number(rate, "lr"),
        **own,
        "weight_decay": unset(0, "lambd"),
        **({"warmup_steps": unset(0, "warmup")} if warmup else {}),
        "r": number(0.0, "r"),
        "weight_lr_power": number(2.0, "power"),
        "foreach": inert(True),
    }


_EPS = {"eps": number(1e-8, "eps")}
_WRAPPED = f"{WRAPS}; write thalweg.rules.ScheduleFree around a rule"

_NAMES = {
    "AdamWScheduleFree": Convention(
        ScheduleFree(SECOND_MOMENT),
        "schedulefree.AdamWScheduleFree",
        _arguments(2.5e-3, {"betas": several((0.9, 0.999), "beta", "decay"), **_EPS}),
    ),
    "SGDScheduleFree": Convention(
        ScheduleFree(SGD()), "schedulefree.SGDScheduleFree", _arguments(1.0, {"momentum": number(0.9, "beta")})
    ),
    "RAdamScheduleFree": Convention(
        ScheduleFree(RAdam(beta1=0.0, threshold=math.nextafter(4, 5))),
        "schedulefree.RAdamScheduleFree",
        _arguments(
            2.5e-3,
            {
                "betas": several((0.9, 0.999), "beta", "beta2"),
                **_EPS,
                "silent_sgd_phase": switch(True, "below", "stand", "momentum"),
            },
            warmup=False,
        ),
    ),
}

SCHEDULEFREE = Framework(
    "schedulefree",
    "schedulefree.{}",
    "lr",
    _NAMES,
    {
        "ScheduleFreeWrapper": _WRAPPED,
        "AdamWScheduleFreePaper": "its weights contain the correction of the second moment's bias",
    },
    notes=(
        "The parameters are y in training, as in the package, and x after `optimizer.eval()`. Unlike in the package, a "
        "step leaves the gradients as they are.",
        "A parameter's steps are counted when it has a gradient; the package counts for a whole group.",
    ),
)
"""The names of schedulefree."""
