"""Tests a problem before a race, so that faults that would fail every run are reported at once, in one sentence."""

import math
import time
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, Protocol, TypeAlias, cast

import torch
from torch import Tensor, nn

from thalweg.problems.blame import line_of, told, where
from thalweg.problems.chance import reproducible

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
    def metric(self) -> Callable[[Tensor, Tensor], Tensor | float]: ...
    @property
    def place(self) -> str: ...
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
    x = problem.tensors("train")[0][:2]
    _try(problem, f"the model on a batch of shape {tuple(x.shape)}", problem.materialize, model)
    if not any(p.requires_grad for p in model.parameters()):
        _refuse(problem, f"the model, {kind(model)}, has no trainable parameters", problem.model)
    return model


def _check_step(problem: _Problem, model: nn.Module, size: int) -> None:
    x, y = (values[:size] for values in problem.tensors("train"))
    model.train()
    prediction = _try(problem, f"the model on a batch of shape {tuple(x.shape)}", model, x)
    shapes = f"{kind(prediction)} and targets of shape {tuple(y.shape)}"
    loss = _try(problem, f"the loss on {shapes}", problem.loss, prediction, y)
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
    metric = _try(problem, "the metric", problem.metric, prediction, y[:_CHUNK])
    if (isinstance(metric, Tensor) and metric.numel() != 1) or isinstance(metric, str):
        _refuse(problem, f"the metric is {kind(metric)}; wanted is one number", problem.metric)
    try:
        float(metric)
    except (TypeError, ValueError, RuntimeError):
        _refuse(problem, f"the metric is {kind(metric)}; wanted is one number", problem.metric)


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
        what = f"the metric on the {self.split} set"
        prediction = _try(self.problem, f"the model on the {self.split} set", self.problem.predict, self.model, self.x)
        value = float(_try(self.problem, what, self.problem.metric, prediction, self.y))
        if not math.isfinite(value):
            _refuse(self.problem, f"{what} is {value} before the first step", self.problem.metric)

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


def kind(value: object) -> str:
    """A description of a value, for a sentence."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)
    return f"a {type(value).__name__}"


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
