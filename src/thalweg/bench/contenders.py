"""The contenders of one row: this engine and torch's implementations, on the same parameters and gradients.

Gradients are restored before every call, outside the timing.  If ``zero_grad()`` drops them, they come from autograd as
new tensors; if they are kept or zeroed in place (a step alone, ``step(zero_grad=True)``), a backward pass would add to
the same tensors, so the tensors are reused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from thalweg.bench.pairs import PAIRS, Pair
from thalweg.bench.result import OURS, ZEROING, Kind
from thalweg.bench.timing import Contender
from thalweg.bench.workloads import Shape
from thalweg.stages import Stages

CLIP_NORM = 1.0
EMA = 0.999


def form(pair: Pair, kind: Kind) -> Stages:
    """The stages of our step."""
    return Stages(clip_norm=kind != "step", decay=pair.decay, ema=kind == "ema")


@dataclass
class Model:
    """Parameters, stepped by all contenders in turn, and their gradients.

    Attributes:
        params: the parameters.
        noise: the values of their gradients.
        kept: the gradients if the same tensors are reused.
    """

    params: list[torch.nn.Parameter]
    noise: list[Tensor]
    kept: list[Tensor]

    @classmethod
    def random(cls, shapes: tuple[Shape, ...], dtype: torch.dtype) -> "Model":
        """Parameters and gradients of normal noise, the same for every run."""
        generator = torch.Generator().manual_seed(0)

        def tensors() -> list[Tensor]:
            return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]

        noise = tensors()
        kept = [torch.zeros_like(g) for g in noise]
        return cls([torch.nn.Parameter(p) for p in tensors()], noise, kept)

    def same(self) -> None:
        """Restore the gradients in the same tensors."""
        for p, g, noise in zip(self.params, self.kept, self.noise, strict=True):
            g.copy_(noise)
            p.grad = g

    def fresh(self) -> None:
        """Let autograd create new gradients, as a backward pass does."""
        for p in self.params:
            p.grad = None
        torch.autograd.backward(self.params, self.noise)


def contenders(pair: Pair, kind: Kind, model: Model, compiled: bool) -> list[Contender]:
    """All contenders for this kind of step: this engine first, then torch's implementations."""
    prepare = model.same if kind == "step" else model.fresh
    ours = [Contender(OURS, prepare, _ours(pair, kind, model, zeroing=False))]
    if kind != "step":
        ours.append(Contender(ZEROING, model.same, _ours(pair, kind, model, zeroing=True)))
    theirs = [Contender(way, prepare, _theirs(pair, kind, model, way)) for way in pair.ways]
    if compiled:
        theirs.append(Contender("compiled", prepare, _theirs(pair, kind, model, "compiled")))
    return ours + theirs


def alone(
    params: list[torch.nn.Parameter], way: str, rule: str = "adam"
) -> tuple[torch.optim.Optimizer, Callable[[], object]]:
    """An optimizer for a rule, this engine's or one of torch's, and its step."""
    found = PAIRS[rule]
    optimizer = found.ours(params) if way == OURS else found.constructed(params, way)
    return optimizer, optimizer.step


def _ours(pair: Pair, kind: Kind, model: Model, zeroing: bool) -> Callable[[], object]:
    optimizer = pair.ours(
        model.params, clip_norm=None if kind == "step" else CLIP_NORM, ema=EMA if kind == "ema" else None
    )

    def whole() -> None:
        optimizer.step()
        optimizer.zero_grad()

    if zeroing:
        return lambda: optimizer.step(zero_grad=True)
    return optimizer.step if kind == "step" else whole


def _theirs(pair: Pair, kind: Kind, model: Model, way: str) -> Callable[[], object]:
    optimizer = pair.constructed(model.params, way)
    average = [p.detach().clone() for p in model.params] if kind == "ema" else []
    # torch's function for averaged models, on all parameters at once: its fastest without a compiler.
    update_average = cast("Callable[..., object]", get_ema_multi_avg_fn(EMA))

    def step() -> None:
        if kind != "step":
            clip_grad_norm_(model.params, CLIP_NORM)
        optimizer.step()

    stepped = torch.compile(step) if way == "compiled" else step

    def whole() -> None:
        stepped()
        optimizer.zero_grad()
        if kind == "ema":
            update_average(average, model.params, None)

    return stepped if kind == "step" else whole
