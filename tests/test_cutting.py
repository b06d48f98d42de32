"""Steps cut into passes: state written early, roots of rows and columns alone, memory that is shared."""

from typing import Any, NamedTuple, cast

import pytest
import torch
from torch import nn

import thalweg
from thalweg import plan, rules, trace
from thalweg.cutting import Stage, stages
from thalweg.fields import gathered, leaves
from thalweg.kernels import scratch
from thalweg.maths import Number, Value, norm
from thalweg.orthogonal import symmetric
from thalweg.printers import numba as printer
from thalweg.printers.lowering import Types
from thalweg.printers.source import Source
from thalweg.rule import Rate, Rule
from thalweg.separation import separated
from thalweg.stages import Scalars, Stages


class Behind(Rule):
    """Steps along the old average, so that the new one must not be written before the last pass."""

    lr: Rate = 0.1

    class State(NamedTuple):
        average: Value
        other: Value

    def update(h, p: Value, g: Value, s: State, t: Number):
        average, other = 0.9 * s.average + g, 0.9 * s.other + s.average * g
        return p - h.lr * s.average / norm(average + other) - other, Behind.State(average, other)


RULES = [rules.LAMB(lambd=0.01), rules.StableAdamW(), rules.CAME(), rules.Adafactor(momentum=0.9), Behind()]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_stages_compute_what_the_rule_computes(rule: Rule) -> None:
    torch.manual_seed(0)
    p, g = (torch.randn(5, 7, dtype=torch.float64) for _ in range(2))
    rule = rule.fit(p.shape) if rule.fits else rule
    state = gathered(rule.init(p), lambda name, x: torch.rand_like(x) if isinstance(x, torch.Tensor) else x)
    new, after = rule.update(p, g, state, 3.0)
    expected = {"p": new, **{f"s.{name}": x for name, x in leaves(after).items()}}
    for rows, apart in ((False, False), (True, False), (True, True)):
        of = trace.step(rule, Stages())
        cut = stages(separated(of) if apart else of, rows, early=True)
        made = evaluated(cut, rule, p, g, state)
        for name, x in expected.items():
            torch.testing.assert_close(made[name], x, rtol=1e-12, atol=1e-14)


def evaluated(cut: tuple[Stage, ...], rule: Rule, p: Any, g: Any, state: Any) -> dict[str, Any]:
    """What stages compute, each from what is in memory after those before it; new arrays are kept at the end."""
    memory: dict[str, Any] = {
        "p": p, "g": g, "t": 3.0, "n": float(p.numel()), "n.0": 5.0, "n.1": 7.0, "resolution": 2.0**-52,
        **{f"h.{name}": x for name, x in rule.numbers.items()},
        **{f"c.{name}": x for name, x in Scalars()._asdict().items()},
        **{f"s.{name}": x for name, x in leaves(state).items()},
    }  # fmt: skip
    kept: dict[str, Any] = {}
    for stage in cut:
        if stage.elements:
            made = trace.evaluate(stage.elements, memory)
            memory |= {name: _summed(name, x) for name, x in made.items()}
        if stage.arrays:
            made = trace.evaluate(stage.arrays, memory)
            kept |= {name: x for name, x in made.items() if name.startswith("s.")}
            memory |= {name: x for name, x in made.items() if not name.startswith("s.")}
    return memory | kept


def _summed(name: str, x: Any) -> Any:
    axes = {"y": 1, "z": 0}.get(name.partition(".")[0])
    if name.startswith("r."):
        return float(x.sum())
    return x if axes is None else x.sum(axes, keepdim=True)


def test_state_is_written_early_where_that_moves_fewer_bytes() -> None:
    first, last = stages(trace.step(rules.LAMB(), Stages()), early=True)
    assert first.elements is not None
    assert last.elements is not None
    assert first.elements.outputs.keys() == {"r.0", "r.1", "s.exp_avg", "s.exp_avg_sq"}
    assert {name for name, x in last.elements.inputs.items() if x.kind == "value"} == {"p", "s.exp_avg", "s.exp_avg_sq"}
    assert last.elements.outputs.keys() == {"p"}
    assert (plan.bytes_per_parameter(rules.LAMB()), plan.bytes_per_parameter(rules.CAME())) == (40, 32)
    # What is rounded when it is stored is computed again, as is what is needed as it was.
    assert plan.bytes_per_parameter(rules.LAMB(), state_dtype=torch.bfloat16) == 2 * 8 + 4 + 2 * 4 + 4
    assert plan.bytes_per_parameter(Behind()) == 12 + 16 + 12


def test_roots_are_of_rows_and_columns_alone() -> None:
    for rule in (rules.CAME(), rules.Adafactor()):
        of = separated(trace.step(rule.fit((5, 7)), Stages()))
        assert not any(node.op == "sqrt" and node.kind == "value" for node in of.nodes)
        assert not any(node.op == "div" and all(x.kind == "value" for x in node.args) for node in of.nodes)


def test_rows_that_are_gone_over_together() -> None:
    made: list[list[torch.Tensor]] = []
    for backend, dtype, threads in (
        ("eager", torch.float64, 1),
        ("numba", torch.float32, 1),
        ("numba", torch.float32, 2),
    ):
        torch.manual_seed(0)
        shapes = [(130, 700), (3, 20_000), (7, 5), (1_030, 260)]
        ps = [nn.Parameter(torch.randn(shape, dtype=torch.float64).to(dtype)) for shape in shapes]
        optimizer = thalweg.Optimizer(ps, rules.CAME(), backend=cast(Any, backend))
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for _ in range(3):
                for p in ps:
                    p.grad = torch.randn(p.shape, dtype=torch.float64).to(dtype)
                optimizer.step()
        finally:
            torch.set_num_threads(before)
        made.append([x.detach() for p in ps for x in (p, *optimizer.state[p].values())])
    for a, b, c in zip(*made, strict=True):
        torch.testing.assert_close(b.double(), a.double(), rtol=2e-5, atol=1e-6)
        assert torch.equal(b, c)


@pytest.mark.parametrize(("rule", "most"), [(rules.SOAP(), 5), (rules.Muon(), 2), (rules.Shampoo(), 3)])
def test_what_is_not_needed_at_once_shares_memory(rule: Rule, most: int) -> None:
    types = Types(torch.float32, torch.float32, torch.float32)
    parts = printer.step(trace.step(rule.fit((5, 7)), Stages()), types, zero_grad=False)
    owners = scratch.shared(parts)
    assert len(set(owners.values())) <= most
    touched = [part.touched if isinstance(part, Source) else {*part.inputs, *part.outputs} for part in parts]
    lives = {name: [k for k, names in enumerate(touched) if name in names] for name in owners}
    for a, x in lives.items():
        for b, y in lives.items():
            if a < b and owners[a] == owners[b]:
                assert x[-1] <= y[0] or y[-1] <= x[0]
    p = torch.zeros(5, 7)
    room = scratch.room(p, list(owners), types, owners)
    assert all((room[a].data_ptr() == room[b].data_ptr()) == (owners[a] == owners[b]) for a in owners for b in owners)


@pytest.mark.parametrize("n", [3, 390, 800])
def test_a_symmetric_product_onto_an_average(n: int) -> None:
    torch.manual_seed(0)
    x, old = torch.randn(n, 40, dtype=torch.float64), torch.randn(n, n, dtype=torch.float64)
    old = old + old.mT
    torch.testing.assert_close(symmetric(x, x.mT, (old, 0.9, 0.1)), 0.9 * old + 0.1 * x @ x.mT, rtol=1e-12, atol=1e-12)
