"""Problems whose batches have any structure, whose data come from loaders, and that have several metrics."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from thalweg import Entry, Problem, Race
from thalweg.landscape.loss import Measure
from thalweg.problems.problem import SPLITS
from thalweg.problems.splits import count, leaves, mapped
from thalweg.race import plan as planning
from thalweg.race.plan import Task
from thalweg.race.training import train

CHANCE = torch.Generator().manual_seed(0)
X = torch.randn(48, 3, generator=CHANCE)
Y = (X @ torch.tensor([[1.0], [-2.0], [0.5]]) > 0).float()
LOSS = nn.functional.binary_cross_entropy_with_logits
STEPS = 30


class Pair(NamedTuple):
    inputs: Any
    more: Any


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Tanh(), nn.Linear(8, 1))


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction > 0) == (target > 0.5)).double().mean()


def parts(wrap: Any) -> dict[str, Any]:
    return {
        s: wrap(X[rows], Y[rows]) for s, rows in zip(SPLITS, (slice(32), slice(32, 40), slice(40, 48)), strict=True)
    }


def dictionary(x: Tensor, y: Tensor) -> Any:
    return {"input": {"x": x}, "labels": (y, torch.arange(len(x)))}


def of_dictionary(batch: Any) -> tuple[Tensor, Tensor]:
    assert len(batch["labels"][1]) == len(batch["input"]["x"])
    return batch["input"]["x"], batch["labels"][0]


def of_tuple(batch: Any) -> tuple[Tensor, Tensor]:
    return batch.more[0], batch.inputs


FORMS: dict[str, tuple[Any, Any]] = {
    "dictionary": (dictionary, of_dictionary),
    "named tuple": (lambda x, y: Pair(y, [x, x]), of_tuple),
    "pair": (lambda x, y: (x, y), lambda batch: batch),
    "one tensor": (lambda x, y: torch.cat([x, y], 1), lambda batch: (batch[:, :3], batch[:, 3:])),
}


def in_memory(name: str, **changes: Any) -> Problem:
    wrap, unwrap = FORMS[name]

    def loss(model: nn.Module, batch: Any) -> Tensor:
        x, y = unwrap(batch)
        return LOSS(model(x), y)

    def metric(model: nn.Module, batch: Any) -> Tensor:
        x, y = unwrap(batch)
        return accuracy(model(x), y)

    settings: dict[str, Any] = {"metric": metric, "batch_size": 8, **changes}
    return Problem("both", network, loss, **parts(wrap), **settings)


def ended(problem: Problem, text: str = "adam(lr=0.05)", **changes: Any) -> Any:
    entry = Entry(text)
    settings: dict[str, Any] = {"trials": 1, "seeds": 1, "seed": 0, "steps": STEPS, **changes}
    plan = planning.make(problem, [entry], **settings)
    found = train(problem, plan, entry, Task("key", entry.name, "final", 0, 0))
    assert (found.status, found.message) == ("finished", "")
    return found


def numbers(run: Any) -> Any:
    return replace(run, seconds=0.0, curve=replace(run.curve, seconds=()))


@pytest.mark.parametrize("form", FORMS)
def test_batches_of_any_structure_train_as_pairs_do_to_the_last_bit(form: str):
    pairs = Problem("both", network, LOSS, **parts(lambda x, y: (x, y)), metric=accuracy, batch_size=8)
    other = in_memory(form)
    other.check()
    assert (pairs.fast, other.fast) == (True, False)
    one, two = ended(pairs), ended(other)
    assert one.curve.train_loss == two.curve.train_loss
    assert one.curve.validation_loss == two.curve.validation_loss
    assert one.curve.validation_metric == two.curve.validation_metric
    assert (one.test_metric, one.best_step) == (two.test_metric, two.best_step)
    assert ended(other, "sgd(lr=0.1, batch_size=full)").status == "finished"


class Augmented(Dataset[Any]):
    """Rows with noise from the global random numbers, as dictionaries."""

    def __init__(self, rows: range, noise: float) -> None:
        self.rows, self.noise = rows, noise

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Any:
        k = self.rows[i]
        return {"x": X[k] + self.noise * torch.randn(3), "y": Y[k]}


SEEN: list[Tensor] = []


def seen(model: nn.Module, batch: Any) -> Tensor:
    if model.training:
        SEEN.append(batch["x"])
    return keyed(model, batch)


def keyed(model: nn.Module, batch: Any) -> Tensor:
    return LOSS(model(batch["x"]), batch["y"])


def right(model: nn.Module, batch: Any) -> Tensor:
    return accuracy(model(batch["x"]), batch["y"])


def whole(model: nn.Module, batches: Iterator[Any]) -> float:
    both = [(model(b["x"]), b["y"]) for b in batches]
    return float(accuracy(torch.cat([p for p, _ in both]), torch.cat([y for _, y in both])))


def norm(model: Any, batches: Iterator[Any]) -> Tensor:
    return model[0].weight.norm()


def loaded(workers: int = 0, loss: Any = keyed, **changes: Any) -> Problem:
    more: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
    settings: dict[str, Any] = {
        "metric": {"accuracy": whole, "mean accuracy": right, "norm": norm},
        "train": lambda: DataLoader(Augmented(range(32), 0.1), 6, shuffle=True, **more),
        "validation": lambda: DataLoader(Augmented(range(32, 40), 0.0), 3),
        "test": lambda: DataLoader(Augmented(range(40, 48), 0.0), 3),
    }  # fmt: skip
    return Problem("loaded", network, loss, **{**settings, **changes})


def test_a_loader_gives_all_entries_the_same_batches_and_each_epoch_others():
    read: list[list[Tensor]] = []
    for text in ("sgd(lr=0.1)", "adam(lr=0.05)"):
        problem = loaded(loss=seen)
        problem.check()
        assert (problem.batch_size, problem.size("train"), problem.size("test")) == (6, 32, 8)
        SEEN.clear()
        run = ended(problem, text)
        assert run.curve.step[-1] == STEPS
        read.append([*SEEN])
    first, other = read
    assert [len(x) for x in first[:7]] == [6, 6, 6, 6, 6, 2, 6]
    assert all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert not torch.equal(first[0], first[6])


def test_a_loader_with_workers_is_the_same_in_each_run():
    found = [numbers(ended(loaded(workers=2))) for _ in range(2)]
    assert repr(found[0]) == repr(found[1])


def test_of_several_metrics_one_decides_and_all_are_recorded():
    run = ended(loaded())
    assert [*run.others] == ["mean accuracy", "norm"]
    assert all(len(column) == len(run.curve.step) for column in run.others.values())
    # Batches of 3, 3 and 2: their mean is that of the whole only if it is weighted.
    assert run.others["mean accuracy"] == pytest.approx(run.curve.validation_metric, rel=1e-12)
    assert len({*run.others["norm"]}) > STEPS / 2
    best = run.curve.step.index(run.best_step)
    assert run.validation_others == {name: column[best] for name, column in run.others.items()}
    assert run.test_others["norm"] == run.validation_others["norm"]
    assert run.test_others["mean accuracy"] == pytest.approx(run.test_metric, rel=1e-12)
    by_norm = loaded(metric_name="norm", higher_is_better=False)
    assert next(iter(by_norm.metrics)) == by_norm.metric_name == "norm"
    assert ended(by_norm).curve.validation_metric == run.others["norm"]


def test_metrics_of_predictions_are_recorded_in_populations_too():
    error: dict[str, Any] = {"accuracy": accuracy, "error": lambda p, y: 1 - accuracy(p, y)}
    problem = Problem("two", network, LOSS, **parts(lambda x, y: (x, y)), metric=error, batch_size=8)
    assert problem.fast
    settings: dict[str, Any] = {"trials": 4, "seeds": 2, "steps": 20, "workers": 1}
    found = [Race(problem, ["adam"], populations=way, **settings).run() for way in ("never", "always")]
    assert [repr(numbers(run)) for run in found[0].runs] == [repr(numbers(run)) for run in found[1].runs]
    for run in found[0].of("adam", "final"):
        assert run.test_others["error"] == pytest.approx(1 - run.test_metric)


def test_a_race_of_loaders_is_stored_shown_and_resumed(tmp_path: Path):
    settings: dict[str, Any] = {"trials": 2, "seeds": 2, "steps": 12, "finalists": 1, "workers": 1}
    race = Race(loaded(), ["sgd", "adam(lr=0.01)"], store=tmp_path / "race.db", **settings)
    results = race.run()
    again = Race(loaded(), ["sgd", "adam(lr=0.01)"], store=tmp_path / "race.db", **settings).run()
    assert [repr(run) for run in again.runs] == [repr(run) for run in results.runs]
    assert again.runs[-1].test_others.keys() == {"mean accuracy", "norm"}
    assert results.verdict.rows[0].others.keys() == {"mean accuracy", "norm"}
    assert "mean accuracy" in repr(results)
    page = results.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert '<th class="n">test norm</th>' in page
    with pytest.raises(ValueError, match=r"loaded's loader makes its batches; leave the batch_size of .* out"):
        Race(loaded(), ["sgd(batch_size=2)"], **settings)
    with pytest.raises(ValueError, match=r"data of a loader cannot be drawn anew; .* leave --splits out"):
        Race(loaded(), ["sgd"], splits=True, **settings)


def test_tensors_of_any_structure_are_drawn_anew_together():
    problem = in_memory("dictionary")
    drawn = problem.split(3)
    both = [(*of_dictionary(p.train), *of_dictionary(p.validation)) for p in (problem, drawn)]
    (x, y, v, w), (a, b, c, d) = both
    before, after = torch.cat([x, v]), torch.cat([a, c])
    assert torch.equal(before.sort(0).values, after.sort(0).values)
    assert not torch.equal(before, after)
    assert (len(a), len(c)) == (32, 8)
    assert torch.equal((X[:40] @ torch.tensor([[1.0], [-2.0], [0.5]]) > 0).float(), torch.cat([y, w]))
    assert torch.equal((after @ torch.tensor([[1.0], [-2.0], [0.5]]) > 0).float(), torch.cat([b, d]))


def test_fingerprints_know_structures_loaders_and_their_data():
    changes: list[dict[str, Any]] = [
        {}, {"train": lambda: DataLoader(Augmented(range(32), 0.2), 6, shuffle=True)},
        {"train": lambda: DataLoader(Augmented(range(32), 0.1), 5, shuffle=True)},
        {"train": lambda: DataLoader(Augmented(range(1, 33), 0.1), 6, shuffle=True)},
        {"train": dictionary_of(0.0)}, {"metric": right},
    ]  # fmt: skip
    prints = [loaded(**change).fingerprint() for change in changes]
    assert len({*prints}) == len(prints)
    assert prints == [loaded(**change).fingerprint() for change in changes]


def dictionary_of(more: float) -> Any:
    return {"x": X[:32] + more, "y": Y[:32]}


def test_a_data_set_of_dictionaries_is_stacked():
    problem = loaded(train=Augmented(range(32), 0.0))
    held: Any = problem.train
    assert torch.equal(held["x"], X[:32])
    assert problem.size("train") == 32


REFUSED: dict[str, tuple[Any, str]] = {
    "a loader": ({"train": DataLoader(Augmented(range(4), 0.0))}, r"the train set is a DataLoader, .*lambda: DataL"),
    "an iterator": ({"train": lambda: iter([{"x": X, "y": Y}])}, r"a function that returns a list_iterator, of which"),
    "raises": ({"test": lambda: DataLoader(cast(Any, None), 3)}, r"the test set is a function that raises TypeError"),
    "empty": ({"validation": list}, r"the validation set is empty"),
    "no tensors": ({"train": {"x": [1.0], "y": Y}}, r"the train set has 1\.0 at x\.0; wanted are tensors"),
    "lengths": ({"train": {"x": X, "y": Y[:3]}}, r"has tensors of 48 at x, 3 at y samples; wanted are as many"),
    "no metric": ({"metric": {"a": 3}}, r"metric is a dict; wanted is something to call, or a dictionary of such"),
    "unknown metric": ({"metric_name": "f1"}, r"metric_name is 'f1'; wanted is one of accuracy, mean accuracy, norm"),
    "device": ({"device": "tpu"}, r"device is 'tpu'; wanted is 'cpu' or 'cuda'"),
    "a loss of pairs": (
        {"loss": LOSS}, r"the train set has a dict for a batch; wanted is a pair .* write a loss of \(model, batch\)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_raced_is_refused_in_a_sentence(case: str):
    changes, said = REFUSED[case]
    given: dict[str, Any] = {"loss": keyed, **vars_of(loaded()), **changes}
    with pytest.raises(ValueError, match=said) as caught:
        Problem("loaded", network, **given)
    assert "\n" not in str(caught.value)


def vars_of(problem: Problem) -> dict[str, Any]:
    return {name: getattr(problem, name) for name in ("train", "validation", "test", "metric")}


FAILS: dict[str, tuple[Any, str]] = {
    "loss": ({"loss": lambda model, batch: batch["z"]}, r"the loss on a batch of shapes \(6, 3\) x, \(6, 1\) y r"),
    "cut off": ({"loss": lambda model, batch: batch["x"].sum()}, r"the loss does not depend on the parameters"),
    "metric": ({"metric": lambda model, batch: "high"}, r"the metric accuracy is 'high'; wanted is one number"),
    "nan": ({"metric": lambda model, batches: float("nan")}, r"the metric accuracy on the validation set is nan"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILS)
def test_what_would_fail_in_a_race_is_found_before_it(case: str):
    changes, said = FAILS[case]
    given: dict[str, Any] = {"loss": keyed, **vars_of(loaded()), **changes}
    made = Problem("loaded", network, **given)
    with pytest.raises(ValueError, match=said):
        made.check()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_a_sentence():
    with pytest.raises(ValueError, match=r"device is 'cuda'; wanted is 'cpu', since torch finds no GPU here"):
        loaded(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_problem_on_a_gpu_learns_as_on_the_cpu():
    one, two = (
        ended(in_memory("dictionary", device="cuda"), "sgd(lr=0.5)"),
        ended(in_memory("dictionary"), "sgd(lr=0.5)"),
    )
    assert one.curve.validation_loss[0] == pytest.approx(two.curve.validation_loss[0], rel=1e-5)
    assert one.validation_loss < 0.8 * one.curve.validation_loss[0]


def test_the_landscape_of_any_batches_is_that_of_the_pairs():
    pairs = Problem("both", network, LOSS, **parts(lambda x, y: (x, y)), metric=accuracy, batch_size=8)
    found: list[float] = []
    for problem in (pairs, in_memory("dictionary", batch_size=5), loaded()):
        measure = Measure.of(problem, split="validation")
        with measure.borrowed():
            found.append(measure.now())
    assert found[1:] == pytest.approx([found[0]] * 2, rel=1e-6)
    first = Measure.of(in_memory("dictionary", batch_size=5), samples=8)
    assert first.said == ["The loss is computed on the first 10 training samples."]


def test_structures_are_kept():
    held = {"a": (torch.ones(2), [torch.zeros(2, 3)]), "b": Pair(torch.ones(2), torch.ones(2))}
    twice = mapped(lambda x: 2 * x, held)
    assert [name for name, _ in leaves(twice)] == ["a.0", "a.1.0", "b.0", "b.1"]
    assert isinstance(twice["b"], Pair)
    assert float(twice["a"][0][0]) == 2
    assert (count(held), count({"text": ["a"]}), count([torch.tensor(1.0), torch.ones(5)])) == (2, 1, 5)
