"""From records to statistics: the leaderboard, intervals, paired tests, and the sentences at the top."""

from thalweg.verdict.board import Pair, Row, to_csv
from thalweg.verdict.looks import Course
from thalweg.verdict.statistics import interval
from thalweg.verdict.times import Sooner, TimeToTarget, time_to_target
from thalweg.verdict.tuning import Tuning
from thalweg.verdict.words import Verdict, judge

__all__ = [
    "Course",
    "Pair",
    "Row",
    "Sooner",
    "TimeToTarget",
    "Tuning",
    "Verdict",
    "interval",
    "judge",
    "time_to_target",
    "to_csv",
]
