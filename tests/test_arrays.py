"""Words for rows, columns and matrices: the compiled step computes what the formula on tensors computes."""

import copy
from typing import Any, Literal, NamedTuple

import pytest
import torch
from torch import nn

import thalweg
from thalweg import plan, trace
from thalweg.maths import Array, Number, Shared, Value, amax, maximum, mean, norm, sqrt, sum, total, zeros_like
from thalweg.matrices import arranged, every, eye, fold, inverse_root, orthogonalize, qr, unfold, when
from thalweg.rule import Rate, Rule
from thalweg.stages import Stages


class Rows(Rule):
    """Divides by rows and columns."""

    lr: Rate = 0.1
    factored: bool = True

    class State(NamedTuple):
        row: Array
        column: Array
        square: Value

    def fit(h, shape: tuple[int, ...]):
        return h if len(shape) > 1 else h.replace(factored=False)

    def init(h, p: Value):
        if not h.factored:
            return Rows.State(None, None, zeros_like(p))  # type: ignore[arg-type]
        return Rows.State(zeros_like(sum(p, 1)), zeros_like(sum(p, 0)), None)  # type: ignore[arg-type]

    def update(h, p: Value, g: Value, s: State, t: Number):
        if not h.factored:
            v = 0.9 * s.square + 0.1 * g * g
            return p - h.lr * g / sqrt(v + 1e-3), Rows.State(None, None, v)  # type: ignore[arg-type]
        r, c = 0.9 * s.row + 0.1 * mean(g * g, 1), 0.9 * s.column + 0.1 * mean(g * g, 0)
        u = g / sqrt(r * c / mean(r, 0) + 1e-3)
        u = u / maximum(1.0, norm(u) / 2)
        return p - h.lr * u * maximum(1.0, amax(r, 0)), Rows.State(r, c, None)  # type: ignore[arg-type]


class Orthogonal(Rule):
    """Steps along an orthogonal matrix."""

    lr: Rate = 0.1

    class State(NamedTuple):
        momentum_buffer: Value

    def fit(h, shape: tuple[int, ...]):
        if len(shape) < 2:
            raise ValueError(f"its shape is {shape}; Orthogonal steps matrices")
        return h

    def update(h, p: Value, g: Value, s: State, t: Number):
        b = 0.9 * s.momentum_buffer + 0.1 * g
        x = unfold(0.9 * b + 0.1 * g, 0)
        return p - h.lr * fold(orthogonalize(x / (norm(x) + 1e-7)), p, 0), Orthogonal.State(b)


class Factors(Rule):
    """Multiplies by a root of a factor for each axis, refreshed every three steps."""

    lr: Rate = 0.1
    axes: Literal[1, 2, 3] = 2

    class State(NamedTuple):
        factors: tuple[Array, ...]
        roots: tuple[Array, ...]
        basis: Array
        exp_avg: Value

    def fit(h, shape: tuple[int, ...]):
        return h.replace(axes=len(shape))

    def init(h, p: Value):
        factors = tuple(1e-2 * eye(p, k) for k in range(h.axes))
        return Factors.State(factors, tuple(eye(p, k) for k in range(h.axes)), eye(p, 0), zeros_like(p))

    def update(h, p: Value, g: Value, s: State, t: Number):
        rows = [unfold(g, k) for k in range(h.axes)]
        factors = tuple(f + x @ x.T for f, x in zip(s.factors, rows, strict=True))
        roots = every(3, t, lambda: tuple(inverse_root(f, 2 * h.axes) for f in factors), s.roots)
        m = 0.5 * s.exp_avg + g
        for k, root in enumerate(roots):
            m = fold(root @ unfold(m, k), m, k)
        turned = when(t == 2, lambda: qr(factors[0] @ s.basis), s.basis)
        m = arranged(m, sum(turned * turned, 0), 0) if h.axes == 2 else m
        return p - h.lr * m, Factors.State(factors, roots, turned, 0.5 * s.exp_avg + g)


class Together(Rule):
    """Steps by the norm of everything."""

    lr: Rate = 0.1

    class State(NamedTuple):
        longest: Shared

    def init(h, p: Value):
        return Together.State(0.0)

    def update(h, p: Value, g: Value, s: State, t: Number):
        longest = maximum(s.longest, sqrt(total(g * g)))
        return p - h.lr * g / longest / sqrt(total(g * g / longest)), Together.State(longest)


RULES: tuple[type[Rule], ...] = (Rows, Orthogonal, Factors, Together)
SHAPES: dict[type[Rule], list[tuple[int, ...]]] = {
    Rows: [(3, 5), (3, 5), (7,), (4, 4)],
    Orthogonal: [(3, 5), (5, 3), (3, 5), (2, 3, 4)],
    Factors: [(3, 5), (4,), (2, 3, 4), (3, 5)],
    Together: [(3, 5), (4,)],
}


def parameters(rule: type[Rule], dtype: torch.dtype, turned: bool) -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [torch.randn(shape, dtype=torch.float64).to(dtype) for shape in SHAPES[rule]]
    return [nn.Parameter(x.t().contiguous().t() if turned and x.ndim == 2 else x) for x in made]


def trained(rule: type[Rule], backend: str, dtype: torch.dtype, turned: bool = False, **around: Any) -> Any:
    ps = parameters(rule, dtype, turned)
    optimizer = thalweg.Optimizer(ps, rule(), backend=backend, **around)
    for k in range(7):
        for i, p in enumerate(ps):
            torch.manual_seed(100 * k + i)
            p.grad = None if (k, i) == (2, 1) else torch.randn_like(p)
        optimizer.step()
    return ps, optimizer


FORMS: tuple[dict[str, Any], ...] = (
    {}, {"clip_norm": 1.0, "weight_decay": 0.1, "decay_form": "scaled"}, {"clip_each": 0.5, "ema": 0.9},
)  # fmt: skip


CASES = [
    *((torch.float64, form, turned) for form in FORMS for turned in (False, True)),
    (torch.float32, FORMS[1], False), (torch.bfloat16, FORMS[0], False),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "around", "turned"), CASES)
@pytest.mark.parametrize("rule", RULES)
def test_the_compiled_step_is_the_formula(
    rule: type[Rule], dtype: torch.dtype, around: dict[str, Any], turned: bool
) -> None:
    expected, reference = trained(rule, "eager", dtype, turned, **around)
    found, optimizer = trained(rule, "numba", dtype, turned, **around)
    tolerance = {torch.float64: 1e-11, torch.float32: 2e-3, torch.bfloat16: 2e-2}[dtype]
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b.data, a.data, rtol=tolerance, atol=tolerance)
        assert optimizer.state[b].keys() == reference.state[a].keys()
        for name, x in reference.state[a].items():
            if dtype == torch.float64:
                torch.testing.assert_close(optimizer.state[b][name], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("rule", RULES)
def test_resuming_is_exact_at_any_step(rule: type[Rule], backend: str) -> None:
    whole, _ = trained(rule, backend, torch.float32)
    for stop in range(1, 7):
        ps = parameters(rule, torch.float32, False)
        optimizer = thalweg.Optimizer(ps, rule(), backend=backend)
        for k in range(7):
            if k == stop:
                saved = optimizer.state_dict()
                optimizer = thalweg.Optimizer(ps, rule(), backend=backend)
                optimizer.load_state_dict(saved)
            for i, p in enumerate(ps):
                torch.manual_seed(100 * k + i)
                p.grad = None if (k, i) == (2, 1) else torch.randn_like(p)
            optimizer.step()
        assert all(map(torch.equal, whole, ps))


@pytest.mark.parametrize("rule", [Rows, Orthogonal, Factors])
def test_state_that_was_edited_is_what_is_stepped(rule: type[Rule]) -> None:
    made: list[Any] = []
    for backend in ("eager", "numba"):
        ps, optimizer = trained(rule, backend, torch.float64)
        first = optimizer.state[ps[0]]
        name = list(first)[-1]
        first[name] = first[name] * 0.5
        del optimizer.state[ps[3]]
        first[list(first)[1]].mul_(2.0)
        for p in ps:
            p.grad = torch.ones_like(p)
        optimizer.step()
        made.append(ps)
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a.data, b.data, rtol=1e-10, atol=1e-10)


def test_totals_are_over_parameters_of_all_types_and_groups() -> None:
    made: list[Any] = []
    for backend in ("eager", "numba"):
        ps = [nn.Parameter(torch.full((n,), 0.5, dtype=dtype)) for n, dtype in ((3, torch.float64), (4, torch.float32))]
        groups: Any = [{"params": ps[:1]}, {"params": ps[1:], "lr": 0.3}]
        optimizer = thalweg.Optimizer(groups, Together(), backend=backend)
        for k in range(4):
            for p in ps:
                p.grad = torch.linspace(-1.0, 2.0 - k, p.numel(), dtype=p.dtype)
            optimizer.step()
        assert optimizer.state[ps[0]]["longest"] == optimizer.state[ps[1]]["longest"] > 0
        made.append([x.detach().double() for x in ps])
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(made[0][0], made[1][0], rtol=1e-7, atol=0)


def test_matrices_of_many_chunks() -> None:
    made: list[Any] = []
    for backend in ("eager", "numba"):
        torch.manual_seed(0)
        ps = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((130, 700), (3, 20_000), (9, 1))]
        optimizer = thalweg.Optimizer(ps, Rows(), backend=backend)
        for _ in range(3):
            for p in ps:
                p.grad = torch.randn_like(p)
            optimizer.step(zero_grad=True)
        assert not any(p.grad.any() for p in ps if p.grad is not None)
        made.append([*ps, *(x for p in ps for x in optimizer.state[p].values())])
    for a, b in zip(*made, strict=True):
        torch.testing.assert_close(b.detach(), a.detach(), rtol=1e-11, atol=1e-12)


def test_a_shape_that_a_rule_cannot_step_is_refused_by_name() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"parameter 'bias': its shape is \(2,\); Orthogonal steps matrices"):
        thalweg.Optimizer(model.named_parameters(), Orthogonal())


def test_complex_matrices_are_refused() -> None:
    p = nn.Parameter(torch.ones(3, 2, dtype=torch.complex64))
    with pytest.raises(ValueError, match="parameter 0 of its group: Orthogonal does not support complex parameters"):
        thalweg.Optimizer([p], Orthogonal())
    optimizer = thalweg.optim.Muon([p])
    p.grad = torch.ones_like(p)
    with pytest.raises(RuntimeError, match="Muon does not support complex parameters"):
        optimizer.step()


def test_state_of_another_shape_is_refused_when_loaded() -> None:
    (p, *_), optimizer = trained(Rows, "eager", torch.float32)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"][0]["row"] = torch.zeros(2, 1)
    with pytest.raises(ValueError, match=r"the state's row of parameter 0 of its group has shape \(2, 1\)"):
        optimizer.load_state_dict(saved)
    assert optimizer.state[p]["row"].shape == (3, 1)


def test_a_plan_has_no_words_for_arrays_in_its_passes() -> None:
    for rule in (Rows(), Orthogonal(), Factors()):
        for stage in plan.stages(trace.step(rule.fit((3, 5)), Stages(), 2)):
            if stage.elements:
                assert all(node.kind != "array" for node in stage.elements.nodes)


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5), (3, 4, 9), (400, 410), (390, 900), (900, 390)])
@pytest.mark.parametrize("steps", [0, 1, 5])
def test_an_orthogonal_matrix_is_what_the_iteration_gives(shape: tuple[int, ...], steps: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64)
    x /= torch.sqrt((x * x).sum((-2, -1), keepdim=True))
    table = ((3.4445, -4.775, 2.0315), (2.0, -1.5, 0.5))
    expected = x
    for k in range(steps):
        a, b, c = table[min(k, 1)]
        square = expected @ expected.mT
        expected = a * expected + (b * square + c * square @ square) @ expected
    torch.testing.assert_close(orthogonalize(x, steps, table), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(orthogonalize(x.float(), steps, table).double(), expected, rtol=1e-3, atol=1e-5)
    rough = orthogonalize(x.float(), steps, table, torch.bfloat16)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough.double(), expected, rtol=0.1, atol=0.03)


def test_what_is_not_due_is_not_computed() -> None:
    ps = [nn.Parameter(torch.zeros(3, 5))]
    optimizer = thalweg.Optimizer(ps, Factors(lr=0.0))
    ps[0].grad = torch.full((3, 5), float("nan"))
    optimizer.step()
    assert torch.equal(optimizer.state[ps[0]]["roots.0"], torch.eye(3)), "a root of nan would have raised"
