"""Reports of races, as web pages."""

from thalweg.report.race import write

__all__ = ["write"]
