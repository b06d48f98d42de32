"""The verdict in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from thalweg.store import Plan, Results
from thalweg.verdict.board import Comparisons, Pair, Row, compare, leaderboard
from thalweg.verdict.looks import Course
from thalweg.verdict.statistics import FEWEST, wins_needed
from thalweg.verdict.times import MEASURES, Sooner, TimeToTarget, sooner, time_to_target
from thalweg.verdict.tuning import Tuning, tuning

_SENTENCES = 12
"""The pairs that get a sentence each, where the first entry is not ahead of all; if more, only its own do."""


@dataclass(frozen=True)
class Verdict:
    """The conclusions of a race.

    Attributes:
        headline: which entry is ahead, and by how much; or that no difference is shown.
        sentences: details: which entries are shown to be behind, which are not, and what could have been shown.
        warnings: reasons for doubt: rates at the edge of their space, runs that were lost.
        rows: the leaderboard, best first.
        pairs: every two entries that have results, in the order of the leaderboard.
        leaders: the best entry that is not shown to be behind another, and all that are not shown to be behind it.
            Empty if no entry has a result.
        detectable: the difference between two entries that such a race shows in four cases of five; nan if none.
        times: the time to the target; empty if the problem has none.
        sooner: each pair of entries by their time to the target, in steps and in seconds; empty while runs are missing,
            and in a race that goes on until it is decided, whose looks this test does not account for.
        on_time: in words, who is shown to reach the target sooner.
        tuning: how hard the entries were to tune.
    """

    headline: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]
    detectable: float
    times: tuple[TimeToTarget, ...]
    sooner: tuple[Sooner, ...]
    on_time: tuple[str, ...]
    tuning: tuple[Tuning, ...]


def judge(results: Results) -> Verdict:
    """The verdict on a finished or unfinished race."""
    rows, complete = leaderboard(results), Course(results).complete
    found = compare(results, rows)
    ranked = _ranked(results, rows, found.pairs) or [row for row in rows if row.seeds]
    best = _best(ranked, found.pairs)
    beaten = {pair.behind for pair in found.pairs if pair.shown and best and pair.ahead == best.entry}
    unbeaten = [row for row in ranked if row.entry not in beaten]
    leaders = tuple(row.entry for row in sorted(unbeaten, key=lambda row: row is not best))
    headline, *sentences = _said(results, complete, ranked, best, found, leaders)
    headline += _mixed(results)
    sentences += [*_better(results, rows, ranked), *_equal_seconds(results.plan, rows), *_halved(results)]
    warnings = (*_unfinished(results, rows, complete), *_edges(rows), *_lost(results.plan, rows))
    sooner_of = sooner(results, rows) if complete and not results.plan.margin else ()
    more = time_to_target(results), sooner_of, tuple(_sooner(results.plan, sooner_of)), tuning(results)
    return Verdict(headline, tuple(sentences), warnings, rows, found.pairs, leaders, found.detectable, *more)


def _ranked(results: Results, rows: Sequence[Row], pairs: Sequence[Pair]) -> list[Row]:
    """The rows that are compared, best first: whole ones, or where a race goes on, those that a look has compared."""
    if not results.plan.margin:
        return [row for row in rows if row.whole]
    compared = {name for pair in pairs for name in (pair.ahead, pair.behind)}
    sign = -1.0 if results.plan.problem.higher_is_better else 1.0
    known = [row for row in rows if row.entry in compared]
    return sorted(known, key=lambda row: (math.isnan(row.test_metric), sign * row.test_metric))


def _best(ranked: Sequence[Row], pairs: Sequence[Pair]) -> Row | None:
    """The first of the leaderboard that is not shown to be behind another."""
    behind = {pair.behind for pair in pairs if pair.shown}
    return next((row for row in ranked if row.entry not in behind), ranked[0] if ranked else None)


def _mixed(results: Results) -> str:
    """A sentence if runs were made with different versions of libraries that affect the numbers."""
    names = ("thalweg", "torch")
    versions = {name: sorted({run.machine.get(name, "") for run in results.runs} - {""}) for name in names}
    several = [f"{name} {_and(found)}" for name, found in versions.items() if len(found) > 1]
    return f" Its runs are of several versions: {', '.join(several)}." if several else ""


def _said(
    results: Results,
    complete: bool,
    ranked: Sequence[Row],
    best: Row | None,
    found: Comparisons,
    leaders: Sequence[str],
) -> list[str]:
    """The headline and the sentences after it."""
    plan, pairs, far = results.plan, found.pairs, "" if complete else "So far "
    if best is None:
        return [_nothing(results, complete)]
    if math.isnan(best.test_metric):
        return [
            f"No verdict{' yet' if far else ''}: {_and([row.entry for row in ranked])} lost more than half of the runs."
        ]
    ties = [row.entry for row in ranked if row.test_metric == best.test_metric]
    have = f"{_and(ties)} {'have' if len(ties) > 1 else 'has'}"
    reached = _reached(plan, best)
    if not best.whole and not pairs:
        why = "the best setting of every entry lies at an edge of its space"
        if any(row.left for row in ranked):
            why = "no entry whose best setting lies inside its space has finished all its replicates"
        return [f"No verdict{' yet' if far else ''}: {why}. {far}{have} the best result, {reached}."]
    if len(ranked) == 1:
        return [f"{far}{best.entry} reaches {reached}; there is nothing to compare it with."]
    if all(math.isnan(pair.p) for pair in pairs):
        return [
            f"{far}{have} the best result, {reached}, but nothing is shown: fewer than {FEWEST} replicates give "
            f"neither an interval nor a test; run the race with --seeds {FEWEST}."
        ]
    behind = [pair for pair in pairs if pair.ahead == best.entry and pair.shown]
    power = [*_margin(plan, pairs, complete), *_power(found, len(ranked))]
    if len(leaders) == 1:
        everyone = len(ranked) == len(plan.entries)
        others = "every other entry" if everyone else _and([row.entry for row in ranked if row is not best])
        return [
            f"{far}{best.entry} is ahead of {others}: {reached}.",
            *(f"{_behind(pair)}." for pair in behind),
            *power,
        ]
    others = [pair for pair in pairs if pair.shown and pair.ahead != best.entry]
    if not behind and not others:
        whose = _and([f"{name}'s" for name in ties])
        if all(pair.equal for pair in pairs):
            return [
                f"{far}{_and(leaders)} are equal to within {_number(plan.margin)}; "
                f"the best result of these is {whose}, {reached}.",
                *power,
            ]
        return [
            f"{'So far no' if far else 'No'} difference is shown between {_and(leaders)}; "
            f"the best result of these is {whose}, {reached}.",
            *power,
        ]
    said = [f"{_behind(pair)}." for pair in [*behind, *others]]
    if len(said) > _SENTENCES and len(others) > 1:
        more = f"{len(others)} {'other ' if behind else ''}pairs are shown to differ; the report has a table of all."
        said = [*said[: len(behind)], more]
    of_these = "" if len(ranked) == len(plan.entries) else f" of {_and([row.entry for row in ranked])}"
    first = f"{have} the best result{of_these}" if best is ranked[0] else f"{best.entry} is not shown to be behind any"
    return [
        f"{far}{first}, {reached}, but no difference is shown between "
        f"{best.entry if len(ties) > 1 or best is not ranked[0] else 'it'} and {_and(leaders[1:])}.",
        *said,
        *power,
    ]


def _halved(results: Results) -> list[str]:
    """What halving assumes, and the steps that the trials of each entry took."""
    used: list[str] = []
    for entry in results.plan.entries:
        trials = results.of(entry.name, "tune")
        steps = sum(run.curve.step[-1] for run in trials if run.curve.step)
        if any(run.status == "stopped" for run in trials):
            whole = [run.curve.step[-1] for run in trials if run.status == "finished" and run.curve.step]
            most = entry.steps or max(whole, default=0)  # of a training the plan may not know the optimizer's steps
            used.append(f"{entry.name} took {steps:,} of {len(trials) * most:,}")
    if not used:
        return []
    return [
        "The worse half of an entry's trials was stopped after a quarter of the steps, and of the others after a half; "
        f"this assumes that what is behind then stays behind.  Of the steps of its trials {_and(used)}."
    ]


def _nothing(results: Results, complete: bool) -> str:
    """What to say while no entry has a result."""
    if not results.runs:
        return "No verdict yet: no run has ended."
    if all(run.status in ("diverged", "failed") for run in results.runs):
        return f"No verdict{': every run' if complete else ' yet: every run so far'} diverged or failed."
    if complete and any(run.phase == "final" for run in results.runs):
        return "No verdict: every final run diverged or failed."
    return "No verdict yet: no final run has finished."


def _reached(plan: Plan, row: Row) -> str:
    return f"{plan.problem.metric} {_number(row.test_metric)} on test data{_interval(row.low, row.high)}"


def _better(results: Results, rows: Sequence[Row], ranked: Sequence[Row]) -> list[str]:
    """The entries that are not compared although their result so far is no worse."""
    sign = 1.0 if results.plan.problem.higher_is_better else -1.0
    said: list[str] = []
    for row in rows:
        if row in ranked or not row.seeds or not sign * (row.test_metric - ranked[0].test_metric) >= 0:
            continue
        result = f"{_number(row.test_metric)} over {row.seeds + row.lost} replicates"
        because = f"it has {row.left} left" if row.left else f"its best {_and(list(row.edges))} lies at an edge"
        said.append(f"The result of {row.entry}, {result}, is no worse; {because} and is not compared.")
    return said


def _sooner(plan: Plan, pairs: Sequence[Sooner]) -> list[str]:
    """Who reaches the target in fewer steps, and who in less time."""
    said: list[str] = []
    for measure, less in zip(MEASURES, ("fewer steps", "less training time"), strict=True):
        than: dict[str, list[str]] = {}
        for pair in pairs:
            if pair.shown and pair.measure == measure:
                than.setdefault(pair.first, []).append(f"{pair.second} ({_p(pair.p)})")
        target = f"{plan.problem.metric} {_number(plan.problem.target or 0.0)} on validation data"
        said += [f"{first} reaches {target} in {less} than {_and(others)}." for first, others in than.items()]
    return said


def _equal_seconds(plan: Plan, rows: Sequence[Row]) -> list[str]:
    """Under a budget in seconds: what it bought, and what of it repeats."""
    taken = [f"{row.entry} {row.steps:,.0f}" for row in rows if not math.isnan(row.steps)]
    if not plan.seconds or not taken:
        return []
    return [
        f"A run had {_number(plan.seconds)} seconds of training, which gave these steps, in the median: "
        f"{', '.join(taken)}. That depends on the machine and its load; the initial weights and the order of the data "
        "are shared by the runs of a replicate."
    ]


def _margin(plan: Plan, pairs: Sequence[Pair], complete: bool) -> list[str]:
    """Of a race that goes on until it is decided: the pairs that are equal, and those that are not decided."""
    if not plan.margin:
        return []
    equal = [f"{pair.ahead} and {pair.behind}{_interval(pair.low, pair.high)}" for pair in pairs if pair.equal]
    left = [f"{pair.ahead} and {pair.behind}" for pair in pairs if not pair.equal and not pair.shown]
    said = [f"Equal to within {_number(plan.margin)}: {'; '.join(equal)}."] if equal else []
    if left and complete:
        most = f"after {plan.seeds} replicates, the most that were allowed; with more --seeds the race goes on"
        said.append(f"Neither different nor equal {most}: {'; '.join(left)}.")
    return said


def _power(found: Comparisons, entries: int) -> list[str]:
    """What the race could have shown."""
    n, several = (
        max(pair.seeds for pair in found.pairs),
        f" and {len(found.pairs)} comparisons" if len(found.pairs) > 1 else "",
    )
    hidden = any(not pair.shown for pair in found.pairs)
    fewer = " or fewer entries" if several else ""
    said: list[str] = []
    if math.isfinite(found.detectable):
        smaller = f" Where none is shown there may be a smaller one: more replicates{fewer} show it." if hidden else ""
        said.append(
            f"With {n} replicates{several}, a difference of {_number(found.detectable)} is shown in four races of "
            f"five.{smaller}"
        )
    if any(pair.lost for pair in found.pairs):
        wins = wins_needed(n, entries)
        needed = f"one must do better in {wins} of {n}" if wins else f"{n} replicates are too few to show a difference"
        said.append(f"Where a replicate was lost it counts as worst, and only signs count: {needed}.")
    return said


def _behind(pair: Pair) -> str:
    if pair.lost:
        better = f"does better than {pair.behind} in {pair.wins} of {pair.seeds} replicates"
        return f"{pair.ahead} {better}, where a lost one counts as worst, {_p(pair.p)}"
    how_sure = "exactly: nothing in their runs is random" if pair.exact else _p(pair.p)
    interval = "" if pair.exact else _interval(pair.low, pair.high)
    return f"{pair.behind} is behind {pair.ahead} by {_number(pair.difference)}{interval}, {how_sure}"


def _unfinished(results: Results, rows: Sequence[Row], complete: bool) -> list[str]:
    """That a race goes on, and what each entry misses: trials and replicates, as far as they are known to come."""
    if complete:
        return []
    said = [f"The race is not finished: {len(results.runs):,} runs have ended. The same command goes on with it."]
    left: list[str] = []
    for row in rows:
        trials = max(results.plan.entry(row.entry).trials - row.trials, 0)
        both = [f"{n:,} {what}{'s' if n > 1 else ''}" for n, what in ((trials, "trial"), (row.left, "replicate")) if n]
        left += [f"{row.entry} {_and(both)}"] if both else []
    return [*said, f"Still missing: {'; '.join(left)}."] if left else said


def _edges(rows: Sequence[Row]) -> list[str]:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, edge in row.edges.items():
            found.setdefault((name, edge), []).append(f"{row.entry} ({row.settings[name]:.3g})")
    return [_edge(name, edge, entries) for (name, edge), entries in found.items()]


def _edge(name: str, edge: str, entries: Sequence[str]) -> str:
    further = f"{edge.removesuffix('est')}er"
    they, them = ("they are", "them") if len(entries) > 1 else ("it is", "it")
    return (
        f"The best {name} of {_and(entries)} is the {edge} of those tried: a {further} one may be better still, so "
        f"{they} not ranked. Race {them} again with a wider space, as in sgd(lr=1e-3..100), or with more trials."
    )


def _lost(plan: Plan, rows: Sequence[Row]) -> list[str]:
    said: list[str] = []
    for row in rows:
        if not row.seeds and row.trials and (row.lost or row.diverged + row.failed == row.trials):
            of = f"of its {row.trials + row.lost} runs {row.diverged} diverged and {row.failed} failed"
            said.append(f"{row.entry} has no result{' so far' if row.left else ''}: {of}.")
        elif row.lost:
            of = f"{row.lost} of {row.seeds + row.lost} replicates"
            said.append(f"{row.entry} lost {of}; they count as worse than any result.")
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
    if math.isnan(low) or (math.isinf(low) and math.isinf(high)):
        return ""
    if math.isinf(low) or math.isinf(high):
        return f" (95 % interval {f'from {_number(low)} on' if math.isinf(high) else f'up to {_number(high)}'})"
    return f" (95 % interval {_number(low)} to {_number(high)})"


def _number(x: float) -> str:
    return f"{x:.4g}"


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
