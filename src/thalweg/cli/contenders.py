"""Parses the argument of ``--rules``, and several problems."""

from thalweg.cli.exits import Mistake

_OPEN, _CLOSE = "([{", ")]}"


def split(text: str, what: str = "--rules") -> list[str]:
    """The parts between commas outside brackets: ``"sgd,adam(lr=1, eps=0)"`` has two.

    Raises:
        Mistake: a part is empty.
    """
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    parts = [part.strip() for part in parts]
    if not all(parts):
        raise Mistake(f"{what} {text!r} has an empty place; write names separated by single commas, as in sgd,adam")
    return parts
