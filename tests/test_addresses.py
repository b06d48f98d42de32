"""Addresses of gradients from the native call against those from Python, and that training is the same with both."""

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg import rules
from thalweg.kernels import addresses
from thalweg.kernels.addresses import CHANGED, MOVED, SAME, Addresses

found_here = addresses._torches() is not None  # pyright: ignore[reportPrivateUsage]
native = pytest.mark.skipif(not found_here, reason="torch's C++ side is not found here; Python is asked")


def parameters() -> list[nn.Parameter]:
    params = [nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (4, 4), (), (5,), (2, 3, 4, 4))]
    for p in params:
        p.grad = torch.randn(p.shape)
    return params


def drop_one(params: list[nn.Parameter]) -> None:
    params[1].grad = None


def fresh(params: list[nn.Parameter]) -> None:
    for p in params:
        p.grad = torch.randn(p.shape)


def nothing(_: list[nn.Parameter]) -> None:
    pass


def move(params: list[nn.Parameter]) -> None:
    params[0].data = torch.ones(3, 4)


def swap(params: list[nn.Parameter]) -> None:
    torch.utils.swap_tensors(params[3], nn.Parameter(torch.zeros(5)))
    params[3].grad = torch.ones(5)


def transposed(params: list[nn.Parameter]) -> None:
    params[1].grad = torch.randn(4, 4).t()


def channels_last(params: list[nn.Parameter]) -> None:
    params[4].grad = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last)


def sparse(params: list[nn.Parameter]) -> None:
    params[0].grad = torch.ones(3, 4).to_sparse()


CHANGES: dict[Callable[[list[nn.Parameter]], None], int] = {
    nothing: SAME,
    fresh: SAME,
    move: MOVED,
    swap: MOVED,
    drop_one: CHANGED,
    transposed: CHANGED,
    channels_last: CHANGED,
    sparse: CHANGED,
}


@native
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_change_is_seen(change: Callable[[list[nn.Parameter]], None]) -> None:
    params = parameters()
    looked = Addresses.of(params, [])
    assert looked is not None
    kept = list(params)  # alive, whatever happens to their gradients
    change(params)
    assert looked.look() == CHANGES[change]
    if CHANGES[change] != CHANGED:
        assert looked.params.tolist() == [p.data_ptr() for p in kept]
        assert looked.grads.tolist() == [g.data_ptr() for p in kept if (g := p.grad) is not None]
        assert looked.look() == SAME


@native
def test_gradients_are_dropped_and_freed() -> None:
    params = parameters()
    looked = Addresses.of(params, [])
    assert looked is not None
    held = params[0].grad
    looked.drop()
    assert all(p.grad is None for p in params)
    assert held is not None
    assert held.isfinite().all()  # who else has it keeps it
    assert looked.look() == CHANGED
    looked.drop()


def train(model: nn.Module, watched: Callable[[int, list[Any]], None] | None = None) -> list[Tensor]:
    optimizer = thalweg.Optimizer(model.parameters(), rules.Adam(lr=0.1), clip_norm=1.0, backend="numba")
    generator = torch.Generator().manual_seed(2)
    params = list(model.parameters())
    for step in range(12):
        model(torch.randn(8, 6, generator=generator)).square().mean().backward()
        if watched:
            watched(step, params)
        optimizer.step(zero_grad=step % 3 == 0)
        if step % 3:
            optimizer.zero_grad()
    return [p.detach().clone() for p in params]


def unsettled(step: int, params: list[Any]) -> None:
    """What a training loop may do to parameters and gradients between backward and step."""
    if step == 3:
        params[0].grad = None
    if step == 5:
        params[2].data = params[2].detach().clone()
    if step == 7:
        params[0].grad = torch.ones(6, 5).t()
    if step == 9:
        params[1].requires_grad_(False)
        params[1].grad = None


@pytest.mark.parametrize("watched", [None, unsettled])
def test_training_is_the_same_through_python(
    monkeypatch: pytest.MonkeyPatch, watched: Callable[[int, list[Any]], None] | None
) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    start = {name: x.clone() for name, x in model.state_dict().items()}
    natively = train(model, watched)
    model.requires_grad_(True).load_state_dict(start)
    monkeypatch.setattr(addresses, "_torches", lambda: None)
    for one, other in zip(natively, train(model, watched), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("missing", ["c10", "torch_cpu"])
def test_without_torchs_libraries_python_is_asked(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    found = addresses._library  # pyright: ignore[reportPrivateUsage]

    def library(name: str) -> Any:
        if name == missing:
            raise LookupError(name)
        return found(name)

    monkeypatch.setattr(addresses, "_library", library)
    monkeypatch.setattr(addresses, "_torches", addresses._torches.__wrapped__)  # pyright: ignore
    assert Addresses.of(parameters(), []) is None


def test_where_the_tensor_stands_is_found_without_reading_beyond_its_object() -> None:
    p = nn.Parameter(torch.zeros(1))
    at = addresses._offset()  # pyright: ignore[reportPrivateUsage]
    assert 0 < at <= Tensor.__basicsize__ - ctypes.sizeof(ctypes.c_void_p)
    assert ctypes.c_int64.from_address(id(p) + at).value == p._cdata  # pyright: ignore
