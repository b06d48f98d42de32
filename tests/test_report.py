"""The report of a race: its contents are those of the records, and user text in it is escaped."""

import dataclasses
import html
import math
import re
from pathlib import Path
from typing import Any, cast

import pytest

import thalweg
from pages import Page, browsed, opened
from thalweg import report
from thalweg.race import Results
from thalweg.report.race import snippet
from thalweg.verdict import judge

HOSTILE = "</script><script>alert(1)</script><b>"


@pytest.fixture(scope="module")
def results() -> Results:
    race = thalweg.Race("digits", ["sgd", "adam", "sgd(lr=1e6)"], trials=3, seeds=5, steps=40, workers=1)
    return race.run()


def read(results: Results, folder: Path) -> Page:
    return Page(report.write(results, folder / "deep" / "report.html").read_text(encoding="utf-8"))


def test_everything_is_there(results: Results, tmp_path: Path) -> None:
    page = read(results, tmp_path)
    verdict = judge(results)
    text = " ".join(page.words.split())
    for said in (verdict.headline, *verdict.sentences, *verdict.warnings):
        assert said in text
    shown = {run["key"]: run for run in page.data["runs"]}
    for run in results.runs:
        assert shown[run.key]["rule"] == run.rule
        assert shown[run.key]["settings"] == run.settings
        assert shown[run.key]["test"] == (run.test_metric if math.isfinite(run.test_metric) else None)
    assert results.plan.hash in page.words
    assert thalweg.__version__ in page.words
    assert page.loads == ["data:,"]
    assert page.inside == ["runs"] * 2  # of the entries that have results
    assert set(page.inside) <= set(page.ids)


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_draws_it_without_complaint(results: Results, dark: bool, tmp_path: Path) -> None:
    shown, complaints = browsed(report.write(results, tmp_path / "report.html"), dark)
    assert not complaints
    assert shown.count("js-plotly-plot") >= 3  # the ranking, the curves, the sensitivity


def test_results_show_themselves(results: Results, tmp_path: Path) -> None:
    shown = repr(results)
    verdict = judge(results)
    assert results.verdict == verdict
    assert [line.split()[1] for line in shown.splitlines()[1 : 1 + len(verdict.rows)]] == [
        r.entry for r in verdict.rows
    ]
    for said in (verdict.headline, *verdict.warnings):
        assert " ".join(said.split()) in " ".join(shown.split())
    cells = re.findall(r"<pre[^>]*>.*</pre>", cast(Any, results)._repr_html_(), re.DOTALL)
    assert len(cells) == 1
    text = html.unescape(re.sub(r"<[^>]*>", "", cells[0]))
    assert text.split() == shown.split()
    page = results.report(tmp_path / "mine.html")
    assert page.read_bytes() == report.write(results, tmp_path / "other.html").read_bytes()


def test_results_are_read_from_their_store(tmp_path: Path) -> None:
    race = thalweg.Race("digits", ["sgd"], trials=1, seeds=2, steps=5, workers=1, store=tmp_path / "race.db")
    results = race.run()
    assert Results.read(tmp_path / "race.db") == results
    assert repr(Results.read(tmp_path / "race.db")) == repr(results)


def test_names_are_text_in_a_notebook(results: Results) -> None:
    shown = cast(Any, _renamed(results, HOSTILE))._repr_html_()
    assert "<script>" not in shown
    assert "&lt;/script&gt;" in shown


def test_figures_show_the_records(results: Results, tmp_path: Path) -> None:
    with opened(report.write(results, tmp_path / "report.html").as_uri()) as (page, errors):
        drawn = {name: page.evaluate(f"$('{name}').data") for name in ("curves", "sensitivity", "ranking")}
    assert not errors
    finals = results.replicates("adam")
    [mean] = [trace for trace in drawn["curves"] if trace.get("name") == "adam"]
    for i in (0, -1):
        metrics = [run.curve.validation_metric[i] for run in finals]
        assert mean["y"][i] == pytest.approx(sum(metrics) / len(metrics), rel=5e-6)  # curves are rounded
        bands = [trace["y"] for trace in drawn["curves"] if trace.get("fill") == "toself"]
        ends = [pytest.approx(end, rel=5e-6) for end in (min(metrics), max(metrics))]
        assert any(all(any(y == end for y in band) for end in ends) for band in bands)
    assert mean["x"] == list(finals[0].curve.examples)
    tried = [trace for trace in drawn["sensitivity"] if trace["name"] == "adam" and "lines" in trace["mode"]]
    expected = sorted(
        (r.settings["lr"], r.validation_metric) for r in results.of("adam", "tune") if r.status == "finished"
    )
    assert [list(zip(trace["x"], trace["y"], strict=True)) for trace in tried] == [expected]
    row = next(row for row in judge(results).rows if row.entry == "adam")
    found = [trace for trace in drawn["ranking"] if trace["name"] == "adam"]
    assert [trace["x"] for trace in found if "error_x" in trace] == [[row.test_metric]]
    assert sorted(found[0]["x"]) == sorted(run.test_metric for run in finals)


def test_an_entry_without_results_is_mentioned(results: Results, tmp_path: Path) -> None:
    page = read(results, tmp_path)
    assert "sgd(lr=1e6) has no result" in page.words
    assert "sgd(lr=1e6)" not in [row["entry"] for row in page.data["ranked"]]
    assert {run["status"] for run in page.data["runs"] if run["entry"] == "sgd(lr=1e6)"} == {"diverged"}


def _renamed(results: Results, name: str) -> Results:
    first = results.plan.entries[0]
    plan = dataclasses.replace(
        results.plan,
        entries=(dataclasses.replace(first, name=name), *results.plan.entries[1:]),
        problem=dataclasses.replace(results.plan.problem, name=name, source=name, metric=name),
    )
    runs = [dataclasses.replace(r, entry=name, message=name) if r.entry == first.name else r for r in results.runs]
    return Results(plan, tuple(runs))


def test_names_are_only_text(results: Results, tmp_path: Path) -> None:
    plain = read(results, tmp_path)
    page = read(_renamed(results, HOSTILE), tmp_path)
    assert page.tags.count("script") == plain.tags.count("script")
    assert page.tags.count("b") == plain.tags.count("b")
    assert HOSTILE in page.words


@pytest.mark.parametrize("kept", [0, 1, 3, 5])
def test_a_race_that_is_not_finished(results: Results, tmp_path: Path, kept: int) -> None:
    page = read(Results(results.plan, results.runs[:kept]), tmp_path)
    assert "The race is not finished" in page.words


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    results = thalweg.Race("digits", ["adam(lr=0.01)"], seeds=1, steps=20, workers=1).run()
    page = read(results, tmp_path)
    assert math.isnan(judge(results).rows[0].low)
    [row] = page.data["ranked"]
    assert row["test"] is not None
    assert (row["low"], row["high"]) == (None, None)


def test_the_code_to_paste_runs(results: Results) -> None:
    import torch

    [row] = [row for row in judge(results).rows if row.entry == "adam"]
    model = torch.nn.Linear(3, 1)
    before = model.weight.detach().clone()
    batches = [(torch.ones(4, 3), torch.ones(4, 1))] * 3
    names: dict[str, Any] = {"model": model, "batches": batches, "loss_function": torch.nn.functional.mse_loss}
    exec(snippet(row, results.plan.entry("adam")), names)
    assert names["optimizer"].param_groups[0]["lr"] == row.lr
    assert not torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("entry", "ends"),
    [
        (thalweg.Entry("sgd(lr=0.1)", schedule=["constant()", "linear(1.0)"]), [0.1, 0.0]),
        (thalweg.Entry("switch(adam, sgd(lr=0.5), at=0.25)"), [0.5]),
        (thalweg.Entry("switch(adam, sgd(lr=0.5), at=0.25)", schedule="linear(0.5).then(constant(0.5))"), [0.25]),
    ],
)
def test_the_code_to_paste_follows_schedules_and_switches(
    entry: thalweg.Entry, ends: list[float], tmp_path: Path
) -> None:
    import torch

    results = thalweg.Race("digits", [entry], trials=2, seeds=1, steps=20, workers=1).run()
    page = read(results, tmp_path)
    [row], [planned] = judge(results).rows, results.plan.entries
    code = snippet(row, planned)
    assert code in page.words
    names: dict[str, Any] = {
        "model": torch.nn.Linear(3, 1),
        "batches": [(torch.ones(4, 3), torch.ones(4, 1))] * planned.steps,
        "loss_function": torch.nn.functional.mse_loss,
    }
    exec(code, names)
    assert names["optimizer"].param_groups[0]["lr"] in ends
    assert row.schedule in page.words
    assert (row.schedule == "") == ("schedule" not in code)


def test_nothing_is_left_beside_a_page_that_cannot_be_written(results: Results, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(OSError, match=re.escape("report.html")):
        report.write(results, tmp_path / "report.html")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
