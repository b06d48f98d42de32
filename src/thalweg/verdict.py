"""From records to statistics: the leaderboard, intervals, paired tests, and the sentences at the top."""

from collections.abc import Mapping
from dataclasses import dataclass

from thalweg.store import Results


@dataclass(frozen=True)
class Row:
    """A line of the leaderboard.

    Attributes:
        entry: its name.
        test_metric: the mean over the final runs that finished; nan where none did.
        low, high: the ends of its 95 % interval; nan with fewer than two seeds.
        lr: the learning rate of the best trial; nan where no trial finished.
        settings: all numbers of the rule in the best trial.
        rule: the rule of the best trial, in a form that ``rules.parse`` reads.
        trials: tuning runs that there are.
        seeds: final runs that finished.
        lost: final runs that diverged or failed.
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
    trials: int
    seeds: int
    lost: int
    diverged: int
    failed: int
    seconds: float
    edges: Mapping[str, str]


@dataclass(frozen=True)
class Pair:
    """A comparison of two entries, seed by seed.

    Attributes:
        ahead, behind: their names, the one that ranks ahead first.
        difference: by how much `ahead` is better, the mean over the seeds, whichever way the metric is better.
        low, high: the ends of its 95 % interval, by Student's t; nan with fewer than two seeds.
        p: the two-sided paired test's; nan where there is none.
        p_holm: the same after Holm's correction over all pairs.
        seeds: the seeds that both finished.
        shown: whether a difference is shown: p_holm < 0.05.
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


@dataclass(frozen=True)
class TimeToTarget:
    """What an entry's final runs took until the validation metric first reached the target.

    Attributes:
        entry: its name.
        reached: final runs that reached it, of `seeds`.
        seeds: final runs that there are.
        step, examples, seconds: the median over the final runs, those that never reach it counted as longest; nan
            where that median is one that never reaches it.
    """

    entry: str
    reached: int
    seeds: int
    step: float
    examples: float
    seconds: float


@dataclass(frozen=True)
class Verdict:
    """What a race says.

    Attributes:
        headline: who is ahead, and by how much; or that no difference is shown.
        sentences: what belongs to it: who is shown to be behind, who is not.
        warnings: what to doubt: rates at the edge of their space, runs that diverged, too few seeds.
        rows: the leaderboard, best first.
        pairs: every two entries that have results, in the order of the leaderboard.
        leaders: the best, and all entries between which and it no difference is shown.
        times: the time to the target; empty where the problem has none.
    """

    headline: str
    sentences: tuple[str, ...]
    warnings: tuple[str, ...]
    rows: tuple[Row, ...]
    pairs: tuple[Pair, ...]
    leaders: tuple[str, ...]
    times: tuple[TimeToTarget, ...]


def judge(results: Results) -> Verdict:
    """The verdict on a race, as far as it has come."""
    raise NotImplementedError(results)
