"""``thalweg convert``."""

from pathlib import Path

from rich.console import Console

from thalweg import conventions
from thalweg.cli.exits import Mistake, users_input
from thalweg.conventions.files import convert_file


def convert(call: str, to: str, *, state: Path | None, out: Path | None, steps: int | None) -> None:
    """Translate a call, or convert a checkpoint of it."""
    if state is None:
        if out is not None or steps is not None:
            raise Mistake("--out and --steps are of a checkpoint; give --state, the file that has it")
        with users_input():
            print(conventions.translate(call, to))
        return
    if out is None:
        raise Mistake("a converted checkpoint needs a file; give --out")
    with users_input():
        convert_file(state, out, call, to, steps)
    Console(highlight=False).print(f"The checkpoint of {call}, for {to}: {out}", soft_wrap=True, markup=False)
