"""Rules that estimate their rate from all parameters together: numbers shared, rates alike, resuming."""

import copy
from typing import Any

import pytest
import torch

import thalweg
from cases import BACKENDS, TOTAL, drive
from thalweg import rules
from thalweg.fields import shared_fields
from thalweg.rule import Rule

ESTIMATED = ("dog", "dog(first=distance)", "dog(first=learning_rate)", "dowg", "prodigy", "dadaptadam")

each = pytest.mark.parametrize("text", ESTIMATED)
backends = pytest.mark.parametrize("backend", BACKENDS)


def params() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, dtype=torch.float64)) for shape in ((3, 2), (4,), ())]


def test_these_are_all_that_share_numbers() -> None:
    assert {type(rules.parse(text)).__name__ for text in ESTIMATED} == TOTAL


@each
@backends
def test_one_tensor_or_several_are_one_problem(text: str, backend: str) -> None:
    several = params()
    whole = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in several]))
    one, other = (thalweg.Optimizer(ps, text, backend=backend) for ps in ([whole], several))
    for t in range(6):
        torch.manual_seed(t)
        whole.grad = torch.randn_like(whole)
        begin = 0
        for p in several:
            p.grad = whole.grad[begin : begin + p.numel()].reshape(p.shape).clone()
            begin += p.numel()
        one.step()
        other.step()
    joined = torch.cat([p.detach().flatten() for p in several])
    torch.testing.assert_close(whole.detach(), joined, rtol=1e-10, atol=1e-14)
    for name in shared_fields(rules.parse(text).State):
        assert len({float(other.state[p][name]) for p in several}) == 1


@each
@backends
def test_resuming_is_exact(text: str, backend: str) -> None:
    ps = params()
    opt = thalweg.Optimizer(ps, text, backend=backend)
    drive(opt, ps, 3)
    state, points = copy.deepcopy(opt.state_dict()), [p.detach().clone() for p in ps]
    drive(opt, ps, 3, seed=1)
    again: list[Any] = [torch.nn.Parameter(p) for p in points]
    other = thalweg.Optimizer(again, text, backend=backend)
    other.load_state_dict(state)
    drive(other, again, 3, seed=1)
    for p, q in zip(ps, again, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("rule", [rules.Prodigy(), rules.DAdaptAdam(), rules.Cautious(rules.Prodigy())], ids=str)
def test_unequal_rates_are_refused_and_rates_of_zero_do_not_move(rule: Rule) -> None:
    ps = params()
    opt = thalweg.Optimizer([{"params": ps[:1], "lr": 0.5}, {"params": ps[1:]}], rule)
    before = [p.detach().clone() for p in ps]
    for _ in range(2):
        with pytest.raises(ValueError, match=r"rates are 0.5, 1; \w+ estimates one rate for all.*one value of lr, or"):
            drive(opt, ps, 1)
    assert all(torch.equal(p, q) for p, q in zip(ps, before, strict=True)), "nothing is changed"
    opt.param_groups[0]["lr"] = 0.0
    drive(opt, ps, 3)
    assert torch.equal(ps[0], before[0])
    assert not torch.equal(ps[1], before[1])
