"""Models of one kind that advance together: their parameters are stacked, and one pass computes all of them.

A chain of linear layers is computed directly (`thalweg.race.chain`); ``torch.vmap``, which takes longer than the steps
of small models, turns other models into models of stacked parameters.  The operations of `thalweg.race.exact` see to it
that each model has, to the last bit, the numbers that it has alone.
"""

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from thalweg.race import exact
from thalweg.race.chain import Chain, Fed, Loss, layers


class Stack:
    """Copies of a model, as one.

    Attributes:
        models: the copies; their parameters and buffers are parts of the stacked ones.
        apart: whether the loss of each is computed by itself, because the loss cannot be stacked.
    """

    def __init__(self, models: Sequence[nn.Module], apart: bool = False) -> None:
        if any(p._backward_hooks or p._post_accumulate_grad_hooks for p in models[0].parameters()):  # pyright: ignore
            raise ValueError("its parameters have hooks")
        if any("forward" in vars(part) for part in models[0].modules()):  # which copies of the model would share
            raise ValueError("its forward is replaced")
        if len({repr(model) for model in models}) > 1:
            raise ValueError("its layers are others for another seed")
        self.apart = apart
        self._model = models[0]
        self.models = [copy.deepcopy(model) for model in models]
        trained = [n for n, p in self._model.named_parameters() if p.requires_grad]
        self._trained = {n: _stacked(model.get_parameter(n) for model in models) for n in trained}
        others = [dict(_others(model)) for model in models]
        self._other = {n: _stacked(own[n] for own in others) for n in others[0]}
        self._layers = layers(self._model)
        self._point()

    @property
    def chained(self) -> bool:
        """Whether the models are chains, which may each see a batch of its own."""
        return self._chain is not None

    def losses(self, loss: Loss, fed: Sequence[Fed]) -> Tensor:
        """The loss of each model on its batch, with the gradients of each in its parameters.

        Args:
            loss: of a prediction and the targets.
            fed: the batches, one for all models if they are no chains.
        """
        if self._chain is not None and fed[0].x.ndim == 2:
            losses = self._chain.losses(loss, fed)
            self._give(self._gradients)
            return losses
        [(_, x, y)] = fed
        if self.apart:
            losses = exact.losses(loss, self._called(lambda out, _: out, x, x), y)
        else:
            losses = self._called(loss, x, y)
        found: Any = torch.autograd.grad(losses.sum(), [*self._trained.values()], allow_unused=True)
        none: Sequence[Tensor | None] = [None] * len(self.models)
        self._give([none if g is None else g.unbind() for g in found])
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
                return torch.cat([self._predictions(x[i : i + most]) for i in range(0, len(x), most)], 1)
        finally:
            self._model.train()

    def keep(self, chosen: Sequence[int]) -> None:
        """Go on with some of the models, by their positions."""
        self.models = [self.models[i] for i in chosen]
        for held in (self._trained, self._other):
            held.update({name: x.detach()[list(chosen)].requires_grad_(x.requires_grad) for name, x in held.items()})
        self._point()

    def _predictions(self, x: Tensor) -> Tensor:
        if self._chain is not None and x.ndim == 2:
            return self._chain.predictions(x)
        # Random numbers would be others than those that a model draws alone.
        return self._called(lambda out, _: out, x, x, "error")

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
        memory = {name: torch.empty_like(x, requires_grad=False) for name, x in self._trained.items() if self._layers}
        self._gradients = [g.unbind() for g in memory.values()]
        self._chain = Chain(self._layers, self._trained, memory) if self._layers else None

    def _give(self, gradients: Sequence[Sequence[Tensor | None]]) -> None:
        """Have each model's parameters have their gradients."""
        for own, parts in zip(self._parameters, gradients, strict=True):
            for p, part in zip(own, parts, strict=True):
                if p.grad is not part:
                    p.grad = part


def _others(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*((n, p) for n, p in model.named_parameters() if not p.requires_grad), *model.named_buffers()]


def _stacked(own: Iterable[Tensor]) -> Tensor:
    each = [*own]
    return torch.stack([x.detach() for x in each]).requires_grad_(each[0].requires_grad)
