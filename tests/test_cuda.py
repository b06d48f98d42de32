"""What only a GPU can show: captured steps, nothing that waits for the device, streams, many small tensors.

Without one all of it is skipped; what the kernels compute is tested in Triton's interpreter by ``test_triton.py``.
"""

import copy
from typing import Any, cast

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import thalweg
from test_optim_described import DESCRIBED, check_error, walk
from thalweg import optim, schedules
from thalweg.kernels import triton

LACKING = triton.lacking(torch.device("cuda")) if torch.cuda.is_available() else "torch finds no GPU"
pytestmark = pytest.mark.skipif(LACKING is not None, reason=f"this needs a GPU: {LACKING}")

SHAPES = ((64, 33), (33,), (), (5, 4, 3))
FORM: dict[str, Any] = {"clip_norm": 1.0, "ema": 0.9, "weight_decay": 0.1, "decay_form": "scaled"}


def model(device: str = "cuda", count: int = 1) -> list[torch.nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(s, generator=g).to(device)) for _ in range(count) for s in SHAPES]


def give(params: list[torch.nn.Parameter], seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    for p in params:
        noise = torch.randn(p.shape, generator=g).to(p.device)
        if p.grad is None:
            p.grad = noise
        else:
            p.grad.copy_(noise)


@pytest.mark.parametrize("rule", ["adam", "nadam", "lamb", "prodigy", "lion"])
def test_as_on_the_cpu(rule: str) -> None:
    here, there = model(), model("cpu")
    ours = thalweg.Optimizer(here, rule, **FORM)
    theirs = thalweg.Optimizer(there, rule, backend="eager", **FORM)
    for step in range(20):
        give(here, step)
        give(there, step)
        ours.step()
        theirs.step()
    for p, q in zip(here, there, strict=True):
        torch.testing.assert_close(p.cpu(), q, rtol=1e-5, atol=1e-6)


def test_bits_repeat() -> None:
    found: list[list[torch.nn.Parameter]] = []
    for _ in range(2):
        params = model(count=20)
        optimizer = thalweg.Optimizer(params, "lamb", state_dtype=torch.bfloat16, **FORM)
        for step in range(5):
            give(params, step)
            optimizer.step()
        found.append(params)
    assert all(torch.equal(p, q) for p, q in zip(*found, strict=True))


def test_a_captured_step_is_the_uncaptured_one() -> None:
    steps = 1_000
    settings: dict[str, Any] = {"schedule": schedules.warmup(100).then(schedules.cosine(900)), **FORM}
    here, there = model(), model()
    ours = thalweg.Optimizer(here, "adam", capturable=True, **settings)
    theirs = thalweg.Optimizer(there, "adam", **settings)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        give(here, 0)
        ours.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        ours.step()
    give(there, 0)
    theirs.step()
    for step in range(1, steps):
        give(here, step)
        give(there, step)
        graph.replay()
        ours.replayed()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(here, there, strict=True))
    assert float(ours.state[here[0]]["step"]) == steps


@pytest.mark.parametrize("scaled", [False, True])
def test_nothing_waits_for_the_device(scaled: bool) -> None:
    params = model(count=5)
    optimizer = thalweg.Optimizer(params, "adam", nonfinite="skip", schedule=schedules.cosine(1_000), **FORM)
    scaler = torch.amp.GradScaler("cuda", enabled=scaled)

    def step() -> None:
        loss = torch.stack([(p.float() ** 2).sum() for p in params]).sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(100):
            step()
    torch.cuda.synchronize()
    names: list[str] = [event.key for event in cast(Any, found.key_averages())]
    assert not [name for name in names if "cudaStreamSynchronize" in name or "DtoH" in name]


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
    params, others = model(), model()
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
