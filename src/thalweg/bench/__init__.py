"""Times steps: this engine against torch's implementations and against memory bandwidth, in one run."""

from thalweg.bench.result import Extra, Result, Row, Timing
from thalweg.bench.run import Plan, run
from thalweg.bench.workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "Extra", "Plan", "Result", "Row", "Timing", "Workload", "run"]
