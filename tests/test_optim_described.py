"""Torch's own descriptions of its optimizers (``optim_db``), run on our classes: settings, schedulers, errors."""

import copy
import warnings
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from thalweg import optim
from thalweg.conventions import TABLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

OURS = set(TABLE["torch"].names)
DESCRIBED = [info for info in cast(Any, common_optimizers).optim_db if info.optim_cls.__name__ in OURS]
CPU = torch.device("cpu")


def described(function: str) -> list[Any]:
    """All of torch's descriptions of that kind for the CPU."""
    return [
        pytest.param(info, given, id=f"{info.optim_cls.__name__}-{i}")
        for info in DESCRIBED
        for i, given in enumerate(getattr(info, function)(device=CPU, dtype=torch.float64))
    ]


def walk(optimizer: Any, params: list[nn.Parameter], scheduler: Any) -> list[Tensor]:
    for step in range(10):
        torch.manual_seed(step)
        for p in params:
            p.grad = torch.randn_like(p)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    return [p.detach() for p in params]


def test_all_are_described() -> None:
    assert {info.optim_cls.__name__ for info in DESCRIBED} == OURS


@pytest.mark.parametrize(("info", "given"), described("optim_inputs_func"))
def test_settings_and_schedulers(info: Any, given: Any) -> None:
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau
    for make in [None, *(makers[-1] for makers in info.scheduler_inputs if not _is(makers[-1], plateau))]:
        ends: list[list[Tensor]] = []
        for cls in (getattr(optim, info.optim_cls.__name__), info.optim_cls):
            torch.manual_seed(0)
            shapes: Any = ((3, 2), (2, 3)) if info.optim_cls is torch.optim.Muon else ((3, 2), (4,), ())
            params = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in shapes]
            optimizer = cls(params, **copy.deepcopy(given.kwargs))
            ends.append(walk(optimizer, params, None if make is None else make(optimizer)))
        # Where torch rounds a momentum to bfloat16, its last bit decides now and then.
        rtol = 1e-5 if info.optim_cls is torch.optim.Muon else 1e-12
        torch.testing.assert_close(ends[0], ends[1], rtol=rtol, atol=1e-15)


def _is(make: Any, kind: type[Any]) -> bool:
    return isinstance(make(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)), kind)


@pytest.mark.parametrize(("info", "given"), described("optim_error_inputs_func"))
def test_errors(info: Any, given: Any) -> None:
    check_error(info, given)


def check_error(info: Any, given: Any) -> None:
    """What torch's class refuses is refused by ours."""
    wrong = given.optimizer_error_input
    cls = getattr(optim, info.optim_cls.__name__)
    if issubclass(given.error_type, Warning):
        with pytest.warns(given.error_type, match=given.error_regex):
            cls(wrong.params, **wrong.kwargs)
    else:
        at_step = given.error_on == cast(Any, common_optimizers).OptimizerErrorEnum.STEP_ERROR
        optimizer = cls(wrong.params, **wrong.kwargs) if at_step else None
        with pytest.raises(given.error_type, match=given.error_regex):
            cls(wrong.params, **wrong.kwargs) if optimizer is None else optimizer.step()
