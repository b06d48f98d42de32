"""The runs of a race as plain data, from which a page draws its figures and its table.

A page has at most about `POINTS` points, however many a race has: long curves are thinned, and keep their extremes.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from thalweg.report import palette
from thalweg.store import Curve, EntryPlan, Plan, Points, Results, Run
from thalweg.verdict import Row

X = {"examples": "examples seen", "step": "steps", "seconds": "seconds of training"}
Y = {"validation_metric": "validation {metric}", "validation_loss": "validation loss", "train_loss": "training loss"}

POINTS = 100_000
"""The points of all curves in a page, as far as `FEWEST` for each run allows."""
FEWEST, MOST = 8, 512
"""The points of a curve: at least, if it has so many, and at most."""
_SAID = 600
"""Letters of what a run says about its end."""


def about(plan: Plan, rows: Sequence[Row]) -> dict[str, Any]:
    """What figures and table need to know of a race besides its runs; entries in the order of `rows`, then others."""
    colours = colours_of(plan)
    dashes = dict(zip(colours, palette.dashes(list(colours.values())), strict=True))
    names = list(dict.fromkeys([*(row.entry for row in rows), *colours]))
    return {
        "metric": plan.problem.metric,
        "higher": plan.problem.higher_is_better,
        "along": "seconds" if plan.seconds else "step",
        "axes": {"x": X, "y": {name: text.format(metric=plan.problem.metric) for name, text in Y.items()}},
        "entries": [{"name": name, "colour": colours[name], "dash": dashes[name]} for name in names],
        "ranked": [{"entry": r.entry, "test": r.test_metric, "low": r.low, "high": r.high} for r in rows if r.seeds],
    }


def colours_of(plan: Plan) -> dict[str, str]:
    """The colour of each entry, which stays while the leaderboard changes."""
    names = [entry.name for entry in plan.entries]
    return dict(zip(names, palette.colours(names), strict=True))


def kept(results: Results) -> list[str]:
    """The keys of the runs that the replicates keep, which are the ones that are compared."""
    return [run.key for entry in results.plan.entries for run in results.replicates(entry.name)]


def most(runs: int) -> int:
    """How many points a curve may have where there are so many; a power of two, so that it changes rarely."""
    return min(max(2 ** int(math.log2(POINTS / max(runs, 1))), FEWEST), MOST) if runs < POINTS else FEWEST


def ended(plan: Plan, runs: Iterable[Run], points: int) -> list[dict[str, Any]]:
    """Runs that have ended, each with at most so many points of its curve."""
    entries = {entry.name: entry for entry in plan.entries}
    return [
        {
            **_known(run, entries[run.entry], run.settings, points),
            "rule": run.rule, "status": run.status, "said": cut(run.message.strip(), _SAID),
            "validation": run.validation_metric, "test": run.test_metric, "best_step": run.best_step,
            "seconds": run.seconds,
        }
        for run in runs
    ]  # fmt: skip


def running(plan: Plan, live: Iterable[Points], points: int) -> list[dict[str, Any]]:
    """Runs that are under way, with the last of what they have reported."""
    entries = {entry.name: entry for entry in plan.entries}
    return [
        {
            **_known(run, entries[run.entry], run.settings, points),
            "rule": entries[run.entry].rule, "status": "running", "said": "",
            "validation": (run.curve.validation_metric or (math.nan,))[-1], "test": math.nan,
            "best_step": (run.curve.step or (0,))[-1], "seconds": (run.curve.seconds or (0.0,))[-1],
        }
        for run in live
    ]  # fmt: skip


def _known(run: Run | Points, entry: EntryPlan, settings: Any, points: int) -> dict[str, Any]:
    return {
        "key": run.key, "entry": run.entry, "phase": run.phase, "trial": run.trial, "seed": run.seed,
        "settings": dict(settings), "schedule": entry.chosen(settings).get("schedule", ""),
        "curve": thinned(run.curve, points),
    }  # fmt: skip


def thinned(curve: Curve, points: int) -> dict[str, list[float]]:
    """The columns of a curve with at most so many points, at least `FEWEST`, rounded to what a figure shows.

    Of a longer curve the first and the last point stay, and of each of equally long stretches in between the lowest
    and the highest of each column of `Y`; so no extreme is lost, and no point is moved.  As many others as there may
    be are evenly spaced.
    """
    columns = {name: getattr(curve, name) for name in (*X, *Y)}
    n = len(curve.step)
    if n <= points:
        return {name: _short(column) for name, column in columns.items()}
    stretches = max((points - 2) // (2 * len(Y)), 1)
    width = -(-n // stretches)
    chosen = {0, n - 1}
    for name in Y:
        y = np.full(stretches * width, np.nan)
        y[:n] = columns[name]
        parts = y.reshape(stretches, width)
        some = np.flatnonzero(np.isfinite(parts).any(axis=1))
        for least, filled in ((True, np.inf), (False, -np.inf)):
            known = np.where(np.isfinite(parts[some]), parts[some], filled)
            at = known.argmin(axis=1) if least else known.argmax(axis=1)
            chosen |= {int(i) for i in some * width + at}
    others = points - len(chosen)
    chosen |= {i * n // others for i in range(others)}
    return {name: _short(column[i] for i in sorted(chosen)) for name, column in columns.items()}


def _short(column: Iterable[float]) -> list[float]:
    """Numbers of which six digits differ: a figure covers the range of a column, or its logarithms."""
    x = list(column)
    known = [abs(v) for v in x if math.isfinite(v)]
    apart = max(known, default=0.0) - min(known, default=0.0)
    digits = 6 + (math.ceil(math.log10(max(known) / apart)) if apart else 11)
    return [v if isinstance(v, int) else float(f"{v:.{min(digits, 17)}g}") for v in x]


def cut(text: str, letters: int) -> str:
    """A text with at most about so many letters: the middle of a longer one is left out."""
    return text if len(text) <= letters else f"{text[: letters // 2]} … {text[-letters // 2 :]}"
