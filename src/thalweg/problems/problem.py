"""`Problem`: a model, its data in memory, a loss and a metric."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset, TensorDataset

from thalweg.problems import blame, sources, trial
from thalweg.problems.chance import reproducible
from thalweg.problems.fingerprint import content, digest, fingerprint, layers, weights
from thalweg.problems.trial import SPLITS, Split, kind

Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any]"

CHUNK = 2048
"""The most samples of which predictions are computed at once."""
_ROLES = {"model": "model factory", "loss": "loss", "metric": "metric"}


@dataclass(frozen=True)
class Problem:
    """A problem to race on.  Data sets are stacked into tensors on construction; batches are drawn by index.

    Attributes:
        name: a short name, used in reports and folder names.
        model: makes a fresh model; it may use torch's global random numbers, which the caller seeds.
        loss: ``(prediction, target)`` → the mean over the batch, one number.
        train: ``(inputs, targets)`` with the samples along the first dimension, or a ``Dataset`` of such pairs, whose
            items are read once (so a random transform is applied only once); ``validation`` and ``test`` likewise.
        metric: ``(prediction, target)`` over a whole split → one number, such as the accuracy in [0, 1].
        target: a value of the metric, for the time to reach it; None for no target.
        source: one line on the data: what, how many, by whom.
        steps: the default number of training steps in a race, at that batch size.

    Attributes:
        place: the line of the user's code that created it: ``"mine.py, line 7"``.
        folder: the folder of the file that created it, if it was read by `thalweg.problems.load_user`.

    Raises:
        ValueError: an argument has the wrong type, a split is empty, or inputs and targets differ in number.
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    train: Data
    validation: Data
    test: Data
    metric: Callable[[Tensor, Tensor], Tensor | float]
    metric_name: str = "accuracy"
    higher_is_better: bool = True
    batch_size: int = 64
    target: float | None = None
    source: str = ""
    steps: int = 2_000
    place: str = dataclasses.field(default="", init=False, repr=False, compare=False)
    folder: Path | None = dataclasses.field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _plain(self)
        object.__setattr__(self, "place", blame.here())
        for split in SPLITS:
            pair = _stacked(f"problem {self.name!r}: the {split} set", getattr(self, split))
            object.__setattr__(self, split, pair)

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """The inputs and the targets of a split."""
        return cast("tuple[Tensor, Tensor]", getattr(self, split))

    def split(self, seed: int) -> Self:
        """The same with training and validation data drawn anew, in the same numbers, from both together."""
        parts = list(zip(self.tensors("train"), self.tensors("validation"), strict=True))
        try:
            both = [torch.cat(part) for part in parts]
        except RuntimeError:
            shapes = " and ".join(str(tuple(part.shape)) for part in parts[0])
            raise ValueError(
                f"problem {self.name!r}: training and validation inputs have the shapes {shapes} and cannot be drawn "
                "anew from both together; leave --splits out"
            ) from None
        n = len(parts[0][0])
        order = torch.randperm(len(both[0]), generator=torch.Generator().manual_seed(seed))
        train, validation = ((both[0][rows], both[1][rows]) for rows in (order[:n], order[n:]))
        drawn = copy.copy(self)
        object.__setattr__(drawn, "train", train)
        object.__setattr__(drawn, "validation", validation)
        return drawn

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """The model's predictions for all of `x`, in evaluation mode, without gradients, a chunk at a time."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return torch.cat([model(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])
        finally:
            model.train(training)

    def evaluate(self, model: nn.Module, split: Split) -> tuple[float, float]:
        """The loss and the metric over a whole split.  Call the optimizer's ``eval()`` first if it has one."""
        return self.judge(self.predict(model, self.tensors(split)[0]), split)

    def judge(self, prediction: Tensor, split: Split) -> tuple[float, float]:
        """The loss and the metric of predictions for a whole split."""
        _, y = self.tensors(split)
        with torch.no_grad():
            return float(self.loss(prediction, y)), float(self.metric(prediction, y))

    def check(self, sizes: Iterable[int] = ()) -> None:
        """Try one step, and the loss and the metric on every split, before training.

        The loss is computed for all rows if that takes about a second at most, otherwise for some of them.  The state
        of random number generators is left unchanged.

        Args:
            sizes: the sizes of batches to try a step on.

        Raises:
            ValueError: one sentence on what does not work, before a race spends an hour on it.
        """
        trial.check(self, sizes)

    def fresh(self) -> nn.Module:
        """A new model with lazy parameters initialized; errors of the user's code are raised."""
        model = self.model()
        self.materialize(model)
        return model

    def materialize(self, model: nn.Module) -> None:
        """Give lazy parameters their shapes by passing two rows of the training inputs through the model."""
        if any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            self.predict(model, self.tensors("train")[0][:2])

    def fingerprint(self) -> str:
        """A hash of `parts`, which is the same for the same problem in every process."""
        return fingerprint(self.parts())

    def parts(self) -> dict[str, str]:
        """A hash of everything that distinguishes this problem from others, by name.

        The parts are the data, the model's layers and initial weights, the code of loss, metric and model (including
        helpers, constants and closures), the settings, and `files`.
        """
        with reproducible(0):
            model = trial.fresh(self)
        told = {
            "settings": digest(self.name, self.metric_name, self.higher_is_better, self.batch_size, self.target),
            "layers of the model": digest(layers(model)),
            "first weights of the model": digest(weights(model)),
        }
        for role in ("model", "loss", "metric"):
            told[_ROLES[role]] = digest(getattr(self, role))
        data = {
            f"{split} {role}": content(values)
            for split in SPLITS
            for role, values in zip(("inputs", "targets"), self.tensors(split), strict=True)
        }
        return {**{name: hash for name, (hash, _) in told.items()}, **data, **self.files()}

    def files(self) -> dict[str, str]:
        """The hash of each Python file of the user's that belongs to it and has been read so far, by name.

        For a problem from a file these are that file and the neighbouring modules that it imported; for one created in
        a script, the modules that its model, loss and metric come from, without the script itself.
        """
        own = {} if self.folder is None else sources.files(self.folder)
        return {**digest(self.model, self.loss, self.metric)[1], **own}


def _plain(problem: Problem) -> None:
    """Check everything but the data; ``ValueError`` names the field, its value and what is allowed."""
    # Type hints are not enforced; a user's file may pass anything.
    given: dict[str, Any] = {name: getattr(problem, name) for name in problem.__dataclass_fields__}

    def refuse(field: str, wanted: str) -> None:
        raise ValueError(f"problem {given['name']!r}: {field} is {kind(given[field])}; wanted is {wanted}")

    for field in ("name", "metric_name"):
        if not isinstance(given[field], str) or not given[field].strip():
            refuse(field, "a text that is not empty")
    if not isinstance(given["source"], str):
        refuse("source", "a text")
    if isinstance(given["model"], nn.Module):
        refuse("model", "a factory that makes one, as in model=lambda: nn.Linear(4, 2)")
    for field in ("model", "loss", "metric"):
        if not callable(given[field]):
            refuse(field, "something to call")
    if not isinstance(given["higher_is_better"], bool):
        refuse("higher_is_better", "True or False")
    for field in ("batch_size", "steps"):
        if isinstance(given[field], bool) or not isinstance(given[field], int) or given[field] < 1:
            refuse(field, "a whole number >= 1")
    target = given["target"]
    if target is not None and (
        isinstance(target, bool) or not isinstance(target, int | float) or not math.isfinite(target)
    ):
        refuse("target", "a finite number or None")


def _stacked(what: str, data: Any) -> tuple[Tensor, Tensor]:
    """A split as two tensors of equal, positive length."""
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Dataset):
        data = _collected(what, cast("Dataset[Any]", data))
    pair = tuple(cast("list[Any]", data)) if isinstance(data, tuple | list) else ()
    if len(pair) != 2:
        raise ValueError(
            f"{what} is {kind(cast(Any, data))}; wanted is a pair (inputs, targets) of tensors, or a Dataset"
        )
    for role, values in zip(("inputs", "targets"), pair, strict=True):
        if not isinstance(values, Tensor) or values.ndim == 0:
            raise ValueError(f"{what} has {kind(values)} for {role}; wanted is a tensor with a row for every sample")
    x, y = cast("tuple[Tensor, Tensor]", pair)
    if len(x) != len(y):
        raise ValueError(f"{what} has {len(x):,} inputs and {len(y):,} targets; wanted are as many of one as the other")
    if len(x) == 0:
        raise ValueError(f"{what} is empty")
    return x, y


def _collected(what: str, data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Every item of a data set, read once."""
    if not isinstance(data, Sized):
        raise ValueError(f"{what} is {kind(data)}, which has no length; wanted is a Dataset with __len__")
    if len(data) == 0:
        raise ValueError(f"{what} is empty")
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    for i in range(len(data)):
        try:
            x, y = data[i]
            xs.append(torch.as_tensor(x))
            ys.append(torch.as_tensor(y))
        except Exception as error:
            message = f"{what}: item {i} is no pair of tensors or numbers ({type(error).__name__}: {error})"
            raise ValueError(message) from error
    try:
        return torch.stack(xs), torch.stack(ys)
    except RuntimeError as error:
        raise ValueError(f"{what} has items of several shapes; wanted is one shape") from error
