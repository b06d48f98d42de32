"""Every rule against outside numbers: torch.optim, transcriptions of the papers, trajectories of Keras and optax."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from cases import ALL, EVERY, RULES, STABLE, gradients, run, start
from thalweg import plan, rules, trace
from thalweg.fields import number_fields
from thalweg.rule import ABSENT, Rule
from thalweg.rules import (
    ADOPT,
    ASGD,
    MARS,
    QHM,
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdEMAMix,
    LaProp,
    Lion,
    Momentum,
    QHAdam,
    RAdam,
    RMSProp,
    Rprop,
    Tiger,
)

STEPS = 50
Array = NDArray[np.float64]


def grid(**axes: tuple[Any, ...]) -> Iterator[dict[str, Any]]:
    """Every combination."""
    for chosen in itertools.product(*axes.values()):
        yield dict(zip(axes, chosen, strict=True))


# ---------------------------------------------------------------------------------------------------- torch.optim

BETAS = ((0.9, 0.999), (0.5, 0.9), (0.0, 0.99))


def torch_cases() -> Iterator[tuple[str, Rule, dict[str, Any]]]:
    """A torch optimizer, our rule, and torch's arguments."""
    for k in grid(lr=(0.1, 3.0)):
        yield "SGD", SGD(**k), k
    for k in grid(lr=(0.1,), momentum=(0.5, 0.9), dampening=(0.0, 0.1, 1.0)):
        yield "SGD", Momentum(**k), k
    for k in grid(lr=(0.1,), momentum=(0.5, 0.9), nesterov=(True,)):
        yield "SGD", Momentum(lr=k["lr"], momentum=k["momentum"], nesterov="correction"), k
    for k in grid(lr=(0.1,), lr_decay=(0.0, 0.1), initial_accumulator_value=(0.0, 0.1), eps=(1e-10, 1e-2)):
        ours = {n: v for n, v in k.items() if n != "initial_accumulator_value"}
        yield "Adagrad", Adagrad(**ours, initial_accumulator=k["initial_accumulator_value"]), k
    for k in grid(lr=(0.1,), alpha=(0.9, 0.99), eps=(1e-8, 1e-2), centered=(False, True), momentum=(0, 0.9)):
        ours = RMSProp(lr=0.1, decay=k["alpha"], eps=k["eps"], centered=k["centered"], momentum=k["momentum"] or None)
        yield "RMSprop", ours, k
    for k in grid(lr=(0.1,), betas=BETAS, eps=(1e-8, 1e-2), amsgrad=(False, True)):
        ours = Adam(lr=0.1, beta1=k["betas"][0], beta2=k["betas"][1], eps=k["eps"], amsgrad=k["amsgrad"])
        yield "Adam", ours, k
        yield "AdamW", ours, {**k, "weight_decay": 0.0}
    for k in grid(lr=(0.1,), betas=BETAS, eps=(1e-8, 1e-2), momentum_decay=(4e-3, 0.5)):
        b1, b2 = k["betas"]
        decay = k["momentum_decay"]
        yield "NAdam", Adam(lr=0.1, beta1=b1, beta2=b2, eps=k["eps"], nesterov="scheduled", momentum_decay=decay), k
    for k in grid(lr=(0.1,), betas=(*BETAS, (0.9, 0.6), (0.9, 0.0)), eps=(1e-8, 1e-2)):
        yield "RAdam", RAdam(lr=0.1, beta1=k["betas"][0], beta2=k["betas"][1], eps=k["eps"], eps_at="uncorrected"), k
    for k in grid(lr=(0.1,), betas=BETAS, eps=(1e-8, 1e-2)):
        yield "Adamax", Adamax(lr=0.1, beta1=k["betas"][0], beta2=k["betas"][1], eps=k["eps"]), k
    for k in grid(lr=(1.0, 0.1), rho=(0.9, 0.99), eps=(1e-6, 1e-2)):
        yield "Adadelta", Adadelta(lr=k["lr"], decay=k["rho"], eps=k["eps"]), k
    for k in grid(lr=(0.1,), lambd=(1e-4, 0.1), alpha=(0.75, 1.0), t0=(1e6, 10.0)):
        yield "ASGD", ASGD(**k), k
    for k in grid(lr=(0.1,), etas=((0.5, 1.2), (0.3, 2.0)), step_sizes=((1e-6, 50), (0.05, 0.2))):
        (minus, plus), (low, high) = k["etas"], k["step_sizes"]
        yield "Rprop", Rprop(lr=0.1, eta_minus=minus, eta_plus=plus, step_min=low, step_max=high), k


@pytest.fixture
def torch_in_float64() -> Iterator[None]:
    # torch stores NAdam's product of momenta and ASGD's rates in the default type.
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("torch_in_float64")
@pytest.mark.parametrize(("name", "rule", "theirs"), [pytest.param(*c, id=f"{c[0]}-{c[1]}") for c in torch_cases()])
def test_as_torch(name: str, rule: Rule, theirs: dict[str, Any]) -> None:
    p = torch.nn.Parameter(start())
    opt = getattr(torch.optim, name)([p], **theirs)
    point, state = start(), rule.init(start())
    for t, g in enumerate(gradients(STEPS), 1):
        p.grad = g.clone()
        opt.step()
        point, state = rule.update(point, g, state, t)
        torch.testing.assert_close(point, p.detach(), rtol=1e-12, atol=1e-15)
    kept = opt.state[p]
    for field in state._fields:
        # torch's state has the same names.
        ours = getattr(state, field)
        if ours is not ABSENT and field in kept:
            torch.testing.assert_close(torch.as_tensor(ours), kept[field], rtol=1e-12, atol=1e-15)
    shared = {f for f in state._fields if getattr(state, f) is not ABSENT} & set(kept)
    assert shared == {f for f in state._fields if getattr(state, f) is not ABSENT}


# ----------------------------------------------------------------------------- the papers, written out by hand again


def lion(x: Array, gs: Array, lr: float, b1: float, b2: float) -> Iterator[Array]:
    """Chen et al. 2023, Program 1, without weight decay."""
    m = np.zeros_like(x)
    for g in gs:
        c = b1 * m + (1 - b1) * g
        x = x - lr * np.sign(c)
        m = b2 * m + (1 - b2) * g
        yield x


def qhm(x: Array, gs: Array, lr: float, beta: float, nu: float) -> Iterator[Array]:
    """Ma & Yarats 2019, equation 3."""
    buffer = np.zeros_like(x)
    for g in gs:
        buffer = beta * buffer + (1 - beta) * g
        x = x - lr * ((1 - nu) * g + nu * buffer)
        yield x


def qhadam(x: Array, gs: Array, lr: float, b1: float, b2: float, n1: float, n2: float, eps: float) -> Iterator[Array]:
    """Ma & Yarats 2019, section 4.1."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
        x = x - lr * ((1 - n1) * g + n1 * m_hat) / (np.sqrt((1 - n2) * g**2 + n2 * v_hat) + eps)
        yield x


def radam(x: Array, gs: Array, lr: float, b1: float, b2: float, eps: float) -> Iterator[Array]:
    """Liu et al. 2020, Algorithm 2, rectified from 5 on, as its code and torch's have it."""
    m, v, limit = np.zeros_like(x), np.zeros_like(x), 2 / (1 - b2) - 1
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        step = m / (1 - b1**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho))
            step = r * step / (np.sqrt(v / (1 - b2**t)) + eps)
        x = x - lr * step
        yield x


def adam(x: Array, gs: Array, lr: float, eps: float, form: str) -> Iterator[Array]:
    """Goodfellow et al. 2016, Algorithm 8.7, and its forms in lecture notes, with β₁ = 0.9 and β₂ = 0.999."""
    s, r = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        s, r = 0.9 * s + (1 - 0.9) * g, 0.999 * r + (1 - 0.999) * g**2
        s_hat, r_hat = s / (1 - 0.9**t), r / (1 - 0.999**t)
        yield (x := x - lr * {
            "outside": lambda s=s_hat, r=r_hat: s / (np.sqrt(r) + eps),
            "inside": lambda s=s_hat, r=r_hat: s / np.sqrt(r + eps),
            "uncorrected": lambda s=s, r=r, t=t: math.sqrt(1 - 0.999**t) / (1 - 0.9**t) * s / (np.sqrt(r) + eps),
            "no correction": lambda s=s, r=r: s / (np.sqrt(r) + eps),
        }[form]())  # fmt: skip


def averaged(x: Array, gs: Array, lr: float, mu: float) -> Iterator[Array]:
    """Momentum as an average of gradients, as Ng's lectures have it."""
    v = np.zeros_like(x)
    for g in gs:
        v = mu * v + (1 - mu) * g
        x = x - lr * v
        yield x


def book_momentum(x: Array, gs: Array, lr: float, mu: float) -> Iterator[Array]:
    """Goodfellow et al. 2016, Algorithm 8.2 (and 8.3 for gradients that are given)."""
    v = np.zeros_like(x)
    for g in gs:
        v = mu * v - lr * g
        x = x + v
        yield x


def sutskever(x: Array, gs: Array, lr: float, mu: float) -> Iterator[Array]:
    """Sutskever et al. 2013, equations 3 and 4, in the variable θ + μv where the gradients are taken (Bengio 2012)."""
    v = np.zeros_like(x)
    for g in gs:
        theta = x - mu * v
        v = mu * v - lr * g
        x = theta + v + mu * v
        yield x


def book_rmsprop_nesterov(x: Array, gs: Array, lr: float, rho: float, mu: float) -> Iterator[Array]:
    """Goodfellow et al. 2016, Algorithm 8.6; 0/0 is 0."""
    r, v = np.zeros_like(x), np.zeros_like(x)
    for g in gs:
        r = rho * r + (1 - rho) * g**2
        v = mu * v - np.divide(lr * g, np.sqrt(r), out=np.zeros_like(g), where=r > 0)
        x = x + v
        yield x


def optax_nadam(x: Array, gs: Array, lr: float, b1: float, b2: float, eps: float) -> Iterator[Array]:
    """Dozat 2016 with a constant momentum."""
    m, v = np.zeros_like(x), np.zeros_like(x)
    for t, g in enumerate(gs, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        first = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        x = x - lr * first / (np.sqrt(v / (1 - b2**t)) + eps)
        yield x


PAPERS: list[tuple[Rule, Callable[[Array, Array], Iterator[Array]]]] = [
    *(
        (Lion(lr=0.1, beta1=a, beta2=b), lambda x, g, a=a, b=b: lion(x, g, 0.1, a, b))
        for a, b in [(0.9, 0.99), (0, 0.5)]
    ),
    *(
        (QHM(lr=0.1, momentum=a, nu=b), lambda x, g, a=a, b=b: qhm(x, g, 0.1, a, b))
        for a, b in [(0.99, 0.7), (0.5, 0), (0.9, 1)]
    ),
    *(
        (QHAdam(lr=0.1, nu1=a, nu2=b, eps=1e-3), lambda x, g, a=a, b=b: qhadam(x, g, 0.1, 0.995, 0.999, a, b, 1e-3))
        for a, b in [(0.7, 1), (0.7, 0.5), (0, 0), (1, 1)]
    ),
    *(
        (RAdam(lr=0.1, beta2=b, eps=1e-3), lambda x, g, b=b: radam(x, g, 0.1, 0.9, b, 1e-3))
        for b in (0.999, 0.9, 0.7)
    ),
    *(
        (Adam(lr=0.1, eps=1e-3, eps_at=at), lambda x, g, at=at: adam(x, g, 0.1, 1e-3, at))
        for at in ("outside", "inside", "uncorrected")
    ),
    (Adam(lr=0.1, eps=1e-3, bias_correction=False), lambda x, g: adam(x, g, 0.1, 1e-3, "no correction")),
    (Adam(lr=0.1, nesterov="constant"), lambda x, g: optax_nadam(x, g, 0.1, 0.9, 0.999, 1e-8)),
    (Momentum(lr=0.1, form="averaged"), lambda x, g: averaged(x, g, 0.1, 0.9)),
    (Momentum(lr=0.1, form="velocity"), lambda x, g: book_momentum(x, g, 0.1, 0.9)),
    (Momentum(lr=0.1, form="velocity", nesterov="lookahead"), lambda x, g: book_momentum(x, g, 0.1, 0.9)),
    (Momentum(lr=0.1, form="velocity", nesterov="correction"), lambda x, g: sutskever(x, g, 0.1, 0.9)),
    (Momentum(lr=0.1, form="averaged", nesterov="correction"), lambda x, g: sutskever(x, g, 0.1 * (1 - 0.9), 0.9)),
    (rules.parse("rmsprop_nesterov(lr=0.1)"), lambda x, g: book_rmsprop_nesterov(x, g, 0.1, 0.9, 0.9)),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "paper"), [pytest.param(*c, id=str(c[0])) for c in PAPERS])
def test_as_the_paper(rule: Rule, paper: Callable[[Array, Array], Iterator[Array]]) -> None:
    gs = gradients(STEPS)
    points, _ = run(rule, start(), gs)
    for ours, theirs in zip(points, paper(start().numpy(), gs.numpy()), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-15)


# -------------------------------------------------------------------------------------------------- Keras and optax

Settings = dict[str, Any]


def _momentum(k: Settings, form: str) -> Rule:
    nesterov = "correction" if k.get("nesterov") else False
    return rules.named("momentum", momentum=k["momentum"], form=form, nesterov=nesterov) if "momentum" in k else SGD()


KERAS: dict[str, Callable[[Settings], Rule]] = {
    "SGD": lambda k: _momentum(k, "velocity"),
    "RMSprop": lambda k: RMSProp(
        decay=k.get("rho", 0.9), momentum=k.get("momentum"), eps=k.get("epsilon", 1e-7),
        centered=k.get("centered", False), eps_at="inside", momentum_form="velocity",
    ),
    "Adagrad": lambda k: Adagrad(
        initial_accumulator=k.get("initial_accumulator_value", 0.1), eps=k.get("epsilon", 1e-7), eps_at="inside"
    ),
    "Adam": lambda k: Adam(eps=k.get("epsilon", 1e-7), amsgrad=k.get("amsgrad", False), eps_at="uncorrected"),
    "Nadam": lambda _: Adam(eps=1e-7, nesterov="scheduled", momentum_decay=1.0),
    "Adamax": lambda _: Adamax(eps=1e-7, eps_at="outside"),
    "Adadelta": lambda _: Adadelta(decay=0.95, eps=1e-7),
    "Lion": lambda _: Lion(),
}  # fmt: skip
OPTAX: dict[str, Callable[[Settings], Rule]] = {
    "sgd": lambda k: _momentum(k, "accumulated"),
    "rmsprop": lambda k: RMSProp(
        decay=k.get("decay", 0.9), momentum=k.get("momentum"), eps=k.get("eps", 1e-8),
        eps_at="inside" if k.get("eps_in_sqrt", True) else "outside", centered=k.get("centered", False),
        bias_correction=k.get("bias_correction", False), initial_accumulator=k.get("initial_scale", 0.0),
        momentum_form="velocity", nesterov="correction" if k.get("nesterov") else False,
    ),
    "adagrad": lambda k: Adagrad(
        initial_accumulator=k.get("initial_accumulator_value", 0.1), eps=k.get("eps", 1e-7), eps_at="inside"
    ),
    "adam": lambda k: Adam(
        eps=k.get("eps", 1e-8), eps_root=k.get("eps_root"), nesterov="constant" if k.get("nesterov") else False
    ),
    "radam": lambda _: RAdam(),
    "adamax": lambda _: Adamax(),
    "adadelta": lambda _: Adadelta(),
    "lion": lambda _: Lion(),
    "amsgrad": lambda _: Adam(amsgrad="corrected"),
}  # fmt: skip


def golden(framework: str) -> list[Any]:
    path = Path(__file__).resolve().parents[2] / "shared" / "golden" / f"{framework}.json"
    if not path.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(reason="there is no ../shared/golden beside the repository"))]
    cases = json.loads(path.read_text())["cases"]
    return [pytest.param(c, id=f"{c['optimizer']}-{c['kwargs']}-{c['lr_kind']}") for c in cases]


def follow(rule: Rule, case: dict[str, Any], close: float, decay: float = 0.0) -> None:
    p = torch.tensor(case["start"], dtype=torch.float64)
    state = rule.init(p)
    for t, (lr, g, expected) in enumerate(zip(case["lr"], case["gradients"], case["parameters"], strict=True), 1):
        p, state = rule.replace(lr=lr).update(p * (1 - lr * decay), torch.tensor(g, dtype=torch.float64), state, t)
        torch.testing.assert_close(p, torch.tensor(expected, dtype=torch.float64), rtol=close, atol=0)


@pytest.mark.parametrize("case", golden("keras"))
def test_as_keras(case: dict[str, Any]) -> None:
    follow(KERAS[case["optimizer"]](case["kwargs"]), case, 1e-9)


@pytest.mark.parametrize("case", golden("optax"))
def test_as_optax(case: dict[str, Any]) -> None:
    # optax's lion has weight decay by default.
    follow(OPTAX[case["optimizer"]](case["kwargs"]), case, 1e-12, decay=1e-3 if case["optimizer"] == "lion" else 0.0)


# ------------------------------------------------------------------------------------------ what every rule promises

each = pytest.mark.parametrize("rule", ALL, ids=str)
each_stable = pytest.mark.parametrize("rule", STABLE, ids=str)


def test_every_rule_is_tried_with_every_option() -> None:
    assert {type(rule) for rule in EVERY} == set(RULES.values())
    assert {"Adam", "Momentum", "RMSProp", "Rprop"} <= RULES.keys()
    assert RULES.keys() < set(rules.__all__) == set(dir(rules))
    assert len(EVERY) == len(set(EVERY)) > 100


@each_stable
def test_an_update_changes_nothing_that_it_was_given(rule: Rule) -> None:
    p, g = start(), gradients(3)
    _, state = run(rule, p, g[:2])
    before = [x.clone() for x in (p, g, *state) if isinstance(x, Tensor)]
    rule.update(p, g[2], state, 3)
    after = [x for x in (p, g, *state) if isinstance(x, Tensor)]
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


@each
def test_shapes_types_and_names_are_kept(rule: Rule) -> None:
    for p in (torch.ones(2, 3, dtype=torch.float64), torch.ones((), dtype=torch.float32), torch.empty(0)):
        new, state = rule.update(p, torch.ones_like(p), rule.init(p), 1)
        assert type(state) is rule.State
        numbers = number_fields(rule.State)
        for x in [new, *(getattr(state, f) for f in state._fields if f not in numbers)]:
            assert x is ABSENT or (x.shape, x.dtype) == (p.shape, p.dtype)
        # What a tensor is summed up to is a tensor of one number.
        kinds = float | Tensor | None if sums_up(rule) else float | None
        assert all(isinstance(x, kinds) and getattr(x, "ndim", 0) == 0 for x in (getattr(state, f) for f in numbers))


def sums_up(rule: Rule) -> bool:
    """Whether elements bear on each other."""
    return len(plan.passes(trace.rule(rule))) > 1


@each_stable
def test_floats_give_what_tensors_give(rule: Rule) -> None:
    gs = gradients(12)
    together, _ = run(rule, start(), gs)
    for i in range(gs.shape[1]):
        floats, _ = run(rule, start()[i].item(), gs[:, i].tolist())
        # Where a rule sums up, a float is a tensor of one element.
        tensors = run(rule, start()[i : i + 1], gs[:, i : i + 1])[0] if sums_up(rule) else [p[i] for p in together]
        np.testing.assert_allclose(floats, [float(p) for p in tensors], rtol=1e-13, atol=1e-15)


@each_stable
def test_a_population_is_its_members(rule: Rule) -> None:
    # vmap over three runs with different rates.
    rates = torch.tensor([0.1, 0.01, 1.0], dtype=torch.float64)
    p, gs = torch.stack([start(seed=i) for i in range(3)]), torch.stack([gradients(6, seed=i) for i in range(3)])

    def steps(p: Tensor, gs: Tensor, lr: Tensor) -> Tensor:
        return run(rule.bind({"lr": lr}), p, gs)[0][-1]

    together = torch.func.vmap(steps)(p, gs, rates)
    for i, lr in enumerate((0.1, 0.01, 1.0)):
        alone = run(rule.replace(lr=lr), p[i], gs[i])[0][-1]
        torch.testing.assert_close(together[i], alone, rtol=1e-13, atol=1e-15)


@each_stable
def test_an_update_can_be_differentiated(rule: Rule) -> None:
    g = gradients(3)[:, 2:].requires_grad_()  # without zeros, where roots have no derivative
    p = start()[2:].requires_grad_()

    def last(p: Tensor, g: Tensor) -> Tensor:
        return run(rule, p, g)[0][-1]

    # The derivative of a sign is 0; gradcheck compares all others with differences.
    assert torch.autograd.gradcheck(last, (p, g), eps=1e-7, atol=1e-5, rtol=1e-4)


@settings(max_examples=30)
@given(
    scale=st.floats(1e-3, 1e3),
    seed=st.integers(0, 1000),
    name=st.sampled_from(["adam(eps=0)", "rmsprop(eps=0)", "adagrad(eps=0)", "adamax(eps=0)", "lion", "rprop"]),
)
def test_adaptive_steps_do_not_depend_on_the_scale_of_the_loss(scale: float, seed: int, name: str) -> None:
    rule, p, gs = rules.parse(name), start()[2:], gradients(10, seed=seed)[:, 2:]
    here, there = run(rule, p, gs)[0][-1], run(rule, p, scale * gs)[0][-1]
    torch.testing.assert_close(here, there, rtol=1e-9, atol=1e-12)


@settings(max_examples=30)
@given(lr=st.floats(1e-3, 1), momentum=st.floats(0, 0.99), seed=st.integers(0, 1000))
def test_forms_of_momentum_agree_at_a_constant_rate(lr: float, momentum: float, seed: int) -> None:
    gs, size = gradients(10, seed=seed), dict[str, Any](momentum=momentum)
    for nesterov in (False, "correction"):
        expected = run(Momentum(lr=lr, nesterov=nesterov, **size), start(), gs)[0][-1]
        for other in (
            Momentum(lr=lr, form="velocity", nesterov=nesterov, **size),
            Momentum(lr=lr / (1 - momentum), form="averaged", nesterov=nesterov, **size),
        ):
            torch.testing.assert_close(run(other, start(), gs)[0][-1], expected, rtol=1e-9, atol=1e-12)
    none = run(SGD(lr=lr), start(), gs)[0][-1]
    torch.testing.assert_close(run(Momentum(lr=lr, momentum=0.0), start(), gs)[0][-1], none, rtol=1e-13, atol=0)
    torch.testing.assert_close(run(QHM(lr=lr, nu=0.0, **size), start(), gs)[0][-1], none, rtol=1e-12, atol=1e-15)


@each
def test_a_nan_in_the_gradient_shows_in_the_result(rule: Rule) -> None:
    p, g = start(), gradients(1)[0]
    g[3] = math.nan
    new, state = rule.update(p, g, rule.init(p), 1)
    shows = new
    while rule.bases.keys() == {"rule"}:  # what these wrappers sum up are counts
        (rule,) = rule.bases.values()
    # The sign of nan is 0, so the parameter stays and its state becomes nan; so does ADOPT's, which first steps later.
    if isinstance(rule, Lion | Rprop | Tiger | ADOPT) and not (isinstance(rule, ADOPT) and rule.stable):
        assert new[3] == p[3]
        shows = state[1 if isinstance(rule, ADOPT) else 0]
    # Counts are all that these sum up where they are cautious.
    counts = (isinstance(rule, AdEMAMix) and rule.cautious and not rule.stable) or (
        isinstance(rule, LaProp) and rule.cautious
    )
    counts = counts or (isinstance(rule, MARS) and rule.form == "none")
    assert shows.isnan().tolist() == [sums_up(rule) and not counts] * 3 + [True] + [sums_up(rule) and not counts] * 3
