"""Colours of methods, the same on every page."""

from cases import NAMED
from thalweg.report import palette


def test_entries_of_one_rule_have_different_colours() -> None:
    assert len(set(palette.colours(["sgd(lr=0.1)", "sgd(lr=0.2)", "sgd(lr=0.3)"]))) == 3
    assert palette.colours(["sgd(batch_size=8)", "sgd", "Adam(lr=0.1)"])[1:] == ["var(--cyan)", "var(--blue)"]


def test_lines_of_one_colour_are_dashed_differently() -> None:
    colours = palette.colours(NAMED)
    assert len(set(colours)) < len(colours)
    lines = list(zip(colours, palette.dashes(colours), strict=True))
    assert len(set(lines)) == len(lines)
