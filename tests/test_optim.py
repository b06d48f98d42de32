"""The drop-in against torch.optim itself: numbers, checkpoints, services."""

import copy
import inspect
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cases import TORCHS
from thalweg import optim
from thalweg.conventions import TABLE

NAMES = TORCHS
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        {"momentum": 0.9},
        {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
        {"momentum": 0.9, "nesterov": True},
        {"momentum": 1.0},
    ],
    "Adagrad": [{"lr_decay": 0.1}, {"initial_accumulator_value": 0.2, "eps": 1e-3}],
    "RMSprop": [
        {"momentum": 0.9},
        {"centered": True},
        {"centered": True, "momentum": 0.5, "alpha": 0.9, "eps": 1e-4},
        {"alpha": 1.0},
    ],
    "Adam": [
        {"amsgrad": True},
        {"betas": (0.5, 0.8), "eps": 1e-3},
        {"decoupled_weight_decay": True, "weight_decay": 0.1},
    ],
    "AdamW": [{"amsgrad": True}, {"betas": (0.5, 0.8), "weight_decay": 0.5}],
    "NAdam": [{"momentum_decay": 0.1}, {"decoupled_weight_decay": True, "weight_decay": 0.1}],
    "RAdam": [{"betas": (0.8, 0.9)}, {"betas": (0.8, 0.6)}, {"decoupled_weight_decay": True, "weight_decay": 0.1}],
    "Adamax": [{"betas": (0.5, 0.8), "eps": 1e-3}],
    "Adadelta": [{"rho": 0.5, "eps": 1e-3}, {"lr": 0.1}],
    "ASGD": [{"lambd": 0.1, "alpha": 0.5}, {"t0": 10}],
    "Rprop": [{"etas": (0.3, 1.5)}, {"step_sizes": (1e-3, 0.02)}],
}
EVERYWHERE: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}, {"maximize": True}, {"foreach": True}]
GRID = [
    pytest.param(name, settings, id=f"{name}-{settings}")
    for name in NAMES
    for settings in EVERYWHERE + SETTINGS[name]
    if "weight_decay" not in settings or "weight_decay" in TABLE["torch"].names[name].arguments
]
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "transposed": lambda x: x.t(),
    "strided": lambda x: x.repeat_interleave(2, 1)[:, ::2],
}
CLOSE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.complex128: 1e-12}


def classes(name: str) -> tuple[Any, Any]:
    return getattr(optim, name), getattr(torch.optim, name)


def parameters(dtype: torch.dtype, layout: str = "plain") -> list[nn.Parameter]:
    torch.manual_seed(1)
    shapes = ((3, 4), (50, 40), (1, 1))
    starts = [torch.randn(shape, dtype=dtype) for shape in shapes]
    # No element changes its sign: where decay is all its gradient, Adam divides it by its own size, and one bit of
    # rounding becomes a million as the element crosses zero.
    return [nn.Parameter(LAYOUTS[layout](x + 0.3 * x.sgn())) for x in starts]


def give(params: list[nn.Parameter], step: int) -> None:
    """Set gradients that depend only on shape, place and step; one parameter has none in every seventh step."""
    torch.manual_seed(step)
    for i, p in enumerate(params):
        g = torch.randn(p.shape, dtype=p.dtype) * 10.0 ** (i - 1)
        g[..., 0] = 0
        p.grad = None if (i, step % 7) == (1, 3) else torch.empty_like(p).copy_(g)


def groups(params: list[nn.Parameter]) -> list[dict[str, Any]]:
    return [{"params": params[:1]}, {"params": params[1:], "lr": 3e-3}]


def walk(optimizer: Any, params: list[nn.Parameter], steps: range) -> list[Tensor]:
    for step in steps:
        give(params, step)
        optimizer.step()
    return [p.detach().clone() for p in params]


def same(ours: list[Tensor], theirs: list[Tensor], dtype: torch.dtype) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.isfinite().all()
        # Relative to the largest element, since elements may be close to zero.
        torch.testing.assert_close(a, b, rtol=CLOSE[dtype], atol=CLOSE[dtype] * float(b.abs().max()))


@pytest.mark.parametrize(
    ("dtype", "layout"),
    [*((torch.float64, layout) for layout in LAYOUTS), (torch.float32, "plain"), (torch.complex128, "strided")],
    ids=str,
)
@pytest.mark.parametrize(("name", "settings"), GRID)
def test_numbers_are_torchs(name: str, settings: dict[str, Any], dtype: torch.dtype, layout: str) -> None:
    params = [parameters(dtype, layout) for _ in range(2)]
    ours, theirs = classes(name)
    # In torch `foreach` changes the last bits of ASGD; here it does not.
    plain = {key: x for key, x in settings.items() if key != "foreach"}
    made = ours(groups(params[0]), **settings), theirs(groups(params[1]), **plain)
    ends = [walk(optimizer, own, range(50)) for optimizer, own in zip(made, params, strict=True)]
    same(ends[0], ends[1], dtype)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_torchs_and_the_tables(name: str) -> None:
    ours, theirs = classes(name)
    signature = inspect.signature(theirs)
    assert inspect.signature(ours) == signature
    arguments = TABLE["torch"].names[name].arguments
    assert {k: a.default for k, a in arguments.items()} == {
        k: p.default for k, p in signature.parameters.items() if k != "params"
    }
    assert issubclass(ours, theirs)
    assert ours.__name__ == name
    assert name in optim.__all__


@pytest.mark.parametrize("back", [False, True], ids=["theirs to ours", "ours to theirs"])
@pytest.mark.parametrize(("name", "settings"), GRID)
def test_checkpoints_both_ways(name: str, settings: dict[str, Any], back: bool) -> None:
    first, second = reversed(classes(name)) if not back else classes(name)
    params = parameters(torch.float32)
    saving = first(groups(params), **settings)
    walk(saving, params, range(10))
    file = io.BytesIO()
    torch.save(saving.state_dict(), file)
    file.seek(0)
    own = [nn.Parameter(p.detach().clone()) for p in params]
    loading = second(groups(own))
    loading.load_state_dict(torch.load(file, weights_only=True))
    same(walk(loading, own, range(10, 30)), walk(saving, params, range(10, 30)), torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_states_have_torchs_names_and_shapes(name: str) -> None:
    saved: list[Any] = []
    for cls in classes(name):
        params = parameters(torch.float64)
        optimizer = cls(groups(params))
        walk(optimizer, params, range(4))
        saved.append(optimizer.state_dict())
    ours, theirs = saved
    assert ours["param_groups"] == theirs["param_groups"]
    assert {i: held.keys() for i, held in ours["state"].items()} == {
        i: held.keys() for i, held in theirs["state"].items()
    }
    for i, held in theirs["state"].items():
        for key, value in held.items():
            assert ours["state"][i][key].shape == value.shape, key


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_copies_continue_alike(name: str, pickled: bool) -> None:
    params = parameters(torch.float32)
    optimizer = getattr(optim, name)(params)
    walk(optimizer, params, range(5))
    again = pickle.loads(pickle.dumps(optimizer)) if pickled else copy.deepcopy(optimizer)
    same(walk(again, again.param_groups[0]["params"], range(5, 9)), walk(optimizer, params, range(5, 9)), torch.float32)
