"""What only a GPU can show: captured steps, nothing that waits for the device, streams, many small tensors.

Without one all of it is skipped; what the kernels compute is tested in Triton's interpreter by ``test_triton.py``.
"""

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import thalweg
from test_optim_described import DESCRIBED, check_error, walk
from thalweg import optim
from thalweg.bench import proofs
from thalweg.bench.proofs import give, model
from thalweg.kernels import triton

LACKING = triton.lacking(torch.device("cuda")) if torch.cuda.is_available() else "torch finds no GPU"
pytestmark = pytest.mark.skipif(LACKING is not None, reason=f"this needs a GPU: {LACKING}")

CUDA = torch.device("cuda")


@pytest.mark.parametrize("rule", ["adam", "nadam", "lamb", "prodigy", "lion"])
def test_as_on_the_cpu(rule: str) -> None:
    here, there = model(CUDA), model(torch.device("cpu"))
    ours = thalweg.Optimizer(here, rule, **proofs.FORM)
    theirs = thalweg.Optimizer(there, rule, backend="eager", **proofs.FORM)
    for step in range(20):
        give(here, step)
        give(there, step)
        ours.step()
        theirs.step()
    for p, q in zip(here, there, strict=True):
        torch.testing.assert_close(p.cpu(), q, rtol=1e-5, atol=1e-6)


PROOFS: dict[str, Callable[[], proofs.Figure]] = {
    "bits repeat": lambda: proofs.repeats(CUDA, "auto"),
    "a captured step is the uncaptured one": lambda: proofs.captured(CUDA, "auto"),
    "nothing waits": lambda: proofs.waiting(CUDA, "auto", scaled=False),
    "nothing waits, with a scaler": lambda: proofs.waiting(CUDA, "auto"),
}


@pytest.mark.parametrize("what", PROOFS)
def test_what_the_bench_says_of_a_device_holds(what: str) -> None:
    found = PROOFS[what]()
    assert found.holds, found


def test_a_thousand_small_tensors_and_one_launch_for_all() -> None:
    params = [torch.nn.Parameter(torch.ones(32, device="cuda")) for _ in range(1_000)]
    optimizer = thalweg.Optimizer(params, "adam")
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as found:
        optimizer.step()
        torch.cuda.synchronize()
    kernels: list[Any] = [event for event in cast(Any, found.events()) if event.name in ("numbers", "chunk")]
    assert len(kernels) == 2
    torch.testing.assert_close(params[0].detach(), torch.full((32,), 1 - 2e-3, device="cuda"))


def test_a_step_takes_its_turn_on_the_current_stream() -> None:
    params, others = model(CUDA), model(CUDA)
    ours, theirs = thalweg.Optimizer(params, "adam"), thalweg.Optimizer(others, "adam")
    stream = torch.cuda.Stream()
    give(params, 0)
    give(others, 0)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        cast(Any, torch.cuda)._sleep(50_000_000)
        for p in params:
            assert p.grad is not None
            p.grad.mul_(2.0)
        ours.step()
    stream.synchronize()
    for p in others:
        assert p.grad is not None
        p.grad.mul_(2.0)
    theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))


@pytest.mark.parametrize("info", DESCRIBED, ids=lambda info: info.optim_cls.__name__)
def test_torchs_own_settings(info: Any) -> None:
    """Torch's descriptions of its optimizers for a GPU: our classes step as torch's."""
    for given in info.optim_inputs_func(device=torch.device("cuda"), dtype=torch.float32):
        ends: list[list[torch.Tensor]] = []
        for cls in (getattr(optim, info.optim_cls.__name__), info.optim_cls):
            g = torch.Generator().manual_seed(0)
            shapes = ((3, 2), (2, 3)) if info.optim_cls is torch.optim.Muon else ((3, 2), (4,), ())
            params = [torch.nn.Parameter(torch.randn(shape, generator=g).cuda()) for shape in shapes]
            ends.append(walk(cls(params, **copy.deepcopy(given.kwargs)), params, None))
        torch.testing.assert_close(ends[0], ends[1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("info", DESCRIBED, ids=lambda info: info.optim_cls.__name__)
def test_torchs_own_errors(info: Any) -> None:
    for given in info.optim_error_inputs_func(device=torch.device("cuda"), dtype=torch.float32):
        check_error(info, given)


def test_a_gradient_on_another_device_is_named() -> None:
    p = torch.nn.Parameter(torch.ones(2, 3))
    optimizer = thalweg.Optimizer([("weight", p)], "adam")
    p.grad = torch.ones(2, 3)
    p.data = p.data.cuda()
    said = r"parameter 'weight' of shape \(2, 3\) is on cuda:0, and its gradient on cpu; move the model"
    with pytest.raises(RuntimeError, match=said):
        optimizer.step()
