"""The simulation behind docs/scale.md: a whole race on simulated workers, by the real driver, store and judge."""

import importlib.util
import random
from pathlib import Path
from typing import Any

import pytest

from thalweg.store import read

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> Any:
    spec = importlib.util.spec_from_file_location("scale", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_simulated_race_is_a_whole_one(scale: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    chance = random.Random(0)
    scale.simulate(200, 50, f"sqlite:///{tmp_path / 'lab.db'}", [chance.uniform(1, 5) for _ in range(20)])
    said = capsys.readouterr().out
    assert "200 runs on 50 workers" in said
    found = read(tmp_path / "lab.db")
    assert len({run.key for run in found.runs}) == len(found.runs) == 200
    assert {len(found.replicates(entry.name)) for entry in found.plan.entries} == {found.plan.seeds}
