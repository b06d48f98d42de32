"""Random compositions of schedules, for properties that hold of them all."""

from typing import Any

from hypothesis import strategies as st

from thalweg.schedules import (
    Schedule,
    anneal,
    constant,
    cosine,
    cosine_restarts,
    cyclic,
    exponential,
    inverse_sqrt,
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

TOTAL = 200

number = st.floats(-3, 3)
share = st.floats(0, 1)
lengths = st.integers(0, 60) | st.floats(0.001, 1)
periods = st.integers(1, 60) | st.floats(0.01, 1)
shapes = st.sampled_from(["linear", "cosine", "1-sqrt"])
curves = st.sampled_from(["linear", "cosine"])
increasing = st.lists(st.integers(0, 150), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)
decays: st.SearchStrategy[Any] = st.one_of(
    st.builds(linear, periods, number),
    st.builds(cosine, periods, number, st.floats(0.1, 3), st.floats(0.2, 3)),
    st.builds(polynomial, periods, number, st.floats(0.1, 3), st.floats(0.2, 3)),
    st.builds(tanh, periods, number, number, number),
)
factors: st.SearchStrategy[Schedule] = st.one_of(
    decays,
    st.builds(constant, number, st.none() | lengths),
    st.builds(step, periods, share),
    st.builds(multistep, increasing, share),
    st.builds(exponential, share, periods),
    st.builds(inverse_sqrt, periods, st.none() | periods),
    st.builds(warmup, lengths, number, shapes),
    st.builds(one_cycle, periods, share, number, number, number, curves, st.just("two")),
    st.builds(one_cycle, periods, st.floats(0, 0.5), number, number, number, curves, st.just("three")),
    st.builds(
        cyclic,
        periods,
        st.none() | periods,
        number,
        number,
        st.sampled_from(["triangular", "triangular2", "exp_range"]),
        share,
    ),
    increasing.flatmap(
        lambda times: st.builds(
            piecewise,
            st.just(times),
            st.lists(number, min_size=len(times), max_size=len(times)),
            st.sampled_from(["linear", "cosine", "constant"]),
        )
    ),
    st.builds(warmup_stable_decay, lengths, lengths, periods, rise=shapes, fall=shapes, end=number),
    st.builds(cosine_restarts, periods, st.floats(1, 3), number, share, st.none() | st.integers(1, 4)),
    decays.flatmap(lambda d: st.builds(d.restarts, st.integers(1, 5), fit=st.just(True))),
)


def follow(a: Schedule, b: Schedule, at: float) -> Schedule:
    return a.then(b, at) if a.span(0) is None else a.then(b)


def clipped(a: Schedule, low: float, by: float) -> Schedule:
    return a.clip(low, low + by)


def times(a: Schedule, b: Schedule | float) -> Schedule:
    return a * b


def composed(parts: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    return st.one_of(
        st.builds(Schedule.then, parts, parts, periods),
        st.builds(follow, parts, parts, periods),
        st.builds(Schedule.shift, parts, st.integers(-50, 50) | st.floats(-1, -0.01) | st.floats(0.01, 1)),
        st.builds(clipped, parts, number, share),
        st.builds(times, parts, number),
    )


def multiplied(parts: st.SearchStrategy[Schedule]) -> st.SearchStrategy[Schedule]:
    return composed(parts) | st.builds(times, parts, parts)


random_factors = st.recursive(factors, multiplied, max_leaves=6)
random_values = st.recursive(st.builds(anneal, number, number, lengths, shapes), composed, max_leaves=4)
random_schedules: st.SearchStrategy[Schedule] = st.one_of(random_factors, random_values)
random_plateaus = st.builds(
    plateau,
    st.sampled_from([0.0, 0.1, 0.5]),
    st.integers(0, 4),
    st.sampled_from(["min", "max"]),
    st.floats(0, 0.2),
    st.sampled_from(["rel", "abs"]),
    st.integers(0, 4),
    st.sampled_from([0.0, 0.05]),
    st.sampled_from([0.0, 0.01]),
)


def curve(schedule: Schedule) -> list[float]:
    resolved = schedule.resolve(TOTAL)
    return [resolved(t) for t in range(TOTAL + 20)]
