"""Problems to race on: images, the user's own, and surfaces to look at.

``problems.get("digits")``, ``problems.get("digits(dropout=0.2)")``, ``problems.read("my_problem.py:make")``.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from thalweg.hyperparameters import nearest
from thalweg.parsing import parse_call
from thalweg.problems.digits import digits, logistic
from thalweg.problems.images import fashion_mnist, mnist, mnist_autoencoder, mnist_cnn
from thalweg.problems.problem import Problem
from thalweg.problems.surfaces import Surface, path, surface_of, surfaces
from thalweg.problems.synthetic import noisy_quadratic, quadratic_deep, sparse_logistic
from thalweg.problems.text import lstm, transformer
from thalweg.problems.training import Training
from thalweg.problems.user import is_file, load_named, load_user

__all__ = [
    "SUITES", "Problem", "Surface", "Training", "get", "is_file", "load_named", "load_user", "names", "path",
    "read", "surface_of", "surfaces",
]  # fmt: skip

_BUILT_IN: dict[str, Callable[..., Problem]] = {
    "digits": digits,
    "logistic": logistic,
    "mnist": mnist,
    "mnist-cnn": mnist_cnn,
    "mnist-autoencoder": mnist_autoencoder,
    "fashion-mnist": fashion_mnist,
    "char-transformer": transformer,
    "char-lstm": lstm,
    "noisy-quadratic": noisy_quadratic,
    "quadratic-deep": quadratic_deep,
    "sparse-logistic": sparse_logistic,
}


SUITES: dict[str, tuple[str, ...]] = {
    "small": ("logistic", "digits", "digits(hidden=(32, 32))", "digits(hidden=(64, 64), batch_norm=True)"),
}
"""Several problems to race on together, by name; small ones need no download and take a few minutes."""


def names() -> dict[str, str]:
    """The built-in problems by name, each with a one-line description."""
    return {name: inspect.getdoc(make) or "" for name, make in _BUILT_IN.items()}


def read(text: str, *, data: Path | None = None) -> Problem | Training:
    """What is raced, from text: a problem as of `get`, or the user's own as ``file.py:function``.

    A function of the user's returns a problem, or is itself a training, if it takes one argument.

    Raises:
        ValueError: as `get` and `load_user`.
    """
    if not is_file(text):
        return get(text, data=data)
    if data is not None:
        raise ValueError(f"{text} brings its own data; leave --data {data} out")
    return load_user(text)


def get(text: str, *, data: Path | None = None) -> Problem:
    """A problem from text: a built-in one, with settings if wanted.

    Args:
        text: ``digits``, ``mnist(hidden=(128, 64), dropout=0.2)``.  Nothing is evaluated.
        data: the folder or the file to read, for those that read any.

    Raises:
        ValueError: no such problem or setting (the nearest is named), a file's name, or data that cannot be read.
    """
    if is_file(text):
        raise ValueError(f"{text} is a file, not the name of a problem; read it by problems.read")
    name, given = parse_call(text)
    name = name.lower().replace("_", "-")
    if name not in _BUILT_IN:
        raise ValueError(f"there is no problem {name!r}{nearest(name, _BUILT_IN)}; there are {', '.join(_BUILT_IN)}")
    return _made(name, given, data)


def _made(name: str, settings: dict[str, Any], data: Path | None) -> Problem:
    make = _BUILT_IN[name]
    known = [option for option in inspect.signature(make).parameters if option != "data"]
    for setting in settings:
        if setting not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise ValueError(f"{name} has no setting {setting!r}; {has}{nearest(setting, known)}")
    if "data" in inspect.signature(make).parameters:
        return make(data=data, **settings)
    if data is not None:
        raise ValueError(f"{name} brings its own data; leave --data {data} out")
    return make(**settings)
