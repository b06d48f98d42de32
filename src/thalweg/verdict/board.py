"""The leaderboard, and the comparison of each pair of entries."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from thalweg.store import Results, Run
from thalweg.verdict import statistics
from thalweg.verdict.looks import Course

COLUMNS = (
    "entry", "test_metric", "low", "high", "lr", "trials", "seeds", "lost", "diverged", "failed", "seconds", "steps",
    "rule", "schedule",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard.

    Attributes:
        entry: its name.
        test_metric: the median over its replicates, a lost one being worse than any other; nan where none finished, or
            where more than half were lost.
        low, high: the ends of its 95 % interval, infinite where lost replicates leave an end open; nan with fewer than
            five.
        lr: the learning rate of the best trial; nan where no trial finished.
        settings: all numbers of the rule in the best trial.
        rule: the rule of the best trial, in a form that ``rules.parse`` reads, or ``Switch.parse`` if it is a switch.
        schedule: the schedule of its learning rate, in a form that ``schedules.parse`` reads; empty where it has none.
        trials: tuning runs that there are.
        seeds: replicates that finished.
        lost: replicates that diverged or failed.
        left: replicates that have not ended yet; none where every trial was lost, as there will be none.
        diverged, failed: how many of all its runs did.
        seconds: training time of a replicate's run, the mean.
        steps: the steps of a replicate's run, the median; nan where none finished.
        edges: the tuned settings whose best value lies at an edge of what was tried, as ``{"lr": "highest"}``; an entry
            that has any is not compared, since its best setting is not known.
        others: the metrics that do not decide, by name: the median over the replicates that finished, on test data if
            they were measured there, otherwise on validation data.
    """

    entry: str
    test_metric: float
    low: float
    high: float
    lr: float
    settings: Mapping[str, float]
    rule: str
    schedule: str
    trials: int
    seeds: int
    lost: int
    left: int
    diverged: int
    failed: int
    seconds: float
    steps: float
    edges: Mapping[str, str]
    others: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def whole(self) -> bool:
        """Whether all replicates have ended, one has a result, and the best setting lies at no edge: it is compared."""
        return self.seeds > 0 and not self.left and not self.edges

    @property
    def between(self) -> str:
        """The interval as text; empty if there is none."""
        ends = [f"{end:.4f}" if math.isfinite(end) else "lost" for end in (self.low, self.high)]
        return "" if math.isnan(self.low) else " … ".join(ends)


@dataclass(frozen=True)
class Pair:
    """A comparison of two entries, replicate by replicate.

    Attributes:
        ahead, behind: their names, the one that did better first.
        difference: how much better `ahead` is, never negative: the mean over the replicates; the median, which may be
            infinite, if either lost one.
        low, high: the ends of its interval; the intervals of all pairs together hold with 95 %.  nan with fewer than
            five replicates, infinite where lost ones leave an end open.
        p: the p-value, adjusted for all pairs; nan if there is none.  See `thalweg.verdict.statistics`.
        seeds: the number of replicates.
        wins, losses: in how many of them `ahead` did better, and worse; a lost run is worse than any other.
        lost: whether either lost one, so that only wins and losses count.
        shown: whether a difference is shown: p < 0.05, and the interval does not contain 0.
        equal: whether the two are shown to be equal to within the race's margin: the interval lies inside it.
        exact: whether the difference is known, not estimated, since nothing in the runs of either is random.
    """

    ahead: str
    behind: str
    difference: float
    low: float
    high: float
    p: float
    seeds: int
    wins: int
    losses: int
    lost: bool
    shown: bool
    equal: bool
    exact: bool


@dataclass(frozen=True)
class Comparisons:
    """All pairs of the entries that can be compared.

    Attributes:
        pairs: in the order of the leaderboard.
        detectable: the difference between two entries that such a race shows in four cases of five, from the spread
            that it had; nan where nothing could be shown.
    """

    pairs: tuple[Pair, ...] = ()
    detectable: float = math.nan


def leaderboard(results: Results) -> tuple[Row, ...]:
    """The rows, best first; entries that have replicates left come after the others, without a result last."""
    needed = Course(results).needed
    rows = [_row(results, entry.name, needed.get(entry.name)) for entry in results.plan.entries]
    sign = _sign(results)
    return tuple(sorted(rows, key=lambda r: (r.seeds == 0, not r.whole, -_score(r.test_metric, sign))))


def _sign(results: Results) -> float:
    return 1.0 if results.plan.problem.higher_is_better else -1.0


def _score(metric: float, sign: float) -> float:
    """The metric with larger better; −inf if it was lost."""
    return -math.inf if math.isnan(metric) else sign * metric


def _row(results: Results, entry: str, needed: int | None) -> Row:
    trials, finals, kept = results.of(entry, "tune"), results.of(entry, "final"), results.replicates(entry)
    finished = _finished(kept)
    taken = [run.curve.step[-1] for run in finished if run.curve.step]
    best = results.best(entry) if finals else None
    hopeless = len(trials) >= results.plan.entry(entry).trials and not _finished(trials)
    return Row(
        entry,
        *_typical(kept, _sign(results)),
        lr=best.settings["lr"] if best else math.nan,
        settings=best.settings if best else {},
        rule=best.rule if best else "",
        schedule=results.plan.entry(entry).chosen(best.settings).get("schedule", "") if best else "",
        trials=len(trials),
        seeds=len(finished),
        lost=len(kept) - len(finished),
        left=0 if hopeless else (needed or results.plan.seeds) - len(kept),
        diverged=sum(run.status == "diverged" for run in (*trials, *finals)),
        failed=sum(run.status == "failed" for run in (*trials, *finals)),
        seconds=float(np.mean([run.seconds for run in finished])) if finished else math.nan,
        steps=float(np.median(taken)) if taken else math.nan,
        edges=results.edges(entry) if best else {},
        others=_others(finished),
    )


def _others(runs: Sequence[Run]) -> dict[str, float]:
    """The medians of the metrics that do not decide."""
    of = [{**run.validation_others, **run.test_others} for run in runs]
    names = dict.fromkeys(name for found in of for name in found)
    return {name: float(np.median([found.get(name, math.nan) for found in of])) for name in names}


def _scores(runs: Sequence[Run], sign: float) -> list[float]:
    return [sign * run.test_metric if run.status == "finished" else -math.inf for run in runs]


def _typical(runs: Sequence[Run], sign: float) -> tuple[float, float, float]:
    """The median metric of runs, and the ends of its interval."""
    if not runs:
        return math.nan, math.nan, math.nan
    scores = _scores(runs, sign)
    middle, ends = statistics.median(scores), statistics.interval(scores)
    if middle == -math.inf:
        return math.nan, math.nan, math.nan
    low, high = (ends.low, ends.high) if sign > 0 or math.isnan(ends.low) else (-ends.high, -ends.low)
    return sign * middle, low, high


def _finished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status == "finished"]


def compare(results: Results, rows: Sequence[Row]) -> Comparisons:
    """Compare each pair of entries whose replicates have all ended, replicate by replicate, for all pairs together.

    All pairs are compared, rather than each entry with the best alone, because the best was chosen by the same runs.
    """
    if results.plan.margin:
        return _decided(results)
    finals = {row.entry: results.replicates(row.entry) for row in rows if row.whole}
    if len(finals) < 2:
        return Comparisons()
    scores = np.array([_scores(runs, _sign(results)) for runs in finals.values()]).T
    same = [_same(runs) for runs in finals.values()]
    found = statistics.compare(scores, resolution=Course(results).resolution, known=same)
    p = statistics.p_values(found, len(finals))
    names, (n, entries) = list(finals), scores.shape
    pairs = tuple(
        _pair((names[a], names[b]), found, i, float(p[i]), exact=same[a] and same[b])
        for i, (a, b) in enumerate(combinations(range(entries), 2))
    )
    return Comparisons(pairs, _detectable(found.spread, n, entries, statistics.ALPHA))


def _decided(results: Results) -> Comparisons:
    """The pairs of a race that goes on until it is decided, each as at the look that decided it, or at the last one."""
    course = Course(results)
    names, of = course.compared, course.decisions.decided
    if not of:
        return Comparisons()
    p = {id(one.found): statistics.p_values(one.found, len(names)) for one in of.values()}
    pairs = tuple(
        _pair(
            (names[a], names[b]), one.found, one.index,
            min(float(p[id(one.found)][one.index]) * statistics.ALPHA / one.alpha, 1.0),
            shown=one.outcome == "different", equal=one.outcome == "equal",
        )
        for (a, b), one in sorted(of.items())
    )  # fmt: skip
    last = max(of.values(), key=lambda one: len(one.found.differences))
    n = len(last.found.differences)
    return Comparisons(pairs, _detectable(last.found.spread, n, len(names), last.alpha))


def _detectable(spread: statistics.Array, n: int, entries: int, alpha: float) -> float:
    """The difference that is shown in four races of five, from the spread of the paired differences."""
    known = spread[~np.isnan(spread)]
    shown = statistics.detectable(n, entries, alpha) * math.sqrt(np.mean(known**2)) if len(known) else math.nan
    return shown if math.isfinite(shown) else math.nan


def _pair(
    names: tuple[str, str], found: statistics.Comparison, i: int, p: float, *, exact: bool = False,
    shown: bool | None = None, equal: bool = False,
) -> Pair:  # fmt: skip
    d = found.differences[:, i]
    values = (float(x[i]) for x in (found.difference, found.low, found.high))
    difference, low, high, p = (math.nan if math.isnan(x) else x for x in (*values, p))  # one nan, equal to itself
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    if (difference, wins) < (0.0, losses):
        names, wins, losses = (names[1], names[0]), losses, wins
        difference, low, high = -difference, -high, -low
    shown = p < statistics.ALPHA if shown is None else shown
    lost = not bool(found.clean[i])
    return Pair(*names, abs(difference), low, high, p, len(d), wins, losses, lost, shown, equal, exact)


def _same(runs: Sequence[Run]) -> bool:
    """Whether every seed gave the same run: the same losses, as far as there are any, and metrics to the last digit."""
    finished = len(_finished(runs)) == len(runs)
    measured = ((run.test_loss, run.validation_loss, run.test_metric, run.validation_metric) for run in runs)
    return finished and len(runs) > 1 and len({tuple(map(repr, found)) for found in measured}) == 1


def to_csv(rows: Sequence[Row]) -> str:
    """The leaderboard as CSV with a header, metrics that do not decide last; numbers in full precision, missing ones
    empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    others = [*dict.fromkeys(name for row in rows for name in row.others)]
    writer.writerow([*COLUMNS, *others])
    for row in rows:
        values = (*(getattr(row, name) for name in COLUMNS), *(row.others.get(name, math.nan) for name in others))
        writer.writerow("" if isinstance(v, float) and math.isnan(v) else v for v in values)
    return out.getvalue()
