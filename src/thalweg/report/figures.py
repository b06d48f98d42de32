"""The figures of a race's report, as plain data; each point contains the number of its run."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.report import palette
from thalweg.report.page import Figure, html
from thalweg.store import Curve, Results, Run
from thalweg.verdict import Row

X = {"examples": "examples seen", "step": "steps", "seconds": "seconds of training"}
Y = {"validation_metric": "validation {metric}", "validation_loss": "validation loss", "train_loss": "training loss"}


def label(run: Run, numbers: Mapping[str, int]) -> str:
    """The hover text of a point: its run."""
    return f"run {numbers[run.key]}: {run.phase}, seed {run.seed}, trial {run.trial}"


def ranking(results: Results, rows: Sequence[Row], colours: Mapping[str, str], numbers: Mapping[str, int]) -> Figure:
    """The test metric of each entry, best on top: every replicate, the median and the interval."""
    traces: list[dict[str, Any]] = []
    for row in rows:
        runs = [run for run in results.replicates(row.entry) if run.status == "finished"]
        colour = colours[row.entry]
        traces.append({
            "type": "scatter", "mode": "markers", "x": [run.test_metric for run in runs], "y": [row.entry] * len(runs),
            "text": [label(run, numbers) for run in runs], "hovertemplate": "%{x:.4f}, %{text}<extra></extra>",
            "marker": {"color": f"{colour}/0.45", "size": 8},
        })  # fmt: skip
        reach = {} if not math.isfinite(row.high - row.low) else {"error_x": {
            "type": "data", "symmetric": False, "array": [row.high - row.test_metric],
            "arrayminus": [row.test_metric - row.low], "color": colour, "thickness": 2, "width": 6,
        }}  # fmt: skip
        traces.append({
            "type": "scatter", "mode": "markers", "x": [row.test_metric], "y": [row.entry], **reach,
            "marker": {"color": colour, "size": 12, "symbol": "diamond"},
            "hovertemplate": "median %{x:.4f}<extra></extra>",
        })  # fmt: skip
    names = [row.entry for row in reversed(rows)]
    return {"data": traces, "layout": {
        "xaxis": {"title": {"text": f"test {results.plan.problem.metric}"}},
        "yaxis": {"categoryorder": "array", "categoryarray": names, "showgrid": False},
        "hovermode": "closest",
    }}  # fmt: skip


def curves(results: Results, colours: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean, minimum and maximum over an entry's replicates of each of `Y`, against each of `X`."""
    found: list[dict[str, Any]] = []
    for (name, colour), dash in zip(colours.items(), _dashes(colours), strict=True):
        runs = [run for run in results.replicates(name) if run.curve.step]
        if not runs:
            continue
        longest = max(len(run.curve.step) for run in runs)
        found.append({
            "entry": name,
            "colour": colour,
            "dash": dash,
            "x": {key: _mean(_columns(runs, key, longest)) for key in X},
            "y": {key: _band(_columns(runs, key, longest)) for key in Y},
        })  # fmt: skip
    return found


def _dashes(colours: Mapping[str, str]) -> list[str]:
    return palette.dashes(list(colours.values()))


def _columns(runs: Sequence[Run], key: str, longest: int) -> NDArray[np.float64]:
    """A column of every run's curve, one row per run; nan after the end of a run that stopped early."""
    rows = [_column(run.curve, key) for run in runs]
    return np.array([row + [math.nan] * (longest - len(row)) for row in rows])


def _column(curve: Curve, key: str) -> list[float]:
    return [float(x) for x in getattr(curve, key)]


def _mean(columns: NDArray[np.float64]) -> list[float]:
    return [
        statistics.fmean(known) if (known := [x for x in c if math.isfinite(x)]) else math.nan for c in _points(columns)
    ]


def _band(columns: NDArray[np.float64]) -> dict[str, list[float]]:
    whole = [c if all(map(math.isfinite, c)) else [math.nan] for c in _points(columns)]
    return {
        "mean": [statistics.fmean(c) for c in whole],
        "low": [min(c) for c in whole],
        "high": [max(c) for c in whole],
    }


def _points(columns: NDArray[np.float64]) -> list[list[float]]:
    """The values of all runs at each point."""
    return columns.T.tolist()


def sensitivity(results: Results, colours: Mapping[str, str], numbers: Mapping[str, int]) -> Figure | None:
    """The validation metric of each trial against its learning rate; lost trials are crosses at the bottom."""
    traces: list[dict[str, Any]] = []
    dashes = dict(zip(colours, _dashes(colours), strict=True))
    for entry in results.plan.entries:
        if "lr" not in entry.search:
            continue
        runs = sorted(results.of(entry.name, "tune"), key=lambda run: run.settings["lr"])
        alive = [run for run in runs if run.status in ("finished", "stopped")]
        lost = [run for run in runs if run.status not in ("finished", "stopped")]
        colour = colours[entry.name]
        common = {
            "type": "scatter",
            "legendgroup": entry.name,
            "hovertemplate": f"{html(entry.name)}<br>lr %{{x:.3g}}, %{{text}}<extra></extra>",
        }
        traces.append({
            **common, "mode": "lines+markers", "name": entry.name,
            "line": {"color": colour, "width": 1.5, "dash": dashes[entry.name]},
            "x": [run.settings["lr"] for run in alive], "y": [run.validation_metric for run in alive],
            "text": [f"{run.validation_metric:.4f}, {label(run, numbers)}" for run in alive],
            "marker": {"color": colour, "size": 7},
        })  # fmt: skip
        traces.append({
            **common, "mode": "markers", "yaxis": "y2",
            "x": [run.settings["lr"] for run in lost], "y": [0.03] * len(lost),
            "text": [f"{run.status}, {label(run, numbers)}" for run in lost],
            "marker": {"color": colour, "size": 9, "symbol": "x-thin", "line": {"color": colour, "width": 2}},
        })  # fmt: skip
    if not traces:
        return None
    return {"data": traces, "layout": {
        "xaxis": {"type": "log", "title": {"text": "learning rate"}, "exponentformat": "power"},
        "yaxis": {"title": {"text": f"validation {results.plan.problem.metric}"}},
        "yaxis2": {"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        "hovermode": "closest",
    }}  # fmt: skip
