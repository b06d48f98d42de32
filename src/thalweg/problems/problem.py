"""`Problem`: a model, its data, a loss and metrics."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import Dataset

from thalweg.problems import blame, scoring, sources, trial
from thalweg.problems.chance import reproducible, seeded
from thalweg.problems.fingerprint import content, digest, fingerprint, layers, weights
from thalweg.problems.splits import Batch, Loaded, Rows, kind, leaves, mapped, moved, read
from thalweg.problems.trial import SPLITS, Split

Data: TypeAlias = "Batch | Dataset[Any] | Callable[[], Iterable[Batch]]"
Metric: TypeAlias = Callable[[Any, Any], Tensor | float]

CHUNK = 2048
"""The most samples of which predictions are computed at once."""
_ROLES = {"model": "model factory", "loss": "loss", "metric": "metric"}


@dataclass(frozen=True)
class Problem:
    """A problem to race on.

    Each split is tensors in memory with the samples along their first dimension, a ``Dataset`` of such samples, whose
    items are read once (so a random transform is applied only once), or a function without arguments that makes a
    ``DataLoader``.  Batches of tensors are drawn by index.  Batches of loaders are drawn with random numbers of their
    own, so that order and augmentation are the same for all entries in one replicate.

    A loss of ``(prediction, target)`` needs pairs of inputs and targets.  A loss whose first parameter is called
    ``model`` is given the model and the batch, which may be tensors in any structure of tuples and dictionaries.

    Attributes:
        name: a short name, used in reports and folder names.
        model: makes a fresh model; it may use torch's global random numbers, which the caller seeds.
        loss: ``(prediction, target)`` or ``(model, batch)`` → the mean over the batch, one number.
        train: the training data: ``(inputs, targets)``, or another structure, as above; ``validation`` and ``test``
            likewise.
        metric: ``(prediction, target)`` over a whole split → one number, such as the accuracy in [0, 1]; or
            ``(model, batch)``, which is averaged over batches; or ``(model, batches)``, with all batches of a split.
            Of several in a dictionary the first decides, or the one that `metric_name` names, and all are recorded.
        metric_name: the name of the metric that decides; by default ``accuracy``, or the first in the dictionary.
        target: a value of the metric, for the time to reach it; None for no target.
        source: one line on the data: what, how many, by whom.
        steps: the default number of training steps in a race, at that batch size.
        batch_size: the examples in a batch, unless the training data are a loader, which decides that itself.
        cpus, gpus: what a run takes of a machine in a Ray cluster; a run uses one thread in any case.
        device: ``cpu``, or ``cuda`` where there is one; model and batches are there.

    Attributes:
        fast: whether it has the form in which runs may advance together: pairs of tensors in the memory of the CPU, and
            a loss and metrics of predictions.
        place: the line of the user's code that created it: ``"mine.py, line 7"``.
        folder: the folder of the file that created it, if it was read by `thalweg.problems.load_user`.

    Raises:
        ValueError: an argument has the wrong type, a split is empty, tensors differ in length, or there is no such
            device.
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    train: Data
    validation: Data
    test: Data
    metric: Metric | Mapping[str, Metric]
    metric_name: str = ""
    higher_is_better: bool = True
    batch_size: int = 64
    target: float | None = None
    source: str = ""
    steps: int = 2_000
    device: str = "cpu"
    cpus: float = 1.0
    gpus: float = 0.0
    place: str = dataclasses.field(default="", init=False, repr=False, compare=False)
    folder: Path | None = dataclasses.field(default=None, init=False, repr=False, compare=False)
    _data: dict[str, Rows | Loaded] = dataclasses.field(init=False, repr=False, compare=False)
    _form: scoring.Form = dataclasses.field(default="prediction", init=False, repr=False, compare=False)
    _pairs: bool = dataclasses.field(default=True, init=False, repr=False, compare=False)
    fast: bool = dataclasses.field(default=False, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        several = isinstance(self.metric, Mapping)
        if self.metric_name == "":
            object.__setattr__(self, "metric_name", next(iter(cast(Any, self.metric)), "") if several else "accuracy")
        _plain(self)
        object.__setattr__(self, "place", blame.here())
        object.__setattr__(self, "_form", scoring.form(self.loss))
        forms = {self._form, *map(scoring.form, self.metrics.values())}
        object.__setattr__(self, "_pairs", "prediction" in forms)
        with seeded(0):
            data = {s: read(f"problem {self.name!r}: the {s} set", getattr(self, s), self._pairs) for s in SPLITS}
        self._put(data)
        object.__setattr__(self, "fast", forms == {"prediction"} and self.in_memory and self.device == "cpu")
        if isinstance(data["train"], Loaded):
            object.__setattr__(self, "batch_size", data["train"].batch_size)

    def _put(self, data: dict[str, Rows | Loaded]) -> None:
        object.__setattr__(self, "_data", data)
        for split, held in data.items():
            if isinstance(held, Rows):
                object.__setattr__(self, split, held.data)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metrics by name; the one that decides comes first."""
        of: Any = self.metric
        several = cast("Mapping[str, Metric]", of) if isinstance(of, Mapping) else {self.metric_name: of}
        given: dict[str, Metric] = dict(several)
        return {self.metric_name: given[self.metric_name], **given}

    @property
    def in_memory(self) -> bool:
        """Whether all data are tensors in memory, rather than a loader's."""
        return all(isinstance(held, Rows) for held in self._data.values())

    @property
    def loads(self) -> bool:
        """Whether the training data are a loader's, which makes its batches by itself."""
        return isinstance(self._data["train"], Loaded)

    @property
    def nbytes(self) -> int:
        """The bytes of the data in memory."""
        return sum(held.nbytes for held in self._data.values())

    def size(self, split: Split) -> int:
        """The number of examples in a split; 0 if it is not known."""
        return self._data[split].size

    def data(self, split: Split) -> Rows | Loaded:
        """The data of a split."""
        return self._data[split]

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """The inputs and the targets of a split, which are tensors in memory."""
        return cast("tuple[Tensor, Tensor]", getattr(self, split))

    def batches(self, split: Split, size: int | None = None) -> Iterator[Batch]:
        """The batches of a split once, on the device of the problem, so many examples at a time where that is open."""
        for batch in self._data[split].batches(size or self.batch_size):
            yield batch if self.device == "cpu" else moved(batch, torch.device(self.device))

    def batch_loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss on a batch."""
        if self._form != "prediction":
            return self.loss(model, batch)
        x, y = batch
        return self.loss(model(x), y)

    def split(self, seed: int) -> Self:
        """The same with training and validation data drawn anew, in the same numbers, from both together.

        Raises:
            ValueError: the tensors of the two differ in shape, or they are no tensors in memory.
        """
        train, validation = self._data["train"], self._data["validation"]
        if not isinstance(train, Rows) or not isinstance(validation, Rows):
            raise ValueError(
                f"problem {self.name!r}: data of a loader cannot be drawn anew; give tensors or a Dataset, or leave "
                "--splits out"
            )
        try:
            both = Rows(mapped(lambda *parts: torch.cat(parts), train.data, validation.data), 0)
        except (RuntimeError, LookupError, TypeError):
            shapes = " and ".join(_shapes(held) for held in (train, validation))
            raise ValueError(
                f"problem {self.name!r}: training and validation inputs have the shapes {shapes} and cannot be drawn "
                "anew from both together; leave --splits out"
            ) from None
        n = train.size
        order = torch.randperm(n + validation.size, generator=torch.Generator().manual_seed(seed))
        drawn = copy.copy(self)
        parts = {"train": order[:n], "validation": order[n:]}
        drawn._put({**self._data, **{split: Rows(both.take(at), len(at)) for split, at in parts.items()}})
        return drawn

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """The model's predictions for all of `x`, in evaluation mode, without gradients, a chunk at a time."""
        with scoring.evaluating(model):
            return torch.cat([model(x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)])

    def evaluate(self, model: nn.Module, split: Split) -> tuple[float, float]:
        """The loss and the metric over a whole split.  Call the optimizer's ``eval()`` first if it has one."""
        loss, metrics = self.measure(model, split)
        return loss, metrics[self.metric_name]

    def measure(self, model: nn.Module, split: Split) -> tuple[float, dict[str, float]]:
        """The loss and each metric, by name, over a whole split."""
        if self.fast:
            return self.judge(self.predict(model, self.tensors(split)[0]), split)
        size = CHUNK if self._pairs else self.batch_size
        return scoring.measure(model, lambda: self.batches(split, size), self.loss, self.metrics)

    def judge(self, prediction: Tensor, split: Split) -> tuple[float, dict[str, float]]:
        """The loss and each metric, by name, of predictions for a whole split."""
        _, y = self.tensors(split)
        with torch.no_grad():
            metrics = {name: float(metric(prediction, y)) for name, metric in self.metrics.items()}
            return float(self.loss(prediction, y)), metrics

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
        if self.device != "cpu":
            model.to(self.device)
        self.materialize(model)
        return model

    def materialize(self, model: nn.Module) -> None:
        """Give lazy parameters their shapes by passing two rows of the training inputs, or a batch, through it."""
        if not any(map(is_lazy, (*model.parameters(), *model.buffers()))):
            return
        if self.fast:
            self.predict(model, self.tensors("train")[0][:2])
            return
        with seeded(0), scoring.evaluating(model):
            self.batch_loss(model, next(self.batches("train")))

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
        if self.device != "cpu":
            told["device"] = digest(self.device)
        data = {f"{split} {name}": hash for split in SPLITS for name, hash in self._contents(split)}
        return {**{name: hash for name, (hash, _) in told.items()}, **data, **self.files()}

    def _contents(self, split: Split) -> Iterator[tuple[str, str]]:
        """A hash of each tensor of a split; of a loader's the code that makes it, and its first batch."""
        held = self._data[split]
        if isinstance(held, Loaded):
            yield "loader", digest(held.factory)[0]
            values = [content(x) if isinstance(x, Tensor) else repr(x) for _, x in leaves(held.first)]
            yield "first batch", digest(values)[0]
            return
        pair = isinstance(held.data, tuple | list) and len(cast("list[Any]", held.data)) == 2
        for name, values in leaves(held.data):
            role = {"0": "inputs", "1": "targets"}.get(name) if pair else None
            yield role or f"{name} tensor".strip(), content(values)

    def files(self) -> dict[str, str]:
        """The hash of each Python file of the user's that belongs to it and has been read so far, by name.

        For a problem from a file these are that file and the neighbouring modules that it imported; for one created in
        a script, the modules that its model, loss and metric come from, without the script itself.
        """
        own = {} if self.folder is None else sources.files(self.folder)
        loaders = [held.factory for held in self._data.values() if isinstance(held, Loaded)]
        return {**digest(self.model, self.loss, self.metric, *loaders)[1], **own}


def _shapes(held: Rows) -> str:
    return ", ".join(str(tuple(x.shape)) for _, x in leaves(held.data))


def _plain(problem: Problem) -> None:
    """Check everything but the data; ``ValueError`` names the field, its value and what is allowed."""
    # Type hints are not enforced; a user's file may pass anything.
    given: dict[str, Any] = {f.name: getattr(problem, f.name) for f in dataclasses.fields(problem) if f.init}

    def refuse(field: str, wanted: str) -> None:
        raise ValueError(f"problem {given['name']!r}: {field} is {kind(given[field])}; wanted is {wanted}")

    for field in ("name", "metric_name"):
        if not isinstance(given[field], str) or not given[field].strip():
            refuse(field, "a text that is not empty")
    if not isinstance(given["source"], str):
        refuse("source", "a text")
    if isinstance(given["model"], nn.Module):
        refuse("model", "a factory that makes one, as in model=lambda: nn.Linear(4, 2)")
    for field in ("model", "loss"):
        if not callable(given[field]):
            refuse(field, "something to call")
    metric = given["metric"]
    if isinstance(metric, Mapping):
        for name, one in cast("Mapping[Any, Any]", metric).items():
            if not isinstance(name, str) or not callable(one):
                refuse("metric", "something to call, or a dictionary of such by name")
        if given["metric_name"] not in metric:
            refuse("metric_name", f"one of {', '.join(cast('Mapping[str, Any]', metric))}, which are its metrics")
    elif not callable(metric):
        refuse("metric", "something to call, or a dictionary of such by name")
    if given["device"] not in ("cpu", "cuda"):
        refuse("device", "'cpu' or 'cuda'")
    if given["device"] == "cuda" and not torch.cuda.is_available():
        refuse("device", "'cpu', since torch finds no GPU here")
    if not isinstance(given["higher_is_better"], bool):
        refuse("higher_is_better", "True or False")
    for field in ("batch_size", "steps"):
        if isinstance(given[field], bool) or not isinstance(given[field], int) or given[field] < 1:
            refuse(field, "a whole number >= 1")
    for field in ("cpus", "gpus"):
        if isinstance(given[field], bool) or not isinstance(given[field], int | float) or not 0 <= given[field] < 1e6:
            refuse(field, "a number >= 0")
    target = given["target"]
    if target is not None and (
        isinstance(target, bool) or not isinstance(target, int | float) or not math.isfinite(target)
    ):
        refuse("target", "a finite number or None")
