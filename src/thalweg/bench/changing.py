"""Times steps where the set of gradients changes, of new optimizers, and of parameters with gaps in memory."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from thalweg.bench import contenders, timing
from thalweg.bench.pairs import PAIRS
from thalweg.bench.result import OURS, Extra
from thalweg.bench.timing import Contender

_COUNT, _SHAPE = 300, (32,)

Choose = Callable[[int], Sequence[bool]]


def measure(rounds: int = 5) -> list[Extra]:
    """The speed of steps where no layout can be reused, relative to each of torch's implementations."""
    found: list[Extra] = []
    ways = (OURS, *PAIRS["adam"].ways)
    for title, everyone in _cases(ways).items():
        times = timing.measure(everyone, rounds)
        found += [
            Extra(f"{title}, {way}'s time over ours", times[way].median / times[OURS].median, "×") for way in ways[1:]
        ]
    return found


def _cases(ways: Sequence[str]) -> dict[str, list[Contender]]:
    drawn: Any = torch.rand(1_000, _COUNT, generator=torch.Generator().manual_seed(0))
    chosen: dict[str, Choose] = {
        "a random 30 % of 300 tensors with gradients": lambda i: [x < 0.3 for x in drawn[i % 1_000].tolist()],
        "halves of 300 tensors in turn": lambda i: [(j < _COUNT // 2) == (i % 2 == 0) for j in range(_COUNT)],
    }
    found = {title: [_some(way, choose) for way in ways] for title, choose in chosen.items()}
    found["a new optimizer of 200 tensors and five steps"] = [_new(way, "adam", 5) for way in ways]
    found["a new SGD of 200 tensors and one step"] = [_new(way, "sgd", 1) for way in ways]
    found["100 parameters with gaps between their elements"] = [_gaps(way) for way in ways]
    return found


def _some(way: str, choose: Choose) -> Contender:
    params = [nn.Parameter(torch.randn(_SHAPE)) for _ in range(_COUNT)]
    grads = [torch.randn(_SHAPE) for _ in params]
    _, call = contenders.alone(params, way)
    calls = iter(range(10**9))

    def prepare() -> None:
        for p, g, on in zip(params, grads, choose(next(calls)), strict=True):
            p.grad = g.clone() if on else None

    return Contender(way, prepare, call)


def _new(way: str, rule: str, steps: int) -> Contender:
    params = [nn.Parameter(torch.randn(_SHAPE)) for _ in range(200)]
    for p in params:
        p.grad = torch.randn(_SHAPE)

    def call() -> None:
        _, step = contenders.alone(params, way, rule)
        for _ in range(steps):
            step()

    return Contender(way, lambda: None, call)


def _gaps(way: str) -> Contender:
    params = [nn.Parameter(torch.randn(64, 128)[:, ::2]) for _ in range(100)]
    for p in params:
        p.grad = torch.randn_like(p)
    _, call = contenders.alone(params, way)
    return Contender(way, lambda: None, call)
