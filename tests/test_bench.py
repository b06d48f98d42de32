"""The bench: contenders do the same work, its arithmetic is right, and its files can be read back."""

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from thalweg import bench, rules
from thalweg.bench import (
    WORKLOADS,
    Extra,
    Plan,
    Result,
    Row,
    Timing,
    contenders,
    extras,
    floors,
    muons,
    packages,
    page,
    text,
    timing,
)
from thalweg.bench.pairs import PAIRS
from thalweg.bench.plain import Plain
from thalweg.bench.result import KINDS, OURS, ZEROING, Kind
from thalweg.bench.run import measured
from thalweg.bench.workloads import Workload
from thalweg.cli import main
from thalweg.optimizer import Optimizer
from thalweg.stages import Stages

TINY = Workload("two", "two tensors", ((3, 4), (5,)))


def timed(seconds: float) -> Timing:
    return Timing(seconds, seconds, seconds, 9)


def row(kind: Kind = "whole", **times: float) -> Row:
    """A row of 1,000 parameters, 32 bytes each, at 1 GB/s: its floor is 32 µs."""
    given = {"default": 3e-4, "fused": 1e-4, **times}
    ours = {OURS: 5e-5} | ({} if kind == "step" else {ZEROING: 4e-5})
    return Row("W", "adam", kind, "float32", 2, 1_000, 32, 4, 1e9, {n: timed(s) for n, s in (ours | given).items()})


def result(*rows: Row) -> Result:
    machine = dict.fromkeys(("processor", "cores", "vectors", "memory", "threads", "torch", "numba"), "x")
    machine |= {"python": "3", "system": "Linux", "date": "2025-01-01", "thalweg": "0"}
    return Result(machine, {"rounds": "9"}, ["busy"], list(rows), [Extra("memory", -0.25, "%")])


@pytest.mark.parametrize(
    ("name", "tensors", "parameters"),
    [
        ("mlp", 6, 109_386),
        ("tiny", 1_000, 32_000),
        ("small", 148, 412_672),
        ("resnet18", 62, 11_689_512),  # as torchvision's
        ("gpt2", 148, 124_439_808),  # as Hugging Face's
        ("33m", 1, 33_554_432),
    ],
)
def test_workloads_are_the_models_they_name(name: str, tensors: int, parameters: int) -> None:
    assert (len(WORKLOADS[name].shapes), WORKLOADS[name].parameters) == (tensors, parameters)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PAIRS)
def test_every_contender_does_the_same_work(name: str, kind: Kind) -> None:
    """Three steps in float64, each contender from the same start: the same parameters, and the gradients gone."""
    ends: dict[str, list[torch.Tensor]] = {}
    for i in range(len(contenders.contenders(PAIRS[name], kind, model(), compiled=False))):
        own = model()
        contender = contenders.contenders(PAIRS[name], kind, own, compiled=False)[i]
        for _ in range(3):
            contender.prepare()
            contender.call()
        ends[contender.name] = [p.detach() for p in own.params]
        left = [p.grad for p in own.params]
        if kind == "step":
            assert all(g is not None and torch.equal(g, n) for g, n in zip(left, own.noise, strict=True))
        elif contender.name == ZEROING:
            assert all(g is not None and not g.any() for g in left)
        else:
            assert left == [None, None]
    start = model().params
    atol = 1e-9 if name == "nadam" else 1e-12  # torch keeps NAdam's product of momenta in float32
    for way, end in ends.items():
        for p, expected, first in zip(end, ends["for-loop"], start, strict=True):
            torch.testing.assert_close(p, expected, rtol=0, atol=atol, msg=lambda m, way=way: f"{way}: {m}")
            assert (p - first).abs().min() > 1e-6


def model() -> contenders.Model:
    return contenders.Model.random(TINY.shapes, torch.float64)


@pytest.mark.filterwarnings("ignore:.*script_method:DeprecationWarning")  # of torch's own compiler
@pytest.mark.parametrize("name", PAIRS)
def test_contenders_are_torchs_ways_and_ours(name: str) -> None:
    fused = ["fused"] if name in ("sgd", "momentum", "adagrad", "adam", "adamw") else []
    ways = ["default", "for-loop", "foreach", *fused]
    step = contenders.contenders(PAIRS[name], "step", model(), compiled=False)
    whole = contenders.contenders(PAIRS[name], "whole", model(), compiled=True)
    assert [c.name for c in step] == [OURS, *ways]
    assert [c.name for c in whole] == [OURS, ZEROING, *ways, "compiled"]


def test_fresh_gradients_are_new_tensors_elsewhere_and_the_same_ones_stay() -> None:
    own = model()
    seen: list[torch.Tensor] = []
    for _ in range(2):
        own.fresh()
        assert all(p.grad is not None for p in own.params)
        seen += [p.grad for p in own.params[:1] if p.grad is not None]
    assert seen[0] is not seen[1]
    assert seen[0].data_ptr() != seen[1].data_ptr()
    assert torch.equal(seen[1], own.noise[0])
    own.same()
    first = own.params[0].grad
    own.fresh()
    own.same()
    assert own.params[0].grad is first


@pytest.mark.parametrize(
    ("rule", "kind", "dtype", "moved", "zeroing"),
    [
        ("sgd", "step", torch.float32, 12, 4),  # p and g read, p written
        ("momentum", "step", torch.float32, 20, 4),
        ("rmsprop", "step", torch.float32, 20, 4),
        ("adam", "step", torch.float32, 28, 4),
        ("adam", "whole", torch.float32, 32, 4),  # the norm reads g once more
        ("adam", "ema", torch.float32, 40, 4),
        ("adamw", "whole", torch.float32, 32, 4),
        ("nadam", "whole", torch.float32, 32, 4),
        ("adam", "step", torch.bfloat16, 22, 2),  # the state is in float32
    ],
)
def test_bytes_that_must_move(rule: str, kind: Kind, dtype: torch.dtype, moved: int, zeroing: int) -> None:
    found = measured(TINY, rule, kind, dtype, rounds=1, compiled=False)
    assert (found.bytes, found.zeroing) == (moved, zeroing)
    assert found.moved() == 17 * moved
    if kind != "step":
        assert found.moved(ZEROING) == 17 * (moved + zeroing)


@pytest.mark.parametrize(("ema", "each"), [(False, 28), (True, 36)])
def test_the_plain_kernel_writes_every_element_of_what_the_step_writes(ema: bool, each: int) -> None:
    plain = Plain(PAIRS["adam"].rule, Stages(ema=ema), torch.float32, 20_001)
    assert plain.bytes == 20_001 * each
    plain.run()
    assert all(array.min() == array.max() for array in plain.arrays)
    assert sorted(float(array[0]) for array in plain.arrays) == [1.0] + (4 if ema else 3) * [1.5]


def test_a_floor_is_bytes_over_bandwidth() -> None:
    found = row()
    assert found.floor() == pytest.approx(32e-6)
    assert found.floor(ZEROING) == pytest.approx(36e-6)
    assert found.above_floor() == pytest.approx(50 / 32)


def test_ratios_are_to_torchs_best_way_without_a_compiler() -> None:
    found = row(compiled=1e-6)
    assert found.best == "fused"
    assert found.faster(OURS) == pytest.approx(2)
    assert found.faster(ZEROING) == pytest.approx(2.5)
    assert found.faster(OURS, "default") == pytest.approx(6)
    assert not found.slow
    assert row(foreach=4.5e-5).slow


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=50))
def test_a_timing_is_the_median_between_its_quartiles(seconds: list[float]) -> None:
    found = Timing.of(seconds)
    assert min(seconds) <= found.low <= found.median <= found.high <= max(seconds)
    ordered = sorted(seconds)
    assert found.median == pytest.approx((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def test_contenders_take_turns_in_rotating_order() -> None:
    turns: list[str] = []
    prepared: list[str] = []

    def contender(name: str) -> timing.Contender:
        return timing.Contender(name, lambda: prepared.append(name), lambda: turns.append(name))

    found = timing.measure([contender(name) for name in "abc"], rounds=3)
    assert turns == prepared
    assert "".join(turns[:6]) == "aabbcc"  # to warm up
    assert "".join(turns[6::20]) == "abc" + "bca" + "cab"
    assert {timed.count for timed in found.values()} == {60}


seconds = st.floats(1e-9, 1e3)
timings = st.builds(Timing, seconds, seconds, seconds, st.integers(1, 99))


@st.composite
def rows(draw: st.DrawFn) -> Row:
    kind: Kind = draw(st.sampled_from(list(KINDS)))
    further = draw(st.lists(st.sampled_from([ZEROING, "foreach", "fused", "compiled"]), unique=True))
    times = {name: draw(timings) for name in (OURS, "default", *further)}
    tensors, parameters, moved, zeroing = (draw(st.integers(1, 99)) for _ in range(4))
    bandwidth = draw(st.floats(1, 1e12))
    return Row(draw(st.text()), "adam", kind, "float32", tensors, parameters, moved, zeroing, bandwidth, times)


@given(st.builds(Result, st.dictionaries(st.text(), st.text()), st.just({}), st.lists(st.text()), st.lists(rows()),
                 st.lists(st.builds(Extra, st.text(), seconds, st.text()))))  # fmt: skip
def test_a_result_is_read_back_as_written(found: Result) -> None:
    assert Result.from_json(found.to_json()) == found


def edited(**changes: object) -> str:
    return json.dumps({**json.loads(result(row()).to_json()), **changes})


def a_row(**changes: object) -> list[dict[str, object]]:
    return [{**dataclasses.asdict(row()), **changes}]


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ("", "no saved bench"),
        ("[]", "no saved bench"),
        ("{}", "no saved bench"),
        (edited(format=99), "format 99"),
        (edited(rows=[3]), "no saved bench"),
        (edited(rows=a_row(kind="other")), "no saved bench"),
        (edited(rows=a_row(times=dict[str, object]())), "no saved bench"),
        (edited(further=1), "no saved bench"),
    ],
)
def test_a_file_that_is_no_result_is_refused(saved: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Result.from_json(saved)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"workloads": ["resnet"]}, "did you mean 'resnet18'"),
        ({"rules": ["adm"]}, "did you mean 'adam'"),
        ({"kinds": ["steps"]}, "did you mean 'step'"),
        ({"rounds": 0}, "rounds is 0"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_a_wrong_plan_names_what_is_wrong(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Plan(**settings)  # pyright: ignore[reportArgumentType] -- wrong on purpose


@pytest.mark.parametrize(
    ("x", "shown"),
    [(0, "0"), (0.01234, "0.0123"), (1.0, "1.00"), (12.34, "12.3"), (123.4, "123"), (12_345, "12,300")],
)
def test_three_digits(x: float, shown: str) -> None:
    assert text.digits(x) == shown


@pytest.mark.parametrize("width", [80, 92, 176])
def test_the_table_fits_the_terminal(width: int) -> None:
    names = [w.title for w in WORKLOADS.values()]
    each = [
        dataclasses.replace(row(kind), workload=name, dtype=dtype, rule="momentum")
        for name in names
        for kind in KINDS
        for dtype in ("float32", "bfloat16" if "1 tensor" in name else "float16")
    ]
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(text.table(each, width))
    shown = console.export_text()
    assert "…" not in shown
    assert shown.count("2.00×") == len(each)
    assert max(map(len, shown.splitlines())) <= width


def test_markdown_has_every_row_once_and_no_more_columns_than_headings() -> None:
    shown = text.markdown(result(row("step"), row("whole"), row("ema")))
    lines = [line for line in shown.splitlines() if line.startswith("| W |")]
    assert len(lines) == 3
    assert lines[0] == "| W | adam | 50.0 | 100 | fused | 300 | 2.00× | 6.00× | 32.0 | 1.56× |"
    assert lines[1] == "| W | adam | 50.0 | 40.0 | 100 | fused | 300 | 2.00× | 2.50× | 6.00× | 32.0 | 1.56× | 1.11× |"
    tables = re.findall(r"(?:^\|.*\n)+", shown, re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "**Warning:** busy." in shown
    assert "| memory | −0.250 % |" in shown


def test_the_docs_are_rewritten_between_their_marks_only(tmp_path: Path) -> None:
    file = tmp_path / "speed.md"
    marked = "before\n<!-- thalweg bench: begin -->\nold\n<!-- thalweg bench: end -->\nafter\n"
    file.write_text(marked, encoding="utf-8")
    text.rewrite(file, result(row()))
    once = file.read_text(encoding="utf-8")
    assert once.startswith("before\n<!--")
    assert once.endswith("-->\nafter\n")
    assert "old" not in once
    text.rewrite(file, result(row()))
    assert file.read_text(encoding="utf-8") == once
    file.write_text("no marks", encoding="utf-8")
    with pytest.raises(ValueError, match="no place for the tables"):
        text.rewrite(file, result(row()))
    assert file.read_text(encoding="utf-8") == "no marks"


def test_the_page_shows_every_row_and_escapes_what_it_shows(tmp_path: Path) -> None:
    hostile = "</script><script>alert(1)</script>"
    found = dataclasses.replace(row("step"), workload=hostile)
    shown = page.write(tmp_path / "b.html", result(found, row("whole"))).read_text(encoding="utf-8")
    assert "<script>alert" not in shown
    assert "&lt;script&gt;alert(1)" in shown
    embedded = re.search(r'<script type="application/json" id="data">(.*?)</script>', shown, re.DOTALL)
    assert embedded is not None
    figures = json.loads(embedded[1])["figures"]
    assert set(figures) == {"bars-step", "bars-whole", "roofline"}
    assert set(re.findall(r'id="(bars-\w+|roofline)"', shown)) == set(figures)
    (ours, zeroing) = figures["bars-whole"]["data"]
    assert ours["x"] == [pytest.approx(math.log10(2))]
    assert zeroing["text"] == ["2.50×"]
    roofs = figures["roofline"]["data"][0]
    assert roofs["y"] == [1e9, 1e9]


def test_a_real_run(tmp_path: Path) -> None:
    said: list[str] = []
    before = torch.get_num_threads()
    found = bench.run(
        Plan(["mlp", "1m"], ["rmsprop"], ["step", "whole"], rounds=2, threads=1, extras=False), said.append
    )
    assert torch.get_num_threads() == before
    assert [(r.workload, r.kind, r.dtype) for r in found.rows] == [
        ("MLP 784-128-64-10", "step", "float32"),
        ("MLP 784-128-64-10", "whole", "float32"),
        ("1 tensor of 1 M", "step", "float32"),
        ("1 tensor of 1 M", "whole", "float32"),
        ("1 tensor of 1 M", "step", "bfloat16"),
        ("1 tensor of 1 M", "step", "float16"),
    ]
    assert len(said) == 6
    for r in found.rows:
        assert set(r.times) == {OURS, "default", "for-loop", "foreach"} | ({ZEROING} if r.kind == "whole" else set())
        assert all(t.median > 0 for t in r.times.values())
        assert r.bandwidth > 0
    assert found.machine["threads"] == "1"
    assert Result.from_json(found.to_json()) == found


def test_the_command_shows_a_saved_result_and_names_mistakes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    saved, html, again = (tmp_path / name for name in ("a.json", "a.html", "results/b.json"))
    saved.write_text(result(row()).to_json(), encoding="utf-8")
    for arguments, code, says in [
        (("--saved", str(saved), "--html", str(html), "--json", str(again)), 0, "2.00×"),
        (("--saved", str(html)), 2, "no saved bench"),
        (("--workloads", "mpl"), 2, "did you mean 'mlp'"),
        (("--saved", str(saved), "--markdown", str(saved)), 2, "no place for the tables"),
    ]:
        with pytest.raises(SystemExit) as ended:
            main(("bench", *arguments))
        captured = capsys.readouterr()
        assert ended.value.code == code
        assert says in captured.out + captured.err
    assert again.read_text(encoding="utf-8") == saved.read_text(encoding="utf-8")
    assert "How fast a step is" in html.read_text(encoding="utf-8")


def test_the_docs_have_a_place_for_the_tables(tmp_path: Path) -> None:
    docs = Path(__file__).resolve().parents[1] / "docs" / "speed.md"
    copy = tmp_path / "speed.md"
    copy.write_text(docs.read_text(encoding="utf-8"), encoding="utf-8")
    text.rewrite(copy, result(row()))
    assert "| W | adam | 50.0 |" in copy.read_text(encoding="utf-8")


def test_rows_that_do_not_fit_into_memory_are_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thalweg.bench.machine.free_memory", lambda: 1_000_000)
    found = bench.run(Plan(["mlp"], ["sgd"], ["step"], rounds=1, extras=False))
    assert found.rows == []
    assert "MLP 784-128-64-10, sgd, step alone: left out, there is too little free memory" in found.warnings


def test_packages_are_timed_beside_ours_where_they_are_installed() -> None:
    cases = [
        packages.Case("two small matrices", [(3, 4), (3, 4)], "torch", "Muon", {"lr": 0.02}),
        packages.Case("nothing", [(3, 4)], "textbook", "Adam", {"lr": 0.02}),  # which is no package
    ]
    (found,) = packages.measure(cases, rounds=1)
    assert found.what == "Muon, clip, step and zero_grad, two small matrices, torch's time over ours"
    assert found.value > 0


def test_steps_of_several_passes_are_timed_beside_the_floor_of_their_bytes() -> None:
    (found,) = floors.measure(["lamb"], shape=(3, 5), rounds=1)
    assert found.what == "lamb, a step of 3 × 5, time over the floor of its bytes"
    assert found.value > 0


def test_muon_is_timed_beside_torchs_operations_which_step_as_it_does() -> None:
    found = muons.measure([(6, 4), (4, 5)], rounds=1)
    assert [extra.value > 0 for extra in found] == [True, True]
    start, gradient = torch.randn(6, 4), torch.randn(6, 4)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    ours.grad, theirs.grad = gradient.clone(), gradient.clone()
    rule = rules.Muon()
    step, written = Optimizer([ours], rule).step, muons.written_out([theirs], rule)
    for _ in range(3):
        step()
        written()
    torch.testing.assert_close(ours, theirs)


def test_what_cannot_be_measured_costs_nothing_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> list[Extra]:
        raise RuntimeError("a process that the bench started failed: Traceback\nOSError: no space")

    for name in ("starting", "subnormals", "halved", "memory"):
        monkeypatch.setattr(extras, name, lambda: [Extra("kept", 1.0, "s")])
    monkeypatch.setattr(extras, "subnormals", fails)
    monkeypatch.setattr(extras.changing, "measure", list)
    monkeypatch.setattr(extras.packages, "measure", list)
    monkeypatch.setattr(extras.floors, "measure", list)
    monkeypatch.setattr(extras.muons, "measure", list)
    warnings: list[str] = []
    found = extras.measure(lambda _: None, warnings.append)
    assert {extra.what for extra in found} == {"kept"}
    assert warnings == ["a thousand steps of zero gradients: not measured, OSError: no space"]
