"""Parts that several frameworks share: settings with the same meaning, and reasons why something is not supported."""

from collections.abc import Mapping

from thalweg.conventions.meaning import Argument, switch

Arguments = Mapping[str, Argument]

CORRECTION = switch(False, "nesterov", "correction", False)
SCALED = {"decay_form": "scaled"}
INSIDE = {"eps_at": "inside"}
UNCORRECTED = {"eps_at": "uncorrected"}

ORTHOGONAL = "its steps need whole matrices made orthogonal, and rules have no matrices"
FACTORED = "it keeps rows and columns of the second moment, and rules have neither"
TRUST = "its form of the method is not translated; thalweg.rules has LARS"
TOTAL = "its rate depends on all parameters together, and a rule sees one at a time"
WRAPS = "it wraps another rule"
