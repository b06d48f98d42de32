"""Records the last points of trajectories of timm 1.0.31, pytorch_optimizer 4.1.0, Keras 3.15.1 and K. Jordan's Muon.

It is run by hand where these are installed, and where ``muon.py`` of KellerJordan/Muon (00ba60d) is in the folder, with
its ``bfloat16()`` taken out, so that its iterations are in the type of the gradients; the tests read ``muons.json``.
"""

# pyright: basic, reportMissingImports=false
import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "torch"
import keras
import pytorch_optimizer
import timm.optim
import torch
from muon import SingleDeviceMuon, SingleDeviceMuonWithAuxAdam

keras.config.set_floatx("float64")

STEPS = 6
SHAPES = [(4, 5), (6, 4), (5,), (4, 2, 3, 3)]
MATRICES, VECTORS = {"params": [0, 1, 3], "use_muon": True}, {"params": [2], "use_muon": False}
KELLERS = [
    {**MATRICES, "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
    {**VECTORS, "lr": 0.02, "betas": (0.8, 0.9), "weight_decay": 0.2},
]
ALL, RATE = [0, 1, 2, 3], 2**-6  # a rate that is the same in float32
CASES = [
    (timm.optim.Muon, {"lr": 0.03, "weight_decay": 0.05}, ALL),
    (timm.optim.Muon, {"lr": 0.03, "ns_steps": 6, "adjust_lr_fn": "original", "ns_coefficients": "polar_express",
                       "fallback_lr_scale": 0.5, "betas": (0.8, 0.9)}, ALL),
    (timm.optim.AdamWLegacy, {"lr": 0.03, "caution": True, "weight_decay": 0.1}, ALL),
    (timm.optim.Lion, {"lr": 0.01, "caution": True, "weight_decay": 0.1}, ALL),
    (pytorch_optimizer.Muon, {"lr": 0.03, "weight_decay": 0.05, "use_adjusted_lr": True, "adamw_lr": 0.01,
                              "adamw_wd": 0.1}, [MATRICES, VECTORS]),
    (pytorch_optimizer.Muon, {"lr": 0.03, "nesterov": False, "weight_decay": 0.05, "weight_decouple": False,
                              "ns_coeffs": "quintic"}, [MATRICES, VECTORS]),
    (pytorch_optimizer.NorMuon, {"lr": 0.03, "beta2": 0.9}, [MATRICES, VECTORS]),
    (pytorch_optimizer.NorMuon, {"lr": 0.03, "update_scale": "match_rms"}, [MATRICES, VECTORS]),
    (SingleDeviceMuonWithAuxAdam, {}, KELLERS),
    (SingleDeviceMuon, {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9}, [0, 1, 3]),
    (keras.optimizers.Muon, {"learning_rate": RATE, "momentum": 0.9, "adam_lr_ratio": 0.5}, [0, 1, 2]),
    (keras.optimizers.Muon, {"learning_rate": RATE, "rms_rate": None, "nesterov": False, "weight_decay": None,
                             "adam_weight_decay": 0.1, "ns_steps": 4}, [0, 1, 2]),
    (keras.optimizers.Adafactor, {"learning_rate": RATE}, [0, 1, 2]),
    (keras.optimizers.Adafactor, {"learning_rate": 0.25, "relative_step": False, "weight_decay": 0.1,
                                  "clip_threshold": 0.5}, [0, 1, 2]),
]  # fmt: skip


def points(make, theirs, use, start, gradients):
    """The last point of each parameter in `use`, by its number or by groups of numbers."""
    which = [i for group in use for i in group["params"]] if isinstance(use[0], dict) else use
    if make.__module__.startswith("keras"):
        variables = [keras.Variable(start[i].numpy(), dtype="float64", name=f"v{i}") for i in which]
        optimizer = make(**theirs)
        optimizer.build(variables)
        for gs in gradients:
            optimizer.apply([gs[i] for i in which], variables)
        return dict(zip(which, (v.value.detach() for v in variables), strict=True))
    params = {i: torch.nn.Parameter(start[i].clone()) for i in which}
    given = [{**group, "params": [params[i] for i in group["params"]]} if isinstance(group, dict) else params[group]
             for group in use]  # fmt: skip
    optimizer = make(given, **theirs)
    for gs in gradients:
        for i, p in params.items():
            p.grad = gs[i].clone()
        optimizer.step()
    return {i: p.detach() for i, p in params.items()}


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(3)
    start, *gradients = (
        [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in SHAPES] for _ in range(STEPS + 1)
    )
    cases = []
    for make, theirs, use in CASES:
        found = points(make, theirs, use, start, gradients)
        cases.append({
            "framework": make.__module__.split(".")[0], "optimizer": make.__name__, "kwargs": theirs, "use": use,
            "points": {i: x.tolist() for i, x in found.items()},
        })  # fmt: skip
    whole = {"start": start, "gradients": gradients}
    text = json.dumps({**whole, "cases": cases}, default=lambda x: x.tolist())
    Path(__file__).with_name("muons.json").write_text(text)
