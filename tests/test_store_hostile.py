"""Names in stores are only names: in SQL, in paths, in the terminal and in the page."""

import io
import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest

from test_store import PLAN, RUN
from thalweg import report
from thalweg.cli import main
from thalweg.race import Entry
from thalweg.race import Results as Shown
from thalweg.store import Points, Reader, Store, race_name

NAMES = [
    "<script>alert(1)</script>", "'; DROP TABLE run; --", '"quoted"', "two\nlines", "\x1b[31mred", "\x07bell",
    "\u202eback", "../../etc/passwd", "a/b", "$(ls)`ls`", "%s {0} {{ 7*7 }}", "名前 🎉", "\\", ".", "[/b][bold",
    "x" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name)[:30])
def test_a_name_is_safe_as_the_name_of_a_race(name: str):
    made = race_name(name)
    assert re.fullmatch(r"[\w.-]{1,60}", made)
    assert made.strip(".-")
    assert not any(unicodedata.category(letter).startswith("C") for letter in made)


@pytest.mark.parametrize("name", ["a\0b", "half a letter \ud800"])
def test_a_name_that_no_database_keeps_is_refused_before_anything_runs(name: str):
    with pytest.raises(ValueError, match=r"^an entry's name is '.*'; allowed is text in UTF-8 without null"):
        Entry("sgd", name=name)


def test_hostile_names_come_back_as_they_were(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    entries = tuple(replace(PLAN.entries[0], name=name) for name in NAMES)
    for i, name in enumerate(NAMES):
        plan = replace(
            PLAN, seed=i, problem=replace(PLAN.problem, name=name, metric=name, source=name), entries=entries
        )
        with Store.open(url, plan, name=name, alone=True) as store:
            store.add(replace(RUN, entry=name, message=name, settings={"lr": 0.01}, test_others={name: 0.5}))
            store.stream([Points("under way", name, "tune", 1, 0, {"lr": 0.1})])
            race = store.race
        with Reader(url) as reader:
            (run,) = reader.results(race).runs
            (points,) = reader.live(race)
            assert run.entry == run.message == points.entry == name
            assert reader.results(race).plan == plan
            page = report.write(reader.results(race), tmp_path / "report.html").read_text(encoding="utf-8")
            assert "<script>alert(1)" not in page
        found: Any = pandas.read_csv(io.StringIO(Shown.read(url, race).frame().to_csv(index=False)))
        assert list(found["entry"]) == list(found["message"]) == [name]
        assert list(found[f"test_{name}"]) == [0.5]
    with Reader(url) as reader:
        names = [held.name for held in reader.races()]
    assert len(set(names)) == len(NAMES)
    with pytest.raises(SystemExit) as ended:
        main(["list", url])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert not set("\x1b\x07\u202e") & set(shown)
