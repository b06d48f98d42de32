"""Each schedule against its documented equivalents: torch, transformers' and timm's formulas, the lectures."""

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch.optim import lr_scheduler as theirs
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import Optimizer

from thalweg import schedules
from thalweg.schedules import (
    Schedule,
    anneal,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
    lambda_,
    linear,
    multistep,
    one_cycle,
    piecewise,
    plateau,
    polynomial,
    step,
    tanh,
    warmup,
    warmup_stable_decay,
)

STEPS = 10_000
Make = Callable[[Optimizer], LRScheduler]


def sgd(lr: float = 1.0, momentum: float = 0.0) -> torch.optim.SGD:
    return torch.optim.SGD([torch.zeros(1)], lr=lr, momentum=momentum)


def driven(make: Make, steps: int = STEPS, setting: str = "lr") -> list[float]:
    """The values that torch's scheduler sets, step by step."""
    optimizer = sgd(momentum=0.5)
    scheduler = make(optimizer)
    seen: list[float] = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0][setting])
        optimizer.step()
        scheduler.step()
    return seen


def closed(make: Make, steps: int = STEPS) -> list[float]:
    """The values of torch's own closed form."""
    scheduler: Any = make(sgd())
    seen: list[float] = []
    for t in range(steps):
        scheduler.last_epoch = t
        seen.extend(scheduler._get_closed_form_lr())
    return seen


def same(schedule: Schedule, expected: list[float], base: float = 1.0, tolerance: float = 1e-12) -> None:
    worst = max(range(len(expected)), key=lambda t: abs(schedule.value(base, t) - expected[t]))
    assert schedule.value(base, worst) == pytest.approx(expected[worst], abs=tolerance, rel=0), f"at t = {worst}"


def named(cases: dict[str, Any]) -> Any:
    return [pytest.param(*case, id=name) for name, case in cases.items()]


# torch's own recursive form is within 1e-12 of the closed one for these.
STEPPED: dict[str, tuple[Make, Schedule]] = {
    "LambdaLR": (lambda o: theirs.LambdaLR(o, lambda t: 0.999**t), exponential(0.999)),
    "LambdaLR, any function": (lambda o: theirs.LambdaLR(o, lambda t: 1 / (1 + t)), lambda_(lambda t: 1 / (1 + t))),
    "MultiplicativeLR": (lambda o: theirs.MultiplicativeLR(o, lambda t: 0.999), exponential(0.999)),
    "StepLR": (lambda o: theirs.StepLR(o, 1500, gamma=0.5), step(1500, 0.5)),
    "MultiStepLR": (
        lambda o: theirs.MultiStepLR(o, [3000, 700, 700, 9000], 0.3),
        multistep((3000, 700, 700, 9000), 0.3),
    ),
    "ConstantLR": (lambda o: theirs.ConstantLR(o, 1 / 3, 500), constant(1 / 3, 500).then(constant())),
    "ExponentialLR": (lambda o: theirs.ExponentialLR(o, 0.9995), exponential(0.9995)),
    "CosineAnnealingWarmRestarts": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 300, eta_min=0.01),
        cosine_restarts(300, end=0.01),
    ),
    "CosineAnnealingWarmRestarts, growing": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 7, T_mult=2, eta_min=0.01),
        cosine_restarts(7, 2, 0.01),
    ),
    "CosineAnnealingWarmRestarts, by three": (
        lambda o: theirs.CosineAnnealingWarmRestarts(o, 3, T_mult=3),
        cosine(3).restarts(mult=3),
    ),
    "OneCycleLR": (lambda o: theirs.OneCycleLR(o, 1.0, total_steps=STEPS), one_cycle(STEPS)),
    "OneCycleLR, linear": (
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=STEPS, pct_start=0.123456, anneal_strategy="linear"),
        one_cycle(STEPS, rise=0.123456, shape="linear"),
    ),
    "OneCycleLR, three phases": (
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=STEPS, three_phase=True, div_factor=10, final_div_factor=100),
        one_cycle(STEPS, start=0.1, end=0.001, phases="three"),
    ),
    "OneCycleLR, no rise": (
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=STEPS, pct_start=0.0),
        one_cycle(STEPS, rise=0),
    ),
    "CyclicLR": (
        lambda o: theirs.CyclicLR(o, 0.1, 1.0, step_size_up=333, step_size_down=77),
        cyclic(333, 77, low=0.1),
    ),
    "CyclicLR, triangular2": (
        lambda o: theirs.CyclicLR(o, 0.1, 1.0, step_size_up=250, mode="triangular2"),
        cyclic(250, low=0.1, mode="triangular2"),
    ),
    "CyclicLR, exp_range": (
        lambda o: theirs.CyclicLR(o, 0.1, 1.0, step_size_up=250, mode="exp_range", gamma=0.9997),
        cyclic(250, low=0.1, mode="exp_range", gamma=0.9997),
    ),
}


@pytest.mark.parametrize(("make", "schedule"), named(STEPPED))
def test_equals_torch_at_every_step(make: Make, schedule: Schedule) -> None:
    same(schedule, driven(make))


# torch steps these by a ratio of neighbours, which drifts, or divides by zero at the end; its closed form is right.
CLOSED: dict[str, tuple[Make, Schedule]] = {
    "LinearLR, up": (lambda o: theirs.LinearLR(o, 1 / 3, 1, 777), warmup(777, 1 / 3)),
    "LinearLR, down": (lambda o: theirs.LinearLR(o, 1, 0.01, STEPS), linear(STEPS, 0.01)),
    "LinearLR, from a half": (lambda o: theirs.LinearLR(o, 0.5, 0.1, 5000), linear(5000, 0.2) * 0.5),
    "PolynomialLR": (lambda o: theirs.PolynomialLR(o, 9000, 2.0), polynomial(9000, power=2)),
    "PolynomialLR, root": (lambda o: theirs.PolynomialLR(o, STEPS, 0.5), polynomial(STEPS, power=0.5)),
    "CosineAnnealingLR": (lambda o: theirs.CosineAnnealingLR(o, STEPS, 0.05), cosine(STEPS, 0.05)),
    "CosineAnnealingLR, rising again": (lambda o: theirs.CosineAnnealingLR(o, 1000), cosine(STEPS, cycles=5)),
    "StepLR": (lambda o: theirs.StepLR(o, 3), step(3)),
    "ExponentialLR": (lambda o: theirs.ExponentialLR(o, 0.99999), exponential(0.99999)),
}


@pytest.mark.parametrize(("make", "schedule"), named(CLOSED))
def test_equals_torchs_closed_form_at_every_step(make: Make, schedule: Schedule) -> None:
    same(schedule, closed(make))


MOMENTA: dict[str, tuple[Make, Schedule]] = {
    "OneCycleLR": (
        lambda o: theirs.OneCycleLR(o, 1.0, total_steps=STEPS),
        one_cycle(STEPS, start=1, peak=0.85 / 0.95, end=1),
    ),
    "CyclicLR": (
        lambda o: theirs.CyclicLR(o, 0.1, 1.0, step_size_up=250),
        cyclic(250, low=1, high=0.8 / 0.9),
    ),
}


@pytest.mark.parametrize(("make", "schedule"), named(MOMENTA))
def test_equals_torchs_cycled_momentum(make: Make, schedule: Schedule) -> None:
    expected = driven(make, setting="momentum")
    same(schedule, expected, base=expected[0])


SEQUENCES: dict[str, tuple[Make, Schedule]] = {
    "warm-up, cosine": (
        lambda o: theirs.SequentialLR(
            o, [theirs.LinearLR(o, 0.01, 1, 500), theirs.CosineAnnealingLR(o, 9500, 0.1)], [500]
        ),
        warmup(500, 0.01).then(cosine(9500, 0.1)),
    ),
    "three parts": (
        lambda o: theirs.SequentialLR(
            o,
            [theirs.ConstantLR(o, 0.1, 1000), theirs.ExponentialLR(o, 0.999), theirs.StepLR(o, 700, 0.5)],
            [1000, 4000],
        ),
        constant(0.1, 1000).then(exponential(0.999), at=1000).then(step(700, 0.5), at=4000),
    ),
    "cut short": (
        lambda o: theirs.SequentialLR(
            o, [theirs.StepLR(o, 100, 0.9), theirs.CosineAnnealingWarmRestarts(o, 500)], [250]
        ),
        step(100, 0.9).then(cosine_restarts(500), at=250),
    ),
}


@pytest.mark.parametrize(("make", "schedule"), named(SEQUENCES))
def test_then_equals_torchs_sequential(make: Make, schedule: Schedule) -> None:
    same(schedule, driven(make))


PRODUCTS: dict[str, tuple[Make, Schedule]] = {
    "warm-up and exponential": (
        lambda o: theirs.ChainedScheduler([theirs.LinearLR(o, 0.1, 1, 500), theirs.ExponentialLR(o, 0.9995)]),
        warmup(500, 0.1) * exponential(0.9995),
    ),
    "three": (
        lambda o: theirs.ChainedScheduler(
            [theirs.ConstantLR(o, 0.5, 40), theirs.StepLR(o, 2000, 0.5), theirs.MultiStepLR(o, [5000], 0.1)]
        ),
        constant(0.5, 40).then(constant()) * step(2000, 0.5) * multistep((5000,), 0.1),
    ),
}


@pytest.mark.parametrize(("make", "schedule"), named(PRODUCTS))
def test_times_equals_torchs_chain(make: Make, schedule: Schedule) -> None:
    same(schedule, driven(make))


@pytest.mark.parametrize("schedule", [case[1] for case in {**STEPPED, **CLOSED, **SEQUENCES}.values()])
def test_as_torch_sets_the_rate_of_every_group(schedule: Schedule) -> None:
    weights = [torch.zeros(1) for _ in range(2)]
    optimizer = torch.optim.SGD([{"params": [w], "lr": lr} for w, lr in zip(weights, (0.1, 3.0), strict=True)])
    scheduler = schedule.as_torch(optimizer)
    assert isinstance(scheduler, LRScheduler)
    for t in range(600):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == scheduler.get_last_lr() == [schedule.value(0.1, t), schedule.value(3.0, t)]
        optimizer.step()
        scheduler.step()


def test_as_torch_inside_torchs_sequential() -> None:
    def make(o: Optimizer) -> LRScheduler:
        parts = [warmup(500).as_torch(o), cosine(1500).as_torch(o), theirs.ExponentialLR(o, 0.999)]
        return theirs.SequentialLR(o, parts, [500, 1000])

    same(warmup(500).then(cosine(1500)).then(exponential(0.999), at=1000), driven(make, 3000))


def test_as_torch_leaves_a_rate_that_is_a_tensor_one() -> None:
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=torch.tensor(2.0))
    rate = optimizer.param_groups[0]["lr"]
    scheduler = linear(4).as_torch(optimizer)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == 1.5


# transformers' get_*_schedule*: what their documentation says, with w steps of warm-up and n steps in all.
W, N = 700, STEPS


def _after_warmup(shape: Callable[[float], float]) -> Callable[[int], float]:
    return lambda t: t / W if t < W else shape((t - W) / (N - W))


def _with_rate(t: int) -> float:
    """get_cosine_with_min_lr_schedule_with_warmup_lr_rate(min_lr_rate=0.1, warmup_lr_rate=0.05)."""
    if t < W:
        return 0.05 + 0.95 * t / (W - 1)
    return 0.1 + 0.9 * (1 + math.cos(math.pi * (t - W + 1) / (N - W))) / 2


RISES: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "cosine": lambda x: (1 - math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(1 - x),
}
FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "1-sqrt": lambda x: 1 - math.sqrt(x),
}


def _wsd(rise: str, fall: str, low: float, stable: int = 4000, down: int = 3000) -> Callable[[int], float]:
    def formula(t: int) -> float:
        if t < W:
            return low + (1 - low) * RISES[rise](t / W)
        if t < W + stable:
            return 1.0
        return low + (1 - low) * FALLS[fall]((t - W - stable) / down) if t < W + stable + down else low

    return formula


FORMULAS: dict[str, tuple[Callable[[int], float], Schedule]] = {
    "constant": (lambda t: 1.0, constant()),
    "constant with warm-up": (_after_warmup(lambda x: 1.0), warmup(W)),
    "linear": (_after_warmup(lambda x: 1 - x), warmup(W).then(linear(N - W))),
    "cosine": (_after_warmup(lambda x: (1 + math.cos(math.pi * x)) / 2), warmup(W).then(cosine(N - W))),
    "cosine, 1.5 cycles": (
        _after_warmup(lambda x: (1 + math.cos(3 * math.pi * x)) / 2),
        warmup(W).then(cosine(N - W, cycles=1.5)),
    ),
    "cosine with hard restarts": (
        _after_warmup(lambda x: (1 + math.cos(math.pi * ((4 * x) % 1))) / 2 if x < 1 else 0.0),
        warmup(W).then(cosine(N - W).restarts(4, fit=True)),
    ),
    "cosine with hard restarts, of no whole length": (
        _after_warmup(lambda x: (1 + math.cos(math.pi * ((7 * x) % 1))) / 2 if x < 1 else 0.0),
        warmup(W).then(cosine(N - W).restarts(7, fit=True)),
    ),
    "cosine with min_lr": (
        _after_warmup(lambda x: 0.1 + 0.9 * (1 + math.cos(math.pi * x)) / 2),
        warmup(W).then(cosine(N - W, 0.1)),
    ),
    "cosine with min_lr and a warm-up rate": (
        _with_rate,
        warmup(W - 1, 0.05).then(cosine(N - W, 0.1).shift(-1), at=W),
    ),
    "polynomial": (
        _after_warmup(lambda x: (1e-3 - 1e-7) / 1e-3 * (1 - x) ** 2 + 1e-7 / 1e-3),
        warmup(W).then(polynomial(N - W, 1e-4, power=2)),
    ),
    "inverse square root": (lambda t: t / W if t < W else math.sqrt(W / t), inverse_sqrt(W)),
    "inverse square root, own scale": (
        lambda t: t / W if t < W else 1 / math.sqrt((t + 200 - W) / 200),
        inverse_sqrt(W, timescale=200),
    ),
    **{
        f"warm-up, stable, decay: {rise}, {fall}": (
            _wsd(rise, fall, 0.05),
            warmup_stable_decay(W, 4000, 3000, start=0.05, end=0.05, rise=cast(Any, rise), fall=cast(Any, fall)),
        )
        for rise in RISES
        for fall in FALLS
    },
}


@pytest.mark.parametrize(("formula", "schedule"), named(FORMULAS))
def test_equals_transformers_formula(formula: Callable[[int], float], schedule: Schedule) -> None:
    # Only up to the end: past it transformers' cosine rises again, while ours keeps its last value.
    same(schedule, [formula(t) for t in range(N)])


def _timm_cycles(
    shape: Callable[[float], float], first: int, mult: float, decay: float, limit: int, low: float
) -> list[float]:
    """Timm's cycles, one after another: cycle i has first·multⁱ steps and starts at decayⁱ."""
    seen: list[float] = []
    cycle, begin, period = 0, 0.0, float(first)
    for t in range(2000):
        if t >= begin + period:
            cycle, begin, period = cycle + 1, begin + period, period * mult
        seen.append(low + (decay**cycle - low) * shape((t - begin) / period) if cycle < limit else low)
    return seen


SHAPES: dict[str, tuple[Callable[[float], float], Any]] = {
    "cosine": (lambda x: (1 + math.cos(math.pi * x)) / 2, cosine(50, 0.01)),
    "cosine, k-decay": (lambda x: (1 + math.cos(math.pi * x**1.7)) / 2, cosine(50, 0.01, k=1.7)),
    "polynomial, k-decay": (lambda x: (1 - x**1.5) ** 0.5, polynomial(50, 0.01, power=0.5, k=1.5)),
    "tanh": (lambda x: (1 - math.tanh(-7 * (1 - x) + 3 * x)) / 2, tanh(50, 0.01)),
    "linear": (lambda x: 1 - x, linear(50, 0.01)),
}


@pytest.mark.parametrize("mult", [1, 1.5, 2])
@pytest.mark.parametrize(("shape", "decay"), named(SHAPES))
def test_equals_timms_cycles(shape: Callable[[float], float], decay: Any, mult: float) -> None:
    same(decay.restarts(3, mult, 0.8), _timm_cycles(shape, 50, mult, 0.8, 3, 0.01))


def test_the_lectures_numbers() -> None:
    assert [step(30)(t) for t in (0, 29, 30, 60)] == pytest.approx([1, 1, 0.1, 0.01])
    assert [cosine(100)(t) for t in (0, 50, 100, 200)] == pytest.approx([1, 0.5, 0, 0])
    assert [linear(100)(t) for t in (0, 25, 100, 101)] == [1, 0.75, 0, 0]
    assert [inverse_sqrt(100)(t) for t in (0, 50, 100, 400)] == [0, 0.5, 1, 0.5]
    assert [warmup(5000)(t) for t in (0, 1250, 5000, 9000)] == [0, 0.25, 1, 1]
    # LambdaLR with 0.65 ** epoch at lr = 100
    assert [exponential(0.65).value(100, t) for t in range(4)] == pytest.approx([100, 65, 42.25, 27.4625])
    momentum = anneal(0.5, 0.9, 2000)
    assert [momentum.value(0.123, t) for t in (0, 1000, 2000, 5000)] == [0.5, 0.7, 0.9, 0.9]


def test_piecewise_goes_through_its_points() -> None:
    times, values = (10, 100, 1000), (0.0, 1.0, 0.1)
    for shape in ("linear", "cosine", "constant"):
        schedule = piecewise(times, values, shape)
        assert [schedule(t) for t in (0, *times, 5000)] == [0, *values, 0.1]
    assert piecewise(times, values)(55) == 0.5
    assert piecewise(times, values, "cosine")(550) == pytest.approx(0.55)
    assert piecewise(times, values, "constant")(99) == 0


def test_composition() -> None:
    schedule = warmup(10).then(linear(10)).then(constant(0.3))
    assert [schedule(t) for t in (0, 5, 10, 15, 19, 20, 99)] == pytest.approx([0, 0.5, 1, 0.5, 0.1, 0.3, 0.3])
    assert [linear(10).shift(5)(t) for t in (0, 5, 10, 15)] == [1, 1, 0.5, 0]
    assert [linear(10).shift(-5)(t) for t in (0, 5)] == [0.5, 0]
    assert [linear(10).clip(0.2, 0.7)(t) for t in (0, 5, 10)] == [0.7, 0.5, 0.2]
    assert [(2 * linear(10) * 0.5)(t) for t in (0, 5)] == [1, 0.5]
    halved = anneal(0.5, 0.9, 10) * constant(0.5)
    assert halved.absolute
    assert halved.value(123, 10) == 0.45
    assert anneal(0.5, 0.9, 10).then(anneal(0.9, 0.1, 10)).clip(high=0.7).shift(1).absolute


@pytest.mark.parametrize(
    ("schedule", "length"),
    [
        (constant(), None),
        (constant(0.5, 10), 10),
        (warmup(10).then(cosine(90)), 100),
        (exponential(0.9).then(linear(5), at=100), 105),
        (warmup(10).then(exponential(0.9)), None),
        (warmup(10) * 0.5, 10),
        (warmup(10) * linear(40), 40),
        (warmup(10) * exponential(0.9), None),
        (linear(10).shift(-3), 7),
        (linear(10).shift(5), 15),
        (linear(10).restarts(), None),
        (linear(10).restarts(3), 30),
        (linear(10).restarts(3, mult=2), 70),
        (linear(10).restarts(3, fit=True), 10),
        (piecewise((0, 7), (1, 0)), 7),
        (plateau(), None),
    ],
    ids=str,
)
def test_length(schedule: Schedule, length: int | None) -> None:
    assert schedule.length == length
    if length is not None:
        later = {schedule(t) for t in range(length, length + 50)}
        assert len(later) == 1, "it holds its value after its end"


def test_fractions() -> None:
    pending = warmup(0.05).then(cosine(0.95))
    assert not pending.resolved
    assert pending.resolve(10_000) == warmup(500).then(cosine(9500))
    assert warmup(500).then(cosine(0.9)).resolve(1000) == warmup(500).then(cosine(900))
    assert cosine(1) != cosine(1.0)
    assert cosine(1.0).resolve(70) == cosine(70)
    assert multistep((0.5, 0.75)).resolve(200) == multistep((100, 150))
    assert linear(0.5).shift(0.25).resolve(100) == linear(50).shift(25)
    uses: list[Callable[[], Any]] = [
        lambda: pending(0),
        lambda: pending.value(1.0, 0),
        lambda: pending.as_torch(sgd()),
    ]
    for use in uses:
        with pytest.raises(ValueError, match=r"fractions of a total; say which with \.resolve\(total\)"):
            use()
    with pytest.raises(ValueError, match=r"resolve\(total\)"):
        _ = pending.length
    with pytest.raises(ValueError, match="total is 0; allowed"):
        pending.resolve(0)
    with pytest.raises(ValueError, match=r"cannot be laid out over 10 steps.* every is 0"):
        step(0.001).resolve(10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: cosine(-1), r"cosine's steps is -1; allowed is a whole number of steps >= 0, or a fraction"),
        (lambda: cosine(1.5), "cosine's steps is 1.5"),
        (lambda: cosine(cast(Any, True)), "cosine's steps is True"),
        (lambda: cosine(cast(Any, "9")), "cosine's steps is '9'"),
        (lambda: cosine(10, math.nan), "cosine's end is nan; allowed is a finite number"),
        (lambda: constant(10**400), "constant's factor is 10+; allowed is a finite number"),
        (lambda: step(0), "step's every is 0; allowed is a whole number of steps >= 1"),
        (
            lambda: warmup(3, shape=cast(Any, "sine")),
            "warmup's shape is 'sine'; allowed is 'linear' or 'cosine' or '1-sqrt'",
        ),
        (lambda: multistep(()), "multistep's milestones"),
        (lambda: inverse_sqrt(0), "inverse_sqrt's warmup is 0"),
        (lambda: piecewise((0, 1), (1,)), "2 times and 1 values"),
        (lambda: piecewise((5, 5), (1, 2)), "each must be later"),
        (lambda: exponential(0.9).then(cosine(3)), r"never ends; say at which step the next begins"),
        (lambda: anneal(0, 1, 5).then(cosine(3)), "gives values and"),
        (lambda: anneal(0, 1, 5) * anneal(0, 1, 5), "both give values"),
        (lambda: one_cycle(9, rise=0.6, phases="three"), "rise is 0.6; with three phases allowed is <= 0.5"),
        (lambda: cosine(3).clip(2, 1), "clip's low is 2, above its high, 1"),
        (lambda: cosine(3).restarts(mult=2, fit=True), "cycles fit"),
        (lambda: cosine(0).restarts(), "no steps to repeat"),
        (lambda: plateau(1.0), "reduces nothing"),
        (lambda: warmup_stable_decay(1, 1, 1, fall=cast(Any, "x")), "fall is 'x'; allowed is 'linear'"),
        (lambda: lambda_(cast(Any, 3)), "lambda_'s function is 3; allowed is a function of t"),
    ],
)
def test_refuses_settings(make: Callable[[], Schedule], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_schedule_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        cosine(3).steps = 4  # pyright: ignore[reportAttributeAccessIssue]


def test_every_form_is_public_and_tested_here() -> None:
    forms = {name for name in schedules.__all__ if name[0].islower()} - {"plot", "parse", "from_json"}
    assert forms <= set(globals()), "a form that this file does not import has no test of its numbers"
