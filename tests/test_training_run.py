"""`TrainingRun`: functions and problems that say the same give the same runs, and runs go on where they were."""

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from thalweg import Entry, Problem, problems
from thalweg.problems.training import Training, of_function
from thalweg.race import current_run, functions
from thalweg.race import plan as planning
from thalweg.race.plan import Task
from thalweg.race.session import TrainingRun
from thalweg.race.training import train
from thalweg.store import Plan

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(64, 3, generator=GENERATOR)
Y = (X @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.1 * torch.randn(64, 1, generator=GENERATOR) > 0).float()
SPLITS: dict[str, Any] = {"train": (X[:32], Y[:32]), "validation": (X[32:48], Y[32:48]), "test": (X[48:], Y[48:])}
STEPS, SIZE = 50, 8


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.3), nn.Tanh(), nn.BatchNorm1d(8), nn.Linear(8, 1))


def accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction > 0).float() == target).double().mean()


LOSS = nn.functional.binary_cross_entropy_with_logits


def problem() -> Problem:
    return Problem("both", network, LOSS, **SPLITS, metric=accuracy, batch_size=SIZE)


def measured(model: nn.Module, split: str, of: Callable[[Tensor, Tensor], Tensor]) -> float:
    model.eval()
    x, y = SPLITS[split]
    with torch.no_grad():
        found = float(of(model(x), y))
    model.train()
    return found


def train_same(run: TrainingRun, finish: bool = False) -> None:
    """What a race does with `problem`, written as a loop."""
    model = network()
    optimizer = run.optimizer(model)
    losses: list[float] = []

    def report() -> None:
        mean: dict[str, Any] = {"train_loss": sum(losses) / len(losses)} if losses else {}
        test: dict[str, Any] = {} if finish else {"test": lambda: measured(model, "test", accuracy)}
        run.report(validation=measured(model, "validation", accuracy),
                   validation_loss=lambda: measured(model, "validation", LOSS), **mean, **test)  # fmt: skip
        losses.clear()

    report()
    batches = run.batches(run.loader(TensorDataset(*SPLITS["train"]), batch_size=SIZE), STEPS)
    for step, (x, y) in enumerate(batches):
        optimizer.zero_grad()
        loss = LOSS(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().double().item())
        if step % 2:
            report()
    if finish:
        run.finish(test=lambda: measured(model, "test", accuracy))


def plan_of(what: Problem | Training, entry: Entry, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"trials": 1, "seeds": 1, "steps": STEPS, "seed": 0, **changes}
    return planning.make(what, [entry], **settings)


def final(entry: Entry, **tuned: float) -> Task:
    return Task("key", entry.name, "final", 0, 0, dict(tuned))


@pytest.mark.parametrize("finish", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "sgd(lr=0.3)",
        "nesterov(lr=0.1, form=velocity, nesterov=lookahead)",
        "adam(lr=0.05, weight_decay=0.1, ema=0.9)",
        "schedule_free(adam(lr=0.05))",
        "adam(lr=0.1, schedule='warmup(0.1).then(cosine(0.9))')",
        "adam(lr=0.1, schedule='plateau(patience=2)')",
        "switch(adam(lr=0.05), sgd(lr=0.1), at=0.5)",
    ],
)
def test_a_loop_as_a_problem_and_as_a_function_gives_the_same_run_bit_for_bit(text: str, finish: bool):
    entry = Entry(text)
    whole = train(problem(), plan_of(problem(), entry), entry, final(entry))
    own = of_function(lambda run: train_same(run, finish))
    status, known = functions.run(own, plan_of(own, entry), entry, final(entry))
    assert (status, known["message"]) == (whole.status, whole.message) == ("finished", "")
    curve = known["curve"]
    for column in ("step", "validation_metric", "validation_loss"):
        assert getattr(curve, column) == getattr(whole.curve, column)
    assert curve.train_loss[1:] == pytest.approx(whole.curve.train_loss[1:], rel=1e-12)
    for name in ("best_step", "validation_metric", "validation_loss", "test_metric"):
        assert known[name] == getattr(whole, name)
    assert len({*curve.validation_loss}) > 20


class Stop(BaseException):
    """The process was killed."""


class Noisy(torch.utils.data.Dataset[Any]):
    """Augmented: each reading of a row draws from all global random numbers."""

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        noise = 0.1 * torch.randn(3) + random.random() + float(np.random.rand())
        return X[i] + noise, Y[i]

    def __len__(self) -> int:
        return 30


def train_saving(run: TrainingRun, stop_at: int | None = None, workers: int = 0, way: str = "steps") -> None:
    """Dropout, augmentation, an own schedule, and a checkpoint now and then; stops like a process that is killed."""
    model = network()
    optimizer = run.optimizer(model, lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    state = run.load()
    if state is not None:
        scheduler.load_state_dict(state["scheduler"])
    more: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
    loader = run.loader(Noisy(), batch_size=4, **more)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        LOSS(model(x), y).backward()
        if run.step % 4 == 1:
            run.save(scheduler=scheduler)
        optimizer.step()
        scheduler.step()
        if run.step == stop_at:
            raise Stop
        if run.step % 3 == 0:
            run.report(validation=measured(model, "validation", accuracy),
                       loss=measured(model, "validation", LOSS) + float(torch.rand(())))  # fmt: skip

    if way == "steps":
        batches = run.batches(loader, STEPS)
        for x, y in batches:
            step(x, y)
    else:
        for _ in run.epochs(6, loader):
            for x, y in loader:
                step(x, y)
    run.finish(test=lambda: measured(model, "test", LOSS))


@pytest.mark.parametrize("way", ["steps", "epochs"])
@pytest.mark.parametrize("text", ["adam(lr=0.05, ema=0.9)", "muon(lr=0.02)"])
def test_a_run_that_is_killed_goes_on_in_the_middle_bit_for_bit(text: str, way: str, tmp_path: Path):
    entry = Entry(text)
    whole = of_function(lambda run: train_saving(run, way=way))
    plan, task = plan_of(whole, entry, steps=45), final(entry)
    expected = functions.run(whole, plan, entry, task)
    for stop_at in (7, 22, 31, 44):
        parted = of_function(lambda run, stop_at=stop_at: train_saving(run, stop_at, way=way))
        status, known = functions.run(parted, plan, entry, task, folder=tmp_path)
        assert (status, known["message"].partition(" ")[0]) == ("failed", "Stop")
    found = functions.run(whole, plan, entry, task, folder=tmp_path)
    assert numbers(found) == numbers(expected)
    assert found[1]["curve"].step == tuple(range(3, 46, 3))


def numbers(found: Any) -> Any:
    status, known = found
    return status, {**known, "seconds": 0.0, "curve": replace(known["curve"], seconds=())}.__repr__()


def test_augmentation_and_order_do_not_depend_on_the_number_of_workers_nor_on_the_rule():
    read: list[list[Tensor]] = []

    def reading(run: TrainingRun, workers: int) -> None:
        model = network()
        run.optimizer(model)
        torch.rand(workers + len(read))  # what else draws random numbers changes nothing
        more: dict[str, Any] = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}
        loader = run.loader(Noisy(), batch_size=8, **more)
        assert (len(loader), len(loader.dataset)) == (4, 30)  # pyright: ignore[reportArgumentType]
        read.append([x for _ in range(2) for x, _ in loader])
        run.report(validation=1.0)

    for text, workers, seed in (("sgd(lr=0.1)", 0, 0), ("adam(lr=0.1)", 2, 0), ("sgd(lr=0.1)", 0, 1)):
        entry = Entry(text)
        training = of_function(lambda run, workers=workers: reading(run, workers))
        functions.run(training, plan_of(training, entry), entry, replace(final(entry), seed=seed))
    first, other, another = read
    assert [len(x) for x in first] == [8, 8, 8, 6] * 2
    assert all(torch.equal(x, y) for x, y in zip(first, other, strict=True))
    assert not any(torch.equal(x, y) for x, y in zip(first, another, strict=True))
    assert not torch.equal(first[0], first[4])


SCRIPT = """
import sys
import torch, thalweg

run = thalweg.current_run()
model = torch.nn.Linear(3, 1)
optimizer = run.optimizer(model.parameters(), lr=0.1, betas=(0.9, 0.95), weight_decay=0.5)
for step in run.steps(8):
    optimizer.zero_grad()
    (model(torch.randn(4, 3)) - 1).pow(2).mean().backward()
    optimizer.step()
    run.report(val_loss=model.weight.norm().item())
if __name__ == "__main__":
    run.finish(test=lambda: len(sys.argv))
"""


def test_a_script_that_asks_for_its_run_is_raced_as_a_whole(tmp_path: Path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    before = sys.modules["__main__"]
    found: list[Any] = []
    for text in (
        "adamw(lr=0.01)",
        "adam(lr=0.01)",
        "adam(lr=0.01, weight_decay=0.5, decay_form=scaled)",
    ):
        training, entry = problems.read(str(tmp_path / "script.py")), Entry(text)
        assert isinstance(training, Training)
        training = replace(training, metric_name="val_loss", higher_is_better=False)
        status, known = functions.run(training, plan_of(training, entry, steps=8), entry, final(entry))
        assert (status, known["message"], known["test_metric"]) == ("finished", "", 1.0)
        found.append(known["curve"].validation_metric)
    (tmp_path / "mine.py").write_text("import sys\ndef train(run): run.report(validation=len(sys.argv))")
    for text, count in (("script.py --epochs 'a b'", 3), ("mine.py:train -x", 2)):
        training, entry = problems.read(f"{tmp_path}/{text}"), Entry("sgd(lr=0.1)")
        assert isinstance(training, Training)
        assert training.name == text.replace("'", "")
        training = replace(training, metric_name="val_loss" if count == 3 else "validation")
        _, known = functions.run(training, plan_of(training, entry, steps=8), entry, final(entry))
        assert known["test_metric"] == count
    assert sys.modules["__main__"] is before
    assert found[1] == found[2] != found[0]
    with pytest.raises(RuntimeError, match=r"this code runs outside of a race; start it by thalweg race FILE.py"):
        current_run()


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("adamw(lr=0.01, weight_decay=0)", "adam(lr=0.01, weight_decay=1e-30, decay_form=scaled)"),
        ("adam(lr=0.01, weight_decay=0.0)", "adam(lr=0.01, weight_decay=1e-30, decay_form=scaled)"),
        ("adam(lr=0.01, decay_form=l2)", "adam(lr=0.01, weight_decay=0.5, decay_form=l2)"),
        ("adam(lr=0.01)", "adam(lr=0.01, weight_decay=0.5, decay_form=scaled)"),
    ],
)
def test_what_an_entry_says_goes_before_the_trainings_even_if_it_is_a_default(text: str, same_as: str, grouped: bool):
    def decaying(run: TrainingRun) -> None:
        p = nn.Parameter(torch.ones(()))
        given: Any = [{"params": [p], "weight_decay": 0.5}] if grouped else [p]
        optimizer = run.optimizer(given, weight_decay=None if grouped else 0.5)
        for _ in run.steps(5):
            p.grad = torch.tensor(0.1)
            optimizer.step()
            run.report(validation=float(p.detach()))

    training = of_function(decaying)
    one, other = (
        functions.run(training, plan_of(training, entry, steps=5), entry, final(entry))[1]["curve"].validation_metric
        for entry in (Entry(text), Entry(same_as))
    )
    assert one == other


def own_rates(run: TrainingRun, lr: float | None, scheduled: bool) -> None:
    """Steps by hand, whose rates are those that the script sets, or that a scheduler of torch does."""
    p = nn.Parameter(torch.zeros(()))
    optimizer = run.optimizer([p], lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) if scheduled else None
    for step in run.steps(3):
        p.grad = torch.tensor(-1.0)
        if scheduler is None:
            optimizer.param_groups[0]["lr"] = (lr or 7.0) * 0.5**step
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        run.report(validation=float(p.detach()))


@pytest.mark.parametrize(("lr", "scheduled"), [(7.0, False), (7.0, True), (None, True), (None, False)])
def test_rates_that_a_training_sets_are_multiples_of_the_one_that_it_was_written_for(lr: float | None, scheduled: bool):
    entry = Entry("sgd")
    training = of_function(lambda run: own_rates(run, lr, scheduled))
    status, known = functions.run(training, plan_of(training, entry, steps=3), entry, final(entry, lr=0.2))
    if lr is None and not scheduled:
        assert status == "failed"
        assert "the training sets the learning rate to 7 by itself, and this run's is 0.2" in known["message"]
        return
    assert (status, known["message"]) == ("finished", "")
    assert known["curve"].validation_metric == pytest.approx((0.2, 0.3, 0.35), rel=1e-6)


def test_a_schedule_of_the_entry_goes_before_the_trainings():
    entry = Entry("sgd(lr=0.2, schedule='exponential(0.1)')")
    training = of_function(lambda run: own_rates(run, 7.0, scheduled=False))
    status, known = functions.run(training, plan_of(training, entry, steps=3), entry, final(entry))
    assert (status, known["message"]) == ("finished", "")
    assert known["curve"].validation_metric == pytest.approx((0.2, 0.22, 0.222), rel=1e-6)
