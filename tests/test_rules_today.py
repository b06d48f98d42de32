"""Today's rules, from AdaBelief to the rules that wrap rules, against their papers, by hand."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from cases import gradients, run, start
from thalweg.rule import Rule
from thalweg.rules import (
    ADOPT,
    MADGRAD,
    MARS,
    AdaBelief,
    Adan,
    AdEMAMix,
    Cautious,
    Grafted,
    Grams,
    LaProp,
    Lion,
    Lookahead,
    Momentum,
    RMSProp,
    ScheduleFree,
    StableAdamW,
    Tiger,
    Yogi,
)

Array = NDArray[np.float64]
LR = 0.1


def adabelief(x: Array, gs: Array, b1: float, b2: float, eps: float) -> Iterator[Array]:
    """Zhuang et al. 2020, Algorithm 2, with one ε inside s and beside its root."""
    m, s = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        s = b2 * s + (1 - b2) * (g - m) ** 2 + eps
        x = x - LR * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)
        yield x


def yogi(x: Array, gs: Array, b1: float, b2: float, first: float, eps: float) -> Iterator[Array]:
    """Zaheer et al. 2018, Algorithm 2, corrected for the bias and with the first values of its implementations."""
    m, v = np.full_like(x, first), np.full_like(x, first)
    for t, g in enumerate(gs, 1):
        m = b1 * m + (1 - b1) * g
        v = v - (1 - b2) * np.sign(v - g**2) * g**2
        x = x - LR * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


def adan(x: Array, gs: Array, b1: float, b2: float, b3: float, eps: float, decay: float) -> Iterator[Array]:
    """Xie et al. 2022, Algorithm 1, in the paper's β (one minus those of the code), corrected as in its code."""
    b1, b2, b3 = 1 - b1, 1 - b2, 1 - b3
    m, v, n, before = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), gs[0]
    for t, g in enumerate(gs, 1):
        m = (1 - b1) * m + b1 * g
        v = (1 - b2) * v + b2 * (g - before)
        n = (1 - b3) * n + b3 * (g + (1 - b2) * (g - before)) ** 2
        rate = LR / (np.sqrt(n / (1 - (1 - b3) ** t)) + eps)
        step = m / (1 - (1 - b1) ** t) + (1 - b2) * v / (1 - (1 - b2) ** t)
        x, before = (x - rate * step) / (1 + decay * LR), g
        yield x


def ademamix(x: Array, gs: Array, b1: float, b2: float, b3: float, alpha: float, warmup: float) -> Iterator[Array]:
    """Pagliardini et al. 2025, Algorithm 1; the half-lives ln ½ / ln β of the slow average grow linearly."""
    m1, m2, v = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        done = min(t / warmup, 1.0)
        life = (1 - done) * math.log(0.5) / math.log(b1) + done * math.log(0.5) / math.log(b3)
        slow = 0.5 ** (1 / life)
        m1, m2 = b1 * m1 + (1 - b1) * g, slow * m2 + (1 - slow) * g
        v = b2 * v + (1 - b2) * g**2
        x = x - LR * (m1 / (1 - b1**t) + done * alpha * m2) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
        yield x


def adopt(x: Array, gs: Array, b1: float, b2: float, eps: float, clip: Callable[[int], float]) -> Iterator[Array]:
    """Taniguchi et al. 2024, Algorithm 2: v₀ is the first gradient squared, and the steps begin with the second."""
    m, v = np.zeros_like(x), gs[0] ** 2
    yield x
    for t, g in enumerate(gs[1:], 1):
        m = b1 * m + (1 - b1) * np.clip(g / np.maximum(np.sqrt(v), eps), -clip(t), clip(t))
        x = x - LR * m
        v = b2 * v + (1 - b2) * g**2
        yield x


def laprop(x: Array, gs: Array, mu: float, nu: float, eps: float) -> Iterator[Array]:
    """Ziyin, Wang & Ueda 2020, Algorithm 1."""
    m, n = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        n = nu * n + (1 - nu) * g**2
        m = mu * m + (1 - mu) * g / (np.sqrt(n / (1 - nu**t)) + eps)
        x = x - LR * m / (1 - mu**t)
        yield x


def madgrad(x: Array, gs: Array, momentum: float, eps: float) -> Iterator[Array]:
    """Defazio & Jelassi 2021, Algorithm 1, with c = 1 − momentum and the rate η + ε of the authors' code."""
    x0, s, v = x, np.zeros_like(x), np.zeros_like(x)
    for k, g in enumerate(gs):
        weight = (LR + eps) * math.sqrt(k + 1)
        s, v = s + weight * g, v + weight * g * g
        z = x0 - s / (np.cbrt(v) + eps)
        x = momentum * x + (1 - momentum) * z
        yield x


def tiger(x: Array, gs: Array, beta: float) -> Iterator[Array]:
    """Su 2023, without weight decay."""
    m = np.zeros_like(x)
    for g in gs:
        m = beta * m + (1 - beta) * g
        x = x - LR * np.sign(m)
        yield x


def grams(x: Array, gs: Array, b1: float, b2: float, eps: float) -> Iterator[Array]:
    """Cao, Li & Song 2024, Algorithm 1."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        x = x - LR * np.abs(u) * np.sign(g)
        yield x


def schedule_free(x: Array, gs: Array, beta: float, warmup: float, r: float, decay: float) -> Iterator[Array]:
    """Defazio et al. 2024, Algorithm 1, around RMSProp with a decay of 0.9: AdamW."""
    z, v, total, highest = x, np.zeros_like(x), 0.0, 0.0
    for t, g in enumerate(gs, 1):
        v = 0.9 * v + 0.1 * g**2
        y = (1 - beta) * z + beta * x
        rate = LR * min(1.0, t / warmup)
        v_hat: Array = v / (1 - 0.9**t)
        z = z - rate * (g / (np.sqrt(v_hat) + 1e-8) + decay * y)
        highest = max(highest, rate)
        weight = t**r * highest**2
        total += weight
        x = (1 - weight / total) * x + weight / total * z
        yield x


def cautious_momentum(x: Array, gs: Array, scale: Callable[[Array], float]) -> Iterator[Array]:
    """Liang et al. 2024, Algorithm 1, around momentum."""
    m = np.zeros_like(x)
    for g in gs:
        m = 0.9 * m + g
        mask = (m * g > 0).astype(float)
        x = x - LR * m * mask * scale(mask)
        yield x


def lookahead(x: Array, gs: Array, k: int, alpha: float) -> Iterator[Array]:
    """Zhang et al. 2019, Algorithm 1, around momentum."""
    slow, m = x, np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m = 0.9 * m + g
        x = x - LR * m
        if t % k == 0:
            x = slow = slow + alpha * (x - slow)
        yield x


def grafted(x: Array, gs: Array) -> Iterator[Array]:
    """Agarwal et al. 2020: the direction of momentum, the length of the sign's step."""
    m = np.zeros_like(x)
    for g in gs:
        m = 0.9 * m + g
        x = x - LR * np.linalg.norm(np.sign(g)) * m / np.linalg.norm(m)
        yield x


def stable_adamw(x: Array, gs: Array, b1: float, b2: float, decay: float) -> Iterator[Array]:
    """Wortsman et al. 2023, Algorithm 2."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        c1, c2 = (float(b * (1 - b ** (t - 1)) / (1 - b**t)) for b in (b1, b2))
        m, v = c1 * m + (1 - c1) * g, c2 * v + (1 - c2) * g**2
        size: Array = g**2 / np.maximum(v, 1e-16)
        rate = LR / max(1.0, math.sqrt(size.mean()))
        x = x - rate * decay * x - rate * m / (np.sqrt(v) + 1e-8)
        yield x


def mars(x: Array, gs: Array, b1: float, b2: float, gamma: float, decay: float) -> Iterator[Array]:
    """Yuan et al. 2024, Algorithm 2."""
    m, v, before = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        c = g + gamma * b1 / (1 - b1) * (g - before)
        c, before = c / max(1.0, float(np.linalg.norm(c))), g
        m, v = b1 * m + (1 - b1) * c, b2 * v + (1 - b2) * c**2
        x = x - LR * (m / (1 - b1**t) / ((np.sqrt(v) + 1e-8) / math.sqrt(1 - b2**t)) + decay * x)
        yield x


MOMENTUM = Momentum(lr=LR)

PAPERS: list[tuple[Rule, Callable[[Array, Array], Iterator[Array]]]] = [
    (AdaBelief(lr=LR, beta2=0.9, eps=1e-3, eps_root=1e-3), lambda x, g: adabelief(x, g, 0.9, 0.9, 1e-3)),
    (Yogi(lr=LR, beta2=0.9, initial_accumulator=0.1), lambda x, g: yogi(x, g, 0.9, 0.9, 0.1, 1e-3)),
    (Adan(lr=LR, lambd=0.05), lambda x, g: adan(x, g, 0.98, 0.92, 0.99, 1e-8, 0.05)),
    *(
        (AdEMAMix(lr=LR, beta3=0.99, warmup=T), lambda x, g, T=T: ademamix(x, g, 0.9, 0.999, 0.99, 5.0, T))
        for T in (20.0, 100.0)
    ),
    (AdEMAMix(lr=LR, alpha=3.0), lambda x, g: ademamix(x, g, 0.9, 0.999, 0.9999, 3.0, 1.0)),
    (ADOPT(lr=LR, beta2=0.9), lambda x, g: adopt(x, g, 0.9, 0.9, 1e-6, lambda t: t**0.25)),
    (ADOPT(lr=LR, beta2=0.9, clip="current"), lambda x, g: adopt(x, g, 0.9, 0.9, 1e-6, lambda t: (t + 1) ** 0.25)),
    (ADOPT(lr=LR, eps=0.5, clip=False), lambda x, g: adopt(x, g, 0.9, 0.9999, 0.5, lambda _: math.inf)),
    (LaProp(lr=LR, eps=1e-3), lambda x, g: laprop(x, g, 0.9, 0.999, 1e-3)),
    (LaProp(lr=LR, eps=1e-3, form="velocity"), lambda x, g: laprop(x, g, 0.9, 0.999, 1e-3)),
    *(
        (MADGRAD(lr=LR, momentum=mu, eps=1e-3), lambda x, g, mu=mu: madgrad(x, g, mu or 0.0, 1e-3))
        for mu in (0.9, 0.0, None)
    ),
    *(
        (ScheduleFree(RMSProp(lr=LR, decay=0.9, bias_correction=True), beta=b, warmup=w, r=r, lambd=d),
         lambda x, g, b=b, w=w, r=r, d=d: schedule_free(x, g, b, w, r, d))
        for b, w, r, d in ((0.9, 10.0, 0.0, 0.0), (0.5, 1.0, 1.0, 0.1))
    ),
    (Cautious(MOMENTUM), lambda x, g: cautious_momentum(x, g, lambda mask: 1 / max(1e-3, mask.mean()))),
    (Cautious(MOMENTUM, scale="count"),
     lambda x, g: cautious_momentum(x, g, lambda mask: mask.size / (mask.sum() + 1))),
    (Lookahead(MOMENTUM, k=4, alpha=0.3), lambda x, g: lookahead(x, g, 4, 0.3)),
    (Grafted(MOMENTUM, Lion(lr=LR, beta1=0.0)), grafted),
    (StableAdamW(lr=LR, beta2=0.9, lambd=0.1), lambda x, g: stable_adamw(x, g, 0.9, 0.9, 0.1)),
    (MARS(lr=LR, beta2=0.9, lambd=0.1), lambda x, g: mars(x, g, 0.95, 0.9, 0.025, 0.1)),
    (Tiger(lr=LR), lambda x, g: tiger(x, g, 0.965)),
    (Grams(lr=LR, eps=1e-3), lambda x, g: grams(x, g, 0.9, 0.999, 1e-3)),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "paper"), [pytest.param(*c, id=str(c[0])) for c in PAPERS])
def test_as_the_paper(rule: Rule, paper: Callable[[Array, Array], Iterator[Array]]) -> None:
    gs = gradients(50)
    points, _ = run(rule, start(), gs)
    for ours, theirs in zip(points, paper(start().numpy(), gs.numpy()), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-11, atol=1e-14)


def test_without_epsilon_madgrad_takes_zero_over_zero_as_zero() -> None:
    gs = gradients(5)
    for momentum in (None, 0.5):
        plain, bounded = (run(MADGRAD(momentum=momentum, eps=e), start(), gs)[0][-1] for e in (None, 1e-12))
        assert plain[0] == start()[0], "the first coordinate has no gradient"
        np.testing.assert_allclose(plain, bounded, rtol=1e-9)


def test_a_rate_of_zero_moves_madgrad_only_where_asked() -> None:
    still, moved = (
        run(MADGRAD(lr=0.0, momentum=None, at_zero=at), start(), gradients(3))[0][-1] for at in ("stand", "moved")
    )
    assert (still == start()).all()
    assert (moved[1:] != start()[1:]).all()


def test_laprop_as_a_velocity_keeps_the_rate_of_each_step() -> None:
    g, rates = gradients(2)[:, 2:], (0.1, 0.01)
    rule = LaProp(beta1=0.5, eps=0.0, form="velocity")
    p, s = start()[2:], rule.init(start()[2:])
    for t, rate in enumerate(rates, 1):
        p, s = rule.replace(lr=rate).update(p, g[t - 1], s, t)
    v = 0.999 * 0.001 * g[0] ** 2 + 0.001 * g[1] ** 2
    u = g[0].sign(), g[1] / (v / (1 - 0.999**2)).sqrt()
    m = 0.5 * 0.5 * 0.1 * u[0] + 0.5 * 0.01 * u[1]
    # The average of the rates is 0.25·0.1 + 0.5·0.01; the momentum is divided by it over the rate of the step.
    expected = start()[2:] - 0.1 * u[0] - m / ((0.25 * 0.1 + 0.5 * 0.01) / 0.01)
    np.testing.assert_allclose(p, expected, rtol=1e-12)


def test_a_warmup_between_half_lives_needs_both() -> None:
    with pytest.raises(
        ValueError, match=r"AdEMAMix's beta1, beta3 are 0.0, 0.9999 with warmup=10.0.*allowed are numbers"
    ):
        AdEMAMix(beta1=0.0, warmup=10.0)
