"""Models that are chains of linear layers and functions of each element, computed for a whole stack of them.

The layers are differentiated one by one, and gradients are written to memory that stays the same: managing a graph and
memory for all models takes a third of a step of small ones.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from thalweg.race import exact

Loss = Callable[[Tensor, Tensor], Tensor]

_HOOKS: list[Mapping[int, Any]] = [
    getattr(nn.modules.module, f"_global_{name}_hooks")
    for name in ("forward", "forward_pre", "backward", "backward_pre")
]
"""Those of all modules of the process."""
_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Identity)


class Fed(NamedTuple):
    """How many models, one after another in a stack, see a batch; its inputs and its targets."""

    models: int
    x: Tensor
    y: Tensor


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """The layers of a model that is a chain of trained linear ones and functions of each element, with the prefix of
    their parameters' names; nothing for other models.
    """
    found: list[tuple[str, nn.Module]] = []
    named = cast(Any, model).named_modules(remove_duplicate=False)
    for name, layer in named:
        if type(layer) not in (nn.Linear, nn.Sequential, *_ELEMENTWISE) or not _as_it_is(layer):
            return []
        if type(layer) is not nn.Sequential:
            found.append((f"{name}." if name else "", layer))
    weights = [id(p) for _, layer in found for p in layer.parameters()]
    return found if weights and len({*weights}) == len(weights) and not any(_HOOKS) else []


def _as_it_is(layer: Any) -> bool:
    """Whether a layer does what its class says, with all of its own parameters trained and no others."""
    hooks = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    own = dict(layer.named_parameters(recurse=False))
    known = {"weight", "bias"} if isinstance(layer, nn.Linear) else set[str]()
    return not hooks and own.keys() <= known and all(p.requires_grad for p in own.values())


@dataclass(frozen=True)
class _Linear:
    """A linear layer of all models, or of some: weights and biases, and where their gradients are."""

    weight: Tensor
    of_weight: Tensor
    bias: Tensor | None
    of_bias: Tensor | None

    def part(self, models: slice) -> "_Linear":
        return _Linear(*(None if x is None else x[models] for x in vars(self).values()))  # pyright: ignore

    def made(self, x: Tensor, trained: bool = True) -> Tensor:
        return self._way(x, trained).made(x, self.weight, self.bias)

    def differentiate(self, x: Tensor, g: Tensor) -> None:
        way = self._way(x, True)
        way.of_weight(x, g, self.of_weight)
        if self.of_bias is not None:
            way.of_bias(g, self.of_bias)

    def back(self, x: Tensor, g: Tensor) -> Tensor:
        return self._way(x, True).of_x(g, self.weight)

    def _way(self, x: Tensor, trained: bool) -> type[exact.Way]:
        count, outputs, inputs = self.weight.shape
        biased = self.bias is not None
        return exact.product(x.ndim == 2, x.shape[-2], inputs, outputs, count, x.dtype, biased, trained)


class Chain:
    """A stack of such models.

    Args:
        layers: the layers of one model; see `layers`.
        weights: the parameters of all, by name.
        gradients: where their gradients are to be written.
    """

    def __init__(
        self,
        layers: Sequence[tuple[str, nn.Module]],
        weights: Mapping[str, Tensor],
        gradients: Mapping[str, Tensor],
    ) -> None:
        def of(name: str, layer: nn.Module) -> "_Linear | nn.Module":
            if not isinstance(layer, nn.Linear):
                return _pure(layer)
            both = weights, gradients
            return _Linear(*(found.get(name + what) for what in ("weight", "bias") for found in both))  # pyright: ignore

        made = [of(name, layer) for name, layer in layers]
        first = next(k for k, layer in enumerate(made) if isinstance(layer, _Linear))
        self._before, self._first, self._rest = made[:first], cast(_Linear, made[first]), made[first + 1 :]

    @torch.no_grad()
    def predictions(self, x: Tensor) -> Tensor:
        """The predictions of all models for the same inputs: (models, samples, outputs)."""
        a = self._first.made(self._begun(x), trained=False)
        for layer in self._rest:
            a = layer.made(a, trained=False) if isinstance(layer, _Linear) else layer(a)
        return a

    @torch.no_grad()
    def losses(self, loss: Loss, fed: Sequence[Fed]) -> Tensor:
        """The loss of each model on its batch; the gradients are written."""
        parts = [slice(start, end) for start, end in pairwise(accumulate((one.models for one in fed), initial=0))]
        firsts = [self._first.part(models) for models in parts] if len(fed) > 1 else [self._first]
        inputs = [self._begun(one.x) for one in fed]
        a = _joined([first.made(x) for first, x in zip(firsts, inputs, strict=True)])
        given: list[tuple[Tensor, Tensor]] = []
        for layer in self._rest:
            if isinstance(layer, _Linear):
                given.append((a, a))
                a = layer.made(a)
            else:
                with torch.enable_grad():
                    made = layer(a.requires_grad_())
                given.append((a, made))
                a = made.detach()
        scored = [exact.scored(loss, a[models], one.y) for models, one in zip(parts, fed, strict=True)]
        g = _joined([g for _, g in scored]).contiguous()
        for layer, (x, made) in zip(reversed(self._rest), reversed(given), strict=True):
            if isinstance(layer, _Linear):
                layer.differentiate(x, g)
                g = layer.back(x, g)
            else:
                [g] = torch.autograd.grad(made, [x], g)
            g = g.contiguous()
        for first, models, x in zip(firsts, parts, inputs, strict=True):
            first.differentiate(x, g[models])
        return _joined([losses for losses, _ in scored])

    def _begun(self, x: Tensor) -> Tensor:
        for layer in self._before:
            x = cast(nn.Module, layer)(x)
        return x


def _pure(layer: nn.Module) -> nn.Module:
    """The same function of each element, which leaves what it is given as it is."""
    made = copy.copy(layer)
    if hasattr(made, "inplace"):
        made.inplace = cast(Any, False)
    return made


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)
