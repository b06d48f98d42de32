"""Switching rules: when, with which initial state, checkpoints; SWATS against its algorithm in NumPy."""

import copy
import io
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import thalweg
from cases import BACKENDS, close, drive, parameter, same, start
from thalweg import Switch, rules, schedules
from thalweg.rules import SGD, Adam, Lion, Momentum, RMSProp

backends = pytest.mark.parametrize("backend", BACKENDS)
Array = np.ndarray[Any, np.dtype[np.float64]]


# SWATS: Keskar & Socher 2017, Algorithm 1, line by line, for any gradient.


@dataclass
class Swats:
    """Results of Algorithm 1: the points, the step after which it switched, and the learning rate found."""

    points: list[Array]
    switched: int | None = None
    rate: float = 0.0


def swats(
    w: Array, gradient: Callable[[Array, int], Array], steps: int, alpha: float, beta1: float, beta2: float, eps: float,
    tolerance: float,
) -> Swats:  # fmt: skip
    m, a, average = np.zeros_like(w), np.zeros_like(w), 0.0
    v = np.zeros_like(w)
    run = Swats([])
    for k in range(1, steps + 1):
        g = gradient(w, k)
        if run.switched is not None:
            v = beta1 * v + g
            w = w - (1 - beta1) * run.rate * v
        else:
            m = beta1 * m + (1 - beta1) * g
            a = beta2 * a + (1 - beta2) * g**2
            p = -alpha * (m / (1 - beta1**k)) / (np.sqrt(a / (1 - beta2**k)) + eps)
            w = w + p
            if p @ g != 0:
                gamma = (p @ p) / -(p @ g)
                average = beta2 * average + (1 - beta2) * gamma
                found = float(average / (1 - beta2**k))
                if k > 1 and abs(found - gamma) < tolerance and found > 0:
                    run.switched, run.rate = k, found
        run.points.append(w)
    return run


@backends
@settings(max_examples=60)
@given(
    alpha=st.floats(1e-4, 1e-1),
    beta1=st.floats(0, 0.95),
    beta2=st.floats(0.5, 0.9999),
    tolerance=st.sampled_from([1e-9, 1e-4, 1e-2, 1.0]),
    curvature=st.lists(st.floats(0.05, 5), min_size=1, max_size=6),
    noise=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 1000),
)
def test_auto_is_algorithm_1(
    backend: str, alpha: float, beta1: float, beta2: float, tolerance: float, curvature: list[float], noise: float,
    seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    h, w = np.array(curvature), rng.normal(size=len(curvature))
    noises = noise * rng.normal(size=(40, len(h)))
    expected = swats(w, lambda w, k: h * w + noises[k - 1], 40, alpha, beta1, beta2, 1e-8, tolerance)

    # In two tensors, since the rate is estimated from all parameters of the group together.
    whole = torch.from_numpy(w)
    params = [torch.nn.Parameter(part.clone()) for part in (whole[:1], whole[1:]) if len(part)]
    switch = Switch(Adam(lr=alpha, beta1=beta1, beta2=beta2), SGD(), at="auto", tolerance=tolerance)
    opt = thalweg.Optimizer(params, switch, backend=backend)
    for k in range(1, 41):
        at = np.concatenate([p.detach().numpy() for p in params])
        g = torch.from_numpy(h * at + noises[k - 1])
        for p, part in zip(params, (g[:1], g[1:]), strict=False):
            p.grad = part.clone()
        opt.step()
        # Rounding could only change this comparison if the difference were within rounding of the tolerance.
        assert isinstance(opt.param_groups[0]["rule"], Momentum) == (
            expected.switched is not None and k >= expected.switched
        )
        if k == expected.switched:
            assert opt.param_groups[0]["lr"] == pytest.approx(expected.rate, rel=1e-9)
            assert opt.param_groups[0]["momentum"] == beta1
        found = np.concatenate([p.detach().numpy() for p in params])
        np.testing.assert_allclose(found, expected.points[k - 1], rtol=1e-9, atol=1e-12)


def test_auto_finds_the_same_rate_in_float32() -> None:
    """The step is computed by the rule; the difference of two points would be lost in rounding."""
    rates: list[float] = []
    for dtype in (torch.float32, torch.float64):
        p = parameter(torch.full((3,), 1e4, dtype=torch.float64), dtype)
        opt = thalweg.Optimizer([p], Switch(Adam(lr=1e-4), SGD(), at="auto", tolerance=1.0))
        for g in (1.0, 2.0):
            p.grad = torch.full_like(p, g)
            opt.step()
        rates.append(opt.param_groups[0]["lr"])
    assert rates[0] == pytest.approx(rates[1], rel=1e-5)


# Switching at a known step: the first rule until then, the second from its beginning after.

PAIRS = [
    (Adam(lr=0.1), SGD(lr=0.05)),
    (Lion(), Momentum(lr=0.1, momentum=0.5)),
    (rules.parse("nesterov(lr=0.01)"), rules.parse("nadam")),
    (RMSProp(momentum=0.5, nesterov="lookahead"), rules.parse("nesterov(lr=0.02)")),
]
pairs = pytest.mark.parametrize("pair", PAIRS, ids=str)
OPTIONS: list[dict[str, Any]] = [
    {},
    {"clip_norm": 1.0, "maximize": True, "weight_decay": 0.1, "decay_form": "l2"},
    {"weight_decay": 0.1, "decay_form": "scaled"},
    {"weight_decay": 0.1, "decay_form": "independent"},
]


@backends
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pairs
def test_it_is_one_optimizer_and_then_the_other(pair: Any, options: dict[str, Any], backend: str) -> None:
    first, then = pair
    ours, theirs = ([parameter(start(n)) for n in (7, 1)] for _ in range(2))
    opt = thalweg.Optimizer(ours, Switch(first, then, at=4), backend=backend, **options)
    other = thalweg.Optimizer(theirs, first, backend=backend, **options)
    for o, params in ((opt, ours), (other, theirs)):
        drive(o, params, 4)
    other.eval()  # the point that another optimizer begins at
    same(ours, theirs)
    other = thalweg.Optimizer(theirs, then, backend=backend, **options)
    for o, params in ((opt, ours), (other, theirs)):
        drive(o, params, 4, seed=1)
    same(ours, theirs)
    for p, q in zip(ours, theirs, strict=True):
        close(opt.state[p], other.state[q])  # the same names too: nothing of the first rule is kept
    for o in (opt, other):
        o.eval()
    same(ours, theirs)


@backends
@pairs
def test_the_average_of_the_weights_goes_on(pair: Any, backend: str) -> None:
    p, q = parameter(), parameter()
    averaged = thalweg.Optimizer([p], Switch(*pair, at=4), backend=backend, ema=0.5)
    plain = thalweg.Optimizer([q], Switch(*pair, at=4), backend=backend)
    average = start()
    for step in range(8):
        drive(averaged, [p], 1, seed=step)
        drive(plain, [q], 1, seed=step)
        plain.eval()
        average = 0.5 * average + 0.5 * q.detach()
        averaged.eval()
        close(p.detach(), average)
        for o in (averaged, plain):
            o.train()


@backends
def test_each_group_switches_by_itself(backend: str) -> None:
    ps = [parameter(start(n)) for n in (3, 4, 5)]
    rule, other = Switch(Adam(), SGD(lr=0.1), at=2), Switch(SGD(), Lion(), at=3)
    groups = [{"params": [ps[0]]}, {"params": [ps[1]], "rule": other}, {"params": [ps[2]], "rule": Adam(), "lr": 0.5}]
    opt = thalweg.Optimizer(groups, rule, backend=backend)
    seen: list[list[str]] = []
    for _ in range(4):
        seen.append([type(group["rule"]).__name__ for group in opt.param_groups])
        drive(opt, ps, 1)
    assert seen == [["Adam", "SGD", "Adam"]] * 2 + [["SGD", "SGD", "Adam"], ["SGD", "Lion", "Adam"]]
    assert [group["lr"] for group in opt.param_groups] == [0.1, Lion().lr, 0.5]


def test_a_skipped_step_is_not_counted() -> None:
    p = parameter()
    opt = thalweg.Optimizer([p], Switch(Adam(), SGD(), at=2), nonfinite="skip")
    for factor in (1.0, float("nan"), 1.0):
        assert isinstance(opt.param_groups[0]["rule"], Adam)
        p.grad = torch.full_like(p, factor)
        opt.step()
    assert isinstance(opt.param_groups[0]["rule"], SGD)


@backends
def test_schedules_continue_across_the_switch(backend: str) -> None:
    """Each hyperparameter follows its schedule while the active rule has it, at the number of steps applied."""
    p = parameter()
    follow = {
        "lr": schedules.linear(10),
        "beta1": schedules.anneal(0.5, 0.9, 10),
        "momentum": schedules.anneal(0.9, 0.5, 10),
        "weight_decay": schedules.exponential(0.5),
    }
    switch = Switch(Adam(lr=0.1), Momentum(lr=0.4), at=4)
    opt = thalweg.Optimizer([p], switch, schedule=follow, weight_decay=0.3, decay_form="l2", backend=backend)
    for t in range(8):
        group = opt.param_groups[0]
        assert group["lr"] == (0.1 if t < 4 else 0.4) * (1 - t / 10)
        assert group["weight_decay"] == 0.3 * 0.5**t
        assert group.get("beta1") == (pytest.approx(0.5 + 0.04 * t) if t < 4 else None)
        assert group.get("momentum") == (None if t < 4 else pytest.approx(0.9 - 0.04 * t))
        drive(opt, [p], 1, seed=t)


@backends
def test_auto_goes_on_from_the_rate_with_its_schedule(backend: str) -> None:
    p, q = parameter(), parameter()
    schedule, switch = schedules.linear(20), Switch(Adam(), SGD(), at="auto", tolerance=1e6)
    opt = thalweg.Optimizer([p], switch, schedule=schedule, backend=backend)
    plain = thalweg.Optimizer([q], Adam(), schedule=schedule, backend=backend)
    drive(opt, [p], 12)
    drive(plain, [q], 12)
    group = opt.param_groups[0]
    assert isinstance(group["rule"], Momentum)
    found = group["course"].transition.rate / schedule(1)  # it switched after two steps, the latter at t = 1
    assert group["lr"] == pytest.approx(found * schedule(12))


def test_a_plateau_keeps_what_it_has_seen() -> None:
    p = parameter()
    opt = thalweg.Optimizer([p], Switch(Adam(lr=1.0), SGD(lr=2.0), at=3), schedule=schedules.plateau(0.5, patience=0))
    for metric in (1.0, 1.0, 0.5, 0.4):
        drive(opt, [p], 1)
        opt.observe(metric)
    assert opt.param_groups[0]["lr"] == 2.0 * 0.5


# What is saved, before, at and after the switch, goes on bit for bit.


def _through_file(opt: thalweg.Optimizer, params: list[Any], fresh: Callable[[list[Any]], thalweg.Optimizer]) -> Any:
    file = io.BytesIO()
    torch.save([params, opt.state_dict()], file)
    file.seek(0)
    others, state = torch.load(file, weights_only=True)
    again = fresh(others)
    again.load_state_dict(state)
    return again, others


WAYS: dict[str, Callable[..., Any]] = {
    "state_dict": _through_file,
    "deepcopy": lambda *pair: copy.deepcopy(pair[:2]),
    "pickle": lambda *pair: pickle.loads(pickle.dumps(pair[:2])),
}
SWITCHES = [*(Switch(*pair, at=4) for pair in PAIRS), Switch(Adam(), SGD(), at="auto", tolerance=0.5)]


@backends
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("switch", SWITCHES, ids=str)
@settings(max_examples=12)
@given(stop=st.integers(0, 8), more=st.integers(1, 6), elsewhere=st.integers(0, 6))
def test_what_is_saved_goes_on_bit_for_bit(
    switch: Switch, way: str, backend: str, stop: int, more: int, elsewhere: int
) -> None:
    def fresh(params: list[Any]) -> thalweg.Optimizer:
        opt = thalweg.Optimizer(
            params, switch, schedule=schedules.cosine(20, end=0.1), ema=0.9, weight_decay=0.1,
            decay_form="independent", backend=backend,
        )  # fmt: skip
        # An optimizer that has been used, and may have switched, loads a checkpoint like a new one.
        kept = [p.detach().clone() for p in params]
        drive(opt, params, elsewhere, seed=7)
        for p, x in zip(params, kept, strict=True):
            p.data.copy_(x)
        return opt

    params: list[Any] = [parameter(start(n)) for n in (7, 1)]
    opt = thalweg.Optimizer(
        params, switch, schedule=schedules.cosine(20, end=0.1), ema=0.9, weight_decay=0.1, decay_form="independent",
        backend=backend,
    )  # fmt: skip
    drive(opt, params, stop)
    again, others = WAYS[way](opt, params, fresh)
    for o, ps in ((opt, params), (again, others)):
        drive(o, ps, more, seed=2)
    for name in ("lr", "weight_decay"):
        assert opt.param_groups[0][name] == again.param_groups[0][name]
    assert opt.param_groups[0]["course"].saved() == again.param_groups[0]["course"].saved()
    for o in (opt, again):
        o.eval()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    assert again.state_dict()["param_groups"] == opt.state_dict()["param_groups"]


@pytest.mark.parametrize(
    ("saved", "own", "says"),
    [
        (Adam(), Switch(Adam(), SGD(), at=3), r"stepped by Adam\(\), this optimizer's rule is Switch\(Adam"),
        (Switch(Adam(), SGD(), at=3), Adam(), r"stepped by Switch\(Adam\(\), SGD\(\), at=3\), .* rule is Adam"),
        (Switch(Adam(), SGD(), at=3), Switch(Lion(), SGD(), at=3), r"stepped by Switch\(Adam.* rule is Switch\(Lion"),
        (Switch(Adam(), Momentum(), at=3), Switch(Adam(), Momentum(form="averaged"), at=3), "stepped by Switch"),
    ],
)
def test_a_state_of_another_switch_is_refused(saved: Any, own: Any, says: str) -> None:
    state = thalweg.Optimizer([parameter()], saved).state_dict()
    with pytest.raises(ValueError, match=says):
        thalweg.Optimizer([parameter()], own).load_state_dict(state)


# Text, settings, and what is refused.


@given(st.integers(1, 10**6) | st.floats(1e-3, 1.0) | st.just("auto"), st.floats(1e-12, 1), st.floats(1e-5, 1))
def test_text_reads_back(at: Any, tolerance: float, rate: float) -> None:
    switch = Switch(Adam(lr=rate, eps_at="inside"), SGD(), at, **({"tolerance": tolerance} if at == "auto" else {}))
    assert Switch.parse(str(switch)) == Switch.parse(f"  {switch!r} ") == switch
    assert hash(Switch.parse(str(switch))) == hash(switch)
    if isinstance(at, float) and round(at * 1000) >= 1:
        assert switch.resolve(1000).at == pytest.approx(at * 1000, abs=0.51)


def test_text_of_variants_and_bare_words() -> None:
    assert Switch.parse("switch(nadam, nesterov(lr=0.5), at=0.5)") == Switch(
        rules.parse("nadam"), rules.parse("nesterov(lr=0.5)"), 0.5
    )
    assert Switch.parse("Switch(adam(eps_at=inside), sgd, at=auto)").then == Momentum(momentum=0.9, form="averaged")


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Switch(Adam(), SGD(), at=0), ValueError, "Switch's at is 0; allowed is a whole number of steps >= 1"),
    (lambda: Switch(Adam(), SGD(), at=1.5), ValueError, "Switch's at is 1.5; allowed is .* or 'auto'"),
    (lambda: Switch(Adam(), SGD(), at="soon"), ValueError, "Switch's at is 'soon'"),  # pyright: ignore[reportArgumentType]
    (lambda: Switch(Adam(), SGD(), 5, tolerance=0.1), ValueError, "tolerance is 0.1 with at=5; only at='auto'"),
    (lambda: Switch(Adam(), SGD(), "auto", tolerance=0), ValueError, "tolerance is 0; allowed is a finite number > 0"),
    (lambda: Switch(SGD(), SGD(), "auto"), ValueError, r"first is SGD\(\) .*; allowed is a rule with beta1 and beta2"),
    (lambda: Switch(Adam(), SGD(lr=1.0), "auto"), ValueError, r"then is SGD\(lr=1.0\) with at='auto', which finds"),
    (lambda: Switch(Adam(), Momentum(), "auto"), ValueError, "allowed is SGD"),
    (lambda: Switch(Adam(), "sgd", 5), TypeError, "Switch's then is 'sgd', which is no thalweg.Rule"),  # pyright: ignore[reportArgumentType]
    (lambda: Switch(Adam(), SGD(), 0.001).resolve(10), ValueError, "be laid out over 10 steps: Switch's at is 0"),
    (lambda: Switch.parse("switch(adam, sgd)"), ValueError, "does not say when to switch; add at="),
    (lambda: Switch.parse("switch(adam, at=3)"), ValueError, "write two rules and when, as in"),
    (lambda: Switch.parse("swich(adam, sgd, at=3)"), ValueError, "write two rules and when, as in"),
    (lambda: Switch.parse("switch(adam, sgd, at=3"), ValueError, "write two rules and when, as in"),
    (lambda: Switch.parse("switch(adam, sgd, at=3, when=2)"), ValueError, "no setting 'when'; it has at, tolerance"),
    (lambda: Switch.parse("switch(adam, sdg, at=3)"), ValueError, "did you mean 'sgd'"),
    (lambda: Switch.parse("switch(adam, sgd, at=open('x'))"), ValueError, "cannot be read"),
    (lambda: thalweg.Optimizer([parameter()], Switch(Adam(), SGD(), 0.5)), ValueError, r"\.resolve\(total\)"),
    (lambda: thalweg.Optimizer([{"params": [parameter()], "lr": 1.0}], Switch(Adam(), SGD(), 5)), ValueError,
     "a group has lr beside Switch"),
    (lambda: thalweg.Optimizer([parameter()], Switch(Adam(), SGD(), 5), schedule={"rho": schedules.cosine(3)}),
     ValueError, "schedule of 'rho', which no rule of Switch.* has; they have beta1"),
    (lambda: thalweg.Optimizer([parameter()], Switch(Adam(), Momentum(), 5),
                               schedule={"momentum": schedules.anneal(0.9, 1.1, 9)}),
     ValueError, "scheduled momentum at step 9"),
    (lambda: thalweg.Optimizer([parameter()], Switch(Adam(), SGD(), "auto"), schedule=schedules.anneal(1, 0, 9)),
     ValueError, "gives the rate that Switch.* finds; use one that gives a factor"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kind", "says"), REFUSED)
def test_invalid_settings_are_refused(make: Callable[[], Any], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        make()


def test_only_steps_before_a_switch_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a switch, and after it, neither of the two functions is called."""
    from thalweg.optimizer import switching

    calls: list[str] = []
    for name in ("watch", "advance"):
        real: Callable[..., Any] = getattr(switching, name)

        def noted(*given: Any, name: str = name, real: Callable[..., Any] = real) -> Any:
            calls.append(name)
            return real(*given)

        monkeypatch.setattr(switching, name, noted)
    for rule, expected in ((Adam(), 0), (Switch(Adam(), SGD(), at=2), 2)):
        calls.clear()
        p = parameter()
        drive(thalweg.Optimizer([p], rule), [p], 5)
        assert calls == ["watch", "advance"] * expected
