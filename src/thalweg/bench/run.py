"""A whole bench: its rows one by one, each with interleaved contenders, and the extras."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from thalweg import plan
from thalweg.bench import contenders, extras, machine
from thalweg.bench.pairs import pair
from thalweg.bench.plain import Plain
from thalweg.bench.result import KINDS, Kind, Result, Row
from thalweg.bench.timing import Contender, measure
from thalweg.bench.workloads import WORKLOADS, Workload
from thalweg.hyperparameters import nearest

_PLAIN = "plain kernel"
_ARRAYS = 28  # how many arrays as large as the parameters the contenders of a row hold, temporaries included

Say = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """The plan of a bench.

    Attributes:
        workloads: names of `WORKLOADS`.
        rules: names of `thalweg.bench.pairs.PAIRS`.
        kinds: what is timed of each.
        rounds: the number of turns of each contender.
        threads: the number of threads, for torch and for this engine; None for torch's own choice.
        compiled: whether torch's compiled step takes part; it needs a C++ compiler.
        sixteen_bits: whether 16-bit parameters are stepped too, on the one-tensor workloads of the plan.
        extras: whether start-up, subnormals and memory are measured too.
    """

    workloads: Sequence[str] = tuple(WORKLOADS)
    rules: Sequence[str] = ("adam", "rmsprop", "nadam")
    kinds: Sequence[Kind] = tuple(KINDS)
    rounds: int = 9
    threads: int | None = None
    compiled: bool = False
    sixteen_bits: bool = True
    extras: bool = True

    def __post_init__(self) -> None:
        for name in self.workloads:
            if name not in WORKLOADS:
                raise ValueError(
                    f"there is no workload {name!r}{nearest(name, WORKLOADS)}; the workloads are {', '.join(WORKLOADS)}"
                )
        for name in self.rules:
            pair(name)
        for kind in self.kinds:
            if kind not in KINDS:
                raise ValueError(f"there is no kind {kind!r}{nearest(kind, KINDS)}; the kinds are {', '.join(KINDS)}")
        for name, value in (("rounds", self.rounds), ("threads", self.threads)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; allowed is a whole number >= 1")

    def rows(self) -> list[tuple[Workload, str, Kind, torch.dtype]]:
        """The rows to measure, in order."""
        chosen = [WORKLOADS[name] for name in self.workloads]
        rows: list[tuple[Workload, str, Kind, torch.dtype]] = []
        rows.extend((w, rule, kind, torch.float32) for w in chosen for rule in self.rules for kind in self.kinds)
        if self.sixteen_bits:
            single = [w for w in chosen if len(w.shapes) == 1]
            dtypes = (torch.bfloat16, torch.float16)
            rows.extend((w, rule, "step", dtype) for w in single for rule in self.rules[:1] for dtype in dtypes)
        return rows


def quick(plan: Plan) -> Plan:
    """The same plan in less than a minute: three rounds, the small workloads, no 16-bit parameters, no extras."""
    small = [name for name in plan.workloads if WORKLOADS[name].parameters <= 1_000_000]
    return Plan(small or plan.workloads, plan.rules, plan.kinds, 3, plan.threads, plan.compiled, False, False)


def run(plan: Plan, say: Say = lambda _: None) -> Result:
    """Measure all of `plan`; `say` is told what is being done.

    Raises:
        RuntimeError: a compiled step is asked for, and there is no compiler.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(plan.threads or before)
    try:
        return _run(plan, say)
    finally:
        torch.set_num_threads(before)


def _run(plan: Plan, say: Say) -> Result:
    warnings = machine.busy()
    began = time.perf_counter()
    rows: list[Row] = []
    asked = plan.rows()
    for i, (workload, rule, kind, dtype) in enumerate(asked, 1):
        say(f"{i} of {len(asked)}: {workload.title}, {rule}, {KINDS[kind]}")
        if workload.parameters * dtype.itemsize * _ARRAYS > machine.free_memory():
            warnings.append(f"{workload.title}, {rule}, {KINDS[kind]}: left out, there is too little free memory")
        else:
            rows.append(measured(workload, rule, kind, dtype, plan.rounds, plan.compiled))
    found = extras.measure(say, warnings.append) if plan.extras else []
    settings = {
        "rounds": str(plan.rounds),
        "clip_norm": f"{contenders.CLIP_NORM:g}",
        "ema": f"{contenders.EMA:g}",
        "seconds": f"{time.perf_counter() - began:.0f}",
    }
    return Result(machine.describe(), settings, warnings, rows, found)


def measured(workload: Workload, rule: str, kind: Kind, dtype: torch.dtype, rounds: int, compiled: bool) -> Row:
    """One row, its contenders and the plain kernel interleaved."""
    found = pair(rule)
    form = contenders.form(found, kind)
    model = contenders.Model.random(workload.shapes, dtype)
    plain = Plain(found.rule, form, dtype, workload.parameters)
    everyone = contenders.contenders(found, kind, model, compiled)
    everyone.append(Contender(_PLAIN, lambda: None, plain.run))
    times = measure(everyone, rounds)
    if compiled:
        torch.compiler.reset()
    moved = plan.bytes_per_parameter(found.rule, dtype, form=form)
    return Row(
        workload=workload.title,
        rule=rule,
        kind=kind,
        dtype=str(dtype).removeprefix("torch."),
        tensors=len(workload.shapes),
        parameters=workload.parameters,
        bytes=moved + (dtype.itemsize if form.clip_norm else 0),  # the norm reads all gradients a second time
        zeroing=dtype.itemsize,
        bandwidth=plain.bytes / times.pop(_PLAIN).median,
        times=times,
    )
