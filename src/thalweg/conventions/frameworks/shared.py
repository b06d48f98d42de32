"""Parts that several frameworks share: settings with the same meaning, and reasons why something is not supported."""

from collections.abc import Mapping

from thalweg.conventions.meaning import Argument, switch

Arguments = Mapping[str, Argument]

CORRECTION = switch(False, "nesterov", "correction", False)
SCALED = {"decay_form": "scaled"}
INSIDE = {"eps_at": "inside"}
UNCORRECTED = {"eps_at": "uncorrected"}

WRAPS = "it wraps another rule"
