"""docs/schedules.md: its table is up to date, its claims about torch are tested, and its code runs."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

import test_schedules as against_torch
import test_schedules_saved as saved
from thalweg.schedules import page
from thalweg.schedules.base import FORMS

DOCUMENT = (Path(__file__).resolve().parents[1] / "docs" / "schedules.md").read_text(encoding="utf-8")


def test_the_table_is_written_from_the_code() -> None:
    assert page.table() in DOCUMENT, "put what python -m thalweg.schedules.page prints into docs/schedules.md"


def test_every_form_has_a_row_with_what_it_is() -> None:
    rows = {row.split("(")[0].removeprefix("| `"): row.split(" | ") for row in page.table().splitlines()[2:]}
    assert set(rows) == FORMS.keys() - {"then", "shift", "clip", "restarts", "product"}
    assert all(len(row) == 4 and row[1].strip() for row in rows.values())


def test_each_of_torchs_names_is_held_to_torchs_numbers() -> None:
    named = set(re.findall(r"(?<!timm's )`(\w+(?:LR|Restarts|Plateau|Scheduler))\b", DOCUMENT)) - {"LRScheduler"}
    assert named <= set(dir(lr_scheduler))
    assert {"StepLR", "SequentialLR", "ReduceLROnPlateau", "OneCycleLR", "CosineAnnealingLR"} <= named
    tested = {name.split(",")[0] for name in (*against_torch.STEPPED, *against_torch.CLOSED)}
    elsewhere = {"ReduceLROnPlateau": saved.test_plateau_equals_torch,
                 "SequentialLR": against_torch.test_then_equals_torchs_sequential,
                 "ChainedScheduler": against_torch.test_times_equals_torchs_chain}  # fmt: skip
    assert named == tested & named | elsewhere.keys()


def test_the_code_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
    names: dict[str, Any] = {}
    exec(code, names)
    said = re.findall(r"print\(.*\)  # (.+)", code)
    assert capsys.readouterr().out.splitlines() == said
    model = names["model"]
    model(torch.ones(2, 3)).sum().backward()
    names["optimizer"].step()
    assert (names["schedule"](0), names["schedule"](500)) == (0.0, 1.0)
