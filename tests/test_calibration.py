"""The judge's errors, measured in simulated races, are as small as it says; and a judge that errs is found out."""

from functools import partial
from typing import Any

import pytest

from test_race import line
from thalweg import Entry, cli
from thalweg.race import retuning
from thalweg.verdict import calibration, statistics


@pytest.mark.parametrize("size", [(5, 2), (5, 7), (10, 3), (20, 2)])
def test_verdicts_are_wrong_as_rarely_as_they_say(size: tuple[int, int]):
    found = calibration.measure(1000, *size)
    assert not [one for one in found if not one.holds]
    assert {one.noise for one in found} == {*calibration.NOISES}
    assert len(found) == len(calibration.NOISES) + 2 * len(calibration.COVERED) + 1


@pytest.mark.parametrize("entries", [2, 7])
def test_looking_many_times_is_wrong_as_rarely(entries: int):
    found = calibration.looking(1000, entries)
    assert not [one for one in found if not one.holds]


def test_a_rule_that_is_tuned_twice_rarely_differs_from_itself():
    sizes = {"trials": 8, "finalists": 3, "steps": 12, "tunings": 6, "replicates": 14}
    done = list(retuning.run(line(), Entry("adam"), **sizes))
    assert len(done) == 8 * (6 + 14)
    plan, runs = done[0][0], [run for _, run in done]
    assert len({run.key for run in runs if run.phase == "tune"}) == 8
    assert len({run.validation_metric for run in runs if run.phase == "tune"}) > 40  # tuning seeds differ
    (five, ten) = retuning.measure(plan, runs, (5, 10), 500)
    assert five.holds
    assert ten.holds


def test_a_judge_that_errs_is_found_out(monkeypatch: pytest.MonkeyPatch):
    careless: Any = partial(statistics.compare, alpha=0.2)
    monkeypatch.setattr(statistics, "compare", careless)
    found = calibration.measure(1000, 10, 3)
    assert "normal" in {one.noise for one in found if one.what == "a difference is shown" and not one.holds}


@pytest.mark.parametrize(("share", "holds"), [(0.0, True), (0.05, True), (0.07, True), (0.08, False)])
def test_a_share_holds_to_within_three_standard_errors(share: float, holds: bool):
    assert calibration.Measured("", "", 5, 2, share, 1000, 0.0, 0.05).holds == holds


def test_the_command_prints_its_tables_and_fails_if_a_share_is_not_as_allowed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(calibration, "REPLICATES", (5,))
    original = statistics.compare
    for alpha, code in ((0.05, 0), (0.3, 2)):
        monkeypatch.setattr(statistics, "compare", _with(original, alpha))
        with pytest.raises(SystemExit) as ended:
            cli.main(["calibrate", "--races", "400"])
        assert ended.value.code == code
        said = capsys.readouterr()
        assert "A difference is shown, in % of 400 races (allowed: at most 5%)" in said.out
        rows = [line for line in said.out.splitlines() if line.startswith("| normal")]
        assert [line.count("|") for line in rows] == [5] * 5
        assert ("!" in said.out) == ("shares are not as allowed" in said.err) == (code == 2)


def _with(compare: Any, alpha: float) -> Any:
    def careless(scores: Any, **given: Any) -> Any:
        return compare(scores, **{**given, "alpha": given.get("alpha", alpha)})

    return careless
