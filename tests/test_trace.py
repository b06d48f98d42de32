"""Traces compute what the rule computes, share equal nodes, and report what cannot be traced."""

import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, cast

import pytest
import torch

from cases import ALL, FLAT, STABLE, forget, gradients, run, start
from thalweg import plan, rules, trace
from thalweg.fields import number_fields
from thalweg.maths import Number, Value, abs, dot, maximum, mean, norm, sqrt, where
from thalweg.rule import ABSENT, Rate, Rule
from thalweg.stages import Stages
from thalweg.symbols import TraceError


def inputs(rule: Rule, p: Any, g: Any, state: Any, t: int) -> dict[str, Any]:
    fields = {f"s.{k}": v for k, v in state._asdict().items() if v is not ABSENT}
    return {"p": p, "g": g, "t": float(t), **{f"h.{k}": v for k, v in rule.numbers.items()}, **fields}


@pytest.mark.parametrize("rule", STABLE, ids=str)
def test_a_trace_computes_the_update(rule: Rule) -> None:
    written = trace.rule(rule)
    reduced = trace.graph(written.outputs, reduce=True)
    p, gs = start(), gradients(12)
    state = rule.init(p)
    for t, g in enumerate(gs, 1):
        new, after = rule.update(p, g, state, t)
        expected = {"p": new, **{f"s.{k}": v for k, v in after._asdict().items() if v is not ABSENT}}
        for of in (written, reduced):
            made = trace.evaluate(of, inputs(rule, p, g, state, t))
            assert made.keys() == expected.keys()
            for name, x in expected.items():
                torch.testing.assert_close(
                    torch.as_tensor(made[name]), torch.as_tensor(x), rtol=1e-13, atol=1e-15, check_dtype=False
                )
        p, state = new, after


@pytest.mark.parametrize("rule", ALL, ids=str)
@pytest.mark.parametrize("reduce", [False, True])
def test_equal_expressions_are_one_node(rule: Rule, reduce: bool) -> None:
    of = trace.graph(trace.rule(rule).outputs, reduce=reduce)
    seen: set[tuple[Any, ...]] = set()
    earlier: set[int] = set()
    for node in of.nodes:
        key = (node.op, *(map(id, trace.operands(node)) if trace.operands(node) else map(repr, node.args)))
        assert key not in seen, f"{node} is there twice"
        assert all(id(a) in earlier for a in trace.operands(node)), "operands come first"
        seen.add(key)
        earlier.add(id(node))
    assert of.uses().keys() == set(of.nodes)
    assert all(of.uses().values()), "every node is used"


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_numbers_are_made_of_numbers(rule: Rule) -> None:
    # The host can compute them once per step, for models of any size.
    of = trace.rule(rule)
    numbers = number_fields(rule.State)
    for node in of.nodes:
        operands = trace.operands(node)
        if operands:
            values = node.op not in ("sum", "size") and any(a.kind == "value" for a in operands)
            assert node.kind == ("value" if values else "number")
        if node.op == "input":
            name: str = node.args[0]
            is_value = name in ("p", "g") or (name.startswith("s.") and name[2:] not in numbers)
            assert node.kind == ("value" if is_value else "number")
    for name, node in of.outputs.items():
        assert node.kind == ("number" if name[2:] in numbers else "value")
    assert set(of.inputs) <= inputs(rule, 0.0, 0.0, rule.init(0.0), 1).keys()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("rule", ALL, ids=str)
def test_changed_numbers_are_the_same_formula(rule: Rule) -> None:
    other = rule.replace(**{k: v * 0.5 for k, v in rule.numbers.items() if k in ("lr", "eps", "beta1", "momentum")})
    assert [repr(x) for x in trace.rule(rule).nodes] == [repr(x) for x in trace.rule(other).nodes]


BYTES = [
    ("sgd", 12), ("momentum", 20), ("nesterov", 20), ("qhm", 20), ("lion", 20), ("adagrad", 20), ("rmsprop", 20),
    ("rmsprop(momentum=0.9)", 28), ("rmsprop(centered=True)", 28), ("rmsprop(centered=True, momentum=0.9)", 36),
    ("adam", 28), ("nadam", 28), ("amsgrad", 36), ("adamax", 28), ("radam", 28), ("qhadam", 28), ("adadelta", 28),
    ("asgd", 20), ("rprop", 28), ("adabelief", 28), ("adabelief(amsgrad=True)", 36), ("yogi", 28), ("adan", 44),
    ("ademamix", 36), ("adopt", 28), ("laprop", 28), ("laprop(form=velocity, centered=True)", 36), ("madgrad", 32),
    ("madgrad(momentum=None)", 28), ("tiger", 20), ("grams", 28),
    # What is summed up is read for the sums, and once more for the step.
    ("lamb", 40), ("lars", 28), ("fromage", 20), ("novograd", 24), ("cautious_adam", 40), ("cautious_lion", 28),
    ("grafted(sgd, adam)", 32),
    ("schedule_free_sgd", 20), ("schedule_free_adamw", 28), ("schedule_free_radam", 36), ("lookahead(sgd)", 20),
    ("stableadamw", 36), ("mars", 44), ("mars(form=none)", 28),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), BYTES)
def test_bytes_per_parameter(text: str, expected: int) -> None:
    rule = rules.parse(text)
    assert plan.bytes_per_parameter(rule) == expected
    assert plan.bytes_per_parameter(rule, torch.float64) == 2 * expected
    # With 16-bit parameters, each reading of p and g and the writing of p are half as long; the state is in float32.
    passes = plan.passes(trace.rule(rule), early=True)
    halved = 1 + sum(name in part.inputs for part in passes for name in ("p", "g"))
    assert halved == 3 or len(passes) > 1
    assert plan.bytes_per_parameter(rule, torch.bfloat16) == expected - 2 * halved


@pytest.mark.parametrize(
    ("text", "shape", "expected"),
    [
        ("sgd", (10,), 20),  # η·g, θ − η·g
        ("momentum(form=velocity)", (4, 5), 80),  # μ·v, η·g, their sum, θ + v
        ("muon(scale=none,nesterov=False,eps=0)", (3, 5), None),
    ],
)
def test_floating_point_operations(text: str, shape: tuple[int, ...], expected: int | None) -> None:
    found = plan.operations(rules.parse(text), shape)
    if expected is None:  # five iterations of three products, and some operations per element
        products = 5 * (2 * 3 * 3 * 5 + 2 * 3**3 + 2 * 3 * 3 * 5)
        assert products < found < products + 15 * 15
    else:
        assert found == expected


def test_the_bytes_of_every_rule_are_known() -> None:
    assert {type(rules.parse(text)) for text, _ in BYTES} >= set(FLAT.values())


@pytest.fixture(scope="module")
def forgotten() -> Iterator[None]:
    yield
    forget()


def bad(update: Callable[..., Any]) -> Rule:
    class Bad(Rule):
        lr: float = 0.1

    Bad.update = update
    return Bad()


def branches(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    if g > 0:  # here
        return p, s
    return p - g, s


def joins(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p * (g > 0 and p > 0), s  # here


def chains(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p * (0 < g < 1), s  # here


def counts(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - (g if t == 1 else 0.5 * g), s  # here


def lowest(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - min(g, 1.0), s  # here


def largest(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - max(g, h.lr), s  # here


def rooted(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - math.sqrt(h.lr) * g, s  # here


def torches(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - torch.tanh(g), s  # here


def torches_where(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return torch.where(g > 0, p, p - g), s  # here


def floats(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - float(t) * g, s  # here


def ints(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - int(t) * g, s  # here


def items(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g.item(), s  # here


def methods(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g.clamp(-1, 1), s  # here


def mixes(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - maximum(g, "1"), s  # pyright: ignore  # here


def remainders(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g * (t % 2), s  # here


def whole(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g * (3 // t), s  # here


def rounds(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - round(g, 2), s  # here


def floors(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - math.floor(t), s  # here


def both(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return where((g > 0) & (p > 0), p, p - g), s  # here


def neither(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return where(~(g > 0), p, p - g), s  # here


def products(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g @ g, s  # here


def elements(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - g[0], s  # here


def unpacks(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - sum(g), s  # here


def sums(h: Any, p: Any, g: Any, s: Any, t: Any) -> Any:
    return p - norm(h.lr) * g, s  # here


BAD = (
    sums,
    branches, joins, chains, counts, lowest, largest, rooted, torches, torches_where, floats, ints, items,
    methods, mixes, remainders, whole, rounds, floors, both, neither, products, elements, unpacks,
)  # fmt: skip


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize("update", BAD)
def test_what_cannot_be_traced_is_named_with_its_line(update: Callable[..., Any]) -> None:
    with pytest.raises(TraceError, match=re.escape(__file__)) as refused:
        trace.rule(bad(update))
    said = str(refused.value)
    number = int(re.search(r"line (\d+)", said).group(1))  # pyright: ignore[reportOptionalMemberAccess]
    with open(__file__) as file:
        line = file.readlines()[number - 1]
    assert "# here" in line
    assert line.strip() in said
    assert "maths" in said or "numbers" in said or "fit(self, shape)" in said, "it says what to write instead"


def test_a_branch_on_an_option_is_a_formula_of_its_own() -> None:
    assert "max_exp_avg_sq" in str(trace.rule(rules.parse("amsgrad")).inputs)
    assert "max_exp_avg_sq" not in str(trace.rule(rules.Adam()).inputs)


def test_constants_are_folded() -> None:
    x = trace.value("x")
    of = trace.graph({"y": 1.0 * x / 1.0 + sqrt(4.0) * abs(x) ** 1.0})
    assert [n.op for n in of.nodes] == ["input", "const", "abs", "mul", "add"]
    assert trace.evaluate(of, {"x": -3.0}) == {"y": 3.0}


@pytest.mark.parametrize("rule", STABLE, ids=str)
def test_a_whole_step_without_stages_is_the_update(rule: Rule) -> None:
    p, gs = start(), gradients(3)
    _, state = run(rule, p, gs[:2])
    given = inputs(rule, p, gs[2], state, 3)
    numbers = {f"{group}.{k}": v for group in ("before", "after") for k, v in rule.numbers.items()}
    made = trace.evaluate(trace.step(rule, Stages()), {**given, **numbers})
    ahead, expected = rule.lookahead(state), rule.update(p, gs[2], state, 3)
    if ahead is None:
        torch.testing.assert_close(made["p"], expected[0], rtol=0, atol=0)
    else:  # the parameters are at the lookahead point
        theta, after = rule.update(p - ahead, gs[2], state, 3)
        further: Any = rule.lookahead(after)
        torch.testing.assert_close(made["p"], theta + further, rtol=1e-14, atol=1e-15)


class Centred(Rule):
    """Sums of sums: the norm of what a mean is taken from, twice."""

    lr: Rate = 0.1

    class State(NamedTuple):
        average: Value
        length: Number

    def update(h, p: Value, g: Value, s: State, t: Number):
        step = g - mean(g) + h.lr * s.average
        length = norm(step)
        alike = dot(step / (1 + length), p)
        return p - h.lr * alike * step, Centred.State(step, 0.5 * s.length + length)


def test_passes_are_cut_where_a_sum_must_be_known() -> None:
    of = trace.rule(Centred())
    cut = plan.passes(of)
    assert [tuple(part.outputs) for part in cut] == [("r.0",), ("r.1",), ("r.2",), ("p", "s.average", "s.length")]
    assert [{name for name in part.inputs if name[:2] == "r."} for part in cut] == [
        set(), {"r.0"}, {"r.0", "r.1"}, {"r.0", "r.1", "r.2"},
    ]  # fmt: skip
    assert not any(node.op in ("sum", "size") for part in cut for node in part.nodes)
    (whole,) = plan.passes(trace.rule(rules.Adam()))
    assert whole.outputs.keys() == {"p", "s.exp_avg", "s.exp_avg_sq"}


def test_passes_compute_what_the_rule_computes() -> None:
    rule = Centred()
    p, g = start(), gradients(1)[0]
    state = Centred.State(torch.rand_like(p), cast(Any, 0.25))
    given: dict[str, Any] = {**inputs(rule, p, g, state, 1), "n": float(p.numel())}
    *before, last = plan.passes(trace.rule(rule))
    for part in before:
        given |= {name: float(x.sum()) for name, x in trace.evaluate(part, given).items()}
    new, after = rule.update(p, g, state, 1.0)
    made = trace.evaluate(last, given)
    torch.testing.assert_close(made["p"], new, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(made["s.average"], after.average, rtol=1e-13, atol=1e-15)
    assert made["s.length"] == pytest.approx(float(after.length), rel=1e-13)
