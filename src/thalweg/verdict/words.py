"""The verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.store import Plan, Results
from thalweg.verdict.board import Pair, Row, TimeToTarget, compare, leaderboard, time_to_target
from thalweg.verdict.statistics import reach


@dataclass(frozen=True)
class Verdict:
    """The conclusions of a race.

    Attributes:
        headline: which entry is ahead, and by how much; or that no difference is shown.
        sentences: details: which entries are shown to be behind, and which are not.
        warnings: reasons for doubt: rates at the edge of their space, runs that diverged, too few seeds.
        rows: the leaderboard, best first.
        pairs: every two entries that have results, in the order of the leaderboard.
        leaders: the first of the leaderboard, and all entries that are not shown to be behind it.  Empty if no entry
            has a result.
        times: the time to the target; empty if the problem has none.
    """

    headline: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]
    times: tuple[TimeToTarget, ...]


def judge(results: Results) -> Verdict:
    """The verdict on a finished or unfinished race."""
    rows = leaderboard(results)
    pairs = compare(results, rows)
    ranked = [row for row in rows if row.whole] or [row for row in rows if row.seeds]
    first = {pair.behind: pair for pair in pairs if ranked and pair.ahead == ranked[0].entry}
    leaders = tuple(row.entry for row in ranked if row.entry not in first or not first[row.entry].shown)
    headline, *sentences = _said(results, ranked, pairs, leaders)
    headline += _mixed(results)
    sentences += _better(results, rows, ranked)
    warnings = (*_unfinished(results), *_few_seeds(rows), *_edges(rows), *_lost(results.plan, rows))
    return Verdict(headline, tuple(sentences), warnings, rows, pairs, leaders, time_to_target(results))


def _mixed(results: Results) -> str:
    """A sentence if runs were made with different versions of libraries that affect the numbers."""
    names = ("thalweg", "torch")
    versions = {name: sorted({run.machine.get(name, "") for run in results.runs} - {""}) for name in names}
    several = [f"{name} {_and(found)}" for name, found in versions.items() if len(found) > 1]
    return f" Its runs are of several versions: {', '.join(several)}." if several else ""


def _said(results: Results, ranked: Sequence[Row], pairs: Sequence[Pair], leaders: Sequence[str]) -> list[str]:
    """The headline and the sentences after it."""
    plan, far = results.plan, "" if results.complete else "So far "
    if not ranked:
        if not results.runs:
            return ["No verdict yet: no run has ended."]
        if all(run.status != "finished" for run in results.runs):
            return [f"No verdict{' yet: every run so far' if far else ': every run'} diverged or failed."]
        return ["No verdict yet: no final run has finished."]
    best = ranked[0]
    ties = [row.entry for row in ranked if row.test_metric == best.test_metric]
    have = f"{_and(ties)} {'have' if len(ties) > 1 else 'has'}"
    reached = f"{plan.problem.metric} {_number(best.test_metric)} on test data{_interval(best.low, best.high)}"
    if not best.whole and any(row.left for row in ranked):
        return [f"No verdict yet: no entry has finished all its final runs. {far}{have} the best mean, {reached}."]
    if len(ranked) == 1:
        return [f"{far}{best.entry} reaches {reached}; there is nothing to compare it with."]
    if not best.whole:
        return [f"{have} the best {reached}, but nothing is shown: every entry lost final runs."]
    if all(math.isnan(pair.p) for pair in pairs):
        return [
            f"{far}{have} the best {reached}, but nothing is shown: one seed gives neither an interval nor a "
            "test; run the race with --seeds 5."
        ]
    behind = [pair for pair in pairs if pair.ahead == best.entry and pair.shown]
    if len(leaders) == 1:
        everyone = len(ranked) == len(plan.entries)
        others = "every other entry" if everyone else _and([row.entry for row in ranked[1:]])
        return [
            f"{far}{best.entry} is ahead of {others}: {reached}.",
            *(f"{_behind(pair)}." for pair in behind),
        ]
    between_others = [pair for pair in pairs if pair.shown and pair.ahead != best.entry and pair.behind in leaders]
    if not behind and not between_others:
        whose = _and([f"{name}'s" for name in ties])
        return [
            f"{'So far no' if far else 'No'} difference is shown between {_and(leaders)}; "
            f"the best mean of these is {whose}, {reached}.",
            _unshown(best.seeds, len(pairs)),
        ]
    of_these = "" if len(ranked) == len(plan.entries) else f" of {_and([row.entry for row in ranked])}"
    return [
        f"{far}{have} the best mean{of_these}, {reached}, but no difference is shown between "
        f"{best.entry if len(ties) > 1 else 'it'} and {_and(leaders[1:])}.",
        *(f"{_behind(pair)}." for pair in [*behind, *between_others]),
        _unshown(best.seeds, len(pairs)),
    ]


def _better(results: Results, rows: Sequence[Row], ranked: Sequence[Row]) -> list[str]:
    """The entries that are not compared although their mean is no worse."""
    sign = 1.0 if results.plan.problem.higher_is_better else -1.0
    said: list[str] = []
    for row in rows:
        if row in ranked or not row.seeds or sign * (row.test_metric - ranked[0].test_metric) < 0:
            continue
        because = f"lost {row.lost} of its final runs" if row.lost else f"has {row.left} of its final runs left"
        mean = f"{_number(row.test_metric)} over the {row.seeds} that finished"
        said.append(f"The mean of {row.entry}, {mean}, is no worse; it {because} and is not compared.")
    return said


def _unshown(seeds: int, comparisons: int) -> str:
    several = f" and {comparisons} comparisons, corrected together," if comparisons > 1 else ""
    fewer = " or fewer entries" if comparisons > 1 else ""
    return (
        f"Where no difference is shown there may still be one: {seeds} seeds{several} can show only large ones; "
        f"more seeds{fewer} show smaller ones."
    )


def _behind(pair: Pair) -> str:
    how_sure = "exactly: nothing in their runs is random" if pair.exact else f"p = {_p(pair.p_holm)} after Holm"
    interval = "" if pair.exact else _interval(pair.low, pair.high)
    return f"{pair.behind} is behind {pair.ahead} by {_number(pair.difference)}{interval}, {how_sure}"


def _unfinished(results: Results) -> list[str]:
    if results.complete:
        return []
    return [f"The race is not finished: {len(results.runs):,} runs have ended. The same command goes on with it."]


def _few_seeds(rows: Sequence[Row]) -> list[str]:
    fewest = min((row.seeds for row in rows if row.seeds), default=0)
    if fewest in (0, 1) or reach(fewest) >= 0.93:
        return []
    return [f"With {fewest} seeds an interval covers at most {100 * reach(fewest):.0f} %, not 95 %; run at least 5."]


def _edges(rows: Sequence[Row]) -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, edge in row.edges.items():
            found.setdefault((name, edge), []).append(f"{row.entry} ({row.settings[name]:.3g})")
    return [_edge(name, edge, entries) for (name, edge), entries in found.items()]


def _edge(name: str, edge: str, entries: Sequence[str]) -> str:
    further = f"{edge.removesuffix('est')}er"
    them = "them" if len(entries) > 1 else "it"
    return (
        f"The best {name} of {_and(entries)} is the {edge} of those tried: a {further} one may be better still. "
        f"Race {them} again with a {further} {name} set by hand, or with a wider search space (thalweg.Entry's search)."
    )


def _lost(plan: Plan, rows: Sequence[Row]) -> list[str]:
    said: list[str] = []
    for row in rows:
        if not row.seeds and row.trials and (row.lost or row.diverged + row.failed == row.trials):
            of = f"of its {row.trials + row.lost} runs {row.diverged} diverged and {row.failed} failed"
            said.append(f"{row.entry} has no result{' so far' if row.left else ''}: {of}.")
        elif row.lost:
            said.append(
                f"{row.entry} lost {row.lost} of {row.seeds + row.lost} final runs of its best setting; its mean is "
                "over the others, so that it ranks after entries that lost none and is not compared."
            )
    tuning = [
        f"{row.entry} {row.diverged} of {row.trials + row.seeds + row.lost}"
        for row in rows
        if row.diverged and row.seeds
    ]
    if tuning:
        said.append(f"Runs that diverged: {', '.join(tuning)}.")
    failed = [f"{row.entry} {row.failed}" for row in rows if row.failed and row.seeds]
    if failed:
        said.append(f"Runs that failed with an error: {', '.join(failed)}.")
    return said


def _interval(low: float, high: float) -> str:
    return "" if math.isnan(low) else f" (95 % interval {_number(low)} to {_number(high)})"


def _number(x: float) -> str:
    return f"{x:.4g}"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "less than 0.0001"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
