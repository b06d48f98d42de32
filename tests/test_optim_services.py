"""Services around a step: scaled losses, sparse gradients, autograd, schedulers, hooks, names."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler, swa_utils

from cases import TORCHS
from thalweg import optim
from thalweg.conventions import TABLE

NAMES = TORCHS


def classes(name: str) -> tuple[Any, Any]:
    return getattr(optim, name), getattr(torch.optim, name)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [("first", nn.Linear(3, 4)), ("act", nn.Tanh()), ("last", nn.Linear(4, 2))]
    return nn.Sequential(OrderedDict(layers)).double()


def train(own: nn.Module, step: Callable[[Tensor], None], steps: int) -> list[Tensor]:
    for i in range(steps):
        torch.manual_seed(i)
        step(own(torch.randn(5, 3, dtype=torch.float64)).square().sum())
    return [p.detach() for p in own.parameters()]


def both(name: str, step: Callable[[Any], Callable[[Tensor], None]], steps: int = 12, **settings: Any) -> None:
    """Train with our class and with torch's, and compare."""
    ends: list[list[Tensor]] = []
    for cls in classes(name):
        own = model()
        ends.append(train(own, step(cls(own.parameters(), **settings)), steps))
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-10, atol=1e-12)


def plainly(optimizer: Any) -> Callable[[Tensor], None]:
    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("name", NAMES)
def test_a_rate_may_be_a_tensor(name: str) -> None:
    both(name, plainly, lr=torch.tensor(1e-2, dtype=torch.float64))


@pytest.mark.parametrize(
    "scheduler",
    [
        partial(lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=20),
        partial(lr_scheduler.CosineAnnealingLR, T_max=10),
        partial(lr_scheduler.CyclicLR, base_lr=1e-3, max_lr=1e-1, step_size_up=3, cycle_momentum=False),
    ],
    ids=["one cycle", "cosine", "cyclic"],
)
@pytest.mark.parametrize(
    ("name", "settings"), [("SGD", {"momentum": 0.9}), ("Adam", {}), ("RMSprop", {"momentum": 0.5}), ("NAdam", {})]
)
def test_torchs_schedulers(name: str, settings: dict[str, Any], scheduler: Any) -> None:
    def scheduled(optimizer: Any) -> Callable[[Tensor], None]:
        schedule, step = scheduler(optimizer), plainly(optimizer)

        def both_step(loss: Tensor) -> None:
            step(loss)
            schedule.step()

        return both_step

    both(name, scheduled, **settings)


def test_groups_may_be_edited() -> None:
    def edited(optimizer: Any) -> Callable[[Tensor], None]:
        step, done = plainly(optimizer), [0]

        def then(loss: Tensor) -> None:
            step(loss)
            done[0] += 1
            group = optimizer.param_groups[0]
            group.update(
                [{"momentum": 0.9}, {"nesterov": True}, {"weight_decay": 0.1}, {"maximize": True}][done[0] % 4]
            )

        return then

    both("SGD", edited)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop"])
def test_a_grad_scaler(name: str) -> None:
    scales: list[float] = []

    def scaled(optimizer: Any) -> Callable[[Tensor], None]:
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)

        def step(loss: Tensor) -> None:
            optimizer.zero_grad()
            # Every fifth loss overflows: the scaler leaves that step out, and halves the scale.
            scales.append(scaler.get_scale())
            loss = loss * float("inf") if len(scales) % 5 == 0 else loss
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

        return step

    both(name, scaled, steps=20)
    assert scales[:20] == scales[20:]
    assert scales[5] == scales[4] / 2, "a step was left out"


@pytest.mark.parametrize(
    ("name", "settings"),
    [("SGD", {}), ("SGD", {"momentum": 0.9}), ("SGD", {"nesterov": True, "momentum": 0.5}), ("Adagrad", {})],
)
@pytest.mark.filterwarnings("ignore:Sparse invariant checks")  # torch's own step warns
def test_sparse_gradients_where_torch_takes_them(name: str, settings: dict[str, Any]) -> None:
    ends: list[Tensor] = []
    for cls in classes(name):
        torch.manual_seed(0)
        own = nn.Embedding(10, 3, sparse=True, dtype=torch.float64)
        optimizer = cls(own.parameters(), lr=0.1, **settings)
        for i in range(6):
            optimizer.zero_grad()
            own(torch.tensor([i, 3, 3, 2 * i % 7])).square().sum().backward()
            optimizer.step()
        ends.append(own.weight.detach())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if not TABLE["torch"].names[name].sparse])
def test_sparse_gradients_are_refused_where_torch_refuses_them(name: str) -> None:
    own = nn.Embedding(10, 3, sparse=True)
    optimizer = getattr(optim, name)(own.parameters())
    own(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("name", ["SGD", "Adagrad"])
def test_weight_decay_is_refused_with_sparse_gradients(name: str) -> None:
    own = nn.Embedding(10, 3, sparse=True)
    optimizer = getattr(optim, name)(own.parameters(), weight_decay=0.1)
    own(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse gradients"):
        optimizer.step()


@pytest.mark.parametrize("name", NAMES)
def test_autograd_sees_a_differentiable_step(name: str) -> None:
    slopes: list[Tensor] = []
    for cls in classes(name):
        torch.manual_seed(0)
        factor = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        p = torch.randn(4, dtype=torch.float64, requires_grad=True).clone()
        optimizer = cls([p], lr=0.1, differentiable=True)
        # torch's own Adamax and Rprop overwrite what autograd has saved, so only one step can be differentiated.
        for i in range(1 if name in ("Adamax", "Rprop") else 3):
            p.grad = factor * torch.linspace(1 + i, 2, 4, dtype=torch.float64)
            optimizer.step()
        slopes.append(*torch.autograd.grad(p.square().sum(), factor))
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-10, atol=1e-12)


def test_hooks_are_called() -> None:
    own, called = model(), list[str]()
    optimizer = optim.Adam(own.parameters())

    def note(what: str, *_: Any) -> None:
        called.append(what)

    optimizer.register_step_pre_hook(partial(note, "before"))
    optimizer.register_step_post_hook(partial(note, "after"))
    optimizer.register_state_dict_post_hook(partial(note, "saved"))
    optimizer.register_load_state_dict_post_hook(partial(note, "loaded"))
    train(own, plainly(optimizer), 1)
    optimizer.load_state_dict(optimizer.state_dict())
    assert called == ["before", "after", "saved", "loaded"]


def test_states_are_matched_by_name() -> None:
    own = model()
    optimizer = optim.Adam(own.named_parameters())
    train(own, plainly(optimizer), 3)
    other = model()
    reordered = optim.Adam(reversed(list(other.named_parameters())))
    reordered.load_state_dict(optimizer.state_dict())
    for (_, p), (_, q) in zip(own.named_parameters(), other.named_parameters(), strict=True):
        torch.testing.assert_close(optimizer.state[p]["exp_avg"], reordered.state[q]["exp_avg"])


def test_a_state_that_does_not_fit_is_named() -> None:
    own = model()
    optimizer = optim.Adam(own.named_parameters())
    train(own, plainly(optimizer), 1)
    wide = nn.Sequential(OrderedDict([("first", nn.Linear(3, 5)), ("last", nn.Linear(5, 2))])).double()
    with pytest.raises(ValueError, match=r"exp_avg of parameter 'first.weight' has shape \(4, 3\), .* has \(5, 3\)"):
        optim.Adam(wide.named_parameters()).load_state_dict(optimizer.state_dict())
    renamed = nn.Sequential(OrderedDict([("first", nn.Linear(3, 4)), ("end", nn.Linear(4, 2))])).double()
    with pytest.raises(ValueError, match=r"has no parameter 'end\.weight'"):
        optim.Adam(renamed.named_parameters()).load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("Adam", {"lr": -1}, "Invalid learning rate: -1: Adam's lr is -1; allowed is a finite number >= 0"),
        ("Adam", {"betas": (1.0, 0.5)}, r"index 0: 1.0: Adam's betas is 1.0; allowed is a number in \[0, 1\)"),
        ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
    ],
)
def test_bad_settings(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(optim, name)(model().parameters(), **settings)


def test_the_convention_is_stated() -> None:
    stated = repr(optim.RMSprop(model().parameters(), momentum=0.9, weight_decay=0.1))
    assert "torch.optim.RMSprop's convention: RMSProp(momentum=0.9), weight decay l2" in stated


def test_averaged_models() -> None:
    found: list[list[Tensor]] = []
    for cls in classes("SGD"):
        own = model()
        average = swa_utils.AveragedModel(own)
        optimizer = cls(own.parameters(), lr=0.01, momentum=0.9)
        scheduler = swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=3)
        for _ in range(5):
            train(own, plainly(optimizer), 2)
            average.update_parameters(own)
            scheduler.step()
        assert optimizer.param_groups[0]["lr"] == 0.05
        averaged = [p.detach() for p in average.module.parameters()]
        assert not any(torch.allclose(a, p) for a, p in zip(averaged, own.parameters(), strict=True))
        found.append(averaged)
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-15)
