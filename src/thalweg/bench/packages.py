"""Times whole steps (clip, step, zero) beside the optimizers of torch and of packages that torch's table has not."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from thalweg import conventions
from thalweg.bench import muons, timing
from thalweg.bench.contenders import CLIP_NORM
from thalweg.bench.result import OURS, Extra
from thalweg.bench.timing import Contender
from thalweg.bench.workloads import WORKLOADS, Shape


@dataclass(frozen=True)
class Case:
    """A step to time.

    Attributes:
        title: of the parameters.
        shapes: of the parameters.
        framework: the framework, by its name in `thalweg.conventions`; its module is that of the package.
        optimizer: its optimizer.
        arguments: its arguments.
        dtype: of the parameters.
    """

    title: str
    shapes: Sequence[Shape]
    framework: str
    optimizer: str
    arguments: Mapping[str, Any]
    dtype: torch.dtype = torch.float32

    def contenders(self) -> list[Contender]:
        """Our optimizer and the package's, each on parameters of its own."""
        module = importlib.import_module("torch.optim" if self.framework == "torch" else self.framework)
        ours, theirs = ([nn.Parameter(torch.randn(shape, dtype=self.dtype)) for shape in self.shapes] for _ in range(2))
        own = conventions.optimizer(self.framework, self.optimizer, ours, clip_norm=CLIP_NORM, **self.arguments)
        other: torch.optim.Optimizer = getattr(module, self.optimizer)(theirs, **self.arguments)

        def clipped() -> None:
            clip_grad_norm_(theirs, CLIP_NORM)
            other.step()
            other.zero_grad()

        def step() -> None:
            own.step()
            own.zero_grad()

        return [_given(OURS, ours, step), _given(self.framework, theirs, clipped)]


def _given(name: str, params: list[nn.Parameter], call: Callable[[], None]) -> Contender:
    """A contender whose parameters get gradients before each turn."""
    noise = [torch.randn_like(p) for p in params]

    def prepare() -> None:
        for p, g in zip(params, noise, strict=True):
            p.grad = g.clone()

    return Contender(name, prepare, call)


_TINY, _ONE = WORKLOADS["tiny"], [(4096, 4096)]
_PACKAGE = "pytorch_optimizer"

CASES = (
    Case("100 matrices of 64 × 64", 100 * [(64, 64)], "torch", "Muon", {"lr": 0.02}),
    Case("a layer of GPT-2 small", muons.LAYER, "torch", "Muon", {"lr": 0.02}),
    Case("768 × 768 in bfloat16", [(768, 768)], "torch", "Muon", {"lr": 0.02}, torch.bfloat16),
    Case("a matrix of 4,096 × 4,096", _ONE, "torch", "Adafactor", {"lr": 1e-3}),
    Case(_TINY.title, _TINY.shapes, "torch", "Adafactor", {"lr": 1e-3}),
    *(
        Case(title, shapes, _PACKAGE, name, {"lr": 1e-3})
        for name in ("Lamb", "StableAdamW", "AdEMAMix", "LaProp", "ADOPT", "Adan")
        for title, shapes in ((_TINY.title, _TINY.shapes), ("a matrix of 4,096 × 4,096", _ONE))
    ),
    Case("10 matrices of 512 × 512", 10 * [(512, 512)], _PACKAGE, "SOAP", {"lr": 3e-3, "precondition_frequency": 10}),
)


def measure(cases: Sequence[Case] = CASES, rounds: int = 5) -> list[Extra]:
    """The packages' times over ours; packages that are not installed, and names not in their column, are left out."""
    found: list[Extra] = []
    for case in cases:
        known = case.optimizer in conventions.TABLE[case.framework].names
        if known and importlib.util.find_spec(case.framework):
            times = timing.measure(case.contenders(), rounds)
            ratio = times[case.framework].median / times[OURS].median
            title = f"{case.optimizer}, clip, step and zero_grad, {case.title}"
            found.append(Extra(f"{title}, {case.framework}'s time over ours", ratio, "×"))
    return found
