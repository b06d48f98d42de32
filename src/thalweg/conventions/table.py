"""What each framework and book means by a name: the table.

``textbook`` is Goodfellow, Bengio & Courville 2016, chapter 8, with the variants of lecture notes: the book's own
letters, α for the momentum, ρ for decays, δ for the small constant.  The frameworks are torch 2.13, Keras 3.15 and
optax 0.2.8, read in their source.
"""

from collections.abc import Mapping

import torch

from thalweg.conventions.meaning import (
    REQUIRED,
    Argument,
    Convention,
    Framework,
    inert,
    number,
    pair,
    refused,
    switch,
    unset,
)
from thalweg.rules import ASGD, SGD, Adadelta, Adagrad, Adam, Adamax, Lion, Momentum, RAdam, RMSProp, Rprop

Arguments = Mapping[str, Argument]

_CORRECTION = switch(False, "nesterov", "correction", False)


def _torch(rate: float, own: Arguments, decay: float | None = 0, *, fused: bool = False) -> Arguments:
    """Torch's arguments: a rate, the optimizer's own, and what all have."""
    return {
        "lr": number(rate, "lr"),
        **own,
        **({} if decay is None else {"weight_decay": number(decay, "weight_decay")}),
        "foreach": inert(None),
        "maximize": switch(False, "maximize", True, False),
        "differentiable": inert(False),
        **({"fused": inert(None)} if fused else {}),
    }


_CAPTURABLE = {"capturable": inert(False)}
_BETAS = {"betas": pair((0.9, 0.999), "beta1", "beta2")}
_TORCH_MOMENTS = {**_BETAS, "eps": number(1e-8, "eps")}
_AMSGRAD = {"amsgrad": switch(False, "amsgrad", True, False), **_CAPTURABLE}
_DECOUPLED = {"decoupled_weight_decay": switch(False, "decay_form", "scaled", "l2")}


def _default_dtype() -> str:
    """What torch keeps the numbers of its state in, a product of momenta for one."""
    return "float64" if torch.get_default_dtype() == torch.float64 else "float32"


_SCALED = {"decay_form": "scaled"}

_TORCH = {
    "SGD": Convention(
        Momentum,
        "torch.optim.SGD",
        _torch(
            1e-3,
            {"momentum": unset(0, "momentum"), "dampening": number(0, "dampening"), "nesterov": _CORRECTION},
            fused=True,
        ),
        without_momentum=SGD,
        sparse=True,
        counted=False,
    ),
    "Adagrad": Convention(
        Adagrad,
        "torch.optim.Adagrad",
        _torch(
            1e-2,
            {
                "lr_decay": number(0, "lr_decay"),
                "initial_accumulator_value": number(0, "initial_accumulator"),
                "eps": number(1e-10, "eps"),
            },
            fused=True,
        ),
        sparse=True,
    ),
    "RMSprop": Convention(
        RMSProp,
        "torch.optim.RMSprop",
        _torch(
            1e-2,
            {
                "alpha": number(0.99, "decay"),
                "eps": number(1e-8, "eps"),
                "momentum": unset(0, "momentum"),
                "centered": switch(False, "centered", True, False),
                **_CAPTURABLE,
            },
        ),
    ),
    "Adam": Convention(
        Adam, "torch.optim.Adam", _torch(1e-3, {**_TORCH_MOMENTS, **_AMSGRAD, **_DECOUPLED}, fused=True)
    ),
    "AdamW": Convention(
        Adam, "torch.optim.AdamW", _torch(1e-3, {**_TORCH_MOMENTS, **_AMSGRAD}, 1e-2, fused=True), _SCALED
    ),
    "NAdam": Convention(
        Adam,
        "torch.optim.NAdam",
        _torch(
            2e-3,
            {**_TORCH_MOMENTS, "momentum_decay": number(4e-3, "momentum_decay"), **_DECOUPLED, **_CAPTURABLE},
        ),
        {"nesterov": "scheduled", "product_in": _default_dtype},
    ),
    "RAdam": Convention(
        RAdam,
        "torch.optim.RAdam",
        _torch(1e-3, {**_TORCH_MOMENTS, **_DECOUPLED, **_CAPTURABLE}),
        {"eps_at": "uncorrected"},
    ),
    "Adamax": Convention(Adamax, "torch.optim.Adamax", _torch(2e-3, {**_TORCH_MOMENTS, **_CAPTURABLE})),
    "Adadelta": Convention(
        Adadelta,
        "torch.optim.Adadelta",
        _torch(1.0, {"rho": number(0.9, "decay"), "eps": number(1e-6, "eps"), **_CAPTURABLE}),
    ),
    "ASGD": Convention(
        ASGD,
        "torch.optim.ASGD",
        _torch(
            1e-2,
            {
                "lambd": number(1e-4, "lambd"),
                "alpha": number(0.75, "alpha"),
                "t0": number(1e6, "t0"),
                **_CAPTURABLE,
            },
        ),
        {"numbers_in": _default_dtype},
    ),
    "Rprop": Convention(
        Rprop,
        "torch.optim.Rprop",
        _torch(
            1e-2,
            {
                "etas": pair((0.5, 1.2), "eta_minus", "eta_plus"),
                "step_sizes": pair((1e-6, 50), "step_min", "step_max"),
                **_CAPTURABLE,
            },
            decay=None,
        ),
    ),
}


def _keras(rate: float, own: Arguments, decay: float | None = None) -> Arguments:
    """Keras's arguments: a rate, the optimizer's own, and what all have."""
    return {
        "learning_rate": number(rate, "lr"),
        **own,
        "weight_decay": number(decay, "weight_decay", {None: 0.0}),
        "clipnorm": unset(None, "clip_each"),
        "clipvalue": unset(None, "clip_value"),
        "global_clipnorm": unset(None, "clip_norm"),
        "use_ema": refused(False, "its average begins elsewhere; write ema=0.99 of thalweg.Optimizer"),
        "ema_momentum": inert(0.99),
        "ema_overwrite_frequency": refused(None, "no average is put into the weights while they are trained"),
        "loss_scale_factor": refused(None, "use torch.amp.GradScaler"),
        "gradient_accumulation_steps": refused(None, "call backward several times before a step"),
        "name": inert(None),
    }


def _keras_moments(beta2: float = 0.999) -> Arguments:
    return {"beta_1": number(0.9, "beta1"), "beta_2": number(beta2, "beta2")}


# Keras's weight decay is decoupled from the gradient in every optimizer, and its norms have no 10⁻⁶ added.
_AS_KERAS = {**_SCALED, "clip_eps": 0.0}
_INSIDE = {"eps_at": "inside"}
_EPSILON = {"epsilon": number(1e-7, "eps")}
_KERAS_ADAM = {**_keras_moments(), **_EPSILON, "amsgrad": switch(False, "amsgrad", True, False)}
_UNCORRECTED = {"eps_at": "uncorrected"}

_KERAS = {
    "SGD": Convention(
        Momentum,
        "keras.optimizers.SGD",
        _keras(1e-2, {"momentum": unset(0.0, "momentum"), "nesterov": _CORRECTION}),
        {"form": "velocity", **_AS_KERAS},
        without_momentum=SGD,
    ),
    "RMSprop": Convention(
        RMSProp,
        "keras.optimizers.RMSprop",
        _keras(
            1e-3,
            {
                "rho": number(0.9, "decay"),
                "momentum": unset(0.0, "momentum"),
                **_EPSILON,
                "centered": switch(False, "centered", True, False),
            },
        ),
        {"momentum_form": "velocity", **_INSIDE, **_AS_KERAS},
    ),
    "Adagrad": Convention(
        Adagrad,
        "keras.optimizers.Adagrad",
        _keras(1e-3, {"initial_accumulator_value": number(0.1, "initial_accumulator"), **_EPSILON}),
        {**_INSIDE, **_AS_KERAS},
    ),
    "Adam": Convention(Adam, "keras.optimizers.Adam", _keras(1e-3, _KERAS_ADAM), {**_UNCORRECTED, **_AS_KERAS}),
    "AdamW": Convention(Adam, "keras.optimizers.AdamW", _keras(1e-3, _KERAS_ADAM, 4e-3), {**_UNCORRECTED, **_AS_KERAS}),
    "Nadam": Convention(
        Adam,
        "keras.optimizers.Nadam",
        _keras(1e-3, {**_keras_moments(), **_EPSILON}),
        {"nesterov": "scheduled", "momentum_decay": 1.0, **_AS_KERAS},
    ),
    "Adamax": Convention(
        Adamax,
        "keras.optimizers.Adamax",
        _keras(1e-3, {**_keras_moments(), **_EPSILON}),
        {"eps_at": "outside", **_AS_KERAS},
    ),
    "Adadelta": Convention(
        Adadelta, "keras.optimizers.Adadelta", _keras(1e-3, {"rho": number(0.95, "decay"), **_EPSILON}), _AS_KERAS
    ),
    "Lion": Convention(Lion, "keras.optimizers.Lion", _keras(1e-3, _keras_moments(0.99)), _AS_KERAS),
}


def _optax(own: Arguments, decay: float | None = None) -> Arguments:
    """Optax's arguments: a rate, the optimizer's own, and where it has any, weight decay."""
    decayed = {"weight_decay": number(decay, "weight_decay"), "mask": _MASK}
    return {"learning_rate": number(REQUIRED, "lr"), **own, **({} if decay is None else decayed)}


_MASK = refused(None, "give the parameters without decay a group of their own, with weight_decay=0")
_MU_DTYPE = {"mu_dtype": refused(None, "moments are kept in float32 or wider; thalweg.Optimizer has state_dtype")}
_OPTAX_MOMENTS = {"b1": number(0.9, "beta1"), "b2": number(0.999, "beta2"), "eps": number(1e-8, "eps")}
_EPS_ROOT = {"eps_root": unset(0.0, "eps_root")}


def _optax_adam(nesterov: bool = False) -> Arguments:
    return {
        **_OPTAX_MOMENTS,
        **_EPS_ROOT,
        **_MU_DTYPE,
        "nesterov": switch(nesterov, "nesterov", "constant", False),
    }


_ONE_CORRECTION = "write thalweg.rules.Adam(amsgrad='corrected', bias_correction={0!r})"

_OPTAX = {
    "sgd": Convention(
        Momentum,
        "optax.sgd",
        _optax(
            {
                "momentum": number(None, "momentum"),
                "nesterov": _CORRECTION,
                "accumulator_dtype": refused(None, "momentum is kept in float32 or wider"),
            }
        ),
        without_momentum=SGD,
    ),
    "rmsprop": Convention(
        RMSProp,
        "optax.rmsprop",
        _optax(
            {
                "decay": number(0.9, "decay"),
                "eps": number(1e-8, "eps"),
                "initial_scale": number(0.0, "initial_accumulator"),
                "eps_in_sqrt": switch(True, "eps_at", "inside", "outside"),
                "centered": switch(False, "centered", True, False),
                "momentum": number(None, "momentum"),
                "nesterov": _CORRECTION,
                "bias_correction": switch(False, "bias_correction", True, False),
            }
        ),
        {"momentum_form": "velocity"},
    ),
    "adagrad": Convention(
        Adagrad,
        "optax.adagrad",
        _optax(
            {
                "initial_accumulator_value": number(0.1, "initial_accumulator"),
                "eps": unset(1e-7, "eps"),
            }
        ),
        _INSIDE,
    ),
    "adam": Convention(Adam, "optax.adam", _optax(_optax_adam())),
    "adamw": Convention(Adam, "optax.adamw", _optax(_optax_adam(), 1e-4), _SCALED),
    "nadam": Convention(Adam, "optax.nadam", _optax(_optax_adam(True))),
    "nadamw": Convention(Adam, "optax.nadamw", _optax(_optax_adam(True), 1e-4), _SCALED),
    "amsgrad": Convention(
        Adam,
        "optax.amsgrad",
        _optax(
            {
                **_OPTAX_MOMENTS,
                **_EPS_ROOT,
                **_MU_DTYPE,
                "bias_correction_mu": refused(True, _ONE_CORRECTION.format("second")),
                "bias_correction_nu": refused(True, _ONE_CORRECTION.format("first")),
            }
        ),
        {"amsgrad": "corrected"},
    ),
    "adamax": Convention(Adamax, "optax.adamax", _optax(_OPTAX_MOMENTS)),
    "adamaxw": Convention(Adamax, "optax.adamaxw", _optax(_OPTAX_MOMENTS, 1e-4), _SCALED),
    "radam": Convention(
        RAdam,
        "optax.radam",
        _optax(
            {
                **_OPTAX_MOMENTS,
                **_EPS_ROOT,
                "threshold": number(5.0, "threshold"),
                "nesterov": switch(False, "nesterov", True, False),
            }
        ),
    ),
    "adadelta": Convention(
        Adadelta,
        "optax.adadelta",
        _optax(
            {
                "rho": number(0.9, "decay"),
                "eps": number(1e-6, "eps"),
                "weight_decay": number(0.0, "weight_decay"),
                "weight_decay_mask": _MASK,
            }
        ),
    ),
    "lion": Convention(
        Lion,
        "optax.lion",
        _optax({"b1": number(0.9, "beta1"), "b2": number(0.99, "beta2"), **_MU_DTYPE}, 1e-3),
        _SCALED,
    ),
}


def _textbook(rate: float, own: Arguments) -> Arguments:
    return {"lr": number(rate, "lr"), **own}


_ALPHA = {"alpha": number(0.9, "momentum")}
_RHO = {"rho": number(0.9, "decay")}


def _delta(default: float) -> Arguments:
    return {"delta": number(default, "eps")}


_MOMENTS = {"rho1": number(0.9, "beta1"), "rho2": number(0.999, "beta2"), **_delta(1e-8)}
_VELOCITY = {"form": "velocity"}
_ALGORITHM_8_6 = {"eps": None, "momentum_form": "velocity", "nesterov": "lookahead"}

_TEXTBOOK = {
    "sgd": Convention(SGD, "Algorithm 8.1", _textbook(1e-2, {})),
    "momentum": Convention(Momentum, "Algorithm 8.2", _textbook(1e-2, _ALPHA), _VELOCITY),
    "nesterov": Convention(Momentum, "Algorithm 8.3", _textbook(1e-2, _ALPHA), {**_VELOCITY, "nesterov": "lookahead"}),
    "adagrad": Convention(Adagrad, "Algorithm 8.4", _textbook(1e-2, _delta(1e-7))),
    "adagrad_inside": Convention(Adagrad, "lecture notes", _textbook(1e-2, _delta(1e-8)), _INSIDE),
    "rmsprop": Convention(RMSProp, "Algorithm 8.5", _textbook(1e-2, {**_RHO, **_delta(1e-6)}), _INSIDE),
    "rmsprop_outside": Convention(RMSProp, "lecture notes", _textbook(1e-2, {**_RHO, **_delta(1e-8)})),
    "rmsprop_nesterov": Convention(RMSProp, "Algorithm 8.6", _textbook(1e-2, {**_RHO, **_ALPHA}), _ALGORITHM_8_6),
    "adam": Convention(Adam, "Algorithm 8.7", _textbook(1e-3, _MOMENTS)),
    "adam_inside": Convention(Adam, "lecture notes", _textbook(1e-3, _MOMENTS), _INSIDE),
    "adam_uncorrected": Convention(Adam, "Kingma & Ba 2015, section 2", _textbook(1e-3, _MOMENTS), _UNCORRECTED),
    "adam_no_correction": Convention(Adam, "lecture notes", _textbook(1e-3, _MOMENTS), {"bias_correction": False}),
}

_ORTHOGONAL = "its steps need whole matrices made orthogonal, and rules work element by element"
_FACTORED = "it keeps rows and columns of the second moment, and rules work element by element"
_TRUST = "its step is scaled by the norms of whole tensors, and rules work element by element"

TABLE: dict[str, Framework] = {
    "torch": Framework(
        "torch",
        "torch.optim.{}",
        "lr",
        _TORCH,
        {
            "LBFGS": "it asks for the loss several times a step; thalweg.curvature has second-order methods",
            "SparseAdam": "it steps only the rows that a sparse gradient has",
            "Adafactor": _FACTORED,
            "Muon": _ORTHOGONAL,
        },
    ),
    "keras": Framework(
        "keras",
        "keras.optimizers.{}",
        "learning_rate",
        _KERAS,
        {
            "Ftrl": "its step is the solution of a regularised problem, not a change of the parameter",
            "Adafactor": _FACTORED,
            "Lamb": _TRUST,
            "Muon": _ORTHOGONAL,
            "ScheduleFreeAdamW": "its average is interleaved with the steps",
            "LossScaleOptimizer": "it scales another optimizer's loss; use torch.amp.GradScaler",
        },
    ),
    "optax": Framework(
        "optax",
        "optax.{}",
        "learning_rate",
        _OPTAX,
        {
            "adafactor": _FACTORED,
            "lamb": _TRUST,
            "lars": _TRUST,
            "muon": _ORTHOGONAL,
            "lbfgs": "it searches along a line; thalweg.curvature has second-order methods",
        },
    ),
    "textbook": Framework("textbook", "textbook.{}", "lr", _TEXTBOOK),
}
"""Every name of every framework."""
