"""Records and verdicts as pages; and moving pictures of rules on surfaces."""

from thalweg.report import surfaces
from thalweg.report.race import write

__all__ = ["surfaces", "write"]
