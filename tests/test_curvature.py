"""Newton's method against closed forms, torch's own Hessian and scikit-learn's optimum; and its errors."""

import re
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from thalweg.curvature import Newton, derivatives, newton

FLOAT = torch.float64


def point(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=FLOAT))


def values(p: Tensor) -> list[float]:
    return cast("list[float]", p.tolist())


def rosenbrock(p: Tensor) -> Tensor:
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


def plane(p: Tensor) -> Tensor:
    return p.sum()


def saddle(p: Tensor) -> Tensor:
    return p[0] ** 2 - 3 * p[1] ** 2


def small_model() -> tuple[nn.Module, Callable[[], Tensor], Callable[..., Tensor]]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(FLOAT)
    x, y = torch.randn(20, 4, dtype=FLOAT), torch.randint(3, (20,))
    names = [name for name, _ in model.named_parameters()]

    def of_params(*params: Tensor) -> Tensor:
        out = torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,))
        return nn.functional.cross_entropy(out, y)

    return model, lambda: nn.functional.cross_entropy(model(x), y), of_params


@settings(max_examples=25)
@given(n=st.integers(1, 200), seed=st.integers(0, 2**31))
def test_quadratic_is_solved_in_one_step(n: int, seed: int) -> None:
    torch.manual_seed(seed)
    root, b = torch.randn(n, n, dtype=FLOAT) / n**0.5, torch.randn(n, dtype=FLOAT)
    a = root @ root.T + torch.eye(n, dtype=FLOAT)
    p = nn.Parameter(torch.randn(n, dtype=FLOAT))
    Newton([p]).step(lambda: p @ a @ p / 2 - b @ p)
    solution = cast(Tensor, torch.linalg.solve(a, b))
    assert (p - solution).norm() <= 1e-12 * (1 + solution.norm())


def test_one_step_is_the_formula_with_rate_and_damping() -> None:
    p = point(3.0, -1.0)
    Newton([p], lr=0.5, damping=2.0).step(lambda: p[0] ** 2 + 5 * p[1] ** 2)
    expected = [3.0 - 0.5 * 6.0 / (2 + 2), -1.0 - 0.5 * -10.0 / (10 + 2)]
    assert values(p) == pytest.approx(expected, rel=1e-15)


def test_rosenbrock_converges_quadratically() -> None:
    p = point(-1.2, 1.0)
    optimizer = Newton([p])
    losses = [float(optimizer.step(lambda: rosenbrock(p))) for _ in range(8)]
    assert values(p) == pytest.approx([1.0, 1.0], abs=1e-12)
    assert losses[-1] < 1e-20 < losses[3]


def test_logistic_regression_reaches_scikit_learns_optimum() -> None:
    data = cast(Any, load_breast_cancer())
    inputs, labels = data.data, data.target
    inputs = (inputs - inputs.mean(0)) / inputs.std(0)
    theirs = cast(
        Any, LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000, solver="newton-cholesky").fit(inputs, labels)
    )
    x, y = torch.from_numpy(inputs), torch.from_numpy(labels).to(FLOAT)
    weight, bias = nn.Parameter(torch.zeros(x.shape[1], dtype=FLOAT)), point(0.0)

    def loss() -> Tensor:
        error = nn.functional.binary_cross_entropy_with_logits(x @ weight + bias, y, reduction="sum")
        return error + weight @ weight / 2

    optimizer = Newton([weight, bias])
    for _ in range(12):
        optimizer.step(loss)
    np.testing.assert_allclose(weight.detach().numpy(), theirs.coef_[0], rtol=1e-7)
    np.testing.assert_allclose(bias.detach().numpy(), theirs.intercept_, rtol=1e-7)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.func's own import
@pytest.mark.parametrize("rows", [1, 7, 128])
def test_hessian_is_that_of_torch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derivatives, "ROWS_AT_ONCE", rows)
    model, loss, of_params = small_model()
    params = list(model.parameters())
    ours = derivatives.hessian(derivatives.gradient(loss(), params, graph=True), params)

    theirs = cast(Any, torch.autograd.functional.hessian(of_params, tuple(p.detach() for p in params)))
    rows_of = [torch.cat([block.reshape(p.numel(), -1) for block in theirs[i]], 1) for i, p in enumerate(params)]
    torch.testing.assert_close(ours, torch.cat(rows_of), rtol=1e-12, atol=1e-14)

    pure: Any = torch.func.hessian(of_params, argnums=0)(*(p.detach() for p in params))
    first = params[0].numel()
    torch.testing.assert_close(ours[:first, :first], pure.reshape(first, first), rtol=1e-12, atol=1e-14)


def test_frozen_parameters_stay_and_unused_ones_need_damping() -> None:
    used, frozen, unused = point(2.0), point(5.0), point(7.0)
    frozen.requires_grad_(False)
    with pytest.raises(newton.LinAlgError, match="not positive definite"):
        Newton([used, unused]).step(lambda: used.square().sum())
    Newton([used, frozen, unused], damping=1e-9).step(lambda: (used * frozen).square().sum())
    assert used.item() == pytest.approx(0, abs=1e-9)
    assert (frozen.item(), unused.item()) == (5.0, 7.0)


@pytest.mark.parametrize(("loss", "start"), [(saddle, (1.0, 1.0)), (plane, (1.0, 1.0)), (rosenbrock, (0.0, 1.0))])
def test_the_proposed_damping_works(loss: Callable[[Tensor], Tensor], start: tuple[float, float]) -> None:
    p = point(*start)
    with pytest.raises(newton.LinAlgError, match="not positive definite") as refusal:
        Newton([p]).step(lambda: loss(p))
    assert tuple(values(p)) == start
    proposed = re.search(r"damping=(\S+),", str(refusal.value))
    assert proposed is not None
    before = loss(p).item()
    Newton([p], damping=float(proposed[1])).step(lambda: loss(p))
    assert loss(p).item() < before


def test_a_hessian_that_does_not_fit_is_refused_before_anything_is_allocated() -> None:
    p = nn.Parameter(torch.zeros(10_000_000))
    asked: list[int] = []
    with pytest.raises(MemoryError, match=r"10,000,000 parameters.* 800,000,000,000,000 bytes \(800.0 TB\).*available"):
        Newton([p]).step(lambda: asked.append(1) or p.square().sum())
    assert not asked
    assert not p.any()


def test_the_limit_is_what_is_available(monkeypatch: pytest.MonkeyPatch) -> None:
    p = nn.Parameter(torch.ones(10, dtype=FLOAT))
    optimizer = Newton([p])
    free = [1599, 1600]
    monkeypatch.setattr(newton, "available", lambda _: free.pop(0))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(MemoryError, match=r"1,600 bytes \(1.6 kB\), and 1,599 bytes"):
        optimizer.step(lambda: p.square().sum())
    optimizer.step(lambda: p.square().sum())
    assert p.abs().max() < 1e-15


def asks(closure: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    return closure


def backward_and_return(p: Tensor) -> Tensor:
    loss = p.square().sum()
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("closure", "kind", "message"),
    [
        (None, TypeError, "needs a closure"),
        (asks(lambda p: 3.0), TypeError, r"returned 3\.0"),
        (asks(lambda p: p * 2), TypeError, r"shape \(2,\)"),
        (asks(lambda p: p.detach().sum()), ValueError, "no graph"),
        (backward_and_return, ValueError, r"leave backward\(\) out"),
        (asks(lambda p: p.sum() * float("nan")), FloatingPointError, "the loss is nan"),
        (asks(lambda p: p.abs().sqrt().sum()), FloatingPointError, "derivatives that are not finite"),
    ],
)
def test_refused_closures_leave_the_parameters(closure: Any, kind: type[Exception], message: str) -> None:
    p = point(0.0, 1.0)
    with pytest.raises(kind, match=message):
        Newton([p]).step(None if closure is None else lambda: closure(p))
    assert values(p) == [0.0, 1.0]


def test_refused_settings() -> None:
    p = point(1.0)
    for settings_, message in [({"lr": -1.0}, "lr is -1.0"), ({"damping": float("nan")}, "damping is nan")]:
        with pytest.raises(ValueError, match=message):
            Newton([p], **settings_)
    with pytest.raises(ValueError, match="one group"):
        Newton([{"params": [p]}, {"params": [point(2.0)]}])
    with pytest.raises(ValueError, match="float32 on cpu, float64 on cpu"):
        Newton([p, nn.Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match="complex64"):
        Newton([nn.Parameter(torch.ones(1, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="non-leaf"):
        Newton([p * 2])


def test_it_is_an_optimizer_with_schedules_hooks_and_state() -> None:
    p, calls = point(1.0), list[str]()
    optimizer = Newton([p], damping=0.25)

    def after(*_: Any) -> None:
        calls.append("after")

    optimizer.register_step_post_hook(after)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    optimizer.step(lambda: p.square().sum())
    schedule.step()
    assert calls == ["after"]
    other = Newton([point(1.0)])
    other.load_state_dict(optimizer.state_dict())
    assert (other.param_groups[0]["lr"], other.param_groups[0]["damping"]) == (0.5, 0.25)
