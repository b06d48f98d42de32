"""Times steps of rules that torch has not, on one large matrix, beside a plain kernel that moves as many bytes."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from thalweg import plan, rules
from thalweg.bench import timing
from thalweg.bench.plain import Plain
from thalweg.bench.result import OURS, Extra
from thalweg.bench.timing import Contender
from thalweg.optimizer import Optimizer
from thalweg.stages import Stages

RULES = (
    "lamb", "lars", "stableadamw", "adafactor", "came", "sm3", "novograd", "prodigy", "schedule_free_adamw", "ademamix",
    "adan", "adopt", "laprop", "mars",
)  # fmt: skip
"""What is timed, as text for `thalweg.rules.parse`."""

_PLAIN = "plain kernel"


def measure(names: Sequence[str] = RULES, shape: tuple[int, int] = (3072, 4096), rounds: int = 5) -> list[Extra]:
    """The time of a step of each rule over the floor of its bytes; see `thalweg.bench.plain`.

    Args:
        names: the rules.
        shape: of the matrix, in float32.
        rounds: the turns of each.
    """
    found: list[Extra] = []
    for name in names:
        rule = rules.parse(name)
        p = nn.Parameter(torch.randn(shape))
        p.grad = torch.randn(shape)
        optimizer = Optimizer([p], rule)
        plain = Plain(rule.fit(shape) if rule.fits else rule, Stages(), p.dtype, p.numel())
        times = timing.measure(
            [Contender(OURS, lambda: None, optimizer.step), Contender(_PLAIN, lambda: None, plain.run)], rounds
        )
        floor = plan.bytes_per_parameter(rule) * math.prod(shape) * times[_PLAIN].median / plain.bytes
        title = f"{name}, a step of {shape[0]:,} × {shape[1]:,}, time over the floor of its bytes"
        found.append(Extra(title, times[OURS].median / floor, "×"))
    return found
