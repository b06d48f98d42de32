"""The drop-ins whose steps depend on the shape of the parameter, against torch's: numbers, states, checkpoints."""

import copy
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from thalweg import optim
from thalweg.conventions import TABLE

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "Muon": [
        {}, {"nesterov": False, "weight_decay": 0.0}, {"adjust_lr_fn": "match_rms_adamw", "ns_steps": 3},
        {"momentum": 0.5, "ns_coefficients": (2.0, -1.5, 0.5)},
    ],
    "Adafactor": [
        {}, {"lr": 0.5, "weight_decay": 0.1}, {"maximize": True, "beta2_decay": -0.5}, {"eps": (1e-4, 1e-2), "d": 1.5},
    ],
}  # fmt: skip
SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "Muon": ((4, 3), (3, 5), (16, 16)),
    "Adafactor": ((4, 3), (6,), (2, 3, 4)),
}
GRID = [(name, settings) for name, own in SETTINGS.items() for settings in own]


def parameters(name: str, dtype: torch.dtype) -> list[nn.Parameter]:
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape, dtype=dtype)) for shape in SHAPES[name]]


def walk(optimizer: Any, params: list[nn.Parameter], steps: range) -> list[Tensor]:
    for step in steps:
        torch.manual_seed(step)
        for i, p in enumerate(params):
            g = torch.randn_like(p)
            p.grad = None if (i, step % 7) == (1, 3) else g
        optimizer.step()
    return [p.detach().clone() for p in params]


def test_every_such_name_is_tried() -> None:
    shaped = {name for name, meaning in TABLE["torch"].names.items() if meaning.template.fits}
    assert set(SETTINGS) == set(SHAPES) == shaped


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "settings"), GRID)
def test_numbers_are_torchs(name: str, settings: dict[str, Any], dtype: torch.dtype) -> None:
    ours, theirs = (parameters(name, dtype) for _ in range(2))
    first = walk(getattr(optim, name)(ours, **settings), ours, range(20))
    second = walk(getattr(torch.optim, name)(theirs, **settings), theirs, range(20))
    # In float32 a last bit decides now and then how the momentum of Muon is rounded to bfloat16.
    close = 1e-12 if dtype is torch.float64 else 1e-2 if name == "Muon" else 2e-5
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=close, atol=close * float(b.abs().max()))


@pytest.mark.parametrize("name", SETTINGS)
def test_signatures_are_torchs_and_the_tables(name: str) -> None:
    signature = inspect.signature(getattr(torch.optim, name))
    assert inspect.signature(getattr(optim, name)) == signature
    arguments = TABLE["torch"].names[name].arguments
    assert {k: a.default for k, a in arguments.items()} == {
        k: p.default for k, p in signature.parameters.items() if k != "params"
    }


@pytest.mark.parametrize("back", [False, True], ids=["theirs to ours", "ours to theirs"])
@pytest.mark.parametrize(("name", "settings"), GRID)
def test_checkpoints_both_ways(name: str, settings: dict[str, Any], back: bool) -> None:
    classes = getattr(optim, name), getattr(torch.optim, name)
    first, second = classes if back else reversed(classes)
    params = parameters(name, torch.float64)
    saving = first(params, **settings)
    walk(saving, params, range(10))
    state = copy.deepcopy(saving.state_dict())
    own = [nn.Parameter(p.detach().clone()) for p in params]
    loading = second(own)
    loading.load_state_dict(state)
    ends = walk(loading, own, range(10, 20)), walk(saving, params, range(10, 20))
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    for one, other in zip(saving.state_dict()["state"].values(), loading.state_dict()["state"].values(), strict=True):
        assert {k: x.shape for k, x in one.items()} == {k: x.shape for k, x in other.items()}
