"""`Training`: a function of the user's that trains, in place of a `thalweg.Problem`."""

import hashlib
import inspect
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from thalweg.problems import sources
from thalweg.problems.fingerprint import digest

_LOWER = ("loss", "error", "perplexity", "nll", "mse", "mae", "rmse", "bpc", "bits", "distance", "divergence")
"""Words in the names of metrics of which less is better."""


@dataclass(frozen=True)
class Training:
    """A training to race on: a function that is given a `thalweg.TrainingRun`, and trains with its optimizer.

    Attributes:
        function: the user's function of one argument.
        name: a short name, used in reports.
        metric_name: the name of the metric that decides: the first one that the function reports.
        higher_is_better: which way the metric is better.
        steps: the number of steps that the function asks for; 0 if it is not known yet.
        batch_size: of the function's first loader; 1 if it makes none.
        even: whether each of these steps is one step of the optimizer.
        folder: the folder of the file that the function is in, if it was read by `thalweg.problems.load_user`.
        script: the file that is run as a whole, if the training is no function but a file.
        arguments: the command line that it finds in ``sys.argv``, after its name.
    """

    function: Callable[[Any], Any]
    name: str
    metric_name: str = "validation"
    higher_is_better: bool = True
    steps: int = 0
    batch_size: int = 1
    even: bool = True
    target: float | None = None
    source: str = ""
    folder: Path | None = field(default=None, repr=False, compare=False)
    script: Path | None = field(default=None, repr=False, compare=False)
    arguments: tuple[str, ...] = ()

    @property
    def cpus(self) -> float:
        """The processors of a run, 1 by default."""
        return float(getattr(self.function, "cpus", 1.0))

    @property
    def gpus(self) -> float:
        """The GPUs of a run, none by default."""
        return float(getattr(self.function, "gpus", 0.0))

    def parts(self) -> dict[str, str]:
        """A hash of the function, with the values that it refers to, and of `files`, by name.

        Data that the function reads by itself are not known, and not hashed.
        """
        if self.script is not None:
            text = self.script.read_bytes()
            return {"training script": digest(self.name, hashlib.sha256(text).hexdigest())[0], **self.files()}
        return {"training function": digest(self.name, self.function)[0], **self.files()}

    def files(self) -> dict[str, str]:
        """The hash of each Python file of the user's that belongs to it and has been read so far, by name."""
        if self.script is not None:  # it runs in other processes, and what it imports is not known here
            return {self.script.name: hashlib.sha256(self.script.read_bytes()).hexdigest()}
        own = {} if self.folder is None else sources.files(self.folder)
        return {**digest(self.function)[1], **own}


def trains(function: Any) -> bool:
    """Whether a function can be called with one argument, the run, and not without."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    return _binds(signature, 1) and not _binds(signature, 0)


def of_function(function: Callable[[Any], Any], file: str | None = None, arguments: tuple[str, ...] = ()) -> Training:
    """The training that a function is; `file` is the one that it was read from, `arguments` its command line.

    Raises:
        ValueError: it cannot be called with one argument, the run.
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    if not trains(function):
        raise ValueError(f"{name} must be a function of one argument, the run, as in def {name}(run): ...")
    if file is None:
        return Training(function, name)
    path = Path(file).expanduser().resolve()
    name = " ".join([f"{os.path.basename(file)}:{name}", *arguments])
    return Training(function, name, folder=path.parent, arguments=arguments)


def of_script(file: str, arguments: tuple[str, ...] = ()) -> Training:
    """The training that a whole file is, which asks for its run with `thalweg.current_run`."""
    path = Path(file).expanduser().resolve()
    name = " ".join([os.path.basename(file), *arguments])
    return Training(partial(_run_script, path), name, folder=path.parent, script=path, arguments=arguments)


def _run_script(path: Path, _: Any) -> None:
    before = sys.modules["__main__"]
    try:
        sources.run("__main__", path)
    finally:
        sys.modules["__main__"] = before


def is_script(path: Path) -> bool:
    """Whether a file asks for its run by itself, so that no function has to be named."""
    return "current_run" in path.read_text(encoding="utf-8", errors="replace")


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better, by its name: less of a ``validation_loss`` is."""
    return not any(word in metric.lower().replace("-", "_") for word in _LOWER)


def _binds(signature: inspect.Signature, arguments: int) -> bool:
    try:
        signature.bind(*range(arguments))
    except TypeError:
        return False
    return True
