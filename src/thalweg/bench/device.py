"""The bench on a GPU: whole steps against torch's fused and foreach, and against the bandwidth of a copy.

Time on the device is measured by CUDA events around several steps, the time of the processor by the clock while the
steps are only launched.  With the CPU as the device the same code runs with the clock alone, to be tested.
"""

import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from rich.table import Table
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from thalweg import plan
from thalweg.bench import proofs
from thalweg.bench.contenders import CLIP_NORM, EMA, form
from thalweg.bench.pairs import Pair, pair
from thalweg.bench.proofs import Figure
from thalweg.bench.result import KINDS, OURS, Kind
from thalweg.bench.text import microseconds, ratio
from thalweg.bench.workloads import WORKLOADS, Shape, Workload, layers
from thalweg.kernels import triton

_ROOM = 0.9  # of the free memory that a row may take
Say = Callable[[str], None]


def billions(width: int = 1_600, depth: int = 48) -> list[Shape]:
    """GPT-2 of 1.5 B parameters, its output layer tied to the embedding.  Radford et al. 2019, table 2."""
    norm: list[Shape] = [(width,), (width,)]
    block = [*norm, *layers(width, 3 * width), *layers(width, width), *norm, *layers(width, 4 * width, width)]
    return [(50_257, width), (1_024, width), *depth * block, *norm]


WORK = (
    WORKLOADS["tiny"],
    WORKLOADS["resnet18"],
    WORKLOADS["gpt2"],
    Workload("1.5b", "1.5 B parameters", tuple(billions())),
)
"""What is stepped: launch-bound first."""


class Clock(Protocol):
    """Measures some calls: seconds of each on the device, and of the processor."""

    def __call__(self, call: Callable[[], object], count: int) -> tuple[float, float]: ...


def events(call: Callable[[], object], count: int) -> tuple[float, float]:
    """By CUDA events; the processor's time is until everything is launched."""
    torch.cuda.synchronize()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    started = time.perf_counter()
    begin.record()
    for _ in range(count):
        call()
    end.record()
    launched = time.perf_counter() - started
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1e3 / count, launched / count


def clock(call: Callable[[], object], count: int) -> tuple[float, float]:
    """By the clock: on the CPU a step is done when it returns."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    seconds = (time.perf_counter() - started) / count
    return seconds, seconds


@dataclass(frozen=True)
class Line:
    """A rule on a workload, for one kind of step.

    Attributes:
        workload: its title.
        rule: the rule's name.
        kind: what is timed.
        dtype: of parameters and gradients.
        device: seconds on the device by contender, medians.
        host: seconds of the processor.
        floor: the seconds that a copy of as many bytes takes.
    """

    workload: str
    rule: str
    kind: Kind
    dtype: str
    device: dict[str, float]
    host: dict[str, float]
    floor: float

    @property
    def best(self) -> str:
        """The fastest of torch's ways on the device."""
        return min((name for name in self.device if name != OURS), key=self.device.__getitem__)


@dataclass(frozen=True)
class Found:
    """What was measured: the device's name, the bandwidth of a copy in bytes/s, the lines, what was left out.

    ``figures`` are beside their aims.
    """

    device: str
    bandwidth: float
    lines: list[Line]
    left_out: list[str]
    figures: list[Figure] = field(default_factory=list[Figure])

    @property
    def sentence(self) -> str:
        """The device, and what the table's columns are."""
        return (
            f"{self.device}, torch {torch.__version__}; a copy moves {self.bandwidth / 1e9:,.0f} GB/s.  Medians in µs: "
            "of the device, how often that is in torch's, its share of a copy's bandwidth; and of the processor."
        )

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps({"format": "device 1", "torch": torch.__version__, **asdict(self)}, indent=1) + "\n"


def chosen(name: str) -> torch.device:
    """The device of that name.

    Raises:
        ValueError: it cannot be used here; the message says why.
    """
    kind, _, index = name.partition(":")
    if kind != "cuda" or not (index.isdecimal() or name == "cuda"):
        raise ValueError(f"--device is {name!r}; allowed is cpu, and cuda or cuda:1 where there are GPUs")
    found = torch.device(name)
    if not torch.cuda.is_available() or int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"torch finds no device {name} here; thalweg bench without --device times the CPU")
    if reason := triton.lacking(found):
        raise ValueError(f"the fused kernels cannot run on {name}: {reason}")
    return found


def measure(
    device: torch.device,
    work: Sequence[Workload] = WORK,
    rules: Sequence[str] = ("adam", "rmsprop", "nadam"),
    rounds: int = 9,
    most: float = 330.0,
    say: Say = lambda _: None,
) -> Found:
    """Time whole steps.

    Args:
        device: where.
        work: what is stepped.
        rules: names of `thalweg.bench.pairs.PAIRS`; all but the first only as whole steps.
        rounds: how many turns each contender has.
        most: seconds after which no further line is begun.
        say: is told what is being done.
    """
    timer: Clock = events if device.type == "cuda" else clock
    began = time.perf_counter()
    bandwidth = copied(device, timer)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    lines: list[Line] = []
    left_out: list[str] = []
    rows: list[tuple[Workload, str, Kind, torch.dtype]] = [
        (workload, rule, kind, dtype)
        for workload in work
        for k, rule in enumerate(rules)
        for kind in KINDS if k == 0 or kind == "whole"
        for dtype in ((torch.float32, torch.bfloat16) if k == 0 and kind == "whole" else (torch.float32,))
    ]  # fmt: skip
    for workload, rule, kind, dtype in rows:
        what = f"{workload.title}, {rule}, {KINDS[kind]}, {_name(dtype)}"
        say(what)
        needed = workload.parameters * (2 * dtype.itemsize + 4 * (4 if kind == "ema" else 3))
        if time.perf_counter() - began > most:
            left_out.append(f"{what}: left out, since {most:.0f} s had passed")
        elif device.type == "cuda" and needed > _ROOM * torch.cuda.mem_get_info(device)[0]:
            left_out.append(f"{what}: left out, since the device has too little free memory")
        else:
            lines.append(_line(workload, rule, kind, dtype, device, timer, rounds, bandwidth))
    return Found(name, bandwidth, lines, left_out)


def proven(
    device: torch.device, found: Found, backend: str = "auto", capture: proofs.Capture | None = None,
    steps: int = 1_000, say: Say = lambda _: None,
) -> Found:  # fmt: skip
    """The same with all figures that a step on a GPU is meant to reach, beside their aims.

    Args:
        device: where.
        found: the times.
        backend: what steps the parameters.
        capture: records a step; by default a CUDA graph.
        steps: how many a captured step is compared for.
        say: is told what is being done.
    """
    figures = list(verdicts(found.lines))
    proofs_of: list[Callable[[], Figure]] = [
        lambda: proofs.processor(device, backend, steps),
        lambda: proofs.parity(device, backend),
        lambda: proofs.repeats(device, backend),
        lambda: proofs.captured(device, backend, steps, capture),
        lambda: proofs.waiting(device, backend, max(steps // 10, 1)),
    ]
    for prove in proofs_of:
        say("what holds besides the times")
        figures.append(prove())
    return replace(found, figures=figures)


def verdicts(lines: Sequence[Line]) -> Iterator[Figure]:
    """The times that have an aim, beside it: whole steps of the large models in float32."""
    for line in lines:
        if line.workload not in (WORK[2].title, WORK[3].title) or line.dtype != "float32" or line.kind == "step":
            continue
        own = line.device[OURS]
        what = f"{line.workload}, {line.rule}, {KINDS[line.kind]}"
        if line.rule == "adam" and line.kind == "whole":
            share = line.floor / own
            yield Figure(f"{what}: share of a copy's bandwidth", f"{100 * share:.0f} %", "at least 90 %", share >= 0.9)
        aim = 2.0 if line.rule != "adam" else 1.3 if line.kind == "whole" else 1.5
        way = "fused" if "fused" in line.device else line.best
        times = line.device[way] / own
        yield Figure(f"{what}: times as fast as torch's {way}", ratio(times), f"at least {aim}×", times >= aim)


def copied(device: torch.device, timer: Clock, size: int | None = None) -> float:
    """The bandwidth of a copy within the device, read and written bytes per second."""
    size = size or (2**28 if device.type == "cuda" else 2**22)
    x, y = (torch.empty(size, dtype=torch.float32, device=device).fill_(1.0) for _ in range(2))
    y.copy_(x)
    return 8 * size / statistics.median(timer(lambda: y.copy_(x), 3)[0] for _ in range(7))


def _line(
    workload: Workload, rule: str, kind: Kind, dtype: torch.dtype, device: torch.device, timer: Clock, rounds: int,
    bandwidth: float,
) -> Line:  # fmt: skip
    found = pair(rule)
    ways = [OURS, *(way for way in found.ways if way in ("foreach", "fused"))]
    seconds: dict[str, tuple[list[float], list[float]]] = {way: ([], []) for way in ways}
    # One after the other on the largest models, since the state of all contenders at once may not fit.
    for way in ways:
        step = _contender(found, kind, workload, dtype, device, way)
        once = max(timer(step, 2)[0], 1e-7)
        count = max(1, min(50, int(0.05 / once)))
        for _ in range(rounds):
            on_device, on_host = timer(step, count)
            seconds[way][0].append(on_device)
            seconds[way][1].append(on_host)
        del step
        if device.type == "cuda":
            torch.cuda.empty_cache()
    shape = form(found, kind)
    # A whole step reads all gradients once more for their norm, and sets them to zero.
    moved = plan.bytes_per_parameter(found.rule, dtype, form=shape) + 2 * dtype.itemsize * (kind != "step")
    return Line(
        workload.title, rule, kind, _name(dtype),
        {way: statistics.median(on_device) for way, (on_device, _) in seconds.items()},
        {way: statistics.median(on_host) for way, (_, on_host) in seconds.items()},
        workload.parameters * moved / bandwidth,
    )  # fmt: skip


def _contender(
    found: Pair, kind: Kind, workload: Workload, dtype: torch.dtype, device: torch.device, way: str
) -> Callable[[], object]:
    """A whole step of one contender, with the gradients left in place: dropping them costs everybody the same."""
    generator = torch.Generator(device=device).manual_seed(0)

    def made(shape: Shape) -> Tensor:
        return torch.randn(shape, dtype=dtype, device=device, generator=generator)

    params = [torch.nn.Parameter(made(shape)) for shape in workload.shapes]
    for p in params:
        p.grad = made(tuple(p.shape))
    whole = kind != "step"
    if way == OURS:
        ours = found.ours(params, clip_norm=CLIP_NORM if whole else None, ema=EMA if kind == "ema" else None)
        return lambda: ours.step(zero_grad=whole)
    theirs = found.constructed(params, way)
    average = [p.detach().float() for p in params] if kind == "ema" else []

    def step() -> None:
        if whole:
            clip_grad_norm_(params, CLIP_NORM, foreach=True)
        theirs.step()
        if whole:
            theirs.zero_grad(set_to_none=False)
        if average:
            cast(Any, torch)._foreach_lerp_(average, [p.detach() for p in params], 1 - EMA)

    return step


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def table(found: Found) -> Table:
    """One row per line: µs on the device, relative to torch's ways and to the floor, then µs of the processor."""
    made = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for heading in ("workload", "rule", "timed"):
        made.add_column(heading, no_wrap=True)
    for heading in ("thalweg", "× foreach", "× fused", "of copy", "CPU", "CPU fused"):
        made.add_column(heading, justify="right", no_wrap=True)
    for line in found.lines:
        dtype = "" if line.dtype == "float32" else f", {line.dtype}"
        own = line.device[OURS]
        made.add_row(
            line.workload + dtype, line.rule, line.kind, microseconds(own),
            *(ratio(line.device[way] / own) if way in line.device else "–" for way in ("foreach", "fused")),
            f"{100 * line.floor / own:.0f} %", microseconds(line.host[OURS]),
            microseconds(line.host["fused"]) if "fused" in line.host else "–",
        )  # fmt: skip
    return made


__all__ = ["WORK", "Found", "Line", "billions", "copied", "measure", "table"]
