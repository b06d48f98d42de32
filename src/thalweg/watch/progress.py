"""How far a race is, and how long it will take."""

import math
from collections.abc import Mapping
from statistics import fmean
from typing import Any

from thalweg.race.progress import duration
from thalweg.store import Results

_WINDOW = 200
"""The latest runs whose pace counts."""
_PAUSE = 120.0
"""Seconds without an ended run, beyond what a run takes, after which the race must have been interrupted."""


def progress(results: Results, ahead: Mapping[str, int], stored: Mapping[str, float]) -> dict[str, Any]:
    """Runs that have ended, runs in all, whether that is all, and the time left in words.

    Args:
        results: the race so far.
        ahead: how many runs of each entry are left.
        stored: when each run was stored, in seconds, by its key.
    """
    done, left = len(results.runs), sum(ahead.values())
    seconds = time_left(results, ahead, stored)
    words = duration(seconds) if left and math.isfinite(seconds) else ""
    return {"done": done, "total": done + left, "complete": not left, "left": words}


def time_left(results: Results, ahead: Mapping[str, int], stored: Mapping[str, float]) -> float:
    """The seconds that a race will still take, at the pace of its latest runs; nan if there are too few.

    Runs from before it was last interrupted do not count.  The pace is training time by time, so that it holds for
    several workers, and for entries of which one is slower.
    """
    runs = sorted(((stored[run.key], run) for run in results.runs if run.key in stored), key=lambda pair: pair[0])
    runs = runs[-_WINDOW:]
    if not runs:
        return math.nan
    pause = _PAUSE + 3 * max(run.seconds for _, run in runs)
    for i in range(len(runs) - 1, 0, -1):
        if runs[i][0] - runs[i - 1][0] > pause:
            runs = runs[i:]
            break
    first, last = runs[0][0], runs[-1][0]
    work = sum(run.seconds for at, run in runs if at > first)
    if last <= first or not work:
        return math.nan
    took: dict[str, list[float]] = {}
    for run in results.runs:
        took.setdefault(run.entry, []).append(run.seconds)
    typical = fmean(run.seconds for run in results.runs)
    expected = sum(n * fmean(took.get(entry, [typical])) for entry, n in ahead.items())
    return expected * (last - first) / work
