"""Reports of races and animations of rules on surfaces, as web pages."""

from thalweg.report import surfaces
from thalweg.report.race import write

__all__ = ["surfaces", "write"]
