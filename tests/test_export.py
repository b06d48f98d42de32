"""``thalweg export``, ``list`` and ``report`` of a race in a store of many."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from test_store import PLAN, RUN
from thalweg.cli import main
from thalweg.store import Curve, Store

CURVE = Curve((0, 10), (0, 640), (0.0, 0.5), (2.0, float("nan")), (2.0, 1.0), (0.1, 0.5))
HOSTILE = 'it, said "<b>"\nand more'


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    with Store.open("sqlite:///lab.db", PLAN, name="mine") as made:
        for i in range(3):
            run: dict[str, Any] = {
                "key": f"{i}",
                "trial": i,
                "seconds": 0.1 + i,
                "validation_metric": 1 / 3,
                "message": HOSTILE,
            }
            made.add(replace(RUN, **run, curve=CURVE))
    return "lab.db"


def said(*arguments: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize("kind", ["parquet", "csv", "json"])
def test_what_is_exported_is_what_is_stored(kind: str, store: str, tmp_path: Path):
    assert said("export", f"{store}/mine", f"--{kind}", "--out", "there") == 0
    read: Any = getattr(pandas, f"read_{kind}")
    exactly = {"precise_float": True} if kind == "json" else {}
    runs, curves = (read(tmp_path / "there" / f"{name}.{kind}", **exactly) for name in ("runs", "curves"))
    assert list(runs["trial"]) == [0, 1, 2]
    assert list(runs["seconds"]) == [0.1, 1.1, 2.1]
    assert set(runs["validation_metric"]) == {1 / 3}
    assert set(runs["message"]) == {HOSTILE}
    assert runs["test_metric"].isna().all()
    assert list(curves["step"]) == [0, 10] * 3
    assert list(curves["train_loss"].isna()) == [False, True] * 3


def test_an_export_without_a_format_or_of_no_race_is_one_sentence(store: str, capsys: pytest.CaptureFixture[str]):
    for arguments, says in (
        (("export", f"{store}/mine"), "export needs a format: --parquet, --csv or --json"),
        (("export", f"{store}/other", "--csv"), "holds no race other; there are mine"),
        (("export", "nowhere.db/mine", "--csv"), "there is no store"),
        (("report", "postgresql://me:hunter2@127.0.0.1:1/lab/digits"), "postgresql://me:***@127.0.0.1:1/lab"),
        (("list", "nowhere.db"), "there is no store sqlite:///nowhere.db"),
    ):
        assert said(*arguments) == 2
        error = capsys.readouterr().err
        assert says in error
        assert "hunter2" not in error
        assert len(error.splitlines()) == 1


def test_a_store_is_listed_and_a_race_in_it_reported(store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert said("list", store) == 0
    assert "mine" in (shown := capsys.readouterr().out)
    assert "digits" in shown
    assert said("report", f"{store}/mine") == 0
    assert (tmp_path / "races" / "mine" / "report.html").is_file()
