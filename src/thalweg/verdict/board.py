"""The leaderboard, the comparison of each pair of entries, and the time to a target."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from thalweg.store import Results, Run
from thalweg.verdict.statistics import Paired, holm, interval, paired_test, rounding

SIGNIFICANT = 0.05
COLUMNS = (
    "entry", "test_metric", "low", "high", "lr", "trials", "seeds", "diverged", "failed", "seconds", "rule", "schedule",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard.

    Attributes:
        entry: its name.
        test_metric: the mean over the final runs that finished; nan where none did.
        low, high: the ends of its 95 % interval; nan with fewer than two seeds.
        lr: the learning rate of the best trial; nan where no trial finished.
        settings: all numbers of the rule in the best trial.
        rule: the rule of the best trial, in a form that ``rules.parse`` reads, or ``Switch.parse`` if it is a switch.
        schedule: the schedule of its learning rate, in a form that ``schedules.parse`` reads; empty where it has none.
        trials: tuning runs that there are.
        seeds: final runs that finished.
        lost: final runs that diverged or failed.
        left: final runs that have not ended yet; none where every trial was lost, as there will be none.
        diverged, failed: how many of all its runs did.
        seconds: training time of a final run, the mean.
        edges: the tuned settings whose best value is the lowest or highest tried, as ``{"lr": "highest"}``.
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
    edges: Mapping[str, str]

    @property
    def whole(self) -> bool:
        """Whether all final runs have finished, so that it can be compared."""
        return self.seeds > 0 and not self.lost and not self.left


@dataclass(frozen=True)
class Pair:
    """A comparison of two entries, seed by seed.

    Attributes:
        ahead, behind: their names, the one that ranks ahead first.
        difference: how much better `ahead` is, as the mean over the seeds; positive if it is better.
        low, high: the ends of its 95 % interval, by Student's t; nan with fewer than two seeds.
        p: from the two-sided paired test; nan if there is none.
        p_holm: the same after Holm's correction over all pairs.
        seeds: the number of seeds that both finished.
        shown: whether a difference is shown: p_holm < 0.05.
        exact: whether the difference is known, not estimated, since nothing in the runs of either is random.
    """

    ahead: str
    behind: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    seeds: int
    shown: bool
    exact: bool


@dataclass(frozen=True)
class TimeToTarget:
    """The cost of an entry's final runs until the validation metric first reached the target.

    Attributes:
        entry: its name.
        reached: number of final runs that reached it, of `seeds`.
        seeds: number of final runs.
        step, examples, seconds: the median over the final runs, where a run that never reaches it counts as longest;
            nan if the median run never reaches it.
    """

    entry: str
    reached: int
    seeds: int
    step: float
    examples: float
    seconds: float


def leaderboard(results: Results) -> tuple[Row, ...]:
    """The rows, best first; entries that lost final runs or have some left come after them, without a result last."""
    rows = [_row(results, entry.name) for entry in results.plan.entries]
    sign = -1.0 if results.plan.problem.higher_is_better else 1.0
    return tuple(sorted(rows, key=lambda r: (r.seeds == 0, not r.whole, sign * r.test_metric if r.seeds else 0.0)))


def _row(results: Results, entry: str) -> Row:
    trials, finals = results.of(entry, "tune"), results.of(entry, "final")
    finished = _finished(finals)
    metrics = [run.test_metric for run in finished]
    best = finals[0] if finals else None
    hopeless = len(trials) == results.plan.entry(entry).trials and not _finished(trials)
    return Row(
        entry,
        float(np.mean(metrics)) if metrics else math.nan,
        *interval(metrics),
        lr=best.settings["lr"] if best else math.nan,
        settings=best.settings if best else {},
        rule=best.rule if best else "",
        schedule=results.plan.entry(entry).chosen(best.settings).get("schedule", "") if best else "",
        trials=len(trials),
        seeds=len(finished),
        lost=len(finals) - len(finished),
        left=0 if hopeless else results.plan.seeds - len(finals),
        diverged=sum(run.status == "diverged" for run in (*trials, *finals)),
        failed=sum(run.status == "failed" for run in (*trials, *finals)),
        seconds=float(np.mean([run.seconds for run in finished])) if finished else math.nan,
        edges=_edges(results, entry, best) if best else {},
    )


def _finished(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.status == "finished"]


def _edges(results: Results, entry: str, best: Run) -> dict[str, str]:
    """The tuned settings whose best value is the lowest or highest tried.  Fewer than three values do not count."""
    edges: dict[str, str] = {}
    for name, space in results.plan.entry(entry).search.items():
        if space.scale == "choice":
            continue
        tried = sorted({run.settings[name] for run in results.of(entry, "tune")})
        if len(tried) > 2 and best.settings[name] in (tried[0], tried[-1]):
            edges[name] = "lowest" if best.settings[name] == tried[0] else "highest"
    return edges


def compare(results: Results, rows: Sequence[Row]) -> tuple[Pair, ...]:
    """Compare each pair of entries whose final runs have all finished, seed by seed, corrected for all pairs together.

    All pairs are compared, rather than each entry with the best alone, because the best was chosen by the same runs.
    An entry that lost runs is left out, since the seeds that it survived are not a fair sample, and so is one with
    runs left, until they have ended.
    """
    finals = {row.entry: results.of(row.entry, "final") for row in rows if row.whole}
    sign = 1.0 if results.plan.problem.higher_is_better else -1.0
    pairs = list(combinations(finals, 2))
    tests = [_test(finals[a], finals[b], sign) for a, b in pairs]
    adjusted = holm([test.p for _, test in tests])
    return tuple(
        Pair(a, b, test.mean, test.low, test.high, test.p, p, seeds, p < SIGNIFICANT, _exact(finals[a], finals[b]))
        for (a, b), (seeds, test), p in zip(pairs, tests, adjusted, strict=True)
    )


def _test(a: Sequence[Run], b: Sequence[Run], sign: float) -> tuple[int, Paired]:
    of_seed = {run.seed: run.test_metric for run in b}
    differences = [sign * (run.test_metric - of_seed[run.seed]) for run in a if run.seed in of_seed]
    noise = rounding([run.test_metric for run in (*a, *b)])
    return len(differences), paired_test(differences, exact=_exact(a, b), rounding=noise)


def _exact(a: Sequence[Run], b: Sequence[Run]) -> bool:
    return _same(a) and _same(b)


def _same(runs: Sequence[Run]) -> bool:
    """Whether every seed gave the same run: the same loss to the last digit."""
    return len(runs) > 1 and len({(run.test_loss, run.validation_loss) for run in runs}) == 1


def time_to_target(results: Results, target: float | None = None) -> tuple[TimeToTarget, ...]:
    """The time to the `target`, by default the problem's, for each entry; empty without a target."""
    target = results.plan.problem.target if target is None else target
    if target is None:
        return ()
    return tuple(_time(results, entry.name, target) for entry in results.plan.entries)


def _time(results: Results, entry: str, target: float) -> TimeToTarget:
    finals = results.of(entry, "final")
    times = [time for run in finals if (time := _first(run, target, results.plan.problem.higher_is_better))]
    never = [(math.inf,) * 3] * (len(finals) - len(times))
    medians = np.median([*times, *never], axis=0) if finals else [math.inf] * 3
    step, examples, seconds = (float(m) if math.isfinite(m) else math.nan for m in medians)
    return TimeToTarget(entry, len(times), len(finals), step, examples, seconds)


def _first(run: Run, target: float, higher: bool) -> tuple[float, float, float] | None:
    c = run.curve
    for *time, metric in zip(c.step, c.examples, c.seconds, c.validation_metric, strict=True):
        if metric >= target if higher else metric <= target:
            return (float(time[0]), float(time[1]), float(time[2]))
    return None


def to_csv(rows: Sequence[Row]) -> str:
    """The leaderboard as CSV with a header; numbers in full precision, missing ones empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        values = (getattr(row, name) for name in COLUMNS)
        writer.writerow("" if isinstance(v, float) and math.isnan(v) else v for v in values)
    return out.getvalue()
