"""Models of one kind that advance together: their parameters are stacked, and one pass computes all of them.

A chain of linear layers is computed directly; ``torch.vmap`` turns other models into models of stacked parameters.  The
operations of `thalweg.race.exact` see to it that each model has, to the last bit, the numbers that it has alone.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.race import exact

Loss = Callable[[Tensor, Tensor], Tensor]


class Stack:
    """Copies of a model, as one.

    Attributes:
        models: the copies; their parameters and buffers are parts of the stacked ones.
        apart: whether the loss of each is computed by itself, because the loss cannot be stacked.
    """

    def __init__(self, model: nn.Module, count: int, apart: bool = False) -> None:
        self.apart = apart
        self._model = model
        self.models = [copy.deepcopy(model) for _ in range(count)]
        self._trained = {n: _stacked(p, count) for n, p in model.named_parameters() if p.requires_grad}
        frozen = {n: p for n, p in model.named_parameters() if not p.requires_grad}
        self._other = {n: _stacked(x, count) for n, x in (*frozen.items(), *model.named_buffers())}
        self._chain = _chain(model)
        self._point()

    def losses(self, loss: Loss, x: Tensor, y: Tensor) -> Tensor:
        """The loss of each model on a batch, with the gradients of each in its parameters."""
        if self._chain is None and not self.apart:
            losses = self._called(loss, x, y)
        else:
            predictions = self._predictions(x, "same")
            if exact.is_cross_entropy(loss) and predictions.ndim == 3 and exact.are_classes(y):
                losses = cast(Tensor, cast(Any, exact.Entropies).apply(predictions, y))
            else:
                losses = torch.stack([loss(prediction, y) for prediction in predictions.unbind()])
        gradients: Any = torch.autograd.grad(losses.sum(), [*self._trained.values()], allow_unused=True)
        for own, g in zip(self._parameters, gradients, strict=True):
            parts: Sequence[Tensor | None] = [None] * len(own) if g is None else g.unbind()
            for p, part in zip(own, parts, strict=True):
                p.grad = part
        return losses.detach()

    def predict(self, x: Tensor, most: int) -> Tensor:
        """The predictions of each model in evaluation mode, without gradients: (models, samples, …).

        Args:
            x: the inputs.
            most: the most samples to predict at once.
        """
        self._model.eval()
        try:
            with torch.no_grad():
                # Random numbers would be others than those that a model draws alone.
                parts = [x[i : i + most] for i in range(0, len(x), most)]
                return torch.cat([self._predictions(part, "error") for part in parts], 1)
        finally:
            self._model.train()

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with some of the models, by their positions."""
        self.models = [self.models[i] for i in chosen]
        for held in (self._trained, self._other):
            held.update({name: _leaf(x.detach()[list(chosen)], x) for name, x in held.items()})
        self._point()

    def _predictions(self, x: Tensor, randomness: str) -> Tensor:
        if self._chain is None or x.ndim != 2:
            return self._called(lambda out, _: out, x, x, randomness)
        for name, layer in self._chain:
            if isinstance(layer, nn.Linear):
                x = cast(Any, exact.Product).apply(x, self._trained[f"{name}weight"], self._trained.get(f"{name}bias"))
            else:
                x = layer(x)
        return x

    def _called(self, of: Loss, x: Tensor, y: Tensor, randomness: str = "same") -> Tensor:
        """A function of the prediction and the targets, of each model.

        Randomness is the same for all: alone, too, runs of one seed draw the same numbers.
        """

        def one(trained: dict[str, Tensor], other: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
            return of(functional_call(self._model, (trained, other), (x,)), y)

        with exact.Operations():
            stacked = torch.vmap(one, in_dims=(0, 0, None, None), randomness=randomness)
            return stacked(self._trained, self._other, x, y)

    def _point(self) -> None:
        """Have each model's parameters and buffers be parts of the stacked ones."""
        for of, named in ((self._trained, nn.Module.named_parameters), (self._other, _others)):
            for i, model in enumerate(self.models):
                found = dict(named(model))
                for name, x in of.items():
                    found[name].data = x.detach()[i]
        owners = [dict(model.named_parameters()) for model in self.models]
        self._parameters = [[own[name] for own in owners] for name in self._trained]


_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Identity)


def _chain(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """The layers of a model that is a chain of trained linear ones and functions of each element, with the prefix of
    their parameters' names; None for other models.

    Such a chain needs no ``torch.vmap``, which takes longer than the steps of small models.
    """
    found: list[tuple[str, nn.Module]] = []
    named = cast(Any, model).named_modules(remove_duplicate=False)
    for name, layer in named:
        hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks
        if hooks or not all(p.requires_grad for p in layer.parameters()):
            return None
        if type(layer) in (nn.Linear, *_ELEMENTWISE):
            found.append((f"{name}." if name else "", layer))
        elif type(layer) is not nn.Sequential:
            return None
    linear = [id(layer) for _, layer in found if isinstance(layer, nn.Linear)]
    return found if len({*linear}) == len(linear) else None


def _others(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*((n, p) for n, p in model.named_parameters() if not p.requires_grad), *model.named_buffers()]


def _stacked(x: Tensor, count: int) -> Tensor:
    return _leaf(x.detach().expand(count, *x.shape).clone(memory_format=torch.contiguous_format), x)


def _leaf(values: Tensor, like: Tensor) -> Tensor:
    return values.requires_grad_(like.requires_grad)
