"""Operations on stacked models that give each the bits that it has alone.

``torch.vmap`` has rules of its own for most operations.  Where they sum in another order than one model does, these
take their place.  Models that see the same inputs multiply them by all of their weights in one product.
"""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_linear: Any = functional.linear
_cross_entropy: Any = functional.cross_entropy
_CLASSES = {
    "weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean",
    "label_smoothing": 0.0,
}  # fmt: skip
"""The settings of the cross entropy that has a form of its own here."""

_ONE_BY_ONE = {
    getattr(functional, name)
    for name in (
        "batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "conv1d", "conv2d", "conv3d",
        "conv_transpose2d", "cross_entropy", "nll_loss", "mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss",
        "binary_cross_entropy", "binary_cross_entropy_with_logits", "kl_div", "gaussian_nll_loss", "poisson_nll_loss",
        "soft_margin_loss", "multi_margin_loss",
    )
}  # fmt: skip
"""What ``torch.vmap`` computes in other sums than a model has alone, so that the last bits differ."""


class Operations(TorchFunctionMode):
    """Has stacked models compute some operations in the way that gives each the bits that it has alone."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _linear and not kwargs:
            return cast(Any, _Linear).apply(*args)
        if func is _cross_entropy and len(args) == 2 and args[0].ndim == 2 and kwargs.items() <= _CLASSES.items():
            return cast(Any, _CrossEntropy).apply(*args)
        if func in _ONE_BY_ONE:
            return cast(Any, _Each).apply(func, tuple(kwargs), *args, *kwargs.values())
        return func(*args, **kwargs)


class _Stackable(torch.autograd.Function):
    """An operation with a form for stacked arguments, which is differentiated operation by operation."""

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError("a model that is not stacked is differentiated without its stack")


class _Each(_Stackable):
    """A function of each model's arguments, one after another."""

    @staticmethod
    def forward(func: Any, names: tuple[str, ...], *values: Any) -> Any:
        plain = len(values) - len(names)
        return func(*values[:plain], **dict(zip(names, values[plain:], strict=True)))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        func, names, *values = args
        columns: list[Any] = [
            x.movedim(dim, 0).contiguous().unbind() if isinstance(dim, int) else [x] * info.batch_size
            for dim, x in zip(in_dims[2:], values, strict=True)
        ]
        return torch.stack([_Each.forward(func, names, *own) for own in zip(*columns, strict=True)]), 0


class _Linear(_Stackable):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return _linear(x, weight, bias)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        x: Tensor = args[0]
        weight, bias = (*args, None)[1:3]
        x = x if in_dims[0] is None else x.movedim(in_dims[0], 0)
        if all(dim is None for dim in in_dims[1:]):
            return _linear(x, weight, bias), 0
        weight, bias = (
            own if own is None or dim == 0 else own.expand(info.batch_size, *own.shape)
            for own, dim in zip((weight, bias), (*in_dims, None)[1:3], strict=True)
        )
        shared = in_dims[0] is None
        rows = x.shape[0 if shared else 1 : -1]
        flat = x.reshape(-1, x.shape[-1]) if shared else x.reshape(len(x), -1, x.shape[-1])
        made: Tensor = cast(Any, Product).apply(flat, weight, bias)
        return made.reshape(len(made), *rows, made.shape[-1]), 0


class Product(torch.autograd.Function):
    """x Wᵢᵀ + bᵢ for each i, where x, of shape (rows, inputs), is the same for all or has one more axis."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased = bias is not None
        count, outputs, inputs = weight.shape
        ctx.way = way = product(x.ndim == 2, x.shape[-2], inputs, outputs, count, x.dtype, bias is not None)
        return way.made(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        g: Tensor = grads[0].contiguous()
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[1]:
            of_weight = ctx.way.of_weight(x, g)
        if ctx.biased:
            of_bias = ctx.way.of_bias(g)
        if ctx.needs_input_grad[0]:
            each = ctx.way.of_x(g, weight)
            of_x = each if x.ndim == 3 else each.sum(0)
        return of_x, of_weight, of_bias


class Way:
    """A way to multiply; this one does the products of all models in one batch."""

    @staticmethod
    def made(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        turned, each = weight.transpose(1, 2), _each(x, len(weight))
        return torch.bmm(each, turned) if bias is None else torch.baddbmm(bias[:, None], each, turned)

    @staticmethod
    def of_weight(x: Tensor, g: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.bmm(g.transpose(1, 2), _each(x, len(g)), out=out)

    @staticmethod
    def of_x(g: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(g, weight)

    @staticmethod
    def of_bias(g: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.sum(g, 1, out=out)


class _Folded(Way):
    """One product with the weights of all models, of inputs that all have in common."""

    @staticmethod
    def made(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        count, outputs, inputs = weight.shape
        whole = weight.reshape(count * outputs, inputs).t()
        made = x @ whole if bias is None else torch.addmm(bias.reshape(-1), x, whole)
        return made.view(len(x), count, outputs).transpose(0, 1).contiguous()

    @staticmethod
    def of_weight(x: Tensor, g: Tensor, out: Tensor | None = None) -> Tensor:
        count, rows, outputs = g.shape
        whole = None if out is None else out.view(count * outputs, x.shape[1])
        made = torch.mm(g.transpose(0, 1).reshape(rows, count * outputs).t(), x, out=whole)
        return made.view(count, outputs, x.shape[1])


class _Separate(Way):
    """The products of one model after another."""

    @staticmethod
    def made(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        biases = [None] * len(weight) if bias is None else bias.unbind()
        each = zip(_each(x, len(weight)).unbind(), weight.unbind(), biases, strict=True)
        return torch.stack([_linear(*own) for own in each])

    @staticmethod
    def of_weight(x: Tensor, g: Tensor, out: Tensor | None = None) -> Tensor:
        each = zip(_each(x, len(g)).unbind(), g.unbind(), strict=True)
        return torch.stack([b.t() @ a for a, b in each], out=out)

    @staticmethod
    def of_x(g: Tensor, weight: Tensor) -> Tensor:
        return torch.stack([a @ b for a, b in zip(g.unbind(), weight.unbind(), strict=True)])

    @staticmethod
    def of_bias(g: Tensor, out: Tensor | None = None) -> Tensor:
        return torch.stack([own.sum(0) for own in g.unbind()], out=out)


_COMPARED = 4_000
"""How many numbers at least are compared: in sums of few terms most agree by chance."""


def _each(x: Tensor, count: int) -> Tensor:
    return x.expand(count, *x.shape) if x.ndim == 2 else x


@cache
def product(
    shared: bool,
    rows: int,
    inputs: int,
    outputs: int,
    count: int,
    dtype: torch.dtype,
    biased: bool,
    trained: bool = True,
) -> type[Way]:
    """The quickest way to multiply that gives each model, if it is trained with its gradients, the bits that it has
    alone.

    Which one does depends on how the library of matrix products cuts them up, so they are tried.
    """
    chance = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, dtype=torch.float32).to(dtype)

    ways = [_Folded, Way] if shared else [Way]
    with torch.no_grad():
        for _ in range(max(1, _COMPARED // (count * rows * outputs))):
            x = drawn(rows, inputs) if shared else drawn(count, rows, inputs)
            weight, g = drawn(count, outputs, inputs), drawn(count, rows, outputs)
            bias = drawn(count, outputs) if biased else None

            def tried(way: type[Way], x: Tensor = x, weight: Tensor = weight, g: Tensor = g) -> list[Tensor]:
                made = way.made(x, weight, bias)  # noqa: B023
                return [made, way.of_weight(x, g), way.of_x(g, weight), way.of_bias(g)] if trained else [made]

            alone = tried(_Separate)
            ways = [way for way in ways if all(map(torch.equal, tried(way), alone))]
    return ways[0] if ways else _Separate


class _CrossEntropy(_Stackable):
    @staticmethod
    def forward(scores: Tensor, target: Tensor) -> Tensor:
        return _cross_entropy(scores, target)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *args: Any) -> tuple[Tensor, int]:
        scores, target = args
        if in_dims != (0, None) or not are_classes(target):
            return _Each.vmap(info, (None, None, *in_dims), _cross_entropy, (), scores, target)
        made: Tensor = cast(Any, Entropies).apply(scores, target)
        return made, 0


class Entropies(torch.autograd.Function):
    """The cross entropies of several models' scores, (models, samples, classes), with the same classes."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, target: Tensor) -> Tensor:
        logs = torch.log_softmax(scores, -1)
        ctx.save_for_backward(logs, target)
        return _means(logs, target)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _of_scores(grads[0], *ctx.saved_tensors), None


def _means(logs: Tensor, target: Tensor) -> Tensor:
    """The loss of each model, from the logarithms of its probabilities."""
    # One by one: the mean over a batch is another sum than one along an axis of a stack.
    return torch.stack([functional.nll_loss(own, target) for own in logs.unbind()])


def _of_scores(g: Tensor, logs: Tensor, target: Tensor) -> Tensor:
    """The gradients of the scores, from those of the losses."""
    at = target[None, :, None].expand(len(logs), -1, 1)
    each = (-g / len(target))[:, None, None].expand(-1, len(target), 1)
    whole = torch.zeros_like(logs).scatter_(2, at, each)
    return torch.ops.aten._log_softmax_backward_data(whole, logs, 2, logs.dtype)


def scored(loss: Any, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each model's predictions, with the same targets, and the gradients of the predictions."""
    if _has_form(loss, predictions, target):  # for which autograd would take longer than the loss
        logs = torch.log_softmax(predictions, -1)
        return _means(logs, target), _of_scores(logs.new_ones(len(logs)), logs, target)
    x = predictions.detach().requires_grad_()
    with torch.enable_grad():
        found = losses(loss, x, target)
        [g] = torch.autograd.grad(found.sum(), [x])
    return found.detach(), g


def losses(loss: Any, predictions: Tensor, target: Tensor) -> Tensor:
    """The loss of each model's predictions, with the same targets."""
    if _has_form(loss, predictions, target):
        return cast(Any, Entropies).apply(predictions, target)
    return torch.stack([loss(own, target) for own in predictions.unbind()])


def _has_form(loss: Any, predictions: Tensor, target: Tensor) -> bool:
    return is_cross_entropy(loss) and predictions.ndim == 3 and are_classes(target)


def is_cross_entropy(loss: Any) -> bool:
    """Whether a loss is the cross entropy of classes, with torch's defaults."""
    if type(loss) is nn.CrossEntropyLoss:
        settings = (loss.weight, loss.ignore_index, loss.reduction, loss.label_smoothing)
        return settings == (None, -100, "mean", 0.0)
    return loss is _cross_entropy


def are_classes(target: Tensor) -> bool:
    """Whether targets are classes, none of them one that the loss ignores."""
    return target.ndim == 1 and not target.is_floating_point() and int(target.min()) >= 0
