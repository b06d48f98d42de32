"""Entries and the plan of a race."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg import Entry, Problem, Switch, schedules
from thalweg.race import course
from thalweg.race import plan as planning
from thalweg.rule import Linear, Log
from thalweg.rules import SGD, Adam, Lion, Momentum
from thalweg.store import EntryPlan, Plan

TRAIN = (torch.arange(120.0).reshape(40, 3), torch.arange(40.0)[:, None])


def line(**changes: Any) -> Problem:
    settings: dict[str, Any] = {
        "name": "line",
        "model": lambda: nn.Linear(3, 1),
        "loss": nn.functional.mse_loss,
        "train": TRAIN,
        "validation": TRAIN,
        "test": TRAIN,
        "metric": nn.functional.mse_loss,
        "metric_name": "error",
        "higher_is_better": False,
        "batch_size": 8,
    }
    return Problem(**{**settings, **changes})


def trials_of(plan: Plan, entry: EntryPlan) -> list[planning.Task]:
    """The trials of an entry before any space grows."""
    return course.Search(plan, entry).tasks


def plan(problem: Problem | None = None, entries: str = "sgd adam", **changes: int) -> Plan:
    numbers: dict[str, Any] = {"trials": 4, "seeds": 2, "steps": 10, "seed": 0, **changes}
    return planning.make(line() if problem is None else problem, [Entry(text) for text in entries.split()], **numbers)


@pytest.mark.parametrize(
    ("entry", "name", "rule", "batch_size", "options", "tuned"),
    [
        (Entry("adam"), "adam", Adam(), None, {}, ["lr"]),
        (Entry(" Adam( lr = 0.01 ) "), "Adam( lr = 0.01 )", Adam(lr=0.01), None, {}, []),
        (Entry("adam(lr=0.001)"), "adam(lr=0.001)", Adam(), None, {}, []),
        (Entry("adam(beta2=0.99)"), "adam(beta2=0.99)", Adam(beta2=0.99), None, {}, ["lr"]),
        (Entry("nadam"), "nadam", Adam(lr=2e-3, nesterov="scheduled"), None, {}, ["lr"]),
        (Entry("sgd(batch_size=full)"), "sgd(batch_size=full)", SGD(), "full", {}, ["lr"]),
        (Entry("sgd(batch_size=1)", "one"), "one", SGD(), 1, {}, ["lr"]),
        (
            Entry("adam(weight_decay=0.01, decay_form=scaled)"),
            "adam(weight_decay=0.01, decay_form=scaled)",
            Adam(),
            None,
            {"weight_decay": 0.01, "decay_form": "scaled"},
            ["lr"],
        ),
        (Entry(Adam()), "Adam", Adam(), None, {}, ["lr"]),
        (Entry(Adam(lr=0.01)), "Adam(lr=0.01)", Adam(lr=0.01), None, {}, []),
        (Entry(SGD(), batch_size="full", clip_norm=1), "SGD(batch_size=full, clip_norm=1.0)", SGD(), "full",
         {"clip_norm": 1.0}, ["lr"]),
        (Entry(Adam(), search={"beta2": Linear(0.9, 0.99)}), "Adam", Adam(), None, {}, ["beta2"]),
        (Entry("adam(schedule='warmup(0.1).then(cosine(0.9))')"), "adam(schedule='warmup(0.1).then(cosine(0.9))')",
         Adam(), None, {"schedule": "warmup(0.1).then(cosine(0.9))"}, ["lr"]),
        (Entry(Adam(), schedule=schedules.cosine(1.0)), "Adam(schedule=cosine(1.0))", Adam(), None,
         {"schedule": "cosine(1.0)"}, ["lr"]),
        (Entry("adam(weight_decay=0)"), "adam(weight_decay=0)", Adam(), None, {"weight_decay": 0.0}, ["lr"]),
        (Entry("adam", search={"schedule": ["constant()", schedules.linear(1.0)]}), "adam", Adam(), None,
         {"schedule": ["constant()", "linear(1.0)"]}, ["schedule"]),
        (Entry("switch(adam, sgd,  at=0.5)"), "switch(adam, sgd, at=0.5)", Switch(Adam(), SGD(), 0.5), None, {},
         ["lr", "then.lr"]),
        (Entry("switch(adam(lr=0.01, eps_at=inside), sgd, at=0.5, batch_size=full, ema=0.9)", "both"), "both",
         Switch(Adam(lr=0.01, eps_at="inside"), SGD(), 0.5), "full", {"ema": 0.9}, ["then.lr"]),
        (Entry("switch(adam, sgd, at=auto, tolerance=0.1, schedule='cosine(1.0)')"),
         "switch(adam, sgd, at=auto, tolerance=0.1, schedule='cosine(1.0)')",
         Switch(Adam(), SGD(), "auto", 0.1), None, {"schedule": "cosine(1.0)"}, ["lr"]),
        (Entry(Switch(Adam(), SGD(lr=0.5), 7), clip_norm=1), "Switch(Adam(), SGD(lr=0.5), at=7, clip_norm=1.0)",
         Switch(Adam(), SGD(lr=0.5), 7), None, {"clip_norm": 1.0}, ["lr"]),
    ],
)  # fmt: skip
def test_an_entry_from_text_or_rule(
    entry: Entry, name: str, rule: Any, batch_size: Any, options: dict[str, Any], tuned: list[str]
):
    assert (entry.name, entry.rule, entry.batch_size, entry.options) == (name, rule, batch_size, options)
    assert list(entry.search) == tuned


@pytest.mark.parametrize(
    ("rule", "settings", "says"),
    [
        ("adm", {}, "did you mean 'adam'"),
        ("adam(beta3=1)", {}, "adam(beta3=1) has no setting 'beta3'"),
        ("adam(batchsize=1)", {}, "did you mean 'batch_size'"),
        ("adam(lr=-1)", {}, "Adam's lr is -1"),
        ("sgd(batch_size=0)", {}, "batch_size is 0; allowed is a whole number >= 1, or 'full'"),
        ("sgd(batch_size=1.5)", {}, "batch_size is 1.5"),
        ("sgd(batch_size=all)", {}, "batch_size is 'all'"),
        ("sgd(clip_norm=-1)", {}, "clip_norm is -1"),
        ("sgd(schedule='cosin(1.0)')", {}, "cosine"),
        ("sgd", {"momentum": 0.9}, "an entry has no option 'momentum'"),
        ("sgd", {"search": {"rate": Log(0.1, 1)}}, "sgd cannot be tuned in 'rate'; its numbers are lr"),
        ("sgd", {"search": {"lr": Log(1, 0.1)}}, "low must be less"),
        (
            "sgd",
            {"search": {"lr": Log(0, 0.1)}},
            "sgd is searched in lr from 0 on a logarithmic scale; low must be pos",
        ),
        ("adam(lr=1..1e-4)", {}, "is searched in lr from 1 to 0.0001; low must be less; write lr=0.0001..1"),
        ("adam(lr=1e-4..1:lin)", {}, "has the scale lin; write log or linear"),
        ("adam(lr=1e-4..1:log)", {"search": {}}, "lr has a space in its text, and it has a search; write one of them"),
        ("adam(lrr=1e-4..1)", {}, "did you mean 'lr'"),
        ("adam(beta1=0.5..1.5)", {}, "beta1 is 1.5"),
        ("adam(ema=0.5..0.9)", {}, "ema is '0.5..0.9'"),
        ("adam(lr=1..)", {}, "cannot be read"),
        ("sgd", {"search": {"lr": Linear(-1, 1)}}, "SGD's lr is -1"),
        ("sgd", {"search": {"lr": (0.1, 1)}}, "sgd is searched in lr in (0.1, 1); allowed is a Log or a Linear space"),
        ("sgd(schedule='linear(1.0)')", {"search": {"schedule": ["constant()"]}}, "write it once"),
        ("switch(adam(ema=0.9), sgd, at=0.5)", {}, "ema in switch(adam(ema=0.9), sgd, at=0.5) is of the whole entry"),
        ("switch(adam, sgd, at=0.5, emma=0.9)", {}, "did you mean 'ema'"),
        ("switch(adam, sgd)", {}, "does not say when to switch"),
        ("switch(adm, sgd, at=3)", {}, "did you mean 'adam'"),
        ("switch(adam, sgd, at=3)", {"search": {"then.momentum": Log(0.1, 1)}}, "its numbers are lr, beta1"),
    ],
)
def test_a_wrong_entry_is_one_sentence(rule: str, settings: dict[str, Any], says: str):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- what it says is looked at below
        Entry(rule, **settings)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("adam(lr=1e-4..1, eps=1e-10..1)", {"lr": Log(1e-4, 1), "eps": Log(1e-10, 1)}),
        ("adam(eps=1E-10..1)", {"lr": Adam.search["lr"], "eps": Log(1e-10, 1)}),
        ("adam(beta1 = 0.5..0.95:linear, lr=0.1)", {"beta1": Linear(0.5, 0.95)}),
        ("adam(beta2=0..0.9)", {"lr": Adam.search["lr"], "beta2": Linear(0, 0.9)}),
        ("cautious(adam(lr=1e-4..1, eps=1e-10..1))", {"lr": Log(1e-4, 1), "eps": Log(1e-10, 1)}),
        ("sgd(lr=.1..1., schedule='cosine(1.0)', batch_size=4)", {"lr": Log(0.1, 1)}),
        ("switch(adam(lr=1e-3..1e-1), sgd(lr=1..2:linear), at=0.5)", {"lr": Log(1e-3, 0.1), "then.lr": Linear(1, 2)}),
    ],
)
def test_spaces_to_search_are_part_of_the_text(text: str, search: dict[str, Any]):
    made = Entry(text)
    assert made.search == search
    assert made.name == text
    planned = planning.make(line(), [made], trials=4, seeds=1, steps=10, seed=0).entries[0]
    for task in trials_of(several(made), planned):
        made.set(task.tuned)
        for name, x in task.tuned.items():
            assert search[name].low <= x <= search[name].high


def test_an_entry_of_something_else_is_refused():
    wrong: Any = SGD
    with pytest.raises(TypeError, match="write a rule or its name"):
        Entry(wrong)


@pytest.mark.parametrize(
    ("entries", "changes", "says"),
    [
        ("sgd adam sgd", {}, "two entries are named 'sgd'"),
        ("", {}, "no entries"),
        ("sgd(batch_size=41)", {}, "batch_size is 41, the training set has 40 examples"),
        ("sgd", {"trials": 0}, "trials is 0"),
        ("sgd", {"seeds": 0}, "seeds is 0"),
        ("sgd", {"steps": True}, "steps is True"),
        ("sgd", {"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_plan_is_one_sentence(entries: str, changes: dict[str, int], says: str):
    with pytest.raises(ValueError, match=says.replace("(", r"\(")):
        plan(None, entries, **changes)


def test_the_same_plan_has_the_same_hash():
    assert plan().hash == plan().hash


@pytest.mark.parametrize(
    "other",
    [
        plan(trials=5),
        plan(seeds=3),
        plan(steps=11),
        plan(finalists=2),
        plan(seed=1),
        plan(entries="adam sgd"),
        plan(entries="sgd adam(beta2=0.99)"),
        plan(entries="sgd adam(lr=0.001)"),
        plan(entries="sgd(batch_size=full) adam"),
        plan(entries="sgd adam(ema=0.9)"),
        plan(line(batch_size=4)),
        plan(line(name="another")),
        plan(line(train=(TRAIN[0] + 1, TRAIN[1]))),
        plan(line(higher_is_better=True)),
    ],
)
def test_whatever_changes_the_numbers_changes_the_hash(other: Plan):
    assert other.hash != plan().hash


def test_every_entry_gets_the_same_examples_whatever_its_batch():
    made = plan(entries="sgd sgd(batch_size=full) sgd(batch_size=1) sgd(batch_size=12)")
    assert made.examples == 80
    assert [(e.batch_size, e.steps) for e in made.entries] == [(8, 10), (40, 2), (1, 80), (12, 6)]
    # There is at least one step, even if the training set is larger than the budget.
    assert plan(entries="sgd(batch_size=full)", steps=1).entries[0].steps == 1


def test_every_rule_is_tried_at_the_same_fractions_of_its_space():
    made = plan(entries="sgd adam lion", trials=8)
    spaces = [SGD.search["lr"], Adam.search["lr"], Lion.search["lr"]]
    rates = [[task.tuned["lr"] for task in trials_of(made, entry)] for entry in made.entries]
    expected = [[space.at(i / 8 + 1 / 32) for i in range(8)] for space in spaces]
    assert [sorted(rate) for rate in rates] == [pytest.approx(rate) for rate in expected]


def test_what_is_fixed_is_tried_once():
    made = plan(entries="sgd(lr=0.5) adam")
    assert [e.trials for e in made.entries] == [1, 4]
    assert [task.tuned for task in trials_of(made, made.entries[0])] == [{}]


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 5))
def test_points_fill_the_unit_cube_evenly(n: int, dimensions: int, seed: int):
    found = course.points(n, dimensions, seed)
    assert found == course.points(n + 7, dimensions, seed)[:n]  # more trials keep those that there are
    assert len(found) == n
    assert all(len(point) == dimensions and all(0 <= u <= 1 for u in point) for point in found)
    if dimensions:
        assert [point[0] for point in found] == [point[0] for point in course.points(n, 1, 0)]
    for k in range(dimensions):
        # Star discrepancy of a coordinate: no interval from 0 has many more or fewer points than its share.
        column = sorted(point[k] for point in found)
        assert max(abs((i + 0.5) / n - u) for i, u in enumerate(column)) <= 2.5 / n**0.5


def test_keys_and_seeds_tell_runs_apart():
    made = plan(entries="sgd adam momentum", seeds=3)
    tasks = [task for entry in made.entries for task in trials_of(made, entry)]
    tasks += [replace(task, phase="final", seed=s, key="") for task in tasks[:1] for s in range(3)]
    assert len({task.key for task in tasks[:-3]}) == 12
    seeds = {
        (t.phase, t.seed): {
            planning.seed_for(made, o, "order") for o in tasks if o.seed == t.seed and o.phase == t.phase
        }
        for t in tasks
    }
    assert all(len(of) == 1 for of in seeds.values())
    assert len({min(of) for of in seeds.values()}) == 4
    assert planning.seed_for(made, tasks[0], "model") != planning.seed_for(made, tasks[0], "order")


@given(st.integers(1, 300), st.integers(1, 50), st.integers(1, 30))
def test_marks_are_a_common_grid_of_examples_and_end_with_the_run(steps: int, size: int, count: int):
    examples = steps * size
    marks = planning.marks(steps, size, examples, count)
    assert (marks[0], marks[-1]) == (0, steps)
    assert marks == sorted(set(marks))
    assert len(marks) <= count + 1
    # Whatever the batch size: each point of the grid is passed less than one batch before a mark.
    for at in (examples * k / count for k in range(count + 1)):
        assert any(-1e-6 <= mark * size - at < size for mark in marks)


@pytest.mark.parametrize("several", [2, 3])
def test_a_choice_of_schedules_is_a_dimension_of_the_plan(several: int) -> None:
    texts = ["constant()", "linear(1.0)", "warmup(0.1).then(cosine(0.9))"][:several]
    entry = Entry("adam", schedule=texts)
    made = planning.make(line(), [entry], trials=12, seeds=1, steps=50, seed=0)
    (planned,) = made.entries
    assert Plan.from_document(made.document) == made
    tasks = trials_of(made, planned)
    assert {task.tuned["schedule"] for task in tasks} == set(map(float, range(several)))
    for task in tasks:
        rule, options = entry.set(task.tuned)
        assert rule.numbers["lr"] == task.tuned["lr"]
        assert options["schedule"] == planned.chosen(task.tuned)["schedule"] == texts[int(task.tuned["schedule"])]


@pytest.mark.parametrize("schedule", [[], ["cosin(1)"], "", 3])
def test_an_invalid_schedule_is_refused(schedule: Any) -> None:
    with pytest.raises(ValueError, match="schedule"):
        Entry("adam", schedule=schedule)


def several(*entries: Entry, **changes: int) -> Plan:
    numbers: dict[str, Any] = {"trials": 4, "seeds": 2, "steps": 10, "seed": 0, **changes}
    return planning.make(line(), entries, **numbers)


def test_where_only_the_schedule_is_tuned_each_is_tried_once():
    made = several(Entry("adam(lr=0.01)", schedule=["constant()", "linear(1.0)", "cosine(1.0)"]), trials=8)
    assert [task.tuned for task in trials_of(made, made.entries[0])] == [{"schedule": float(i)} for i in range(3)]


def test_both_rates_of_a_switch_are_dimensions_of_the_plan():
    made = several(Entry("switch(adam, sgd, at=0.5)"), Entry("adam"), trials=8)
    both, alone = (trials_of(made, entry) for entry in made.entries)
    assert [task.tuned["lr"] for task in both] == [task.tuned["lr"] for task in alone]
    assert len({task.tuned["then.lr"] for task in both}) == 8
    assert made.hash != several(Entry("switch(adam, sgd, at=0.6)", "switch(adam, sgd, at=0.5)"), Entry("adam")).hash


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (
            Entry("adam", schedule=["constant()"] * 5 + [f"linear({n})" for n in range(4)]),
            "adam chooses from 5 .* is 4",
        ),
        (Entry("adam", schedule="inverse_sqrt(0.01)"), "cannot be laid out over 10 steps"),
        (Entry("switch(adam, sgd, at=0.01)"), "cannot be laid out over 10 steps: Switch's at is 0"),
    ],
)
def test_what_no_run_could_follow_is_refused(entry: Entry, says: str):
    with pytest.raises(ValueError, match=says):
        several(entry)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (Entry("adam", schedule="cosine(0.5)"), ["cosine(0.5) of adam does not fit its 10 steps: it is 5 steps long"]),
        (
            Entry("adam", schedule=["linear(1.0)", "linear(30)"]),
            ["linear(30) of adam does not fit its 10 steps: it is"],
        ),
        (
            Entry("switch(adam, sgd, at=10)", "late"),
            ["late never switches: it switches after 10 steps: training stops"],
        ),
        (Entry("switch(adam, sgd, at=9)", schedule="constant()"), []),
        (Entry("switch(adam, sgd, at=auto)", schedule="warmup(0.1).then(cosine(0.9))"), []),
    ],
)
def test_a_schedule_or_switch_that_does_not_fit_the_steps_is_reported(entry: Entry, says: list[str]):
    found = list(planning.doubts(several(entry), [entry]))
    assert len(found) == len(says)
    assert all(part in sentence for part, sentence in zip(says, found, strict=True))


@pytest.mark.parametrize(
    ("text", "others", "tuned"),
    [
        ("muon(others=adam)", Adam(), ["lr", "others.lr"]),
        ("muon(lr=0.1, others=adam(lr=1e-4..1e-2))", Adam(), ["others.lr"]),
        ("muon(others=adam(lr=0.01, beta2=0.99))", Adam(lr=0.01, beta2=0.99), ["lr"]),
    ],
)
def test_an_entry_may_have_another_rule_for_all_but_hidden_matrices(text: str, others: Any, tuned: list[str]):
    entry = Entry(text)
    assert entry.others == others
    assert list(entry.search) == tuned
    rule, options = entry.set({"others.lr": 0.5})
    assert (rule, options["others"]) == (entry.rule, others.replace(lr=0.5))
    made = planning.make(line(), [entry], trials=4, seeds=2, steps=10, seed=0)
    assert made.entries[0].options["others"] == repr(others)
    assert {*trials_of(made, made.entries[0])[0].tuned} == {*tuned}
    without = planning.make(line(), [Entry("muon")], trials=4, seeds=2, steps=10, seed=0)
    assert made.entries[0].code != without.entries[0].code


def test_a_switch_has_no_rule_for_others():
    with pytest.raises(ValueError, match=r"switches for all parameters; leave others=.* out"):
        Entry(Switch(Adam(), SGD(lr=0.1), 5), others="adam")


@pytest.mark.parametrize(
    ("text", "rule", "options"),
    [
        ("adamw", Adam(), {"weight_decay": 0.01, "decay_form": "scaled"}),
        ("adamw(weight_decay=0.1, beta2=0.95)", Adam(beta2=0.95), {"weight_decay": 0.1, "decay_form": "scaled"}),
        ("sgd(momentum=0.9)", Momentum(momentum=0.9), {}),
        ("SGD(momentum=0.5, nesterov=True)", Momentum(momentum=0.5, nesterov="correction"), {}),
    ],
)
def test_torchs_names_are_entries(text: str, rule: Any, options: dict[str, Any]):
    entry = Entry(text)
    assert (entry.rule, entry.options, list(entry.search)) == (rule, options, ["lr"])
    assert entry.name == text
