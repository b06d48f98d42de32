"""Records the last points of trajectories of pytorch_optimizer 4.1.0, optax 0.2.8 and Keras 3.15.1.

It is run by hand where these are installed; the gradients are those of ``muons.json``, several times over, and the
tests read ``packages.json``.  In Keras with torch, ScheduleFreeAdamW overwrites what it averages with; JAX is taken.
"""

# pyright: basic, reportMissingImports=false
import json
import os
from pathlib import Path

os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_X64": "1"}
import jax.numpy as jnp
import keras
import numpy as np
import optax
import pytorch_optimizer
import torch

keras.config.set_floatx("float64")

TIMES = 4
BOTH = {"lr": 0.03, "betas": (0.8, 0.9)}
CASES = [
    ("pytorch_optimizer", "ScheduleFreeSGD", {"lr": 0.1, "weight_decay": 0.1, "warmup_steps": 5}),
    ("pytorch_optimizer", "ScheduleFreeAdamW", {**BOTH, "ams_bound": True, "decoupling_c": 10, "warmup_steps": 5}),
    ("pytorch_optimizer", "ScheduleFreeAdamW", {**BOTH, "weight_decay": 0.1, "r": 1.0, "weight_lr_power": 1.0}),
    ("pytorch_optimizer", "ScheduleFreeRAdam", {**BOTH, "weight_decay": 0.1}),
    ("pytorch_optimizer", "LARS", {"lr": 1.0, "weight_decay": 0.1, "dampening": 0.3, "trust_coefficient": 0.05}),
    ("pytorch_optimizer", "LARS", {"lr": 1.0, "nesterov": True}),
    ("pytorch_optimizer", "LARS", {"lr": 1.0, "momentum": 0.0, "dampening": 0.3, "nesterov": True}),
    ("pytorch_optimizer", "NovoGrad", {**BOTH, "weight_decay": 0.1, "grad_averaging": True}),
    ("pytorch_optimizer", "NovoGrad", {"lr": 0.03, "weight_decay": 0.1, "weight_decouple": True}),
    ("pytorch_optimizer", "Fromage", {"lr": 0.03}),
    ("pytorch_optimizer", "AdaFactor", {"betas": (0.8, 0.6), "weight_decay": 0.1, "momentum_dtype": "float64"}),
    ("pytorch_optimizer", "AdaFactor", {**BOTH, "relative_step": False, "ams_bound": True, "scale_parameter": False}),
    ("pytorch_optimizer", "AdaFactor", {"betas": (None, 0.999), "clip_threshold": 0.5, "weight_decay": 0.1}),
    ("pytorch_optimizer", "Prodigy", {"d0": 1e-3, "weight_decay": 0.1, "bias_correction": True}),
    ("pytorch_optimizer", "DAdaptAdam", {"d0": 1e-3, "weight_decay": 0.1, "weight_decouple": True}),
    ("pytorch_optimizer", "DAdaptAdam", {"d0": 1e-3, "weight_decay": 0.1, "growth_rate": 1.5}),
    ("pytorch_optimizer", "AdEMAMix", {"lr": 0.03, "betas": (0.8, 0.9, 0.99), "cautious": True, "stable_adamw": True}),
    ("pytorch_optimizer", "ADOPT", {**BOTH, "stable_adamw": True}),
    ("pytorch_optimizer", "LaProp", {**BOTH, "cautious": True, "weight_decay": 0.1}),
    ("pytorch_optimizer", "MARS", {**BOTH, "mars_type": "lion", "weight_decay": 0.1}),
    ("pytorch_optimizer", "MARS", {**BOTH, "mars_type": "lion", "optimize_1d": True, "cautious": True}),
    ("pytorch_optimizer", "MARS", {**BOTH, "mars_type": "shampoo", "weight_decay": 0.1}),
    ("pytorch_optimizer", "MARS", {**BOTH, "mars_type": "shampoo", "optimize_1d": True, "cautious": True}),
    ("pytorch_optimizer", "AdaBelief", {**BOTH, "adam_debias": True}),
    ("pytorch_optimizer", "Yogi", {**BOTH, "adam_debias": True}),
    ("optax", "amsgrad", {"learning_rate": 0.03, "bias_correction_mu": False}),
    ("optax", "amsgrad", {"learning_rate": 0.03, "bias_correction_nu": False}),
    ("keras", "ScheduleFreeAdamW", {"learning_rate": 2**-6, "beta_1": 0.8, "beta_2": 0.875, "warmup_steps": 8}),
]  # fmt: skip


def of_torch(name, theirs, start, gradients):
    if "momentum_dtype" in theirs:
        theirs = {**theirs, "momentum_dtype": getattr(torch, theirs["momentum_dtype"])}
    params = [torch.nn.Parameter(x.clone()) for x in start]
    optimizer = pytorch_optimizer.load_optimizer(name.lower())(params, **theirs)
    for gs in gradients:
        for p, g in zip(params, gs, strict=True):
            p.grad = g.clone()
        optimizer.step()
    found = {"points": [p.tolist() for p in params]}
    if name.startswith("ScheduleFree"):
        optimizer.eval()
        found["evaluation"] = [p.tolist() for p in params]
    return found


def of_optax(name, theirs, start, gradients):
    optimizer = getattr(optax, name)(**theirs)
    params = [jnp.array(x.numpy()) for x in start]
    state = optimizer.init(params)
    for gs in gradients:
        updates, state = optimizer.update([jnp.array(g.numpy()) for g in gs], state, params)
        params = optax.apply_updates(params, updates)
    return {"points": [np.array(p).tolist() for p in params]}


def of_keras(name, theirs, start, gradients):
    optimizer = getattr(keras.optimizers, name)(**theirs)
    variables = [keras.Variable(x.numpy(), dtype="float64") for x in start]
    optimizer.build(variables)
    for gs in gradients:
        optimizer.apply([jnp.array(g.numpy()) for g in gs], variables)
    return {"points": [np.array(v.value).tolist() for v in variables]}


if __name__ == "__main__":
    here = Path(__file__).parent
    given = json.loads((here / "muons.json").read_text())
    start, *gradients = (
        [torch.tensor(x, dtype=torch.float64) for x in xs] for xs in (given["start"], *given["gradients"])
    )
    by = {"pytorch_optimizer": of_torch, "optax": of_optax, "keras": of_keras}
    cases = [
        {"framework": framework, "optimizer": name, "kwargs": theirs,
         **by[framework](name, theirs, start, gradients * TIMES)}
        for framework, name, theirs in CASES
    ]  # fmt: skip
    (here / "packages.json").write_text(json.dumps({"times": TIMES, "cases": cases}) + "\n")
