"""Where parameters and gradients lie, seen natively, against what Python says; and what is left to Python."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg import rules
from thalweg.kernels import layout
from thalweg.kernels.parameters import Parameters, Written

native = pytest.mark.skipif(layout.find() is None, reason="torch's objects are not as native code knows them")

LEFT, FOUND, ABSENT = "left to Python", "found", "absent"


def parameters() -> list[Tensor]:
    params: list[Tensor] = [nn.Parameter(torch.randn(shape)) for shape in ((3, 4), (4, 4), (), (5,), (2, 3, 4, 4))]
    for p in params:
        p.grad = torch.randn(p.shape)
    return params


def nothing(_: list[Tensor]) -> None:
    pass


def fresh(params: list[Tensor]) -> None:
    for p in params:
        p.grad = torch.randn(p.shape)


def drop(params: list[Tensor]) -> None:
    params[1].grad = None


def move(params: list[Tensor]) -> None:
    params[1].data = torch.ones(4, 4)


def swap(params: list[Tensor]) -> None:
    torch.utils.swap_tensors(params[1], nn.Parameter(torch.zeros(4, 4)))
    params[1].grad = torch.ones(4, 4)


def transposed(params: list[Tensor]) -> None:
    params[1].grad = torch.randn(4, 4).t()


def sparse(params: list[Tensor]) -> None:
    params[1].grad = torch.ones(4, 4).to_sparse()


def negative(params: list[Tensor]) -> None:
    params[1].grad = torch.view_as_complex(torch.ones(4, 4, 2)).conj().imag


def numpys(params: list[Tensor]) -> None:
    params[1].grad = torch.from_numpy(torch.ones(4, 4).numpy().copy())


def lazily(params: list[Tensor]) -> None:
    params[1].grad = torch._lazy_clone(torch.ones(4, 4))  # pyright: ignore


def own(params: list[Tensor]) -> None:
    params[1].grad = params[1].data


def anothers(params: list[Tensor]) -> None:
    params[1].grad = (
        params[0].data.view(-1)[:16] if params[0].numel() >= 16 else params[4].data.view(-1)[:16].view(4, 4)
    )


CHANGES: dict[Callable[[list[Tensor]], None], str] = {
    nothing: FOUND, fresh: FOUND, drop: ABSENT, move: LEFT, swap: LEFT, transposed: LEFT, sparse: LEFT, negative: LEFT,
    numpys: LEFT, lazily: LEFT, own: LEFT, anothers: LEFT,
}  # fmt: skip


@native
@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_what_is_looked_at(change: Callable[[list[Tensor]], None]) -> None:
    """Native code has the addresses that Python says, or leaves a parameter to Python."""
    params = parameters()
    looked = Parameters([params])
    asked = looked.look()
    assert asked == list(range(5))
    assert [looked.examine(i) for i in range(5)] == 5 * [2]
    looked.records["home"] = 1
    looked.note([p.data_ptr() for p in params])
    assert looked.look() == []
    kept = [p.grad for p in params]  # alive, whatever happens to them
    change(params)
    asked = looked.look()
    assert asked == ([1] if CHANGES[change] == LEFT else [])
    for i, p in enumerate(params):
        if i != 1 or CHANGES[change] == FOUND:
            assert p.grad is not None
            assert looked.records["data"][i] == p.data_ptr()
            assert looked.records["grad"][i] == p.grad.data_ptr()
    assert len(kept) == 5


@native
def test_other_lists_are_seen() -> None:
    params = parameters()
    looked = Parameters([params])
    params[2], params[3] = params[3], params[2]
    assert looked.look() is None
    params.pop()
    assert looked.look() is None
    assert not looked.drop()


@native
def test_gradients_are_dropped_and_freed() -> None:
    params = parameters()
    looked = Parameters([params])
    held = params[0].grad
    assert looked.drop()
    assert all(p.grad is None for p in params)
    assert held is not None
    assert held.isfinite().all()  # who else has it keeps it
    assert looked.look() == []
    assert looked.drop()


def test_overlapping_memory_is_found() -> None:
    import numpy as np

    begins, ends, owners = (np.array(x) for x in ([0, 100, 40, 200, 130], [50, 140, 60, 210, 135], [0, 1, 2, 3, 4]))
    written = Written(begins, ends, owners)
    assert written.overlapping() == {0, 1, 2, 4}
    assert [written.touches(at) for at in ((60, 100), (59, 61), (210, 300), (0, 1), (136, 137))] == [
        False, True, False, True, True,
    ]  # fmt: skip


@pytest.mark.parametrize("nobody", [True, False])
def test_without_knowing_torchs_objects_steps_are_eager(monkeypatch: pytest.MonkeyPatch, nobody: bool) -> None:
    if nobody:
        monkeypatch.setattr(layout, "find", lambda: None)
    p = torch.zeros(3, requires_grad=True)
    optimizer = thalweg.Optimizer([p], rules.SGD(lr=1.0), backend="numba")
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), -torch.ones(3))
    expected = "Eager" if nobody or layout.find() is None else "Fused"
    assert type(optimizer._engine).__name__ == expected  # pyright: ignore[reportPrivateUsage]


def test_a_torch_whose_objects_are_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An offset that is wrong by one word is noticed: what is found is compared with what Python says."""
    if layout.find() is None:
        pytest.skip("torch's objects are not as native code knows them")
    found = layout._found()  # pyright: ignore[reportPrivateUsage]
    assert layout._agrees(found)  # pyright: ignore[reportPrivateUsage]
    for name in ("offset", "sizes", "strides", "ndim", "numel", "keys"):
        wrong = found.copy()
        wrong[name] += 8
        assert not layout._agrees(wrong)  # pyright: ignore[reportPrivateUsage]
