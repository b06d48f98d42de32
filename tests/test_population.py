"""Runs that advance together are the runs that they are alone, to the last bit."""

import dataclasses
import math
import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import thalweg
from cases import RULES
from thalweg import problems
from thalweg.optimizer.together import Together
from thalweg.problems import Problem
from thalweg.race import Progress, Race, population
from thalweg.race.chain import Fed, layers
from thalweg.race.exact import product
from thalweg.race.job import Job
from thalweg.race.plan import Task
from thalweg.race.stacked import Stack
from thalweg.race.ways import Way

SHAPES = ((4, 3), (3, 2))  # matrices, since some rules step nothing else


Member = tuple[list[Tensor], thalweg.Optimizer]


def members(dtype: torch.dtype, backend: str) -> list[Member]:
    """One of every rule, and some that diverge, by their rate or by gradients that are not finite."""
    rules = [cls.example() for _, cls in sorted(RULES.items())]
    # To compile kernels that clip for all rules would take a minute.
    clips = [0.5 if backend == "eager" or type(rule).__name__ in ("Adam", "Prodigy") else None for rule in rules]
    rules += map(thalweg.rules.parse, ("sgd(lr=1e9)", "adam", "prodigy", "soap"))
    made: list[Member] = []
    for rule, clip in zip(rules, [*clips, None, 0.5, None, None], strict=True):
        chance = torch.Generator().manual_seed(0)
        params: list[Tensor] = [nn.Parameter(torch.randn(s, generator=chance).to(dtype)) for s in SHAPES]
        nonfinite = "skip" if rule.decomposes else "propagate"  # what decomposes refuses what is not finite
        made.append((params, thalweg.Optimizer(params, rule, clip_norm=clip, nonfinite=nonfinite, backend=backend)))
    return made


def give(params: Sequence[Tensor], step: int, diverges: bool) -> None:
    """Gradients of a valley that another one joins in each step."""
    for p in params:
        at = p.detach()
        scale = torch.linspace(0.1, 3, at.numel(), dtype=at.dtype).view(at.shape)
        p.grad = at * scale + 0.3 * torch.sin(at * step)
        if diverges and step >= 20:
            p.grad = p.grad * (math.inf if step == 20 else math.nan)


@pytest.mark.parametrize(
    ("dtype", "backend", "within"), [(torch.float64, "eager", 1e-12), (torch.float32, "numba", 1e-5)]
)
def test_members_of_every_rule_step_together_as_alone(dtype: torch.dtype, backend: str, within: float):
    alone, joined = members(dtype, backend), members(dtype, backend)
    together = Together([optimizer for _, optimizer in joined])
    for step in range(1, 201):
        for of in (alone, joined):
            for i, (params, _) in enumerate(of):
                give(params, step, i > len(RULES))
        for _, optimizer in alone:
            optimizer.step()
        together.step()
    assert joined[-1][1].skipped_steps == 181
    for (params, optimizer), (others, other) in zip(alone, joined, strict=True):
        assert optimizer.skipped_steps == other.skipped_steps
        for p, q in zip(params, others, strict=True):
            torch.testing.assert_close(q, p, rtol=within, atol=0, equal_nan=True, msg=str(optimizer.rule))


def test_a_member_that_leaves_does_not_change_the_others():
    def make() -> list[tuple[list[Tensor], thalweg.Optimizer]]:
        chance = torch.Generator().manual_seed(0)
        params: list[list[Tensor]] = [[nn.Parameter(torch.randn(3, 2, generator=chance))] for _ in range(4)]
        rules = ["adam", "prodigy", "adam(lr=0.1)", "prodigy"]
        return [(own, thalweg.Optimizer(own, rule)) for own, rule in zip(params, rules, strict=True)]

    alone, joined = make(), make()
    together = Together([optimizer for _, optimizer in joined])
    left = [*range(4)]
    for step in range(1, 31):
        if step == 15:
            left = [1, 2, 3]
            together.keep(left)
        for i in left:
            give(alone[i][0], step, False)
            alone[i][1].step()
            give(joined[i][0], step, False)
        together.step()
    assert all(
        torch.equal(p, q) for one, other in zip(alone, joined, strict=True) for p, q in [(one[0][0], other[0][0])]
    )


def records(problem: Problem | str, entries: Sequence[str], **settings: Any) -> list[dict[str, Any]]:
    """The records of a race, without times."""
    given: dict[str, Any] = {"trials": 4, "seeds": 2, "steps": 30, "workers": 1, **settings}
    found: list[dict[str, Any]] = []
    for run in Race(problem, entries, **given).run().runs:
        curve = dataclasses.replace(run.curve, seconds=())
        found.append(dataclasses.asdict(dataclasses.replace(run, seconds=0.0, curve=curve)))
    return found


SERVICES = (
    "adam(clip_norm=0.5, ema=0.9)",
    "sgd(lr=1e6)",  # diverges
    'nesterov(schedule="plateau(0.5, 2)", weight_decay=0.1)',
    "switch(adam, sgd, at=0.5)",
    "schedule_free(adam)",
)


@pytest.mark.parametrize(
    ("problem", "entries"),
    [
        ("digits(hidden=(20, 12), dropout=0.3)", SERVICES),
        ("digits(hidden=12, batch_norm=True)", ("adam", "sgd(batch_size=full)", "adam(batch_size=7)")),
    ],
)
def test_a_race_of_populations_has_the_records_of_runs_alone(problem: str, entries: Sequence[str]):
    alone = records(problem, entries, populations="never")
    together = records(problem, entries, populations="always")
    np.testing.assert_equal(together, alone)
    assert {run["status"] for run in alone} >= {"finished"}
    assert ("diverged" in {run["status"] for run in alone}) == ("sgd(lr=1e6)" in entries)


def test_replicates_of_a_chain_advance_together_with_their_own_weights_and_batches(monkeypatch: pytest.MonkeyPatch):
    real, seeds = population.train, list[set[int]]()

    def note(*args: Any) -> Any:
        seeds.append({task.seed for task in args[3]})
        return real(*args)

    entries = ("adam", "sgd(lr=1e6)", "nesterov")
    settings = {"trials": 4, "seeds": 2, "finalists": 1, "steps": 12}
    alone = records(problem := "digits(hidden=(20, 12))", entries, populations="never", **settings)
    monkeypatch.setattr(population, "train", note)
    np.testing.assert_equal(records(problem, entries, populations="always", **settings), alone)
    assert {0, 1} in seeds
    seeds.clear()
    records(problem, entries, populations="always", splits=True, **settings)
    assert {1} in seeds
    assert {0, 1} not in seeds


def small(model: Callable[[], nn.Module], loss: Any = nn.functional.mse_loss) -> Problem:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, x.sum(1, keepdim=True)
    return Problem(
        "small", model, loss, pair, pair, pair, lambda prediction, y: -loss(prediction, y), batch_size=16, steps=10
    )


class Odd(nn.Module):
    """A model that asks for a number, which no stack of models has."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return y if float(y.detach().sum()) > -1e9 else -y


class Drawn(nn.Linear):
    """A model that is random in its evaluation, where runs alone draw in another order."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input + 0.01 * torch.rand(input.shape))


def chain() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1))


def hooked() -> nn.Module:
    def clipped(g: Tensor) -> Tensor:
        return g.clamp(-0.01, 0.01)

    model = chain()
    cast(Any, model[0]).weight.register_hook(clipped)
    return model


def bounded() -> nn.Module:
    """A chain whose forward is another one, as only outputs show that are large."""
    model: Any = chain()
    usual = model.forward

    def forward(x: Tensor) -> Tensor:
        return usual(x).clamp(-0.5, 0.5)

    model.forward = forward
    return model


def unused() -> nn.Module:
    model = chain()
    model.register_parameter("unused", nn.Parameter(torch.ones(2)))
    return model


def tied() -> nn.Module:
    model = chain()
    cast(Any, model[2]).weight = cast(Any, model[0]).weight
    return model


@pytest.mark.parametrize("model", [hooked, bounded, unused, tied])
def test_a_chain_that_is_more_than_its_layers_is_none(model: Callable[[], nn.Module]):
    assert layers(chain())
    assert not layers(model()) or model in (hooked, bounded)
    entries = ("adam(clip_norm=0.5)", "lamb")
    settings = {"trials": 3, "steps": 12}
    alone = records(small(model), entries, populations="never", **settings)
    np.testing.assert_equal(records(small(model), entries, populations="always", **settings), alone)


def other() -> nn.Module:
    """A model whose layers are drawn, too."""
    return nn.Sequential(nn.Linear(3, 4), nn.LeakyReLU(float(torch.rand(()))), nn.Linear(4, 1))


@pytest.mark.parametrize(
    ("model", "says"),
    [(Odd, "item"), (lambda: Drawn(3, 1), "random"), (hooked, "hooks"), (bounded, "forward")],
)
def test_models_that_cannot_be_stacked_run_alone_and_it_is_said_why(model: Callable[[], nn.Module], says: str):
    problem = small(model)
    events: list[Progress] = []
    race = Race(problem, ["adam", "sgd"], trials=3, seeds=1, workers=1, populations="always")
    race.run(events.append)
    assert events[0].together == 1
    assert says in events[0].why
    assert math.isfinite(events[0].left)
    assert events[0].left > 0


def test_a_population_that_does_not_fit_into_memory_is_split(monkeypatch: pytest.MonkeyPatch):
    problem = small(lambda: nn.Linear(3, 1))
    alone = records(problem, ["adam", "sgd"], steps=None, populations="never")
    real, sizes = population.train, list[int]()

    def most_three(*args: Any) -> Any:
        sizes.append(len(args[3]))
        if len(args[3]) > 3:
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(population, "train", most_three)
    np.testing.assert_equal(records(problem, ["adam", "sgd"], steps=None, populations="always"), alone)
    assert max(sizes) > 3
    assert {2, 3} & {*sizes}


def test_an_error_in_a_population_is_told_by_the_run_that_has_it():
    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        value = nn.functional.mse_loss(prediction, y)
        if not torch._C._functorch.is_batchedtensor(value) and float(value.detach()) > 50:  # pyright: ignore
            raise ValueError("too far")
        return value

    problem = small(lambda: nn.Linear(3, 1), loss)
    entries = ["sgd(lr=0.01)", "sgd(lr=3)", "adam"]
    alone = records(problem, entries, steps=None, populations="never")
    np.testing.assert_equal(records(problem, entries, steps=None, populations="always"), alone)
    assert any("too far" in run["message"] for run in alone)


def test_a_worker_that_is_killed_with_a_population_is_replaced(tmp_path: Path):
    parent, flag = os.getpid(), tmp_path / "killed"

    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        if os.getpid() != parent and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return nn.functional.mse_loss(prediction, y)

    problem = small(lambda: nn.Linear(3, 1), loss)
    found = records(problem, ["adam"], steps=None, workers=2, populations="always")
    assert flag.exists()
    np.testing.assert_equal(found, records(problem, ["adam"], steps=None, populations="never"))


def test_populations_that_are_none_are_refused():
    wanted: Any = "often"
    with pytest.raises(ValueError, match="populations"):
        Race("digits", ["adam"], populations=wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(64, 30, 16), (7, 5, 1), (1, 3, 33)])
def test_products_are_those_of_each_model(rows: int, inputs: int, outputs: int, shared: bool, dtype: torch.dtype):
    way = product(shared, rows, inputs, outputs, 5, dtype, True)
    chance = torch.Generator().manual_seed(1)
    x = torch.randn((rows, inputs) if shared else (5, rows, inputs), generator=chance, dtype=dtype)
    weight = torch.randn(5, outputs, inputs, generator=chance, dtype=dtype)
    bias = torch.randn(5, outputs, generator=chance, dtype=dtype)
    made = way.made(x, weight, bias)
    each = [nn.functional.linear(x if shared else x[i], weight[i], bias[i]) for i in range(5)]
    torch.testing.assert_close(made, torch.stack(each), rtol=0, atol=0)


def test_models_with_other_layers_are_no_stack():
    with pytest.raises(ValueError, match="others for another seed"):
        Stack([other(), other()])


def test_runs_are_divided_evenly_among_workers_whatever_their_kinds():
    plan = Race("digits", ["adam"], trials=150, seeds=10, workers=1).plan
    some = [Task(f"{k}, {seed}", "adam", "final", k, seed) for seed in range(10) for k in range(15)]
    for way, sizes in (
        (Way(24, 4, seeds=False), {15}),  # one list for each seed: eight workers have one or two
        (Way(24, 4, seeds=True), {18, 19}),
    ):
        parts = Job(plan, {}, way=way).divided(deque(some), 8)
        assert {len(part) for part in parts} == sizes
        assert sorted(task.key for part in parts for task in part) == sorted(task.key for task in some)


def test_a_stack_has_the_gradients_of_its_models_and_keeps_their_buffers():
    model = problems.get("digits(hidden=12, batch_norm=True)").fresh()
    model.train()
    stack = Stack([model] * 3)
    alone = Stack([model] * 3).models
    x, y = torch.randn(9, 64), torch.arange(9)
    stack.losses(nn.functional.cross_entropy, [Fed(3, x, y)])
    losses = stack.losses(nn.functional.cross_entropy, [Fed(3, x, y)])
    for i, (one, other) in enumerate(zip(stack.models, alone, strict=True)):
        nn.functional.cross_entropy(other(x), y)
        loss: Any = nn.functional.cross_entropy(other(x), y)
        loss.backward()
        assert torch.equal(losses[i], loss.detach())
        grads = [
            (cast(Tensor, p.grad), cast(Tensor, q.grad))
            for p, q in zip(one.parameters(), other.parameters(), strict=True)
        ]
        assert all(torch.equal(g, h) for g, h in grads)
        assert all(torch.equal(a, b) for a, b in zip(one.buffers(), other.buffers(), strict=True))
