"""A problem: a model, its data in memory, a loss and a metric; everything that a race needs to know of it."""

import functools
import hashlib
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

Split: TypeAlias = Literal["train", "validation", "test"]
Data: TypeAlias = "tuple[Tensor, Tensor] | Dataset[Any]"

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
_CHUNK = 2048


@dataclass(frozen=True)
class Problem:
    """What is raced on.  Data sets are stacked into tensors once, here; batches are then drawn by index.

    Attributes:
        name: short, as it stands in reports and folders.
        model: makes a fresh model; it may use torch's global random numbers, which the caller seeds.
        loss: ``(prediction, target)`` → the mean over the batch, one number.
        train: ``(inputs, targets)`` with the samples along the first dimension, or a ``Dataset`` of such pairs, whose
            items are read once (a random transform is frozen thereby); ``validation`` and ``test`` likewise.
        metric: ``(prediction, target)`` over a whole split → one number, such as the accuracy in [0, 1].
        target: the metric worth reaching, for the time to it; None where there is none.
        source: one line: what data these are, how many, whose.
        steps: how many steps of that batch size a race trains for, unless told otherwise.

    Raises:
        ValueError: something is of another kind, a split is empty, inputs and targets differ in number.
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

    def __post_init__(self) -> None:
        _plain(self)
        for split in SPLITS:
            pair = _stacked(f"problem {self.name!r}: the {split} set", getattr(self, split))
            object.__setattr__(self, split, pair)

    def tensors(self, split: Split) -> tuple[Tensor, Tensor]:
        """The inputs and the targets of a split."""
        return cast("tuple[Tensor, Tensor]", getattr(self, split))

    def predict(self, model: nn.Module, x: Tensor) -> Tensor:
        """The model's predictions for all of `x`, in evaluation mode, without gradients, a chunk at a time."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                return torch.cat([model(x[i : i + _CHUNK]) for i in range(0, len(x), _CHUNK)])
        finally:
            model.train(training)

    def evaluate(self, model: nn.Module, split: Split) -> tuple[float, float]:
        """The loss and the metric over a whole split.  An optimizer with its own ``eval()`` is the caller's to put."""
        x, y = self.tensors(split)
        prediction = self.predict(model, x)
        with torch.no_grad():
            return float(self.loss(prediction, y)), float(self.metric(prediction, y))

    def check(self) -> None:
        """Try one small step, and the metric on validation data; torch's random numbers are left as they were.

        Raises:
            ValueError: one sentence that says what does not fit, before a race spends an hour to find it.
        """
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Broadcasting (N, 1) against (N,) trains on nonsense in silence.
            warnings.filterwarnings("error", message="Using a target size")
            model = self._fresh()
            if self._fresh() is model:
                self._refuse("the model factory returns one and the same model twice; make a new one at each call")
            self._check_loss(model)
            self._check_metric(model)

    def fingerprint(self) -> str:
        """A hash of the data, the settings and the model: the same for the same problem, in any process."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = self._fresh()
        shapes = [(name, tuple(value.shape), str(value.dtype)) for name, value in model.state_dict().items()]
        settings = (self.name, self.metric_name, self.higher_is_better, self.batch_size, self.target)
        says = (settings, _described(self.loss), _described(self.metric), _described(model), shapes)
        if isinstance(self.loss, nn.Module):
            says = (*says, [_content(weights) for weights in self.loss.state_dict().values()])
        data = [_content(values) for split in SPLITS for values in self.tensors(split)]
        # Objects that print their address would be new in every process.
        text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr((says, data)))
        return hashlib.sha256(text.encode()).hexdigest()

    def _fresh(self) -> nn.Module:
        model = self._try("the model factory", self.model)
        if not isinstance(model, nn.Module):
            self._refuse(f"the model factory returns {_kind(model)}; wanted is a torch.nn.Module")
        if not any(p.requires_grad for p in model.parameters()):
            self._refuse(f"the model, {_kind(model)}, has no trainable parameters")
        return model

    def _check_loss(self, model: nn.Module) -> None:
        x, y = (values[:8] for values in self.tensors("train"))
        prediction = self._try(f"the model on a batch of shape {tuple(x.shape)}", model, x)
        shapes = f"{_kind(prediction)} and targets of shape {tuple(y.shape)}"
        loss = self._try(f"the loss on {shapes}", self.loss, prediction, y)
        if not isinstance(loss, Tensor):
            self._refuse(f"the loss is {_kind(loss)}; wanted is a tensor of one number that can be differentiated")
        if loss.ndim:
            self._refuse(f"the loss has shape {tuple(loss.shape)}; wanted is one number, the mean over the batch")
        if not loss.is_floating_point():
            self._refuse(f"the loss is of {loss.dtype}; wanted is a floating-point number")
        if not loss.requires_grad:
            self._refuse("the loss does not depend on the parameters in a way that can be differentiated")
        self._try("the backward pass of the loss", cast(Any, loss).backward)
        if all(p.grad is None for p in model.parameters()):
            self._refuse("the loss gives no parameter of the model a gradient")

    def _check_metric(self, model: nn.Module) -> None:
        x, y = self.tensors("validation")
        prediction = self._try("the model on validation inputs", self.predict, model, x)
        metric = self._try("the metric", self.metric, prediction, y)
        if (isinstance(metric, Tensor) and metric.numel() != 1) or isinstance(metric, str):
            self._refuse(f"the metric is {_kind(metric)}; wanted is one number")
        try:
            float(metric)
        except (TypeError, ValueError, RuntimeError):
            self._refuse(f"the metric is {_kind(metric)}; wanted is one number")

    def _try(self, what: str, do: Callable[..., Any], *args: Any) -> Any:
        try:
            return do(*args)
        except Exception as error:
            said = " ".join(str(error).split())
            message = f"problem {self.name!r}: {what} raises {type(error).__name__}: {said}"
            raise ValueError(message) from error

    def _refuse(self, what: str) -> NoReturn:
        raise ValueError(f"problem {self.name!r}: {what}")


def _plain(problem: Problem) -> None:
    """Check all but the data; ``ValueError`` names the field, its value and what is allowed."""
    # Declared types bind only those who check them; what a user's file gives may be anything.
    given: dict[str, Any] = {name: getattr(problem, name) for name in problem.__dataclass_fields__}

    def refuse(field: str, wanted: str) -> None:
        raise ValueError(f"problem {given['name']!r}: {field} is {_kind(given[field])}; wanted is {wanted}")

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
            f"{what} is {_kind(cast(Any, data))}; wanted is a pair (inputs, targets) of tensors, or a Dataset"
        )
    for role, values in zip(("inputs", "targets"), pair, strict=True):
        if not isinstance(values, Tensor) or values.ndim == 0:
            raise ValueError(f"{what} has {_kind(values)} for {role}; wanted is a tensor with a row for every sample")
    x, y = cast("tuple[Tensor, Tensor]", pair)
    if len(x) != len(y):
        raise ValueError(f"{what} has {len(x):,} inputs and {len(y):,} targets; wanted are as many of one as the other")
    if len(x) == 0:
        raise ValueError(f"{what} is empty")
    return x, y


def _collected(what: str, data: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """Every item of a data set, read once."""
    if not isinstance(data, Sized):
        raise ValueError(f"{what} is {_kind(data)}, which has no length; wanted is a Dataset with __len__")
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


def _kind(value: object) -> str:
    """What a thing is, for a sentence."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"a {type(value).__name__}"


def _content(values: Tensor) -> str:
    """A hash of a tensor: its type, its shape and every bit of it."""
    digest = hashlib.sha256(f"{values.dtype} {tuple(values.shape)}".encode())
    digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _described(thing: Any) -> Any:
    """What tells one model, loss or metric from another, the same in every process."""
    if isinstance(thing, nn.Module):
        # A module's repr leaves some settings out: of CrossEntropyLoss(label_smoothing=0.1), for one, all.
        parts = cast("Iterator[tuple[str, nn.Module]]", cast(Any, thing).named_modules())
        return [(name, _source(type(part)), _settings(part)) for name, part in parts]
    if isinstance(thing, functools.partial):
        made = cast("functools.partial[Any]", thing)
        return (_described(made.func), made.args, sorted(made.keywords.items()))
    return _source(thing)


def _settings(module: nn.Module) -> list[tuple[str, Any]]:
    plain = (bool, int, float, str, tuple, type(None))
    public = {key: value for key, value in vars(module).items() if key[0] != "_"}
    return sorted((key, public[key]) for key in public if isinstance(public[key], plain))


def _source(thing: Any) -> str:
    """The code of a function or class; its name where it is torch's or has no code to read."""
    name = getattr(thing, "__qualname__", type(thing).__qualname__)
    if str(getattr(thing, "__module__", None)).startswith("torch"):
        return name
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):
        return name
