"""``thalweg play``."""

import tempfile
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console

from thalweg import playground
from thalweg.cli import contenders
from thalweg.cli.exits import Mistake, users_input
from thalweg.problems import Surface, is_file, load_named, surface_of
from thalweg.rule import Rule
from thalweg.symbols import TraceError


def play(
    what: str,
    rules: str | None,
    *,
    start: str | None,
    noise: float | None,
    seed: int,
    schedules: Sequence[str],
    export: Path | None,
) -> None:
    """Write the playground, and open it if no file is given for it."""
    with users_input((ValueError, TraceError)):
        surface, own = _meant(what)
        runners: list[str | Rule] = [*own, *(contenders.split(rules) if rules else playground.LECTURES)]
        page = export or Path(tempfile.mkdtemp(prefix="thalweg-"), "play.html")
        playground.write(
            page, surface, runners, start=None if start is None else _point(start), noise=noise, seed=seed,
            schedules=schedules,
        )  # fmt: skip
    Console(highlight=False).print(f"The playground: {page}", soft_wrap=True, markup=False)
    if export is None:
        webbrowser.open(page.resolve().as_uri())


def _meant(what: str) -> tuple[str | Surface, list[Rule]]:
    """The surface, and the user's own rules: one of them may be in a file."""
    if not is_file(what):
        return what, []
    wanted = "a function f(x, y) in the words of thalweg.maths, a thalweg.problems.Surface, or a rule"
    thing = load_named(what, wanted)
    if isinstance(thing, type) and issubclass(cast(Any, thing), Rule):
        thing = cast("type[Rule]", thing).example()
    if isinstance(thing, Rule):
        return "ravine", [thing]
    if isinstance(thing, Surface):
        return thing, []
    if not callable(thing):
        raise ValueError(f"{what} is a {type(thing).__name__}; wanted is {wanted}")
    return surface_of(cast(Any, thing), what.rpartition(":")[2]), []


def _point(text: str) -> tuple[float, float]:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise Mistake(f"--start is {text!r}; write two numbers with a comma between them, as in -1.5,2") from None
    return x, y
