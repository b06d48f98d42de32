"""``thalweg export``: the runs of a race as tables, for other programs."""

import importlib.util
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from thalweg.cli import recorded
from thalweg.cli.exits import Mistake, users_input
from thalweg.mirrors import MirrorWarning, opened
from thalweg.passwords import masked
from thalweg.report.page import put

if TYPE_CHECKING:
    import pandas

_NEEDS = {"parquet": ("pandas", "pyarrow"), "csv": ("pandas",), "json": ("pandas",)}


def export(race: str, formats: Sequence[str], out: Path | None, mirrors: Sequence[str] = ()) -> None:
    """Write the runs and their curves in these formats, and to these mirrors."""
    if not formats and not mirrors:
        raise Mistake("export needs a format: --parquet, --csv or --json, or a --mirror; or several")
    for name in dict.fromkeys(name for kind in formats for name in _NEEDS[kind]):
        if importlib.util.find_spec(name) is None:
            raise Mistake(f"export needs {name}, which is not installed; pip install 'thalweg[export]'")
    with users_input():
        results, folder, _ = recorded.read(race)
        with (
            warnings.catch_warnings(),
            opened(mirrors, results.plan, folder.name, out or folder) as mirrored,
        ):
            warnings.simplefilter("ignore", MirrorWarning)  # which is the command's end instead
            for run in results.runs:
                mirrored.keep(run)
            for failed in mirrored.close(math.inf):
                raise Mistake(failed)
        for text in mirrors:
            Console(highlight=False).print(f"{masked(text)}: {len(results.runs):,} runs", soft_wrap=True, markup=False)
        if not formats:
            return
        tables = {"runs": results.frame(), "curves": results.frame(curves=True)}
        for kind in formats:
            for name, table in tables.items():
                file = put((out or folder) / f"{name}.{kind}", _WRITERS[kind](table))
                Console(highlight=False).print(f"{file}: {len(table):,} rows", soft_wrap=True, markup=False)


def _json(table: "pandas.DataFrame") -> str:
    """A list of objects; pandas itself would write 15 digits of a number only."""
    plain: Any = table.astype(object)
    rows = plain.where(table.notna(), None).to_dict("records")
    return json.dumps(rows, allow_nan=False)


_WRITERS: Mapping[str, Callable[["pandas.DataFrame"], Any]] = {
    "parquet": lambda table: table.to_parquet(None, index=False),
    "csv": lambda table: table.to_csv(None, index=False),
    "json": _json,
}
