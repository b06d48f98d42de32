"""``thalweg schedule``."""

import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from thalweg import schedules as known
from thalweg.cli.exits import Mistake, users_input
from thalweg.report import schedules as pages
from thalweg.schedules import Schedule


def schedule(texts: Sequence[str], *, total: int, base: float | None, out: Path | None) -> None:
    """Show schedules over `total` steps."""
    if base is not None and not math.isfinite(base):
        raise Mistake(f"--base is {base}; write a finite number, such as the learning rate")
    read = [_read(text, total) for text in dict.fromkeys(texts)]
    console = Console(highlight=False)
    for i, one in enumerate(read):
        if i:
            console.print()
        console.print(str(one), style="bold", markup=False, soft_wrap=True)
        for line in one.preview(total, min(console.width, 100), base).splitlines():
            style = "yellow" if line.startswith("Warning: ") else ""
            console.print(line, style=style, markup=False, soft_wrap=True)
    if out is not None:
        with users_input():
            path = pages.write(read, total, out, base)
        console.print(f"\nThe page: {path}", soft_wrap=True, markup=False)


def _read(text: str, total: int) -> Schedule:
    try:
        one = known.parse(text)
        one.resolve(total)
    except ValueError as error:
        raise Mistake(str(error).splitlines()[0]) from None  # what follows points into the text, on lines of its own
    if one.data_driven:
        raise Mistake(f"{text} follows what training observes; there is no curve of it before")
    return one
