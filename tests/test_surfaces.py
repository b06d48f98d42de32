"""The surfaces against the literature, and paths of rules on them."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import thalweg
from cases import NAMED
from thalweg import rules
from thalweg.problems import Surface, path, surfaces
from thalweg.rule import Rule
from thalweg.symbols import Symbol
from thalweg.trace import evaluate

NAMES = sorted(surfaces)


def suggest(surface: Surface, rule: Rule, steps: int = 200) -> float:
    """A learning rate to suit a surface, as the playground finds it.

    A rule whose steps, or first step, are proportional to the gradient gets the surface's.  A rule that rescales
    gradients gets the rate at which a constant gradient carries it across the window in `steps` steps.
    """
    probe = rule.replace(lr=1.0)
    if any(travel(probe, 2.0, n) > 1.5 * travel(probe, 1.0, n) for n in (1, steps)):
        return surface.lr
    (left, right), (low, high) = surface.window
    span = max(right - left, high - low)
    rate = span / travel(probe, 1.0, steps)
    if span / 2 < travel(rule.replace(lr=rate), 1.0, steps) < 2 * span:
        return rate
    # The steps are not proportional to the rate either, as where they are proportional to the parameter.
    least, most = 1e-6, 1.0
    for _ in range(30):
        rate = math.sqrt(least * most)
        short = travel(rule.replace(lr=rate), 1.0, steps) < span
        least, most = (rate, most) if short else (least, rate)
    return rate


@cache
def travel(rule: Rule, gradient: float, steps: int) -> float:
    """How far a constant gradient carries a parameter, away from zero."""
    p = torch.full((1,), -1.0, dtype=torch.float64)
    g = torch.full_like(p, gradient)
    state = rule.init(p)
    for t in range(1, steps + 1):
        p, state = rule.update(p, g, state, t)
    return abs(float(p) + 1)


# f and its gradient, worked out by hand from the published formulas.
KNOWN: list[tuple[str, tuple[float, float], float, tuple[float, float]]] = [
    ("rosenbrock", (0, 0), 1, (-2, 0)),
    ("rosenbrock", (-1.2, 1), 24.2, (-215.6, -88)),  # the classical start: Moré, Garbow & Hillstrom 1981, no. 1
    ("beale", (0, 0), 14.203125, (-12.75, 0)),
    ("beale", (1, 1), 14.203125, (0, 27.75)),  # Moré, Garbow & Hillstrom 1981, no. 5, at its start
    ("himmelblau", (0, 0), 170, (-14, -22)),
    ("himmelblau", (-0.270845, -0.923039), 181.617, (0, 0)),  # the local maximum
    ("saddle", (0, 0), 0, (0, 0)),
    ("bowl", (3, -4), 12.5, (3, -4)),
    ("ravine", (10, 1), 2, (0.2, 2)),
    ("basins", (0, 0), 0.8, (0.2, 0)),
    ("basins", (1.8608058531117035, 0), 0.3866013, (0, 0)),  # the local minimum: x³ − 4x + 1 = 0
    ("monkey", (2, 1), 2 * (4 - 3) + 0.25 * 25, (12 - 3 + 10, -12 + 5)),
    ("noisy", (2, 1), 7, (2, 10)),
]


@pytest.mark.parametrize(("name", "point", "height", "gradient"), KNOWN)
def test_heights_and_gradients_are_the_published(
    name: str, point: tuple[float, float], height: float, gradient: tuple[float, float]
):
    surface = surfaces[name]
    assert float(surface.heights(*point)) == pytest.approx(height, rel=1e-5, abs=1e-12)
    # The maximum of Himmelblau's function is published to six decimals.
    assert surface.gradient(*point) == pytest.approx(gradient, abs=1e-4 if name == "himmelblau" else 1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_minima_are_level_lowest_and_in_the_window(name: str):
    surface = surfaces[name]
    (left, right), (low, high) = surface.window
    depths = [float(surface.heights(*point)) for point in surface.minima]
    assert max(depths) - min(depths) < 1e-12
    for x, y in surface.minima:
        assert left < x < right
        assert low < y < high
        assert surface.gradient(x, y) == pytest.approx((0, 0), abs=1e-12)
    grid = surface.heights(*np.meshgrid(np.linspace(left, right, 201), np.linspace(low, high, 201)))
    assert grid.shape == (201, 201)
    assert grid.min() >= min(depths) - 1e-12
    assert left < surface.start[0] < right
    assert low < surface.start[1] < high
    assert surface.doc


coordinates = st.floats(-4, 4)


@given(st.sampled_from(NAMES), coordinates, coordinates)
def test_floats_and_tensors_agree_and_gradients_are_slopes(name: str, x: float, y: float):
    surface = surfaces[name]
    height = surface.f(x, y)
    assert float(surface.heights(x, y)) == pytest.approx(height, rel=1e-12, abs=1e-12)
    h = 1e-5
    slopes = (
        (surface.f(x + h, y) - surface.f(x - h, y)) / (2 * h),
        (surface.f(x, y + h) - surface.f(x, y - h)) / (2 * h),
    )
    assert surface.gradient(x, y) == pytest.approx(slopes, rel=1e-5, abs=1e-3 if name in ("beale",) else 1e-4)


@given(st.sampled_from(NAMES), coordinates, coordinates)
def test_derivatives_on_the_graph_are_those_of_autograd(name: str, x: float, y: float):
    surface = surfaces[name]

    def height(point: torch.Tensor) -> torch.Tensor:
        return surface.f(point[0], point[1])

    point = torch.tensor([x, y], dtype=torch.float64, requires_grad=True)
    functional: Any = torch.autograd.functional
    gradient, hessian = functional.jacobian(height, point), functional.hessian(height, point)
    at = dict(zip("xy", point.detach(), strict=True))
    found = {n: float(v) for n, v in evaluate(surface.derivatives, at).items()}
    assert [found["gx"], found["gy"]] == pytest.approx(gradient.tolist(), rel=1e-12, abs=1e-12)
    assert [[found["hxx"], found["hxy"]], [found["hxy"], found["hyy"]]] == [
        pytest.approx(row, rel=1e-12, abs=1e-12) for row in hessian.tolist()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_surface_is_a_formula_that_can_be_traced(name: str):
    traced = surfaces[name].f(Symbol("input", ("x",), "value"), Symbol("input", ("y",), "value"))
    assert isinstance(traced, Symbol)
    assert traced.kind == "value"


def at(name: str, text: str, **settings: Any) -> np.ndarray:
    rule = rules.parse(text)
    return path(surfaces[name], rule.replace(lr=suggest(surfaces[name], rule)), **settings)


@given(st.floats(0.001, 1), st.floats(-3, 3), st.floats(-3, 3))
def test_gradient_descent_in_the_bowl_has_a_closed_form(lr: float, x: float, y: float):
    went = path(surfaces["bowl"], rules.named("sgd", lr=lr), (x, y), steps=20)
    shrunk = (1 - lr) ** np.arange(21)[:, None] * np.array([[x, y]])
    np.testing.assert_allclose(went, shrunk, rtol=1e-12, atol=1e-12)


def test_lookahead_takes_the_gradient_ahead_and_records_theta():
    went = path(surfaces["rosenbrock"], rules.parse("nesterov(lr=0.001, momentum=0.9)"), (-1.2, 1.0), steps=30)
    theta, v = np.array([-1.2, 1.0]), np.zeros(2)
    for point in went:
        np.testing.assert_allclose(point, theta, rtol=1e-12)
        v = 0.9 * v - 0.001 * np.array(surfaces["rosenbrock"].gradient(*(theta + 0.9 * v)))
        theta = theta + v


def test_gradient_descent_sticks_at_the_saddle_while_others_leave_it():
    ends = {text: at("saddle", text)[-1] for text in ("sgd", "momentum", "adagrad", "rmsprop", "adam")}
    assert abs(ends["sgd"][1]) < 0.01
    assert abs(ends["sgd"][0]) < 0.1
    for text in ("momentum", "adagrad", "rmsprop", "adam"):
        assert ends[text][1] == pytest.approx(math.sqrt(2), abs=0.05), text


@pytest.mark.parametrize("text", ["sgd", "momentum", "adagrad", "rmsprop", "adam", "lion"])
def test_no_rule_leaves_the_ridge_of_the_saddle(text: str):
    assert (at("saddle", text, start=(-1.6, 0.0))[:, 1] == 0).all()


@pytest.mark.parametrize("text", ["momentum", "nesterov"])
def test_momentum_runs_along_the_ravine(text: str):
    plain, quick = at("ravine", "sgd"), at("ravine", text)
    assert abs(quick[100, 0]) < 0.1
    assert abs(plain[100, 0]) > 2
    # The zigzag: gradient descent crosses the bottom at every one of its first steps.
    assert (np.sign(plain[1:8, 1]) != np.sign(plain[:7, 1])).all()


def test_momentum_rolls_over_the_hills_that_hold_gradient_descent():
    heights = {text: float(surfaces["hills"].heights(*at("hills", text)[-1])) for text in ("sgd", "momentum")}
    assert heights["momentum"] < 0.01
    assert heights["sgd"] > 1


SLOPE = Surface("slope", lambda x, y: 3 * x + 0 * y, (), ((-8, 0), (-1, 1)), (0.0, 0.0), 0.1)


def test_on_a_slope_adagrads_steps_shrink_and_rmsprops_do_not():
    adagrad, rmsprop = (
        np.abs(np.diff(path(SLOPE, rules.parse(text), steps=100)[:, 0]))
        for text in ("adagrad(lr=0.1)", "rmsprop(lr=0.1, decay=0.9)")
    )
    np.testing.assert_allclose(adagrad, 0.1 / np.sqrt(np.arange(1, 101)), rtol=1e-7)
    np.testing.assert_allclose(rmsprop, 0.1 / np.sqrt(1 - 0.9 ** np.arange(1, 101)), rtol=1e-7)


@pytest.mark.parametrize(("text", "shape"), [("shampoo(lr=0.1)", (2,)), ("soap(vectors=True)", (2,)), ("muon", (2, 1))])
def test_rules_of_axes_and_matrices_walk_as_an_optimizer_steps(text: str, shape: tuple[int, ...]) -> None:
    ravine = surfaces["ravine"]
    points = path(ravine, rules.parse(text), steps=6)
    p = torch.nn.Parameter(torch.tensor(ravine.start, dtype=torch.float64).reshape(shape))
    optimizer = thalweg.Optimizer([p], text, backend="eager")
    for point in points:
        np.testing.assert_allclose(p.detach().flatten().numpy(), point, rtol=1e-12, atol=1e-15)
        p.grad = ravine.gradient_at(p.detach().flatten()).reshape(shape)
        optimizer.step()


@pytest.mark.parametrize("text", NAMED)
@pytest.mark.parametrize("name", NAMES)
def test_every_rule_walks_every_surface_at_its_suggested_rate(name: str, text: str):
    went = at(name, text, steps=20, noise=0.0)
    assert went.dtype == np.float64
    assert went.shape == (21, 2)
    assert tuple(went[0]) == surfaces[name].start
    assert not (went[1:] == went[0]).all()
    assert np.isfinite(went).all()
    (left, right), (low, high) = surfaces[name].window
    assert np.abs(went - went[0]).max() < 2 * max(right - left, high - low)


@pytest.mark.parametrize("text", ["adam", "rmsprop", "lion", "adagrad", "adadelta", "nadam"])
def test_the_suggested_rate_carries_a_rescaling_rule_across_the_window(text: str):
    rule = rules.parse(text)
    rule = rule.replace(lr=suggest(SLOPE, rule, steps=50))
    assert path(SLOPE, rule, steps=50)[-1, 0] == pytest.approx(-8, rel=0.01)


def test_noise_is_the_same_for_a_seed_and_every_rule_and_another_for_another():
    flat = Surface("flat", lambda x, y: 0 * x * y, (), ((-1, 1), (-1, 1)), (0.0, 0.0), 0.1)
    sgd = rules.parse("sgd(lr=1)")
    went = path(flat, sgd, steps=1000, noise=0.5, seed=3)
    assert (went == path(flat, sgd, steps=1000, noise=0.5, seed=3)).all()
    assert (went != path(flat, sgd, steps=1000, noise=0.5, seed=4))[1:].all()
    steps = np.diff(went, axis=0)
    assert steps.std() == pytest.approx(0.5, rel=0.1)
    assert abs(steps.mean()) < 0.05
    other = path(flat, rules.parse("momentum(lr=1, momentum=0)"), steps=1000, noise=0.5, seed=3)
    np.testing.assert_allclose(other, went, rtol=1e-12)
    assert (path(flat, sgd, steps=10, noise=0.0, seed=3) == 0).all()


def test_a_path_ends_before_it_is_no_longer_finite():
    went = path(surfaces["rosenbrock"], rules.parse("sgd(lr=1)"), steps=100)
    assert 2 < len(went) < 20
    assert np.isfinite(went).all()
    assert surfaces["rosenbrock"].heights(*went.T)[-1] == math.inf


def test_a_path_leaves_torch_as_it_was():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    with torch.no_grad():
        at("bowl", "adam", noise=1.0, steps=5)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"noise": -1.0}, r"noise is -1\.0; allowed is a finite number >= 0"),
        ({"noise": math.nan}, r"noise is nan"),
        ({"noise": math.inf}, r"noise is inf"),
        ({"steps": -1}, r"steps is -1"),
        ({"start": (0.0, math.inf)}, r"start is \(0\.0, inf\); allowed are two finite numbers"),
        ({"start": (0.0, 1.0, 2.0)}, r"start is \(0\.0, 1\.0, 2\.0\)"),
    ],
)
def test_what_cannot_be_walked_is_refused(settings: dict[str, Any], said: str):
    rule: Rule = rules.parse("sgd")
    with pytest.raises(ValueError, match=said):
        path(surfaces["bowl"], rule, **settings)
