"""``thalweg try`` and ``thalweg range``."""

import math
import os
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thalweg.cli.exits import stoppable, users_input
from thalweg.race import Entry, WorkerError
from thalweg.race.looking import Look, Sweep, look, sweep
from thalweg.race.race import FINALISTS
from thalweg.verdict.standing import printable

_RUNS = 16 + 5 * FINALISTS
"""The runs of a rule in a race, by default, if its search space does not grow."""
_MOST = 8  # names or rows that are shown
_ERRORS = (ValueError, WorkerError)


@stoppable()
def try_(text: str, rule: str, *, steps: int, patience: float | None) -> None:
    """Look at a training in three short runs, and print what is seen."""
    with users_input(_ERRORS):
        found = look(text, Entry(rule), steps=steps, patience=patience)
    console = Console(highlight=False)
    console.print(Text(f"{printable(found.training.name)} with {rule}, {found.seen.steps:,} steps, three times\n"))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for what, said in (*speed(found), *metric(found), *chance(found), *gradients(found)):
        table.add_row(what, Text(said))
    console.print(table)


@stoppable()
def range_(
    text: str, rule: str, *, steps: int, low: float | None, high: float | None, runs: int, patience: float | None
) -> None:
    """Print losses against learning rates, a space to search, and what speaks against it."""
    with users_input(_ERRORS):
        found = sweep(text, Entry(rule), steps=steps, low=low, high=high, runs=runs, patience=patience)
    console = Console(highlight=False)
    console.print(_losses(found))
    low_, high_ = found.space
    head, _, settings = rule.partition("(")
    more = f", {settings}" if settings else ")"
    console.print(Text(f"\nA space to race on: {head}(lr={low_:.1g}..{high_:.1g}{more}"))
    lowest = ", ".join(f"{found.lowest(k):.2g}" for k in range(len(found.losses)))
    console.print(Text(f"The loss is lowest at {lowest}, in runs of {len(found.losses)} seeds."))
    if found.doubts:
        console.print(Text(f"This is not reliable: {'; '.join(found.doubts)}.", style="yellow"))
    else:
        console.print(Text("The runs agree, and the loss falls by far more than its noise."))
    console.print(Text("A good rate for few steps from the start is not always good for a whole training: race it."))


def speed(found: Look) -> Sequence[tuple[str, str]]:
    """What a step, a run and a race take."""
    if not found.seen.seconds:
        return [("a step", "too few to be timed")]
    share = found.stepping / found.step
    said = f"{_time(found.step)}, of which {_time(found.stepping)}, {share:.0%}, is the optimizer"
    if not found.training.steps:
        return [("a step", said), ("a run", "the function does not say how many steps; give the race --steps N")]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    race = f"{_RUNS} runs of each rule, about {_time(_RUNS * found.run() / cores)} on {cores} cores"
    run = f"{found.training.steps:,} steps, about {_time(found.run())}"
    return [("a step", said), ("a run", run), ("a race", race)]


def metric(found: Look) -> Sequence[tuple[str, str]]:
    """Which metric decides, and whether it moves."""
    training, reports = found.training, found.seen.reports
    way = "higher" if training.higher_is_better else "lower"
    said = f"{training.metric_name}, of which {way} is better"
    if len(reports) < 2:
        return [("metric", f"{said}: {reports[0][1]:.6g} in the one report after {reports[0][0]:,} steps")]
    (first, begun), (last, ended) = reports[0], reports[-1]
    moved = "it did not move" if begun == ended else f"{begun:.6g} → {ended:.6g}"
    return [("metric", f"{said}: {moved} from step {first:,} to {last:,}")]


def chance(found: Look) -> Sequence[tuple[str, str]]:
    """Whether runs of one seed are equal bit for bit, and whether seeds differ."""
    same = "two runs are equal bit for bit"
    if not found.repeats:
        same = "two runs differ: something draws random numbers by itself, or depends on time or threads"
    first, last = found.varies
    other = "first weights and results differ"
    if not last:
        other = "nothing differs: the function seeds itself; replicates would all be the same"
    elif not first:
        other = "first weights are the same, only what follows differs: the model may be made of a fixed seed"
    return [("one seed", same), ("another seed", other)]


def gradients(found: Look) -> Sequence[tuple[str, str]]:
    """Which parameters' gradients are missing or not finite, by name."""
    said: list[str] = []
    for what, of in (("missing", found.seen.missing), ("not finite", found.seen.infinite)):
        steps = found.seen.steps
        names = [f"{name} in {'every step' if n == steps else f'{n:,} of {steps:,} steps'}" for name, n in of.items()]
        if names:
            more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
            said.append(f"{what}: {', '.join(names[:_MOST])}{more}")
    return [("gradients", "; ".join(said) or "every parameter has one in every step, and all are finite")]


def _losses(found: Sweep) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("lr", justify="right")
    for k in range(len(found.losses)):
        table.add_column(f"loss, seed {k}", justify="right")
    n = len(found.rates)
    smooth = [found.smooth(k) for k in range(len(found.losses))]
    for i in sorted({round(j * (n - 1) / (2 * _MOST)) for j in range(2 * _MOST + 1)}):
        row = [f"{own[i]:.4g}" if i < len(own) else "diverged" for own in smooth]
        table.add_row(f"{found.rates[i]:.2g}", *row)
    return table


def _time(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    for least, name in ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= least:
            return f"{seconds / least:.3g} {name}"
    return f"{seconds * 1e6:.3g} µs"
