"""Tests a problem before a race, so that faults that would fail every run are reported at once, in one sentence."""

import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from thalweg.problems.blame import line_of, told, where
from thalweg.problems.chance import reproducible, seeded
from thalweg.problems.splits import Batch, kind, leaves

_FEW, _CHUNK = 64, 2048
PATIENCE = 1.0
"""The most seconds to spend on all rows; of a larger data set only a part is tested."""

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class _Problem(Protocol):
    """The parts of a problem that are tested; see `thalweg.Problem`."""

    @property
    def name(self) -> str: ...
    @property
    def model(self) -> Callable[[], nn.Module]: ...
    @property
    def loss(self) -> Callable[[Tensor, Tensor], Tensor]: ...
    @property
    def metrics(self) -> dict[str, Callable[[Any, Any], Tensor | float]]: ...
    @property
    def place(self) -> str: ...
    @property
    def fast(self) -> bool: ...
    def batches(self, split: Split, size: int | None = None) -> Iterator[Batch]: ...
    def batch_loss(self, model: nn.Module, batch: Batch) -> Tensor: ...
    def measure(self, model: nn.Module, split: Split) -> tuple[float, dict[str, float]]: ...
    def tensors(self, split: Split) -> tuple[Tensor, Tensor]: ...
    def predict(self, model: nn.Module, x: Tensor) -> Tensor: ...
    def materialize(self, model: nn.Module) -> None: ...


def check(problem: _Problem, sizes: Iterable[int]) -> None:
    """Try a step on batches of these sizes, then loss and metric on every split; see `thalweg.Problem.check`."""
    with reproducible(0), warnings.catch_warnings():
        # Broadcasting (N, 1) against (N,) silently trains on nonsense.
        warnings.filterwarnings("error", message="Using a target size")
        model = fresh(problem)
        if fresh(problem) is model:
            _refuse(
                problem, "the model factory returns one and the same model twice; make a new one at each call",
                problem.model,
            )  # fmt: skip
        if not problem.fast:
            _check_batches(problem, model)
            return
        train = len(problem.tensors("train")[0])
        for size in dict.fromkeys((8, *(size for size in sizes if size <= _CHUNK))):
            _check_step(problem, model, min(size, train))
        _check_metric(problem, model)
        _check_rows(problem, model)


def fresh(problem: _Problem) -> nn.Module:
    """A model from the factory, its lazy parameters initialized by two rows; ``ValueError`` if it has none to train."""
    model = _try(problem, "the model factory", problem.model)
    if not isinstance(model, nn.Module):
        _refuse(problem, f"the model factory returns {kind(model)}; wanted is a torch.nn.Module", problem.model)
    of = f" of shape {tuple(problem.tensors('train')[0][:2].shape)}" if problem.fast else ""
    _try(problem, f"the model on a batch{of}", problem.materialize, model)
    if not any(p.requires_grad for p in model.parameters()):
        _refuse(problem, f"the model, {kind(model)}, has no trainable parameters", problem.model)
    return model


def _check_step(problem: _Problem, model: nn.Module, size: int) -> None:
    x, y = (values[:size] for values in problem.tensors("train"))
    model.train()
    prediction = _try(problem, f"the model on a batch of shape {tuple(x.shape)}", model, x)
    shapes = f"{kind(prediction)} and targets of shape {tuple(y.shape)}"
    _check_loss(problem, model, _try(problem, f"the loss on {shapes}", problem.loss, prediction, y))


def _check_batches(problem: _Problem, model: nn.Module) -> None:
    """One step on the first batch, and the loss and the metrics on all batches of the other splits."""
    with seeded(0):
        batch = _try(problem, "the training data", lambda: next(problem.batches("train")))
    model.train()
    _check_loss(problem, model, _try(problem, f"the loss on {_shape(batch)}", problem.batch_loss, model, batch))
    for split in SPLITS[1:]:
        loss, metrics = _try(problem, f"what is measured on the {split} set", problem.measure, model, split)
        for name, value in {"the loss": loss, **{f"the metric {name}": x for name, x in metrics.items()}}.items():
            if not math.isfinite(value):
                _refuse(problem, f"{name} on the {split} set is {value} before the first step", problem.loss)


def _shape(batch: Batch) -> str:
    """The shapes in a batch, for a sentence."""
    told = ", ".join(f"{tuple(x.shape)} {name}".strip() for name, x in leaves(batch) if isinstance(x, Tensor))
    return f"a batch of shapes {told}" if told else kind(batch)


def _check_loss(problem: _Problem, model: nn.Module, loss: Any) -> None:
    if not isinstance(loss, Tensor):
        what = f"the loss is {kind(loss)}; wanted is a tensor of one number that can be differentiated"
        _refuse(problem, what, problem.loss)
    if loss.ndim:
        what = f"the loss has shape {tuple(loss.shape)}; wanted is one number, the mean over the batch"
        _refuse(problem, what, problem.loss)
    if not loss.is_floating_point():
        _refuse(problem, f"the loss is of {loss.dtype}; wanted is a floating-point number", problem.loss)
    if not loss.requires_grad:
        what = "the loss does not depend on the parameters in a way that can be differentiated"
        _refuse(problem, what, problem.loss)
    _try(problem, "the backward pass of the loss", cast(Any, loss).backward)
    if all(p.grad is None for p in model.parameters()):
        _refuse(problem, "the loss gives no parameter of the model a gradient", problem.loss)


def _check_metric(problem: _Problem, model: nn.Module) -> None:
    x, y = problem.tensors("validation")
    prediction = _try(problem, "the model on validation inputs", problem.predict, model, x[:_CHUNK])
    for name, metric in problem.metrics.items():
        what = _named(problem, name)
        value = _try(problem, what, metric, prediction, y[:_CHUNK])
        if (isinstance(value, Tensor) and value.numel() != 1) or isinstance(value, str):
            _refuse(problem, f"{what} is {kind(value)}; wanted is one number", metric)
        try:
            float(value)
        except (TypeError, ValueError, RuntimeError):
            _refuse(problem, f"{what} is {kind(value)}; wanted is one number", metric)


def _named(problem: _Problem, name: str) -> str:
    return "the metric" if len(problem.metrics) == 1 else f"the metric {name}"


def _check_rows(problem: _Problem, model: nn.Module) -> None:
    """The loss on all rows, or on as many as `PATIENCE` allows, and the metric on the same rows of two splits."""
    x, _ = problem.tensors("train")
    began = time.perf_counter()
    problem.predict(model, x[:_FEW])
    a_row = (time.perf_counter() - began) / min(len(x), _FEW)
    allowed = int(PATIENCE / 3 / a_row)
    for split in SPLITS:
        x, y = problem.tensors(split)
        rows = None if len(x) <= allowed else _some(x, y, max(allowed, _FEW))
        if rows is not None:
            x, y = x[rows], y[rows]
        trial = _Rows(problem, model, split, rows, x, y)
        for start in range(0, len(x), _CHUNK):
            trial.loss(start, min(start + _CHUNK, len(x)))
        if split != "train":
            trial.metric()


def _some(x: Tensor, y: Tensor, n: int) -> Tensor:
    """The indices of `n` evenly spaced rows, and of those most likely to be wrong."""
    rows = torch.linspace(0, len(x) - 1, n).long()
    odd = [_infinite(values).nonzero()[:1, 0] for values in (x, y)]
    if y.ndim == 1 and y.dtype != torch.bool and not y.is_complex():
        odd.append(torch.stack([y.argmin(), y.argmax()]))
    return torch.cat([rows, *odd]).unique()  # pyright: ignore[reportUnknownVariableType]


def _infinite(values: Tensor) -> Tensor:
    """For each row, whether it contains a number that is not finite."""
    finite = cast(Tensor, cast(Any, values).isfinite())
    return ~finite if values.ndim == 1 else ~cast(Tensor, cast(Any, finite.flatten(1)).all(1))


class _Rows:
    """Some rows of a split, on which to test the loss and the metric."""

    def __init__(
        self, problem: _Problem, model: nn.Module, split: Split, rows: Tensor | None, x: Tensor, y: Tensor
    ) -> None:
        self.problem, self.model, self.split, self.rows, self.x, self.y = problem, model, split, rows, x, y

    def loss(self, start: int, end: int) -> None:
        """Raise an error that names the row if the loss of these rows fails or is not finite."""
        if self._fault(start, end) is None:
            return
        while end - start > 1:  # usually a single one of its rows causes the fault
            middle = (start + end) // 2
            if self._fault(start, middle) is not None:
                end = middle
            elif self._fault(middle, end) is not None:
                start = middle
            else:
                break
        fault, error = cast("tuple[str, BaseException | None]", self._fault(start, end))
        first = start if self.rows is None else int(self.rows[start])
        row = f"row {first:,}" if end - start == 1 else f"{end - start:,} rows from {first:,} on"
        odd = [
            f"its {role} hold a value that is not finite"
            for role, values in (("inputs", self.x), ("targets", self.y))
            if bool(_infinite(values[start:end]).any())
        ]
        hint = f"; {' and '.join(odd)}" if odd else ""
        blamed = None if odd else self.problem.loss
        _refuse(self.problem, f"{fault} (the {self.split} set, {row}{hint})", blamed, error)

    def metric(self) -> None:
        """The same for the metric of all rows together."""
        prediction = _try(self.problem, f"the model on the {self.split} set", self.problem.predict, self.model, self.x)
        for name, metric in self.problem.metrics.items():
            what = f"{_named(self.problem, name)} on the {self.split} set"
            value = float(_try(self.problem, what, metric, prediction, self.y))
            if not math.isfinite(value):
                _refuse(self.problem, f"{what} is {value} before the first step", metric)

    def _fault(self, start: int, end: int) -> tuple[str, BaseException | None] | None:
        x, y = self.x[start:end], self.y[start:end]
        what = f"the model on inputs of shape {tuple(x.shape)}"
        try:
            prediction = self.problem.predict(self.model, x)
            what = f"the loss on {kind(prediction)} and targets of shape {tuple(y.shape)}"
            with torch.no_grad():
                value = float(self.problem.loss(prediction, y))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return f"{what} raises {told(error)}", error
        return None if math.isfinite(value) else (f"the loss is {value} before the first step", None)


def _try(problem: _Problem, what: str, do: Callable[..., Any], *args: Any) -> Any:
    try:
        return do(*args)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # including SystemExit
        _refuse(problem, f"{what} raises {told(error)}", do, error)


def _refuse(problem: _Problem, what: str, thing: Any, error: BaseException | None = None) -> NoReturn:
    """Raise ``ValueError`` with a line of the user's code: the error's, or that of `thing`, or the problem's."""
    place = "" if error and where(error) else line_of(thing) or problem.place
    raise ValueError(f"problem {problem.name!r}: {what}{f' ({place})' if place else ''}") from error
