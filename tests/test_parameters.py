"""Native code sees the same addresses of parameters and gradients as Python, or leaves them to Python."""

import weakref
from collections import UserDict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import thalweg
from thalweg import rules
from thalweg.kernels import layout
from thalweg.kernels.parameters import Parameters, Written

native = pytest.mark.skipif(layout.find() is None, reason="native code does not know this torch's objects")

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
def test_changes_are_seen(change: Callable[[list[Tensor]], None]) -> None:
    """Native code has the addresses that Python reports, or leaves the parameter to Python."""
    params = parameters()
    looked = Parameters([params])
    asked = looked.look()
    assert asked is not None
    assert asked == list(range(5))
    assert looked.examine(asked) == 5 * [2]
    looked.records["home"] = 1
    looked.note([p.data_ptr() for p in params])
    assert looked.look() == []
    kept = [p.grad for p in params]  # keeps their memory from being used again for new gradients
    change(params)
    asked = looked.look()
    assert asked == ([1] if CHANGES[change] == LEFT else [])
    for i, p in enumerate(params):
        if i != 1 or CHANGES[change] == FOUND:
            assert p.grad is not None
            assert looked.records["data"][i] == p.data_ptr()
            assert looked.records["grad"][i] == p.grad.data_ptr()
    del kept


@native
def test_changed_lists_of_parameters_are_seen() -> None:
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
    held, values = params[0].grad, cast(Tensor, params[0].grad).clone()
    others = [weakref.ref(cast(Tensor, p.grad)) for p in params[1:]]
    assert looked.drop()
    assert all(p.grad is None for p in params)
    assert [reference() for reference in others] == 4 * [None]
    assert torch.equal(cast(Tensor, held), values), "a gradient that somebody else holds is not freed"
    assert looked.look() == []
    assert looked.drop()


def test_overlapping_memory_is_found() -> None:
    import numpy as np

    begins, ends, owners = (np.array(x) for x in ([0, 100, 40, 200, 130], [50, 140, 60, 210, 135], [0, 1, 2, 3, 4]))
    written = Written(begins, ends, owners)
    assert written.overlapping() == {0, 1, 2, 4}
    found = {(60, 100): set[int](), (59, 61): {2}, (210, 300): set[int](), (0, 1): {0}, (45, 101): {0, 1, 2}}
    assert {at: written.owners([at]) for at in found} == found
    assert written.owners(list(found)) == {0, 1, 2}


@pytest.mark.parametrize("unknown", [True, False])
def test_without_knowing_torchs_objects_steps_are_eager(monkeypatch: pytest.MonkeyPatch, unknown: bool) -> None:
    if unknown:
        monkeypatch.setattr(layout, "find", lambda: None)
    p = torch.zeros(3, requires_grad=True)
    optimizer = thalweg.Optimizer([p], rules.SGD(lr=1.0), backend="numba")
    p.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(p.detach(), -torch.ones(3))
    expected = "Eager" if unknown or layout.find() is None else "Fused"
    assert type(optimizer._engine).__name__ == expected  # pyright: ignore[reportPrivateUsage]


@native
def test_a_wrong_offset_in_torchs_objects_is_noticed() -> None:
    """An offset that is off by one word contradicts what Python reports."""
    found = layout._found()  # pyright: ignore[reportPrivateUsage]
    assert layout._agrees(found)  # pyright: ignore[reportPrivateUsage]
    for name in ("offset", "sizes", "strides", "ndim", "numel", "keys"):
        wrong = found.copy()
        wrong[name] += 8
        assert not layout._agrees(wrong)  # pyright: ignore[reportPrivateUsage]


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "nothing": lambda held: None,
    "replaced": lambda held: held.update(exp_avg=torch.full((4,), 0.5)),
    "deleted": lambda held: held.pop("exp_avg"),
    "cleared": lambda held: held.clear(),
    "a key of the user's own": lambda held: held.update(mine=1),
}


@native
@pytest.mark.parametrize("numbered", [True, False])
@pytest.mark.parametrize("rule", ["adam(lr=0.1)", "sgd(lr=0.1)"])
@pytest.mark.parametrize("edit", EDITS)
def test_edited_state_is_noticed_whether_or_not_python_numbers_dictionaries(
    edit: str, rule: str, numbered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = layout.find()
    assert found is not None
    if not numbered:  # as since CPython 3.13
        changed = found.copy()
        changed["dict_version"] = 0
        monkeypatch.setattr(layout, "find", lambda: changed)
    ends: list[Tensor] = []
    for backend in ("numba", "eager"):
        p = nn.Parameter(torch.ones(4))
        optimizer = thalweg.Optimizer([p], rule, backend=backend)
        for step in range(4):
            p.grad = torch.full((4,), 1.0 + step)
            if step == 2 and (edit != "deleted" or "exp_avg" in optimizer.state[p]):
                EDITS[edit](optimizer.state[p])
            optimizer.step()
            assert optimizer.state[p]["step"] == step + 1 - 2 * (edit == "cleared" and step >= 2)
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1])


def test_state_in_a_mapping_of_the_users_own_may_be_replaced() -> None:
    ends: list[Tensor] = []
    for backend in ("numba", "eager"):
        p = nn.Parameter(torch.ones(4))
        optimizer: Any = thalweg.Optimizer([p], "adam(lr=0.1)", backend=backend)
        for step in range(4):
            p.grad = torch.full((4,), 1.0 + step)
            optimizer.step()
            if step == 0:
                optimizer.state = UserDict[Any, Any](optimizer.state)
            else:
                optimizer.state[p] = {**optimizer.state[p], "exp_avg": torch.full((4,), 0.5 * step)}
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1])
