"""The backend of torch's functions of lists computes what the reference computes, in as few operations as torch."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import thalweg
from cases import STABLE, drive, model
from thalweg import trace
from thalweg.kernels import lists
from thalweg.rule import Rule
from thalweg.stages import Stages

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"clip_norm": 0.5, "ema": 0.9, "weight_decay": 0.1, "decay_form": "scaled", "maximize": True},
)


def trained(rule: Rule | str, backend: str, **settings: Any) -> tuple[list[torch.nn.Parameter], thalweg.Optimizer]:
    params = model()
    optimizer = thalweg.Optimizer(params, rule, backend=backend, **settings)
    drive(optimizer, params, 3)
    params[0].grad = None
    optimizer.step(zero_grad=True)
    return params, optimizer


@pytest.mark.parametrize("rule", STABLE, ids=str)
def test_parity(rule: Rule) -> None:
    for settings in SETTINGS:
        (params, ours), (others, theirs) = (trained(rule, backend, **settings) for backend in ("foreach", "eager"))
        for p, q in zip(params, others, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12, equal_nan=True)
            assert ours.state[p].keys() == theirs.state[q].keys()
            for name, x in theirs.state[q].items():
                torch.testing.assert_close(ours.state[p][name], x, rtol=1e-9, atol=1e-12, equal_nan=True)
            assert p.grad is None or not p.grad.any()


class Operations(TorchDispatchMode):
    """Counts operations of which each reads and writes elements of parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).removeprefix("aten.").partition(".")[0]
        if name not in ("detach", "_local_scalar_dense", "_to_copy"):
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adamax", "Adadelta"])
def test_no_more_operations_than_torchs(name: str) -> None:
    """On a device each operation is a launch."""
    counts: list[int] = []
    for package in (thalweg.optim, torch.optim):
        params = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
        optimizer = getattr(package, name)(params, foreach=True, **({"momentum": 0.9} if name == "SGD" else {}))
        if package is thalweg.optim:
            optimizer.backend = "foreach"
            optimizer._reset()
        for p in params:
            p.grad = torch.ones(3)
        optimizer.step()
        with Operations() as found:
            optimizer.step()
        counts.append(len(found.names))
    assert counts[0] <= counts[1], counts


def test_what_is_read_again_is_not_overwritten() -> None:
    p, g = trace.value("p"), trace.value("g")
    of = trace.graph({"p": p - 2.0 * (g * g) + p * g, "s.before": p})
    params, grads = [torch.tensor([3.0])], [torch.tensor([5.0])]
    made = lists.evaluate(of, {"p": params, "g": grads}, ["p"])
    assert made["p"][0].item() == 3 - 50 + 15
    assert params[0].item() == 3
    assert grads[0].item() == 5
    assert not lists.elementwise(trace.step(thalweg.rules.parse("lamb"), Stages()))


@pytest.mark.parametrize("change", ["group", "dtype"])
def test_what_is_known_of_the_last_step_is_looked_at_again(change: str):
    found: list[list[torch.Tensor]] = []
    for backend in ("foreach", "eager"):
        ps: list[Any] = [torch.nn.Parameter(torch.full((3,), 2.0)) for _ in range(3)]
        groups: Any = [{"params": ps[:2], "lr": 1.0}, {"params": ps[2:], "lr": 100.0}]
        opt = thalweg.Optimizer(groups, "momentum", backend=backend)
        for step in range(4):
            if step == 2 and change == "group":
                opt.param_groups[0]["params"][:] = ps[:1]
                opt.param_groups[1]["params"][:] = ps[:0:-1]
            elif step == 2:
                ps[1].data = ps[1].data.double()
            for p in ps[:2]:
                p.grad = torch.full_like(p, 0.5)
            opt.step()
        found.append([p.detach() for p in ps])
    for p, q in zip(*found, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=0)
