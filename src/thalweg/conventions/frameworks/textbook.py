"""The textbook's methods: Goodfellow, Bengio & Courville 2016, chapter 8, with variants from lecture notes.

Arguments have the book's letters: α for the momentum, ρ for decays, δ for the small constant.
"""

from thalweg.conventions.frameworks.shared import INSIDE, UNCORRECTED, Arguments
from thalweg.conventions.meaning import Convention, Framework, number
from thalweg.rules import SGD, Adagrad, Adam, Momentum, RMSProp


def _arguments(rate: float, own: Arguments) -> Arguments:
    return {"lr": number(rate, "lr"), **own}


_ALPHA = {"alpha": number(0.9, "momentum")}
_RHO = {"rho": number(0.9, "decay")}


def _delta(default: float) -> Arguments:
    return {"delta": number(default, "eps")}


_MOMENTS = {"rho1": number(0.9, "beta1"), "rho2": number(0.999, "beta2"), **_delta(1e-8)}
_VELOCITY = {"form": "velocity"}
_ALGORITHM_8_6 = {"eps": None, "momentum_form": "velocity", "nesterov": "lookahead"}

_NAMES = {
    "sgd": Convention(SGD, "Algorithm 8.1", _arguments(1e-2, {})),
    "momentum": Convention(Momentum, "Algorithm 8.2", _arguments(1e-2, _ALPHA), _VELOCITY),
    "nesterov": Convention(Momentum, "Algorithm 8.3", _arguments(1e-2, _ALPHA), {**_VELOCITY, "nesterov": "lookahead"}),
    "adagrad": Convention(Adagrad, "Algorithm 8.4", _arguments(1e-2, _delta(1e-7))),
    "adagrad_inside": Convention(Adagrad, "lecture notes", _arguments(1e-2, _delta(1e-8)), INSIDE),
    "rmsprop": Convention(RMSProp, "Algorithm 8.5", _arguments(1e-2, {**_RHO, **_delta(1e-6)}), INSIDE),
    "rmsprop_outside": Convention(RMSProp, "lecture notes", _arguments(1e-2, {**_RHO, **_delta(1e-8)})),
    "rmsprop_nesterov": Convention(RMSProp, "Algorithm 8.6", _arguments(1e-2, {**_RHO, **_ALPHA}), _ALGORITHM_8_6),
    "adam": Convention(Adam, "Algorithm 8.7", _arguments(1e-3, _MOMENTS)),
    "adam_inside": Convention(Adam, "lecture notes", _arguments(1e-3, _MOMENTS), INSIDE),
    "adam_uncorrected": Convention(Adam, "Kingma & Ba 2015, section 2", _arguments(1e-3, _MOMENTS), UNCORRECTED),
    "adam_no_correction": Convention(Adam, "lecture notes", _arguments(1e-3, _MOMENTS), {"bias_correction": False}),
}

TEXTBOOK = Framework("textbook", "textbook.{}", "lr", _NAMES)
"""The textbook's names."""
