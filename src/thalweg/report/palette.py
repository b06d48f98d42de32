"""The colour and marker of each method, the same on every page.

Colours are names of CSS variables (``var(--cyan)``): the page resolves them for light and dark mode, in its
text and figures alike.
"""

from collections.abc import Sequence
from importlib.resources import files

LECTURES = {
    "sgd": "var(--cyan)",
    "momentum": "var(--magenta)",
    "adagrad": "var(--chalk)",
    "rmsprop": "var(--green)",
    "adam": "var(--blue)",
}
OTHERS = tuple(f"var(--{name})" for name in ("orange", "violet", "yellow", "red", "teal", "brown", "pink", "olive"))
DASHES = ("solid", "dot", "dash", "dashdot", "longdash", "longdashdot")


def styles() -> str:
    """The style sheet that says what the colours are, in light and in dark mode."""
    return (files("thalweg.report") / "templates" / "colours.css").read_text(encoding="utf-8")


def colours(rules: Sequence[str]) -> list[str]:
    """A colour for each rule, given as text; the lectures' colour for the plain rule of its kind, or else the first."""
    texts = [rule.strip().lower() for rule in rules]
    chosen: list[str] = []
    others = 0
    for text in texts:
        kind = text.partition("(")[0].strip()
        own = LECTURES.get(kind)
        if own is None or own in chosen or (kind in texts and text != kind):
            own = OTHERS[others % len(OTHERS)]
            others += 1
        chosen.append(own)
    return chosen


def dashes(colours: Sequence[str]) -> list[str]:
    """A dash style for each line of these colours: solid for the first line of a colour, then others."""
    return [DASHES[colours[:i].count(colour) % len(DASHES)] for i, colour in enumerate(colours)]
