"""From records to statistics: the leaderboard, intervals, paired tests, and the sentences at the top."""

from thalweg.verdict.board import Pair, Row, TimeToTarget, time_to_target, to_csv
from thalweg.verdict.statistics import holm, interval, paired_test
from thalweg.verdict.words import Verdict, judge

__all__ = [
    "Pair",
    "Row",
    "TimeToTarget",
    "Verdict",
    "holm",
    "interval",
    "judge",
    "paired_test",
    "time_to_target",
    "to_csv",
]
