"""What a step on a GPU is to hold besides its time: parity, repeats, captured steps, nothing that waits; and a verdict.

Each figure is beside its aim in the table that the bench prints last.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from rich.table import Table
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from thalweg import schedules
from thalweg.bench.pairs import pair
from thalweg.bench.result import OURS
from thalweg.bench.workloads import Shape
from thalweg.optimizer import Optimizer

SHAPES: tuple[Shape, ...] = ((64, 33), (33,), (), (5, 4, 3))
FORM: dict[str, Any] = {"clip_norm": 1.0, "ema": 0.9, "weight_decay": 0.1, "decay_form": "scaled"}
WAITS = ("StreamSynchronize", "EventSynchronize", "DtoH")
"""What the profiler calls the processor's waiting for a stream, and copies to the host."""

Step = Callable[[], object]
Capture = Callable[[torch.device, Step], Step]


@dataclass(frozen=True)
class Figure:
    """A figure beside its aim.

    Attributes:
        what: it is of.
        found: it, in words.
        aim: what it is meant to be.
        holds: whether it is.
    """

    what: str
    found: str
    aim: str
    holds: bool


def model(device: torch.device, times: int = 1) -> list[torch.nn.Parameter]:
    """The same parameters on any device."""
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(device)) for shape in times * SHAPES]


def give(params: Sequence[Tensor], seed: int) -> None:
    """The same gradients on any device, in the same tensors."""
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        noise = torch.randn(p.shape, generator=generator)
        if p.grad is None:
            p.grad = noise.to(p.device)
        else:
            p.grad.copy_(noise)


def parity(device: torch.device, backend: str, steps: int = 20) -> Figure:
    """How far Adam's whole step is from the formula, run on the CPU in the same types."""
    here, there = model(device), model(torch.device("cpu"))
    ours = Optimizer(here, "adam", backend=backend, **FORM)
    theirs = Optimizer(there, "adam", backend="eager", **FORM)
    for step in range(steps):
        for params, optimizer in ((here, ours), (there, theirs)):
            give(params, step)
            optimizer.step()
    most = max(float(((p.detach().cpu() - q.detach()).abs() / (1 + q.detach().abs())).max())
               for p, q in zip(here, there, strict=True))  # fmt: skip
    return Figure(f"difference from the formula after {steps} steps", f"{most:.1e}", "at most 1e-06", most <= 1e-6)


def repeats(device: torch.device, backend: str, steps: int = 5) -> Figure:
    """Whether steps repeat bit by bit, with sums over parameters and state rounded at random."""
    found: list[list[torch.nn.Parameter]] = []
    for _ in range(2):
        params = model(device, 5)
        optimizer = Optimizer(params, "lamb", backend=backend, state_dtype=torch.bfloat16, **FORM)
        for step in range(steps):
            give(params, step)
            optimizer.step()
        found.append(params)
    same = all(torch.equal(p, q) for p, q in zip(*found, strict=True))
    return Figure("repeated steps", "the same bits" if same else "other bits", "the same bits", same)


def graph(device: torch.device, step: Step) -> Step:
    """Record a step in a CUDA graph; what replays it."""
    made = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.cuda.graph(made):
        step()
    return made.replay


def captured(device: torch.device, backend: str, steps: int = 1_000, capture: Capture | None = None) -> Figure:
    """Whether a captured step with a schedule is the uncaptured one."""
    settings: dict[str, Any] = {"schedule": schedules.warmup(steps // 10).then(schedules.cosine(steps)), **FORM}
    here, there = model(device), model(device)
    ours = Optimizer(here, "adam", backend=backend, capturable=True, **settings)
    theirs = Optimizer(there, "adam", backend=backend, **settings)
    give(here, 0)
    ours.step()
    replay = (capture or graph)(device, ours.step)
    give(there, 0)
    theirs.step()
    for step in range(1, steps):
        give(here, step)
        give(there, step)
        replay()
        ours.replayed()
        theirs.step()
    same = all(torch.equal(p, q) for p, q in zip(here, there, strict=True))
    same &= {float(optimizer.state[p]["step"]) for optimizer in (ours, theirs) for p in optimizer.state} == {steps}
    return Figure(f"{steps:,} captured steps with a schedule", "equal" if same else "unequal", "equal", same)


def waiting(device: torch.device, backend: str, steps: int = 100, *, scaled: bool = True) -> Figure:
    """What waits for the device in a profile of steps, by default with a gradient scaler that leaves out steps."""
    params = model(device, 5)
    optimizer = Optimizer(
        params, "adam", backend=backend, nonfinite="skip", schedule=schedules.cosine(10 * steps), **FORM
    )
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)

    def step() -> None:
        loss = torch.stack([(p**2).sum() for p in params]).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    finish(device)
    with profile(activities=activities) as found:
        for _ in range(steps):
            step()
    events: list[Any] = cast(Any, found.key_averages())
    count = sum(int(event.count) for event in events if any(word in event.key for word in WAITS))
    return Figure(f"waits and copies to the host in {steps} steps", str(count), "0", count == 0)


def finish(device: torch.device) -> None:
    """Wait until a device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def processor(device: torch.device, backend: str, count: int = 1_000, rounds: int = 30) -> Figure:
    """The processor's time of a step whose gradients are elsewhere than in the step before, beside torch's fused."""
    found: dict[str, float] = {}
    for way in (OURS, "fused"):
        params = [torch.nn.Parameter(torch.zeros(32, device=device)) for _ in range(count)]
        adam = pair("adam")
        optimizer = adam.ours(params, backend=backend) if way == OURS else adam.constructed(params, way)
        sets = [[torch.ones_like(p) for p in params] for _ in range(2)]
        seconds: list[float] = []
        for k in range(rounds + 3):
            for p, g in zip(params, sets[k % 2], strict=True):
                p.grad = g
            finish(device)
            began = time.perf_counter()
            optimizer.step()
            seconds.append(time.perf_counter() - began)
        finish(device)
        found[way] = statistics.median(seconds[3:])
    said = f"{1e6 * found[OURS]:,.0f} of {1e6 * found['fused']:,.0f} µs"
    return Figure(
        f"the processor's time for {count:,} tensors with new gradients, of torch's fused", said, "at most a fifth",
        5 * found[OURS] <= found["fused"],
    )  # fmt: skip


def table(figures: Sequence[Figure]) -> Table:
    """One row per figure, beside its aim."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("figure", "found", "aim", ""):
        made.add_column(heading)
    for figure in figures:
        made.add_row(figure.what, figure.found, figure.aim, "[green]holds[/]" if figure.holds else "[red]missed[/]")
    return made
