"""The arguments that pytorch_optimizer's optimizers share."""

from thalweg.conventions.frameworks.shared import Arguments
from thalweg.conventions.meaning import inert, number, refused, several, switch


def arguments(
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


FIXED = {
    "fixed_decay": refused(
        False, "write decay_form='independent' of thalweg.Optimizer, which is the same while the rate is constant"
    )
}
CENTRED = refused(False, "subtract the mean of each row from the gradient before the step")
CAUTIOUS = {"cautious": switch(False, "cautious", "count", False)}
STABLE = {"stable_adamw": switch(False, "stable", True, False)}
ADANORM = {
    "adanorm": refused(False, "the gradient is lengthened to its average norm there, for the first moment alone")
}
DEBIAS = {"adam_debias": switch(False, "bias_correction", "second", True)}
DECAYS = {"betas": several((0.9, 0.999), "beta1", "beta2")}
EPS = {"eps": number(1e-8, "eps")}
