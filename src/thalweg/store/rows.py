"""Records as rows of tables, and back."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, cast

from thalweg.store.errors import damaged
from thalweg.store.records import Curve, Points, Run

_MEASURED = ("validation_metric", "validation_loss", "test_metric", "test_loss")
_OTHERS = "others"
"""Where the metrics that do not decide are, in the column of the curve."""
_FLOATS = {*_MEASURED, "seconds"}
_VERSION = 3
"""The version of the tables from which on checksums are as they are now."""


def row_of(run: Run, plan: str) -> dict[str, Any]:
    """The row of a run in the table."""
    row: dict[str, Any] = {f.name: getattr(run, f.name) for f in fields(run)} | {"plan": plan}
    row.update({name: _or_none(row[name]) for name in _MEASURED})
    row["message"] = run.message.replace("\0", "").encode(errors="replace").decode()  # PostgreSQL does not accept \0
    row["curve"] = curve = columns_of(run.curve)
    others, tested = row.pop("others"), row.pop("test_others")
    if others or tested:  # beside the curve, as in stores that were made before there were any
        curve[_OTHERS] = {
            "validation": {name: [_or_none(x) for x in column] for name, column in others.items()},
            "test": {name: _or_none(x) for name, x in tested.items()},
        }
    return {**row, "checksum": checksum(row)}


def run_of(row: Mapping[str, Any], store: str, version: int) -> Run:
    """The run of a row in a store of a version.

    Raises:
        StoreError: the record is not as it was written.
    """
    if "checksum" in row and row["checksum"] != checksum(row, version):
        raise damaged(
            store, f"the record of {row['entry']} ({row['phase']} {row['trial']}, seed {row['seed']}) is damaged"
        )
    values = {f.name: row[f.name] for f in fields(Run) if f.name in row}
    values.update({name: _or_nan(values[name]) for name in _MEASURED})
    columns = dict(values["curve"])
    others = columns.pop(_OTHERS, {"validation": {}, "test": {}})
    values["curve"] = curve_of(columns)
    values["others"] = {name: tuple(map(_or_nan, column)) for name, column in others["validation"].items()}
    values["test_others"] = {name: _or_nan(x) for name, x in others["test"].items()}
    return Run(**values)


def checksum(row: Mapping[str, Any], version: int = _VERSION) -> str:
    """A hash of a row's contents, the same before writing and after reading, and after its race has grown."""
    without = {"checksum", "stored", "plan"} if version >= 3 else {"checksum", "stored"}
    # SQLite stores -0.0 as 0.0.
    values = {n: float(x) + 0.0 if n in _FLOATS and x is not None else x for n, x in row.items() if n not in without}
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()


def row_of_points(points: Points, plan: str) -> dict[str, Any]:
    """The row of some points in the table."""
    row = {f.name: getattr(points, f.name) for f in fields(points)}
    return {**row, "settings": dict(points.settings), "curve": columns_of(points.curve), "plan": plan}


def columns_of(curve: Curve) -> dict[str, Any]:
    """A curve as plain values for JSON, in which what is not finite is None."""
    return {name: [_or_none(x) for x in column] for name, column in vars(curve).items()}


def curve_of(columns: Mapping[str, Any]) -> Curve:
    """The curve of `columns_of`."""
    return Curve(**cast(Any, {name: tuple(_or_nan(x) for x in column) for name, column in columns.items()}))


def _or_none(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _or_nan(x: float | None) -> float:
    return math.nan if x is None else x
