"""What every rule promises that depends on the shape of the parameter: those with rows, columns and matrices."""

import copy
from typing import Any, cast

import pytest
import torch
from torch import Tensor

import thalweg
from cases import BACKENDS, SHAPED, optimizer
from thalweg import conventions, rules, trace
from thalweg.fields import leaves, number_fields
from thalweg.rule import Rule
from thalweg.rules import Muon

SHAPES = ((4, 3), (3, 5), (6,), (2, 3, 2, 2), ())
STEPS = 5

each = pytest.mark.parametrize("rule", SHAPED, ids=str)


def fitting(rule: Rule) -> list[tuple[int, ...]]:
    """The shapes that a rule can step."""
    found: list[tuple[int, ...]] = []
    for shape in SHAPES:
        try:
            rule.fit(shape)
        except ValueError:
            continue
        found.append(shape)
    assert found[:2] == list(SHAPES[:2]), "every rule steps matrices"
    return found


def course(shape: tuple[int, ...], seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """A point, and gradients that drift."""
    generator = torch.Generator().manual_seed(seed)
    first, *others = (torch.randn(shape, dtype=torch.float64, generator=generator) for _ in range(STEPS + 2))
    return first, [others[0] + 0.5 * g for g in others[1:]]


def walk(rule: Rule, p: Tensor, gs: list[Tensor]) -> tuple[Tensor, Any]:
    """The reference."""
    rule = rule.fit(tuple(p.shape))
    state = rule.init(p)
    for t, g in enumerate(gs, 1):
        p, state = rule.update(p, g, state, t)
    return p, state


@each
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_is_the_rule(rule: Rule, backend: str) -> None:
    courses = [course(shape, i) for i, shape in enumerate(fitting(rule))]
    ps = [torch.nn.Parameter(p.clone()) for p, _ in courses]
    opt = optimizer(ps, rule, backend)
    for t in range(STEPS):
        for p, (_, gs) in zip(ps, courses, strict=True):
            p.grad = gs[t].clone()
        opt.step()
    for p, (first, gs) in zip(ps, courses, strict=True):
        point, state = walk(rule, first, gs)
        torch.testing.assert_close(p.detach(), point, rtol=1e-9, atol=1e-12)
        assert p.grad is not None
        assert torch.equal(p.grad, gs[-1]), "gradients are not changed"
        held = opt.state[p]
        for name, x in leaves(state).items():
            torch.testing.assert_close(held[name], torch.as_tensor(x), rtol=1e-9, atol=1e-12, check_dtype=False)


@each
def test_a_trace_computes_the_update(rule: Rule) -> None:
    for shape in fitting(rule):
        p, gs = course(shape)
        fitted = rule.fit(shape)
        of = trace.rule(fitted, len(shape))
        point, state = walk(rule, p, gs[:-1])
        given = {"p": point, "g": gs[-1], "t": float(STEPS), **{f"h.{k}": v for k, v in rule.numbers.items()}}
        made = trace.evaluate(of, given | {f"s.{k}": v for k, v in leaves(state).items()})
        new, after = fitted.update(point, gs[-1], state, STEPS)
        expected = {"p": new, **{f"s.{k}": v for k, v in leaves(after).items()}}
        assert made.keys() == expected.keys()
        for name, x in expected.items():
            torch.testing.assert_close(
                torch.as_tensor(made[name]), torch.as_tensor(x), rtol=1e-9, atol=1e-12, check_dtype=False
            )


@each
def test_to_fit_twice_is_to_fit_once(rule: Rule) -> None:
    for shape in fitting(rule):
        assert rule.fit(shape).fit(shape) == rule.fit(shape)


@each
def test_shapes_and_types_are_kept(rule: Rule) -> None:
    for shape in fitting(rule):
        p, gs = course(shape)
        p, gs = p.float(), [g.float() for g in gs]
        new, state = walk(rule, p, gs)
        assert (new.shape, new.dtype) == (p.shape, p.dtype)
        first = leaves(rule.fit(shape).init(torch.empty(shape, device="meta")))
        assert leaves(state).keys() == first.keys()
        for name, x in leaves(state).items():
            if name not in number_fields(rule.State):
                assert (x.shape, x.dtype) == (first[name].shape, torch.float32)


@each
def test_an_update_changes_nothing_that_it_was_given(rule: Rule) -> None:
    for shape in fitting(rule):
        p, gs = course(shape)
        point, state = walk(rule, p, gs[:-1])
        before = copy.deepcopy((point, gs, state))
        rule.fit(shape).update(point, gs[-1], state, STEPS)
        assert torch.equal(point, before[0])
        assert torch.equal(gs[-1], before[1][-1])
        for name, x in leaves(state).items():
            assert torch.equal(torch.as_tensor(x), torch.as_tensor(leaves(before[2])[name]))


@each
def test_a_population_is_its_members(rule: Rule) -> None:
    courses = [course((4, 3), seed) for seed in range(3)]
    rates = torch.tensor([0.1, 0.01, 1.0], dtype=torch.float64)

    def steps(p: Tensor, gs: Tensor, lr: Tensor) -> Tensor:
        return walk(rule.bind({"lr": lr}), p, list(gs))[0]

    points, gradients = torch.stack([p for p, _ in courses]), torch.stack([torch.stack(gs) for _, gs in courses])
    together = torch.func.vmap(steps)(points, gradients, rates)
    for i, (p, gs) in enumerate(courses):
        alone, _ = walk(rule.replace(lr=rates[i].item()), p, gs)
        close = 1e-9 if rule.options.get("precision", "full") == "full" else 2e-2
        torch.testing.assert_close(together[i], alone, rtol=close, atol=close)


@each
def test_resuming_is_exact_at_every_step(rule: Rule) -> None:
    courses = [course(shape, i) for i, shape in enumerate(fitting(rule))]

    def step(opt: Any, ps: list[Any], t: int) -> None:
        for p, (_, gs) in zip(ps, courses, strict=True):
            p.grad = gs[t].clone()
        opt.step()

    ps = [torch.nn.Parameter(p.clone()) for p, _ in courses]
    opt = optimizer(ps, rule, "auto")
    saved: list[Any] = []
    for t in range(STEPS):
        saved.append(copy.deepcopy((opt.state_dict(), [p.detach() for p in ps])))
        step(opt, ps, t)
    for start, (state, points) in enumerate(saved):
        again = [torch.nn.Parameter(p.clone()) for p in points]
        other = optimizer(again, rule, "auto")
        other.load_state_dict(state)
        for t in range(start, STEPS):
            step(other, again, t)
        for p, q in zip(ps, again, strict=True):
            assert torch.equal(p, q)


@pytest.mark.parametrize(
    ("text", "name"), [("soap(every=2)", "factor.0"), ("adafactor", "row_var"), ("normuon", "second_momentum_buffer")]
)
def test_arrays_that_two_parameters_share_are_written_in_turn(text: str, name: str) -> None:
    found: list[Tensor] = []
    for backend in BACKENDS:
        (p, gs), (q, other) = course((4, 3)), course((4, 3), 1)
        ps = [torch.nn.Parameter(p.clone()), torch.nn.Parameter(q.clone())]
        opt = optimizer(ps, rules.parse(text), backend)
        for t, both in enumerate(zip(gs, other, strict=True)):
            if t == 2:
                opt.state[ps[0]][name] = opt.state[ps[1]][name]
            for x, g in zip(ps, both, strict=True):
                x.grad = g.clone()
            opt.step()
        found.append(torch.cat([x.detach() for x in ps]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-12, atol=1e-14)


@each
def test_a_zero_gradient_moves_nothing_to_nan(rule: Rule) -> None:
    for shape in fitting(rule):
        p, _ = course(shape)
        new, state = walk(rule, p, [torch.zeros_like(p)] * 3)
        for name, x in {"p": new, **leaves(state)}.items():
            assert torch.isfinite(torch.as_tensor(x)).all(), name


# ----------------------------------------------------------------------------------------------------------------- Muon


def test_muon_is_momentum_times_an_orthogonal_matrix() -> None:
    # Polar Express converges, so that the step is the orthogonal factor of the momentum.
    p, gs = course((4, 3))
    rule = Muon(lr=0.5, momentum=0.9, nesterov=False, coefficients="polar_express", steps=12, eps=0.0)
    new, state = walk(rule, p, gs[:1])
    u, _, v = cast(Any, torch.linalg.svd(gs[0], full_matrices=False))
    torch.testing.assert_close(new, p - 0.5 * (4 / 3) ** 0.5 * u @ v, rtol=0, atol=1e-6)
    torch.testing.assert_close(state.momentum_buffer, 0.1 * gs[0])


@pytest.mark.parametrize("shape", [(4, 3), (3, 5), (2, 3, 2, 2)])
def test_scales_of_muon(shape: tuple[int, ...]) -> None:
    p, gs = course(shape)
    m, n = shape[0], p[0].numel()
    one = walk(Muon(scale="none"), p, gs[:1])[0]
    factors: dict[Any, float] = {
        "original": max(1, m / n), "transposed": max(1, n / m), "match_rms_adamw": 0.04 * max(m, n), "rms_to_rms": m / n
    }  # fmt: skip
    for scale, square in factors.items():
        scaled = walk(Muon(scale=scale), p, gs[:1])[0]
        torch.testing.assert_close(scaled - p, square**0.5 * (one - p), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("nesterov", [False, True])
def test_both_forms_of_muons_momentum_step_alike(nesterov: bool) -> None:
    p, gs = course((3, 5))
    averaged, accumulated = (walk(Muon(form=form, nesterov=nesterov), p, gs) for form in ("averaged", "accumulated"))
    torch.testing.assert_close(averaged[0], accumulated[0], rtol=1e-10, atol=0)
    torch.testing.assert_close(averaged[1].momentum_buffer, 0.05 * accumulated[1].momentum_buffer)


@pytest.mark.parametrize("backend", BACKENDS)
def test_muons_buffer_in_bfloat16_is_the_momentum(backend: str) -> None:
    # torch 2.13 overwrites it by the orthogonal matrix.
    p, gs = course((8, 6))
    q = torch.nn.Parameter(p.bfloat16())
    settings = {"lr": 0.01, "weight_decay": 0.0, "nesterov": False}
    opt = conventions.optimizer("torch", "Muon", [q], **settings, backend=backend)
    buffer = torch.zeros(8, 6)
    for g in gs:
        q.grad = g.bfloat16()
        buffer = 0.95 * buffer + 0.05 * q.grad.float()
        opt.step()
    torch.testing.assert_close(opt.state[q]["momentum_buffer"].float(), buffer, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("theirs", [{}, {"adjust_lr_fn": "match_rms_adamw", "nesterov": False}, {"ns_steps": 3}])
def test_muon_in_float64_is_torchs_formula(theirs: dict[str, Any]) -> None:
    p, gs = course((4, 3))
    rule = conventions.rule("torch", "Muon", **theirs).replace(precision="full")
    rate = {"original": (4 / 3) ** 0.5, "match_rms_adamw": 0.2 * 2}[theirs.get("adjust_lr_fn", "original")]
    x: Any = p.clone()
    buffer = torch.zeros_like(p)
    for g in gs:
        buffer = buffer.lerp(g, 0.05)
        y = g.lerp(buffer, 0.95) if theirs.get("nesterov", True) else buffer
        y = (y / (y * y).sum().sqrt()).T
        for _ in range(theirs.get("ns_steps", 5)):
            a = y @ y.T
            y = 3.4445 * y + (-4.775 * a + 2.0315 * a @ a) @ y
        x = x - 1e-3 * rate * y.T
    torch.testing.assert_close(walk(rule, p, gs)[0], x, rtol=1e-13, atol=0)


def test_the_rows_of_normuon_have_equal_norms_at_first() -> None:
    p, gs = course((4, 3))
    step = walk(rules.named("normuon", lr=1.0, scale="none"), p, gs[:1])[0] - p
    norms = (step * step).sum(1).sqrt()
    torch.testing.assert_close(norms, norms.mean().expand(4), rtol=1e-8, atol=0)
    plain = walk(Muon(lr=1.0, scale="none"), p, gs[:1])[0] - p
    torch.testing.assert_close(step.norm(), plain.norm(), rtol=1e-8, atol=0)
    fixed = walk(Muon(lr=1.0, row_norms="fixed"), p, gs[:1])[0] - p
    torch.testing.assert_close(fixed.norm(), torch.tensor(0.2 * 12**0.5, dtype=torch.float64), rtol=1e-6, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("rule", [Muon(), Muon(row_norms="fixed", adaptive=True), rules.named("dion_muon")], ids=str)
def test_a_matrix_that_is_split_is_several_parameters(rule: Rule, backend: str) -> None:
    for split, sizes in ((3, (4, 4, 4)), ((2, 3, 7), (2, 3, 7))):
        first, gs = course((12, 5))
        whole = torch.nn.Parameter(first.clone())
        cut = cast(Any, torch.Tensor.split)
        parts = [torch.nn.Parameter(x.clone()) for x in cut(first, sizes)]
        one, several = optimizer([whole], rule.replace(split=split), backend), optimizer(parts, rule, backend)
        for t, g in enumerate(gs):
            if t == 3:  # going on from a checkpoint
                state = one.state_dict()
                whole = torch.nn.Parameter(whole.detach().clone())
                one = optimizer([whole], rule.replace(split=split), backend)
                one.load_state_dict(state)
            whole.grad = g.clone()
            for part, x in zip(parts, cut(g, sizes), strict=True):
                part.grad = x.clone()
            one.step()
            several.step()
        torch.testing.assert_close(whole.detach(), torch.cat([p.detach() for p in parts]), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"split": 5},
            r"parameter 'qkv': Muon's split is 5, and a parameter of shape \(12, 5\) has 12 rows; allowed is",
        ),
        ({"split": (3, 3)}, r"split is \(3, 3\), and a parameter of .* or numbers that add up to them"),
        (
            {"split": 3, "normalize": "schatten"},
            "split is 3 with normalize='schatten'; only normalize='frobenius' is of",
        ),
        ({"split": 0}, "split is 0; allowed is a whole number >= 1 or a tuple of whole numbers"),
    ],
)
def test_what_cannot_be_split(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        thalweg.Optimizer([("qkv", torch.nn.Parameter(torch.ones(12, 5)))], Muon(**settings))


def test_a_vector_is_no_matrix() -> None:
    named = [("body.weight", torch.nn.Parameter(torch.ones(3, 3))), ("norm.bias", torch.nn.Parameter(torch.ones(3)))]
    with pytest.raises(ValueError, match=r"parameter 'norm.bias': Muon steps matrices.*\(3,\).*hidden_matrices"):
        thalweg.Optimizer(named, "muon")


# ----------------------------------------------------------------------------------------------------- SOAP, Shampoo


@pytest.mark.parametrize("text", ["soap", "shampoo"])
def test_a_gradient_that_is_not_finite_is_refused_before_matrices_are_decomposed(text: str) -> None:
    ps = [torch.nn.Parameter(torch.ones(3, 2)) for _ in range(2)]
    opt = thalweg.Optimizer([("a", ps[0]), ("b", ps[1])], text)
    for p in ps:
        p.grad = torch.ones_like(p)
    opt.step()
    before = copy.deepcopy((opt.state_dict()["state"], [p.detach() for p in ps]))
    ps[1].grad = torch.full_like(ps[1], torch.nan)
    with pytest.raises(RuntimeError, match=r"gradient of parameter 'b' is not finite, and .* decomposes matrices"):
        opt.step()
    for i, p in enumerate(ps):
        assert torch.equal(p, before[1][i])
        for name, x in opt.state_dict()["state"][i].items():
            assert torch.equal(x, before[0][i][name])


@pytest.mark.parametrize("text", ["soap(max_size=2000000)", "shampoo"])
def test_a_factor_too_large_for_memory_is_refused(text: str) -> None:
    huge = torch.nn.Parameter(torch.empty(1_500_000, 2))
    with pytest.raises(ValueError, match=r"1500000 × 1500000, for axis 0 of .* take 18000 GB .*max_size"):
        thalweg.Optimizer([huge], text)
    assert rules.SOAP().fit((1_500_000, 2)).options["axes"] == (1,)


def test_shampoo_of_a_vector_is_adagrad_with_a_full_matrix() -> None:
    p, gs = course((6,))
    new, _ = walk(rules.Shampoo(lr=0.1, eps=1e-3), p, gs)
    x, total = p, 1e-3 * torch.eye(6, dtype=torch.float64)
    for g in gs:
        total = total + torch.outer(g, g)
        values, vectors = cast(Any, torch.linalg.eigh(total))
        x = x - 0.1 * vectors @ (vectors.T @ g / values.sqrt())
    torch.testing.assert_close(new, x, rtol=1e-9, atol=1e-12)


def test_soap_without_factors_is_adam_a_step_late() -> None:
    p, gs = course((3, 5))
    ours, _ = walk(rules.SOAP(max_size=2, eps=0.0), p, gs)
    adam, _ = walk(rules.Adam(lr=3e-3, beta1=0.95, beta2=0.95, eps=0.0), p, gs[1:])
    torch.testing.assert_close(ours, adam, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", [(4, 3), (6,), (2, 3, 2, 2)])
def test_soap_is_adam_in_the_rotated_basis(shape: tuple[int, ...]) -> None:
    p, gs = course(shape)
    adam = rules.Adam(lr=3e-3, beta1=0.9, beta2=0.95, eps_at="uncorrected")
    ours, _ = walk(rules.Rotated(adam, every=3), p, gs)
    soap, _ = walk(rules.SOAP(beta1=0.9, every=3), p, gs)
    torch.testing.assert_close(ours, soap, rtol=1e-12, atol=0)
