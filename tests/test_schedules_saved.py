"""Schedules written and read back, stopped and resumed, for random compositions."""

import copy
import io
import json
import math
import pickle
from collections.abc import Callable
from typing import Any, cast

import plotly.graph_objects as go  # pyright: ignore[reportMissingTypeStubs]
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as theirs

from compositions import TOTAL, curve, random_factors, random_plateaus, random_schedules
from thalweg import schedules
from thalweg.schedules import (
    Schedule,
    ScheduleError,
    anneal,
    constant,
    cosine,
    exponential,
    from_json,
    lambda_,
    linear,
    multistep,
    parse,
    plateau,
    step,
    warmup,
    warmup_stable_decay,
)


@given(random_schedules)
def test_text_json_and_pickle_read_back(schedule: Schedule) -> None:
    for back in (
        parse(str(schedule)),
        from_json(json.loads(json.dumps(schedule.to_json()))),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ):
        assert back == schedule
        assert hash(back) == hash(schedule)
        assert str(back) == str(schedule)
        assert (back.absolute, back.resolved) == (schedule.absolute, schedule.resolved)
        assert curve(back) == curve(schedule)
    resolved = schedule.resolve(TOTAL)
    assert resolved.resolved
    assert parse(str(resolved)) == resolved


@given(random_schedules)
def test_values_are_finite_and_hold_after_the_end(schedule: Schedule) -> None:
    resolved = schedule.resolve(TOTAL)
    values = [resolved(t) for t in range(TOTAL)]
    assert all(isinstance(value, float) and math.isfinite(value) for value in values)
    if resolved.length is not None:
        assert len({resolved(t) for t in range(resolved.length, resolved.length + 20)}) == 1


@given(st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(10, 10_000))
def test_fractions_of_one_fill_the_total(weights: list[int], total: int) -> None:
    parts: list[Schedule] = [warmup(weight / sum(weights)) for weight in weights]
    schedule = parts[0]
    for part in parts[1:]:
        schedule = schedule.then(part)
    assert schedule.resolve(total).length == total
    nested = parts[-1]
    for part in reversed(parts[:-1]):
        nested = part.then(nested)
    assert nested.resolve(total).length == total
    assert curve(nested.resolve(total)) == pytest.approx(curve(schedule.resolve(total)))


@given(random_factors, st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=40)
def test_as_torch_resumes_exactly(schedule: Schedule, stop: int, more: int) -> None:
    def sgd() -> torch.optim.Optimizer:
        return torch.optim.SGD([torch.zeros(1)], lr=0.1)

    resolved = schedule.resolve(TOTAL)
    optimizer = sgd()
    scheduler = resolved.as_torch(optimizer)
    for _ in range(stop):
        optimizer.step()
        scheduler.step()
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), scheduler.state_dict()], file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    again = sgd()
    # torch resumes at a wrong rate if the scheduler is made after the optimizer has been loaded.
    if more % 2:
        again.load_state_dict(saved[0])
        resumed = resolved.as_torch(again)
        resumed.load_state_dict(saved[1])
    else:
        resumed = resolved.as_torch(again)
        resumed.load_state_dict(saved[1])
        again.load_state_dict(saved[0])
    for _ in range(more + 1):
        assert again.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
        for one, its in ((optimizer, scheduler), (again, resumed)):
            one.step()
            its.step()


@given(random_plateaus, st.lists(st.floats(-2, 2), max_size=60))
def test_plateau_equals_torch(schedule: Any, metrics: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    expected = theirs.ReduceLROnPlateau(
        optimizer,
        mode=schedule.mode,
        factor=schedule.factor,
        patience=schedule.patience,
        threshold=schedule.threshold,
        threshold_mode=schedule.threshold_mode,
        cooldown=schedule.cooldown,
        min_lr=schedule.minimum,
        eps=schedule.least,
    )
    for t, metric in enumerate(metrics):
        schedule.observe(metric)
        expected.step(metric)
        assert schedule(t) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-15)


@given(random_plateaus, st.lists(st.floats(-2, 2), max_size=30), st.lists(st.floats(-2, 2), max_size=30))
def test_plateau_goes_on_from_its_state(fresh: Schedule, before: list[float], after: list[float]) -> None:
    schedule = (warmup(10).then(fresh) * 0.5).clip(high=0.4)
    again = parse(str(schedule))
    assert schedule.data_driven
    for metric in before:
        schedule.observe(metric, t=20)
    assert again == schedule, "what a schedule has observed does not affect equality"
    again.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
    for metric in after:
        schedule.observe(metric)
        again.observe(metric)
        assert again(25) == schedule(25)
    assert again.state_dict() == schedule.state_dict()


def test_plateau_beside_a_warm_up() -> None:
    after, beside = warmup(10).then(plateau(0.5, patience=1)), warmup(10) * plateau(0.5, patience=1)
    for schedule in (after, beside):
        for t in range(0, 10, 2):
            schedule.observe(1.0, t)
    assert after(10) == 1.0, "a part that has not begun observes nothing"
    assert beside(10) == 0.25
    for t in (10, 12, 14):
        after.observe(1.0, t)
    assert after(14) == 0.5
    one, other = after, copy.deepcopy(after)
    other.observe(2.0, 16)
    other.observe(2.0, 18)
    assert (one(20), other(20)) == (0.5, 0.25), "a deep copy has a memory of its own"


def test_plateau_through_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=2.0)
    scheduler = cast(Any, plateau(0.5, patience=0).as_torch(optimizer))
    for metric in (1.0, 1.0):
        optimizer.step()
        scheduler.observe(metric)
        scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 1.0


def test_state_of_another_schedule_is_refused() -> None:
    assert cosine(3).state_dict() == {}
    with pytest.raises(ValueError, match=r"the state has \['next'\].* remembers \[\]; load its own"):
        cosine(3).load_state_dict(warmup(3).then(plateau()).state_dict())
    with pytest.raises(ValueError, match="but a plateau has"):
        plateau().load_state_dict({"best": 1.0})


def test_a_lambda_is_not_saved() -> None:
    schedule = warmup(5).then(lambda_(lambda t: 0.9**t))
    assert schedule(7) == 0.81
    saves: list[Callable[[Schedule], Any]] = [str, pickle.dumps, lambda s: s.to_json()]
    for save in saves:
        with pytest.raises(ValueError, match=r"holds a function, which cannot be saved; write it with .*exponential"):
            save(schedule)
    assert "lambda" in repr(schedule)
    assert copy.deepcopy(schedule) == schedule
    with pytest.raises(ScheduleError, match="at character 1: a lambda_ holds a function"):
        parse("lambda_(abs)")
    with pytest.raises(ScheduleError, match=r"\$.schedule: 'lambda_' is no schedule"):
        from_json({"schedule": "lambda_", "function": "abs"})


WRITTEN = [
    ("warmup(500).then(cosine(9500))", warmup(500).then(cosine(9500))),
    ("warmup(0.05).then(cosine(0.95, end=0.1))", warmup(0.05).then(cosine(0.95, 0.1))),
    ("  warmup( 5 ) .then(\n cosine(steps=9)) # so", warmup(5).then(cosine(9))),
    ("0.5 * (cosine(9) * linear(3)).then(step(4), at=20)", constant(0.5) * (cosine(9) * linear(3)).then(step(4), 20)),
    ("-1 * linear(3)", constant(-1) * linear(3)),
    ("multistep([1, 2], 0.5)", multistep((1, 2), 0.5)),
    ("warmup_stable_decay(1, 2, 3, fall='linear')", warmup_stable_decay(1, 2, 3, fall="linear")),
    ("cosine_restarts(10, mult=2)", cosine(10).restarts(mult=2)),
    ("anneal(0.5, 0.9, 2000)", anneal(0.5, 0.9, 2000)),
]


@pytest.mark.parametrize(("text", "schedule"), WRITTEN)
def test_reads(text: str, schedule: Schedule) -> None:
    assert parse(text) == schedule


def test_writes_what_is_read() -> None:
    for text in (
        "warmup(500).then(cosine(9500))",
        "anneal(0.5, 0.9, 2000)",
        "cosine(10).restarts(mult=2.0)",
        "0.5 * linear(3) * 2.0",
        "exponential(0.5, every=1.0)",
    ):
        assert str(parse(text)) == text


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("warmup(500).thn(cosine(10))", 13, "expected clip, restarts, shift, then; did you mean 'then'"),
        ("cosin(10)", 1, "did you mean 'cosine'"),
        ("  cosin(10)", 3, "did you mean 'cosine'"),
        ("cosine(10).then(\n  liner(3))", 20, "did you mean 'linear'"),
        ("cosine(-1)", 8, "cosine's steps is -1; allowed is a whole number"),
        ("warmup(3).then(cosine(10, end='é', k=-2))", 31, "cosine's end is 'é'; allowed is a finite number"),
        ("constant(1) * cosine(9, cycles='é') * linear(k=2)", 32, "cosine's cycles"),
        ("warmup(3).then(5)", 16, "then's next is 5; allowed is a schedule"),
        ("warmup(3).restarts(5)", 1, "allowed is cosine, linear, polynomial or tanh"),
        ("cosine()", 1, r"missing a required argument: 'steps'; expected cosine\(steps, end=0.0"),
        ("cosine(1).shift()", 1, r"'steps'; expected \.shift\(steps\)"),
        ("cosine(1, wat=2)", 1, "unexpected keyword argument 'wat'"),
        ("cosine(**{})", 10, "expected name=value"),
        ("cosine(x)", 8, "'x' is no literal; expected a number"),
        ("cosine(1) + 3", 1, "expected a product"),
        ("3 * 4", 1, "expected a schedule on one side"),
        ("cosine(3) * 'a'", 13, "'a' is no factor"),
        ("'cosine(3)'", 1, "is no schedule; expected one such as"),
        ("cosine", 1, "'cosine' is no literal"),
        ("cosine(3", 7, "never closed; expected a schedule"),
        ("", 1, "expected a schedule such as"),
        ("cosine(1)(2)", 1, "expected the name of a schedule"),
        ("exponential(0.9).then(cosine(1))", 1, "never ends"),
        ("then(cosine(1), cosine(2))", 1, "'then' is no schedule"),
        ("__import__('os').system('true')", 1, "'__import__' is no schedule"),
        ("cosine(1).__class__.__mro__", 1, "expected a number"),
        ("cosine(__import__('os').getpid())", 8, "'__import__' is no schedule"),
        ("cosine([i for i in (1, 2)][0])", 8, "expected a number"),
        ("cosine(2**3)", 8, "expected a product"),
        ("(lambda: cosine(3))()", 2, "expected the name of a schedule"),
        ("\0", 1, "expected a schedule"),
        ("\ud800", 1, "expected a schedule"),
        ("9" * 5000, 1, "expected a schedule"),
    ],
)
def test_refuses_with_the_position(text: str, position: int, expected: str) -> None:
    with pytest.raises(ScheduleError, match=f"at character {position}: [^\n]*{expected}"):
        parse(text)


@pytest.mark.parametrize(
    "text", ["(" * 5000, "cosine(1)" + ".shift(1)" * 5000, "-" * 9000 + "1", "cosine(1)*" * 9000 + "2"]
)
def test_refuses_what_is_nested_too_deeply(text: str) -> None:
    with pytest.raises(ScheduleError):
        parse(text)


pieces = st.sampled_from(
    ["cosine", "warmup", ".then", ".shift", "(", ")", "1", "0.5", ",", "*", "-", "=", "end", "'", "é", "\n", " "]
)


@given(st.text(max_size=30) | st.lists(pieces, max_size=20).map("".join))
def test_any_other_text_is_refused_as_such(text: str) -> None:
    try:
        found = parse(text)
    except ScheduleError:
        return
    assert parse(str(found)) == found


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, r"at \$: 3 is no schedule; expected an object with its name as 'schedule'"),
        ({"schedule": "cosin", "steps": 3}, r"at \$\.schedule: 'cosin' is no schedule; .*did you mean 'cosine'"),
        ({"schedule": "cosine"}, r"at \$: missing a required argument: 'steps'"),
        ({"schedule": "cosine", "steps": -3}, r"at \$\.steps: cosine's steps is -3"),
        (
            {
                "schedule": "then",
                "first": {"schedule": "linear", "steps": 3},
                "next": {"schedule": "warmup", "steps": "x"},
            },
            r"at \$\.next\.steps: warmup's steps is 'x'",
        ),
        (
            {"schedule": "shift", "inner": {"schedule": "linear", "steps": [3]}, "steps": 1},
            r"at \$\.inner\.steps: linear's steps is \[3\]",
        ),
    ],
)
def test_refuses_json_with_the_path(data: Any, message: str) -> None:
    with pytest.raises(ScheduleError, match=message):
        from_json(data)


def test_preview() -> None:
    lines = warmup(500).then(cosine(9500)).preview(10_000, width=40).splitlines()
    assert [len(line) for line in lines[:-1]] == [40] * 4
    assert lines[0][2] == "█"
    assert lines[-1].startswith("first 0 (t = 0) · peak 1 (t = 500) · last 2.73396e-08 (t = 9,999); factors")
    assert cosine(0.5).preview(100).endswith("Warning: it is 50 steps long: it holds 0 for the other 50")
    assert "Warning: it is 200 steps long: training stops after 100, at 0.505" in linear(200).preview(100)
    assert "Warning" not in exponential(0.9).preview(100)
    assert "values" in anneal(0.5, 0.9, 10).preview(10)
    assert len(constant(-1.0).preview(3).splitlines()[0]) == 3
    with pytest.raises(ValueError, match="width is 0"):
        cosine(3).preview(3, width=0)


def test_plot() -> None:
    figure: Any = schedules.plot(
        {"<b>lr": cosine(1.0), "momentum": anneal(0.5, 0.9, 2000), "weight_decay": linear(0.5)},
        10_000,
        base={"weight_decay": 0.01},
    )
    traces = {trace.name: trace for trace in figure.data}
    assert set(traces) == {"&lt;b&gt;lr", "momentum", "weight_decay"}
    assert all(trace.x[0] == 0 and trace.x[-1] == 9_999 and len(trace.x) <= 2_000 for trace in figure.data)
    assert traces["weight_decay"].y[0] == 0.01
    assert traces["momentum"].yaxis == traces["weight_decay"].yaxis != traces["&lt;b&gt;lr"].yaxis
    single: Any = cosine(10).plot(10, base=0.1)
    assert single.data[0].y[0] == 0.1
    assert isinstance(single, go.Figure)
    with pytest.raises(ValueError, match="there is no schedule"):
        schedules.plot({}, 10)
    with pytest.raises(ValueError, match="none of"):
        schedules.plot({"lr": cosine(3)}, 3, base={"momentum": 1.0})
