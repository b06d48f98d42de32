"""The optimizer around a rule: torch's behaviour, groups, hooks, closures, schedulers."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import lr_scheduler

import thalweg
from cases import (
    BACKENDS,
    STABLE,
    drive,
    gradients,
    model,
    optimizer,
    parameter,
    same,
    start,
)
from thalweg.rule import Rule
from thalweg.rules import SGD, Adagrad, Adam, Momentum, RMSProp, Rprop

backends = pytest.mark.parametrize("backend", BACKENDS)


# ------------------------------------------------------------------------------------------------------ the rule itself


@backends
@pytest.mark.parametrize("rule", STABLE, ids=str)
def test_a_step_is_the_rule(rule: Rule, backend: str) -> None:
    gs = gradients(12)
    p = parameter()
    opt = optimizer(p, rule, backend)
    rule = rule.fit(tuple(p.shape))
    point, state = start(), rule.init(start())
    for t, g in enumerate(gs, 1):
        p.grad = g.clone()
        opt.step()
        assert torch.equal(p.grad, g), "gradients are not changed"
        point, state = rule.update(point, g, state, t)
        ahead: Any = rule.lookahead(state)
        torch.testing.assert_close(p.detach(), point if ahead is None else point + ahead, rtol=1e-11, atol=1e-14)
    assert opt.state[p]["step"] == 12


@backends
def test_a_step_may_clear_the_gradients_that_it_has_used(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, SGD(lr=1.0), backend)
    p.grad = torch.ones_like(p)
    opt.step(zero_grad=True)
    assert p.grad is None or not p.grad.any()
    torch.testing.assert_close(p.detach(), start() - 1)


@backends
def test_parameters_without_gradients_stay(backend: str) -> None:
    ours, theirs = model(), model()
    opt, other = optimizer(ours, Adam(lr=0.1), backend), torch.optim.Adam(theirs, lr=0.1)
    for i in range(6):
        for j, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            p.grad = torch.full_like(p, 1.0 + i) if (i + j) % 3 else None
            q.grad = None if p.grad is None else p.grad.clone()
        opt.step()
        other.step()
    same(ours, theirs)
    opt.zero_grad()
    assert all(p.grad is None for p in ours)
    opt.step()
    same(ours, theirs)


@backends
@pytest.mark.parametrize("name", ["Adam", "SGD", "Adagrad", "Rprop", "RMSprop", "NAdam"])
def test_complex_parameters_are_pairs_as_in_torch(name: str, backend: str) -> None:
    rules: dict[str, tuple[Rule, dict[str, Any]]] = {
        "Adam": (Adam(lr=0.1), {}),
        "SGD": (Momentum(lr=0.1), {"momentum": 0.9}),
        "Adagrad": (Adagrad(lr=0.1, initial_accumulator=0.5), {"initial_accumulator_value": 0.5}),
        "Rprop": (Rprop(lr=0.1), {}),
        "RMSprop": (RMSProp(lr=0.1), {}),
        "NAdam": (Adam(lr=0.1, nesterov="scheduled"), {}),
    }
    rule, settings = rules[name]
    p = torch.nn.Parameter(torch.tensor([1 + 2j, -1j, 0.5], dtype=torch.complex64))
    q = torch.nn.Parameter(p.detach().clone())
    ours, theirs = optimizer(p, rule, backend), getattr(torch.optim, name)([q], lr=0.1, **settings)
    for i in range(5):
        p.grad = torch.tensor([1 - 1j, 0.5j * i, -2.0], dtype=torch.complex64)
        q.grad = p.grad.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@backends
def test_complex_averages_and_lookahead(backend: str) -> None:
    # Complex numbers are stepped like pairs of reals.
    rule = Momentum(lr=0.1, nesterov="lookahead")
    p = torch.nn.Parameter(torch.tensor([1 + 2j, -1j, 0.5], dtype=torch.complex64))
    q = torch.nn.Parameter(torch.view_as_real(p.detach()).clone())
    opts = [optimizer(x, rule, backend, ema=0.5, weight_decay=0.1) for x in (p, q)]
    for _ in range(3):
        q.grad = torch.randn_like(q)
        p.grad = torch.view_as_complex(q.grad.clone())
        for opt in opts:
            opt.step()
    torch.testing.assert_close(torch.view_as_real(p.detach()), q.detach())
    for opt in opts:
        opt.eval()
    torch.testing.assert_close(torch.view_as_real(p.detach()), q.detach())


# --------------------------------------------------------------------------------------------------------------- groups


@backends
def test_groups_have_their_own_rule_rate_and_options(backend: str) -> None:
    a, b, c, d = (parameter() for _ in range(4))
    opt = thalweg.Optimizer(
        [
            {"params": [a]},
            {"params": [b], "lr": 0.5, "eps_at": "inside"},
            {"params": [c], "rule": Momentum(lr=0.2), "momentum": 0.5, "weight_decay": 0.1},
            {"params": [d], "maximize": True},
        ],
        Adam(lr=0.1),
        backend=backend,
    )
    opt.add_param_group({"params": (e := parameter()), "rule": SGD(lr=1.0)})
    assert [group["lr"] for group in opt.param_groups] == [0.1, 0.5, 0.2, 0.1, 1.0]
    assert "beta1" not in opt.param_groups[2]
    assert [str(group["rule"]) for group in opt.param_groups][1:3] == [
        "Adam(lr=0.5, eps_at='inside')", "Momentum(lr=0.2, momentum=0.5)",
    ]  # fmt: skip
    alone: list[tuple[Rule, dict[str, Any]]] = [
        (Adam(lr=0.1), {}), (Adam(lr=0.5, eps_at="inside"), {}),
        (Momentum(lr=0.2, momentum=0.5), {"weight_decay": 0.1}), (Adam(lr=0.1), {"maximize": True}), (SGD(lr=1.0), {}),
    ]  # fmt: skip
    others = [parameter() for _ in alone]
    opts = [optimizer(q, rule, backend, **kw) for q, (rule, kw) in zip(others, alone, strict=True)]
    for g in gradients(5):
        for p in (a, b, c, d, e, *others):
            p.grad = g.clone()
        for each in (opt, *opts):
            each.step()
    same((a, b, c, d, e), others)


@backends
def test_the_numbers_of_a_group_may_be_changed_at_any_time(backend: str) -> None:
    p, q = parameter(), parameter()
    opt, other = optimizer(p, Adam(), backend), torch.optim.Adam([q])
    for i, g in enumerate(gradients(6)):
        opt.param_groups[0].update(lr=0.1 / (i + 1), eps=10.0**-i)
        other.param_groups[0].update(lr=0.1 / (i + 1), eps=10.0**-i)
        p.grad, q.grad = g.clone(), g.clone()
        opt.step()
        other.step()
    same([p], [q])


# ------------------------------------------------------------------------------------------------- as in torch.optim


@backends
def test_a_closure_is_called_once_with_gradients(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, SGD(lr=0.1), backend)
    calls: list[int] = []

    def closure() -> float:
        calls.append(1)
        opt.zero_grad()
        loss: Tensor = (p * p).sum()
        loss.backward()
        return loss.item()

    assert opt.step(closure) == pytest.approx((start() ** 2).sum().item())
    assert len(calls) == 1
    torch.testing.assert_close(p.detach(), start() * 0.8)
    assert opt.step() is None


@backends
def test_hooks(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, Adam(), backend)
    seen: list[str] = []
    opt.register_step_pre_hook(lambda _, args, kwargs: seen.append("pre"))
    opt.register_step_post_hook(lambda _, args, kwargs: seen.append("post"))
    opt.register_state_dict_pre_hook(lambda _: seen.append("saving"))
    drive(opt, [p], 1)
    assert seen == ["pre", "post"]

    def rename(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        assert state["param_groups"][0]["rule"] == "Adam()", "hooks see what is saved"
        return {"inside": copy.deepcopy(state)}

    opt.register_state_dict_post_hook(rename)
    opt.register_load_state_dict_pre_hook(lambda _, state: state["inside"])
    opt.register_load_state_dict_post_hook(lambda _: seen.append("loaded"))
    saved = opt.state_dict()
    assert list(saved) == ["inside"]
    drive(opt, [p], 1)
    opt.load_state_dict(saved)
    assert opt.state[p]["step"] == 1
    assert seen == ["pre", "post", "saving", "pre", "post", "loaded"]


BAD_PARAMETERS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (list, ValueError, "empty parameter list"),
    (lambda: parameter(), TypeError, "iterable"),
    (lambda: ["w"], TypeError, "can only optimize Tensors"),
    (lambda: [parameter() * 2], ValueError, "non-leaf"),
    (lambda: [torch.tensor([1, 2])], ValueError, r"dtype torch.int64 \(parameter 0"),
    (lambda: [("a", parameter()), ("b", torch.tensor([True]))], ValueError, "'b'"),
    (lambda: [{"params": {parameter()}}], TypeError, "ordered collection"),
    (lambda: [{"params": [p]} for p in [parameter()] * 2], ValueError, "more than one parameter group"),
    (lambda: [{"params": [parameter()], "lr": -1}], ValueError, "SGD's lr is -1; allowed is a finite number >= 0"),
    (lambda: [{"params": [parameter()], "rule": 3}], TypeError, "rule is 3"),
]


@pytest.mark.parametrize(("params", "error", "said"), BAD_PARAMETERS)
def test_parameters_are_refused_as_torch_refuses_them(
    params: Callable[[], Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        thalweg.Optimizer(params(), SGD())


def test_duplicate_parameters_are_warned_about_as_in_torch() -> None:
    p = parameter()
    with pytest.warns(UserWarning, match="duplicate parameters"):
        thalweg.Optimizer([p, p], SGD())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_decay": -0.1}, "weight_decay is -0.1; allowed is a finite number >= 0"),
        ({"weight_decay": math.nan}, "weight_decay is nan"),
        ({"decay_form": "L2"}, "decay_form is 'L2'; allowed is 'l2' or 'scaled' or 'independent'; did you mean 'l2'"),
        ({"clip_norm": 0}, "clip_norm is 0; allowed is a finite number > 0 or None"),
        ({"clip_value": -1}, "clip_value is -1"),
        ({"ema": 1.0}, r"ema is 1.0; allowed is a number in \[0, 1\)"),
        ({"nonfinite": "ignore"}, "nonfinite is 'ignore'; allowed is 'propagate' or 'skip' or 'raise'"),
        ({"maximize": 1}, "maximize is 1; allowed is True or False"),
        ({"backend": "eagre"}, "backend is 'eagre'.*did you mean 'eager'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        thalweg.Optimizer([parameter()], SGD(), **settings)


def test_a_rule_given_as_a_class_is_refused_with_an_example() -> None:
    with pytest.raises(TypeError, match=r"rules.Adam\(lr=1e-3\) or 'adam\(lr=1e-3\)'"):
        thalweg.Optimizer([parameter()], Adam)  # pyright: ignore[reportArgumentType]


def test_a_rule_as_text_and_its_rate() -> None:
    p = parameter()
    assert thalweg.Optimizer([p], "adam(lr=1e-2, beta2=0.99)").rule == Adam(lr=1e-2, beta2=0.99)
    assert thalweg.Optimizer([p], "nesterov", lr=0.5).rule == thalweg.rules.parse("nesterov(lr=0.5)")
    assert thalweg.Optimizer([{"params": [p], "rule": "sgd(lr=2)"}], Adam()).param_groups[0]["rule"] == SGD(lr=2)
    switch = thalweg.Optimizer([p], "switch(adam, sgd(lr=0.1), at=3)").switch
    assert switch == thalweg.Switch(Adam(), SGD(lr=0.1), at=3)
    for rule, lr, wrong in (("adm", None, "did you mean 'adam'"), (Adam(), -1.0, "Adam's lr is -1.0; allowed"),
                            (switch, 0.1, "write it in the rule that it is of")):  # fmt: skip
        with pytest.raises(ValueError, match=wrong):
            thalweg.Optimizer([p], rule, lr=lr)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "rule", [Adam(), thalweg.rules.Lion(), thalweg.rules.RMSProp(), thalweg.rules.RAdam()], ids=str
)
def test_decay_without_a_form_warns_which_one_is_used(rule: thalweg.Rule) -> None:
    with pytest.warns(
        UserWarning, match=r"weight_decay is 0.1 with .* \(decay_form='l2'.*'scaled' for .* AdamW"
    ) as seen:
        opt = thalweg.Optimizer([parameter()], rule, weight_decay=0.1)
    assert [warning.filename for warning in seen] == [__file__], "it names the line that is to be changed"
    assert opt.param_groups[0]["decay_form"] == "l2"
    # No warning if a form is given, if there is no decay, or if the rule does not rescale the gradient.
    thalweg.Optimizer([parameter()], rule, weight_decay=0.1, decay_form="l2")
    thalweg.Optimizer([{"params": [parameter()], "weight_decay": 0.1, "decay_form": "scaled"}], rule)
    thalweg.Optimizer([parameter()], rule)
    thalweg.Optimizer([parameter()], Momentum(), weight_decay=0.1)
    with pytest.warns(UserWarning, match="decay_form"):
        thalweg.Optimizer([{"params": [parameter()], "weight_decay": 0.1}], rule)


def test_a_rate_set_by_hand_under_a_schedule_is_refused() -> None:
    p = parameter()
    opt = thalweg.Optimizer([p], SGD(lr=1.0), schedule=thalweg.schedules.linear(10))
    drive(opt, [p], 3)
    opt.param_groups[0]["lr"] = 0.05
    before = p.detach().clone()
    with pytest.raises(ValueError, match=r"a group's lr was set to 0.05, but it follows .* gives 0.7 at step 3"):
        drive(opt, [p], 1)
    assert torch.equal(p, before)
    opt.param_groups[0]["lr"] = 0.7
    opt.param_groups[0]["course"].initial["lr"] = 2.0
    drive(opt, [p], 1)
    assert opt.param_groups[0]["lr"] == pytest.approx(1.2)


def test_what_it_prints() -> None:
    opt = thalweg.Optimizer([parameter()], Adam(lr=0.1, amsgrad=True), weight_decay=0.5, decay_form="l2")
    assert "lr: 0.1" in repr(opt)
    assert "weight_decay: 0.5" in repr(opt)
    assert "rule: Adam(lr=0.1, amsgrad=True)" in repr(opt)


# --------------------------------------------------------------------------------------------------- torch's schedulers

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 8),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda t: 1 / (1 + t)),
    "from zero": lambda o: lr_scheduler.LambdaLR(o, lambda t: t / 10),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.3, total_steps=12),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=3), lr_scheduler.ExponentialLR(o, 0.8)], [4]
    ),
}


@backends
@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.filterwarnings("ignore:The epoch parameter")  # SequentialLR's own
def test_torchs_schedulers_drive_it(name: str, backend: str) -> None:
    # OneCycleLR and CyclicLR change the momentum, too.
    p, q = parameter(), parameter()
    opt, other = optimizer(p, Momentum(lr=0.1), backend), torch.optim.SGD([q], lr=0.1, momentum=0.9)
    schedules = [SCHEDULERS[name](o) for o in (opt, other)]
    for g in gradients(10):
        p.grad, q.grad = g.clone(), g.clone()
        for o, s in zip((opt, other), schedules, strict=True):
            o.step()
            s.step()
        assert opt.param_groups[0]["lr"] == other.param_groups[0]["lr"]
        assert opt.param_groups[0]["momentum"] == other.param_groups[0]["momentum"]
        same([p], [q])


@backends
def test_reduce_on_plateau(backend: str) -> None:
    p = parameter()
    opt = optimizer(p, SGD(lr=1.0), backend)
    plateau = lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=0)
    for _ in range(3):
        drive(opt, [p], 1)
        plateau.step(1.0)
    assert opt.param_groups[0]["lr"] == 0.25
