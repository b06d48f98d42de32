"""The stages around a rule: clipping, decay, averages and lookahead against other code and by hand."""

import math
from typing import Any

import pytest
import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import thalweg
from cases import ALL, BACKENDS, LOOKAHEAD, close, drive, gradients, model, optimizer, parameter, run, same, start
from thalweg.optimizer import Nonfinite
from thalweg.rule import Rule
from thalweg.rules import SGD, Adam, Lion, Momentum

backends = pytest.mark.parametrize("backend", BACKENDS)


# ------------------------------------------------------------------------------------------------------------- clipping


def give(ours: list[torch.nn.Parameter], theirs: list[torch.nn.Parameter], step: int) -> None:
    """Set random gradients, the same for both."""
    generator = torch.Generator().manual_seed(step)
    for p, q in zip(ours, theirs, strict=True):
        p.grad = torch.randn(p.shape, dtype=torch.float64, generator=generator)
        q.grad = p.grad.clone()


@backends
@pytest.mark.parametrize("limit", [1e-3, 1.0, 1e3])
def test_clipping_by_norm_is_torchs(limit: float, backend: str) -> None:
    ours, theirs = model(), model()
    opt = thalweg.Optimizer(
        [{"params": ours[:2]}, {"params": ours[2:]}], SGD(lr=1.0), clip_norm=limit, weight_decay=0.1, backend=backend
    )
    other = torch.optim.SGD(theirs, lr=1.0, weight_decay=0.1)
    for step in range(5):
        give(ours, theirs, step)
        ours[3].grad = theirs[3].grad = None
        clip_grad_norm_(theirs, limit)
        opt.step()
        other.step()
        same(ours, theirs)


@backends
@pytest.mark.parametrize("limit", [0.1, 1.0])
@pytest.mark.parametrize("norm", [None, 0.5])
def test_clipping_by_value_is_torchs_and_comes_first(limit: float, norm: float | None, backend: str) -> None:
    ours, theirs = model(), model()
    opt = optimizer(ours, Momentum(lr=1.0), backend, clip_value=limit, clip_norm=norm, weight_decay=0.1)
    other = torch.optim.SGD(theirs, lr=1.0, momentum=0.9, weight_decay=0.1)
    for step in range(5):
        give(ours, theirs, step)
        clip_grad_value_(theirs, limit)
        if norm is not None:
            clip_grad_norm_(theirs, norm)
        opt.step()
        other.step()
        same(ours, theirs)


@backends
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_clipping_nonfinite_gradients_is_torchs(wrong: float, backend: str) -> None:
    ours, theirs = model(), model()
    opt, other = optimizer(ours, SGD(lr=1.0), backend, clip_norm=0.5), torch.optim.SGD(theirs, lr=1.0)
    for params in (ours, theirs):
        for p in params:
            p.grad = torch.ones_like(p)
        grad = params[1].grad
        assert grad is not None
        grad[0] = wrong
    clip_grad_norm_(theirs, 0.5)
    opt.step()
    other.step()
    close([p.detach() for p in ours], [p.detach() for p in theirs], equal_nan=True)


# --------------------------------------------------------------------------------------------------------- weight decay


@backends
@pytest.mark.parametrize(("form", "name"), [("l2", "Adam"), ("scaled", "AdamW")])
@pytest.mark.parametrize("maximize", [False, True])
def test_decay_as_torch(form: str, name: str, maximize: bool, backend: str) -> None:
    p, q = parameter(), parameter()
    opt = optimizer(p, Adam(lr=0.1), backend, weight_decay=0.3, decay_form=form, maximize=maximize)
    other = getattr(torch.optim, name)([q], lr=0.1, weight_decay=0.3, maximize=maximize)
    for t, g in enumerate(gradients(10)):
        for o in (opt, other):
            o.param_groups[0]["lr"] = 0.1 / (t + 1)
        p.grad, q.grad = g.clone(), g.clone()
        opt.step()
        other.step()
    same([p], [q])


@backends
@pytest.mark.parametrize(
    "rule", [Adam(lr=0.1), SGD(lr=0.1), Lion(lr=0.1), Momentum(lr=0.1, nesterov="correction")], ids=str
)
@pytest.mark.parametrize("form", ["l2", "scaled", "independent"])
def test_decay_is_the_same_around_every_rule(rule: Rule, form: str, backend: str) -> None:
    # By hand, with λ = 0.3, η₀ = 0.1 and a decreasing rate.
    p = parameter()
    opt = optimizer(p, rule, backend, weight_decay=0.3, decay_form=form)
    theta, state = start(), rule.init(start())
    for t, g in enumerate(gradients(8), 1):
        lr = 0.1 / t
        opt.param_groups[0]["lr"] = lr
        p.grad = g.clone()
        opt.step()
        if form == "l2":
            g = g + 0.3 * theta
        elif form == "scaled":
            theta = theta - lr * 0.3 * theta
        else:
            theta = theta - 0.3 * (lr / 0.1) * theta
        theta, state = rule.replace(lr=lr).update(theta, g, state, t)
        close(p.detach(), theta)


@backends
def test_independent_decay_does_not_depend_on_the_rate(backend: str) -> None:
    # Without gradients, the weights shrink by the factor 1 − λ per step, at any learning rate.
    for lr in (1e-3, 1.0):
        p = parameter()
        opt = optimizer(p, SGD(lr=lr), backend, weight_decay=0.1, decay_form="independent")
        for _ in range(3):
            p.grad = torch.zeros_like(p)
            opt.step()
        close(p.detach(), start() * 0.9**3)


@backends
def test_decay_with_lookahead_applies_to_theta(backend: str) -> None:
    rule = Momentum(lr=0.1, form="velocity", nesterov="lookahead")
    p = parameter()
    opt = optimizer(p, rule, backend, weight_decay=0.3, decay_form="scaled")
    theta, v = start(), torch.zeros(7, dtype=torch.float64)
    for g in gradients(5):
        p.grad = g.clone()
        opt.step()
        v = 0.9 * v - 0.1 * g
        theta = theta * (1 - 0.1 * 0.3) + v
        close(p.detach(), theta + 0.9 * v)


# --------------------------------------------------------------------------------------------------- what is not finite


def stepped(opt: thalweg.Optimizer) -> str:
    """The state of all parameters that have been stepped, as text."""
    return str({k: v for k, v in opt.state_dict()["state"].items() if v and v["step"] > 0})


@backends
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("settings", [{}, {"clip_norm": 1.0}, {"ema": 0.9}], ids=str)
@pytest.mark.parametrize("nonfinite", ["skip", "raise"])
def test_a_gradient_that_is_not_finite_changes_nothing(
    nonfinite: Nonfinite, settings: dict[str, Any], wrong: float, backend: str
) -> None:
    a, b = parameter(), parameter(start(3))
    opt = thalweg.Optimizer(
        [("first", a), ("second", b)],
        Adam(),
        nonfinite=nonfinite,
        backend=backend,
        **settings,
    )
    for taken in range(2):  # before the first step, and after it
        before = stepped(opt), a.detach().clone(), b.detach().clone()
        a.grad, b.grad = torch.ones_like(a), torch.tensor([1, wrong, 1], dtype=torch.float64)
        if nonfinite == "raise":
            with pytest.raises(RuntimeError, match="'second' is not finite; nothing was changed"):
                opt.step()
            assert opt.skipped_steps == 0
        else:
            opt.step()
            assert opt.skipped_steps == taken + 1
        assert before[0] == stepped(opt)
        assert torch.equal(a, before[1])
        assert torch.equal(b, before[2])
        b.grad = torch.ones_like(b)
        opt.step()
        assert not torch.equal(b, before[2])


@backends
def test_an_infinite_gradient_is_seen_before_it_is_clipped_by_value(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, SGD(), backend, nonfinite="skip", clip_value=1.0)
    p.grad = torch.full_like(p, math.inf)
    opt.step()
    assert opt.skipped_steps == 1
    assert torch.equal(p, start())


@backends
def test_nonfinite_gradients_are_applied_by_default(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, SGD(), backend)
    p.grad = torch.full_like(p, math.nan)
    opt.step()
    assert p.isnan().all()
    assert opt.skipped_steps == 0


# ----------------------------------------------------------------------------------------------- average of the weights


@backends
def test_the_average_is_torchs(backend: str) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1)).double()
    opt = optimizer(list(net.parameters()), Adam(lr=0.1), backend, ema=0.9)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))  # pyright: ignore[reportUnknownArgumentType]
    average.update_parameters(net)  # torch's starts with its first update, ours with the weights before the first step
    for i in range(6):
        drive(opt, list(net.parameters()), 1, seed=i)
        average.update_parameters(net)
    trained = [p.detach().clone() for p in net.parameters()]
    opt.eval()
    same(net.parameters(), average.module.parameters())
    opt.train()
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), trained, strict=True))


# ----------------------------------------------------------------------------------------------- lookahead, eval, train


@backends
@pytest.mark.parametrize("rule", LOOKAHEAD, ids=str)
def test_eval_puts_theta_in_place(rule: Rule, backend: str) -> None:
    p, gs = parameter(), gradients(6)
    opt = optimizer(p, rule, backend)
    thetas, _ = run(rule, start(), gs)
    for g, theta in zip(gs, thetas, strict=True):
        p.grad = g.clone()
        opt.step()
        trained = p.detach().clone()
        opt.eval()
        torch.testing.assert_close(p.detach(), theta, rtol=1e-11, atol=1e-13)
        opt.train()
        assert torch.equal(p, trained)


@backends
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("rule", [Adam(lr=0.1), Momentum(nesterov="lookahead")], ids=str)
def test_eval_and_back_is_exact(rule: Rule, ema: float | None, dtype: torch.dtype, backend: str) -> None:
    ps, qs = ([parameter(start(n), dtype) for n in (7, 1, 40)] for _ in range(2))
    opt, undisturbed = (optimizer(x, rule, backend, ema=ema) for x in (ps, qs))
    opt.eval()  # has no effect before the first step
    opt.train()
    for i in range(5):
        drive(opt, ps[: 2 + i % 2], 1, seed=i)  # the last one has no gradient in every other step
        drive(undisturbed, qs[: 2 + i % 2], 1, seed=i)
        ps[2].grad = qs[2].grad = None
        opt.eval()
        opt.eval()
        with pytest.raises(RuntimeError, match=r"call optimizer.train\(\) before optimizer.step"):
            opt.step()
        opt.train()
        opt.train()
        assert all(torch.equal(p, q) for p, q in zip(ps, qs, strict=True))
        assert str(opt.state_dict()) == str(undisturbed.state_dict())


@backends
def test_nesterov_with_a_changing_momentum_is_algorithm_8_3(backend: str) -> None:
    # By hand, on a bowl: the gradient is taken with the last step's momentum, the step with its own.
    curvature = torch.linspace(0.5, 2.0, 7, dtype=torch.float64)
    p = parameter()
    opt = optimizer(p, Momentum(lr=0.1, form="velocity", nesterov="lookahead"), backend)
    theta, v, known = start(), torch.zeros(7, dtype=torch.float64), 0.9
    for t in range(12):
        mu, lr = 0.9 - 0.05 * t, 0.1 / (1 + t)
        opt.param_groups[0].update(momentum=mu, lr=lr)
        opt.zero_grad()
        (0.5 * curvature * p * p).sum().backward()
        opt.step()
        g = curvature * (theta + known * v)
        v = mu * v - lr * g
        theta, known = theta + v, mu
        close(p.detach(), theta + mu * v)
        opt.eval()
        close(p.detach(), theta)
        opt.train()


@backends
def test_a_parameter_that_missed_steps_still_has_its_theta(backend: str) -> None:
    # The hyperparameters have changed since its lookahead point was computed.
    p, other = parameter(), parameter()
    opt = optimizer([p, other], Momentum(lr=0.1, form="velocity", nesterov="lookahead"), backend)
    drive(opt, [p, other], 2)
    v = opt.state[p]["momentum_buffer"].clone()
    theta = p.detach() - 0.9 * v
    p.grad = None
    opt.param_groups[0]["momentum"] = 0.5
    drive(opt, [other], 1)
    opt.eval()
    close(p.detach(), theta)
    opt.train()
    p.grad = torch.ones_like(p)
    other.grad = None
    opt.step()
    v = 0.5 * v - 0.1
    close(p.detach(), theta + v + 0.5 * v)


def test_every_backend_is_tried() -> None:
    with pytest.raises(ValueError, match="'auto' or 'eager' or 'foreach' or 'numba' or 'triton'"):
        thalweg.Optimizer([parameter()], SGD(), backend="none such")
    assert len(ALL) > len(LOOKAHEAD) > 3
