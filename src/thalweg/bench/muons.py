"""Times Muon on a layer of GPT-2 small: in float32 beside the same formula in torch's operations and beside its floor.

The floor is the time of the fewest operations known for its products, each symmetric one counted up to the diagonal, at
the best rate at which torch multiplies matrices of these sides here, and of its bytes.  torch's own Muon, which always
makes matrices orthogonal in bfloat16, is among `thalweg.bench.packages`.
"""

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from thalweg import plan, rules
from thalweg.bench import timing
from thalweg.bench.plain import Plain
from thalweg.bench.result import OURS, Extra
from thalweg.bench.timing import Contender
from thalweg.optimizer import Optimizer
from thalweg.rules import Muon
from thalweg.rules.orthogonal import TABLES
from thalweg.stages import Stages

LAYER = ((768, 2304), (768, 768), (768, 3072), (3072, 768))
"""The matrices of a layer of GPT-2 small."""

_TORCH, _PLAIN = "torch's operations", "plain kernel"


def measure(shapes: Sequence[tuple[int, int]] = LAYER, rounds: int = 5) -> list[Extra]:
    """The time of the formula in torch's operations over ours, and our time over the floor, in float32."""
    rule = rules.Muon()
    ours, theirs = ([nn.Parameter(torch.randn(shape)) for shape in shapes] for _ in range(2))
    for p in (*ours, *theirs):
        p.grad = torch.randn_like(p)
    plain = Plain(rule.fit(shapes[0]), Stages(), torch.float32, sum(map(math.prod, shapes)))
    times = timing.measure(
        [
            Contender(OURS, lambda: None, Optimizer(ours, rule).step),
            Contender(_TORCH, lambda: None, written_out(theirs, rule)),
            Contender(_PLAIN, lambda: None, plain.run),
        ],
        rounds,
    )
    done, written = times[OURS].median, times[_TORCH].median
    floor = sum(products(shape, rule.steps) for shape in shapes) / rate(shapes)
    floor += plan.bytes_per_parameter(rule) * sum(map(math.prod, shapes)) * times[_PLAIN].median / plain.bytes
    title = "muon, a step of a layer of GPT-2 small in float32"
    return [
        Extra(f"{title}, time in torch's operations over ours", written / done, "×"),
        Extra(f"{title}, time over the floor of its products and bytes", done / floor, "×"),
    ]


def written_out(params: Sequence[nn.Parameter], rule: Muon) -> Callable[[], None]:
    """A step of Muon with its defaults, as one would write it in torch's operations."""
    buffers = [torch.zeros_like(p) for p in params]
    a, b, c = TABLES["original"][0]

    @torch.no_grad()
    def step() -> None:
        for p, buffer in zip(params, buffers, strict=True):
            assert p.grad is not None
            buffer.lerp_(p.grad, 1 - rule.momentum)
            update = p.grad.lerp(buffer, rule.momentum)
            x: Tensor = update.mT if update.shape[0] > update.shape[1] else update
            x = cast(Tensor, x / cast(Any, x).norm().clamp_min(rule.eps))
            for _ in range(rule.steps):
                square = x @ x.mT
                x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
            x = x.mT if update.shape[0] > update.shape[1] else x
            p.add_(x, alpha=-rule.lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)

    return step


def products(shape: tuple[int, int], steps: int) -> float:
    """The operations of Newton and Schulz's products: the iterations on the matrix, or on its Gram matrix, if fewer."""
    m, n = sorted(shape)
    return 2.0 * m * m * min(steps * (1.5 * n + 0.5 * m), 1.5 * n + (4 * steps - 3) * 0.5 * m)


def rate(shapes: Sequence[tuple[int, int]], dtype: torch.dtype = torch.float32) -> float:
    """The most operations per second at which torch multiplies matrices of these sides, of several ways and turns."""
    best = 0.0
    for m, n in {(min(shape), max(shape)) for shape in shapes}:
        a, b = torch.randn(m, m, dtype=dtype), torch.randn(m, n, dtype=dtype)
        ways: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (torch.mm, lambda x, y: linear(y.mT, x))
        for way in ways:
            for _ in range(5):
                begin = perf_counter()
                way(a, b)
                best = max(best, 2.0 * m * m * n / (perf_counter() - begin))
    return best
