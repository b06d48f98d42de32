"""Which colour and which mark belongs to which method, on every page.

Colours are names of CSS variables (``var(--cyan)``): the page resolves them for light and for dark, in its text and
in its figures alike.
"""

from collections.abc import Sequence

LECTURES = {
    "sgd": "var(--cyan)",
    "momentum": "var(--magenta)",
    "adagrad": "var(--chalk)",
    "rmsprop": "var(--green)",
    "adam": "var(--blue)",
}
OTHERS = tuple(f"var(--{name})" for name in ("orange", "violet", "yellow", "red", "teal", "brown"))
MARKS = ("circle", "diamond", "square", "cross", "x")
"""Marks that Plotly draws in 2-D and in 3-D: two methods can be told apart without their colours."""


DASHES = ("solid", "dot", "dash", "dashdot")


def colours(rules: Sequence[str]) -> list[str]:
    """A colour for each rule, given as text: the lectures' own for the plain one of its kind, else for the first."""
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
    """A dash for each line of these colours: solid for the first of a colour, another for the next."""
    return [DASHES[colours[:i].count(colour) % len(DASHES)] for i, colour in enumerate(colours)]
