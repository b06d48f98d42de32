"""Records trajectories of Keras 3.15.1 and optax 0.2.8 on jax in keras.json and optax.json, next to this file.

It is run by hand where these are installed; the tests read the files.  Their format is that of ../shared/golden, with
arguments that no trajectory there has.  optax.rmsprop(centered=True, bias_correction=True) is left out: its first
variance is the difference of two equal numbers, so the step divides by their rounding.
"""

# pyright: basic, reportMissingImports=false
import json
import os
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"
import jax
import keras
import numpy as np
import optax

jax.config.update("jax_enable_x64", True)

STEPS = 12
RATES = [float(np.float32(0.05))] * 6 + [float(np.float32(0.005))] * 6
KERAS = [
    ("SGD", {"momentum": 0.9, "weight_decay": 0.05}),
    ("SGD", {"clipnorm": 0.5}),
    ("SGD", {"global_clipnorm": 0.5, "momentum": 0.5, "nesterov": True}),
    ("SGD", {"clipvalue": 0.3}),
    ("RMSprop", {"rho": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("AdamW", {}),
    ("AdamW", {"amsgrad": True, "epsilon": 1e-3}),
    ("Adam", {"weight_decay": 0.1, "clipnorm": 1.0}),
    ("Nadam", {"beta_1": 0.8, "weight_decay": 0.1}),
    ("Adamax", {"epsilon": 0.01, "beta_2": 0.9}),
    ("Adadelta", {"rho": 0.5, "epsilon": 1e-3}),
    ("Lion", {"beta_1": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"weight_decay": 0.1}),
]
OPTAX = [
    ("sgd", {"momentum": 0.0}),
    ("rmsprop", {"eps_in_sqrt": False, "initial_scale": 0.5, "centered": True, "decay": 0.7}),
    ("adagrad", {"initial_accumulator_value": 0.0, "eps": 0.0}),
    ("adam", {"nesterov": True, "eps_root": 1e-3, "b1": 0.5}),
    ("adamw", {"nesterov": True, "weight_decay": 0.1}),
    ("adamw", {}),
    ("nadam", {}),
    ("nadamw", {"weight_decay": 0.1}),
    ("adamax", {"eps": 0.01}),
    ("adamaxw", {"weight_decay": 0.1}),
    ("radam", {"threshold": 6.0, "b2": 0.9, "nesterov": True, "eps_root": 1e-3}),
    ("adadelta", {"rho": 0.5, "weight_decay": 0.1}),
    ("lion", {"weight_decay": 0.2, "b1": 0.5}),
    ("amsgrad", {"eps_root": 1e-4}),
]


def keras_walk(name, theirs, start, gradients):
    """The points after each step of Keras."""
    variable = keras.Variable(start, dtype="float64")
    optimizer = getattr(keras.optimizers, name)(learning_rate=RATES[0], **theirs)
    optimizer.build([variable])
    for rate, g in zip(RATES, gradients, strict=True):
        optimizer.learning_rate = rate
        optimizer.apply([jax.numpy.asarray(g)], [variable])
        yield np.asarray(variable.value).tolist()


def optax_walk(name, theirs, start, gradients):
    """The points after each step of optax."""
    rates = jax.numpy.asarray(RATES)
    optimizer = getattr(optax, name)(lambda count: rates[count], **theirs)
    p = jax.numpy.asarray(start)
    state = optimizer.init(p)
    for g in gradients:
        updates, state = optimizer.update(jax.numpy.asarray(g), state, p)
        p = optax.apply_updates(p, updates)
        yield np.asarray(p).tolist()


def record(framework, cases, walk):
    """Write one file."""
    rng = np.random.default_rng(0)
    recorded = []
    for name, theirs in cases:
        gradients = rng.normal(size=(STEPS, 7)) * np.array([0, 1, 3, 1e-3, 1e-3, 1, 1])
        gradients[3:6, 1] = 0
        start = rng.normal(size=7)
        points = list(walk(name, theirs, start, gradients))
        case = {"optimizer": name, "kwargs": theirs, "lr_kind": "drop", "lr": RATES, "start": start.tolist()}
        recorded.append({**case, "gradients": gradients.tolist(), "parameters": points})
    text = ",\n".join(json.dumps(case) for case in recorded)
    Path(__file__).with_name(f"{framework}.json").write_text(f'{{"cases": [\n{text}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    record("keras", KERAS, keras_walk)
    record("optax", OPTAX, optax_walk)
