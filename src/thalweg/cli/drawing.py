"""``thalweg surfaces``."""

from pathlib import Path

from rich.console import Console

from thalweg.cli import contenders
from thalweg.cli.exits import Mistake, users_input
from thalweg.problems import surfaces as known
from thalweg.report import surfaces as pages
from thalweg.rule import nearest


def surfaces(
    name: str,
    rules: str,
    *,
    start: str | None,
    noise: float,
    seed: int,
    steps: int | None,
    out: Path | None,
) -> None:
    """Draw rules on a surface."""
    if name not in known:
        raise Mistake(f"there is no surface {name!r}{nearest(name, known)}; there are {', '.join(known)}")
    options = {} if steps is None else {"steps": steps}
    with users_input():
        path = pages.write(
            known[name], contenders.split(rules), out or Path("races", "surfaces", f"{name}.html"),
            start=None if start is None else _point(start), noise=noise, seed=seed, **options,
        )  # fmt: skip
    Console(highlight=False).print(f"The animation: {path}", soft_wrap=True, markup=False)


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise Mistake(f"--start is {text!r}; write two numbers with a comma between them, as in -1.5,2") from None
    return x, y
