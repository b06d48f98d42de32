"""How fast a step is: this engine beside torch's own ways, and beside what the memory allows, in one run."""

from thalweg.bench.result import Extra, Result, Row, Timing
from thalweg.bench.run import Plan, run
from thalweg.bench.workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "Extra", "Plan", "Result", "Row", "Timing", "Workload", "run"]
