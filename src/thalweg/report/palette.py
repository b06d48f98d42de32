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


def colours(rules: Sequence[str]) -> list[str]:
    """A colour for each rule, given as text: the lectures' own for the first of its kind, another for all others."""
    chosen: list[str] = []
    others = 0
    for rule in rules:
        own = LECTURES.get(rule.partition("(")[0].strip().lower())
        if own is None or own in chosen:
            own = OTHERS[others % len(OTHERS)]
            others += 1
        chosen.append(own)
    return chosen
