"""Measures a model on a split: the loss, and each metric, of predictions or of the model and its batches."""

import inspect
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from thalweg.problems.chance import seeded
from thalweg.problems.splits import Batch, count, kind

Form = Literal["prediction", "batch", "batches"]
"""What a function is called with: ``(prediction, target)``, ``(model, batch)`` or ``(model, batches)``."""


def form(function: Callable[..., Any]) -> Form:
    """What a loss or a metric is called with, by the names of its parameters: `model` comes first, or a prediction."""
    try:
        names = [*inspect.signature(function).parameters]
    except (TypeError, ValueError):  # of compiled functions nothing is known
        return "prediction"
    if names[:1] != ["model"]:
        return "prediction"
    return "batches" if names[1:2] == ["batches"] else "batch"


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Within this context the model is in evaluation mode, and computes no gradients."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


def measure(
    model: nn.Module,
    batches: Callable[[], Iterator[Batch]],
    loss: Callable[..., Any],
    metrics: Mapping[str, Callable[..., Any]],
) -> tuple[float, dict[str, float]]:
    """The loss and the metrics on a split, by name.

    Means over batches are weighted by the number of examples.  What is called with predictions gets those for the whole
    split at once.  Random numbers are the same at every call, and those of the run are left alone.

    Args:
        model: the model, which is put into evaluation mode meanwhile.
        batches: gives the batches of the split.
        loss: of a prediction and its target, or of the model and a batch.
        metrics: each of those, or of the model and all batches.
    """
    functions = {"": loss, **metrics}
    forms = {name: form(function) for name, function in functions.items()}
    means = {name: 0.0 for name, how in forms.items() if how == "batch"}
    predicted = "prediction" in forms.values()
    predictions: list[Tensor] = []
    targets: list[Tensor] = []
    seen = 0
    with seeded(0), evaluating(model):
        for batch in batches() if predicted or means else ():
            n = count(batch)
            seen += n
            for name in means:
                means[name] += n * _number(name, functions[name](model, batch))
            if predicted:
                x, y = batch
                predictions.append(model(x))
                targets.append(y)
        found = {name: total / seen for name, total in means.items()}
        if predicted:
            whole = torch.cat(predictions), torch.cat(targets)
            called = {name: functions[name](*whole) for name, how in forms.items() if how == "prediction"}
            found |= {name: _number(name, value) for name, value in called.items()}
        for name in [name for name, how in forms.items() if how == "batches"]:
            found[name] = _number(name, functions[name](model, batches()))
    return found.pop(""), {name: found[name] for name in metrics}


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        what = f"the metric {name}" if name else "the loss"
        raise ValueError(f"{what} is {kind(value)}; wanted is one number") from None
