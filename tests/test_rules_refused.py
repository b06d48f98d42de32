"""What matrix rules and wraps refuse: one sentence that says what to do, and nothing is changed."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

import thalweg
from thalweg import rules

WRAPS = [name for name, (cls, _) in rules.wrappers().items() if len(cls.example().bases) == 1 and name != "rotated"]


def wrapped(*texts: str) -> list[str]:
    """Rules as they are, and inside each wrap."""
    inside = [f"{wrap}({text})" for text in texts for wrap in WRAPS]
    return [
        *texts,
        *inside,
        *(f"grafted({text}, sgd)" for text in texts),
        *(f"grafted(adam, {text})" for text in texts),
    ]


MATRICES = wrapped("muon", "normuon", "moonlight", "dion_muon", "muon(split=3)")
FACTORS = wrapped("soap(max_size=2000000)", "rotated(adam, max_size=2000000)", "shampoo")
DECOMPOSED = wrapped("soap", "rotated(momentum)", "shampoo", "muon(normalize='spectral')")


def left(opt: thalweg.Optimizer, ps: list[nn.Parameter]) -> Any:
    """The parameters, the state and the groups."""
    held = opt.state_dict()
    return copy.deepcopy(([p.detach() for p in ps], held["state"], [len(g["params"]) for g in held["param_groups"]]))


def unchanged(opt: thalweg.Optimizer, ps: list[nn.Parameter], before: Any) -> None:
    """Assert that all is as it was, bit for bit."""
    torch.testing.assert_close(left(opt, ps), before, rtol=0, atol=0, equal_nan=True)


def stepped(text: str, shape: tuple[int, ...] = (6, 4)) -> tuple[thalweg.Optimizer, list[nn.Parameter]]:
    """Two parameters, ``a`` and ``b``, after a step."""
    ps = [nn.Parameter(torch.randn(shape, dtype=torch.float64)) for _ in range(2)]
    opt = thalweg.Optimizer([("a", ps[0]), ("b", ps[1])], text, backend="eager")
    for p in ps:
        p.grad = torch.randn_like(p)
    opt.step()
    return opt, ps


@pytest.mark.parametrize("text", MATRICES)
def test_a_vector_is_refused_with_its_name_and_where_to_route_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"parameter 'bias': Muon steps matrices.*shape \(3,\).*adam.*hidden_matrices"):
        thalweg.Optimizer([("weight", nn.Parameter(torch.ones(3, 3))), ("bias", nn.Parameter(torch.ones(3)))], text)
    opt, ps = stepped(text)
    before = left(opt, ps)
    with pytest.raises(ValueError, match=r"Muon steps matrices.*hidden_matrices"):
        opt.add_param_group({"params": [("bias", nn.Parameter(torch.ones(3)))]})
    unchanged(opt, ps, before)


@pytest.mark.parametrize("text", [*MATRICES, *DECOMPOSED])
def test_a_zero_matrix_stays_finite(text: str) -> None:
    opt, (p, q) = stepped(text)
    zero = nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    opt.add_param_group({"params": [("zero", zero)]})
    for _ in range(3):
        for x in (p, q, zero):
            x.grad = torch.zeros_like(x)
        opt.step()
    for x in (p, q, zero):
        assert torch.isfinite(x).all()


@pytest.mark.parametrize("text", DECOMPOSED)
def test_a_gradient_that_is_not_finite_is_refused_before_it_is_decomposed(text: str) -> None:
    opt, ps = stepped(text)
    before = left(opt, ps)
    for wrong in (torch.nan, torch.inf):
        ps[1].grad = torch.full_like(ps[1], wrong)
        with pytest.raises(RuntimeError, match=r"gradient of parameter 'b' is not finite, and .* nonfinite='skip'"):
            opt.step()
        unchanged(opt, ps, before)


@pytest.mark.parametrize("text", FACTORS)
def test_a_factor_too_large_for_memory_is_refused_with_its_size(text: str) -> None:
    huge = nn.Parameter(torch.empty(1_500_000, 2, device="meta"))
    with pytest.raises(ValueError, match=r"1500000 × 1500000, for axis 0 of .* take 18000 GB .*max_size"):
        thalweg.Optimizer([huge], text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rotated(muon)", r"Rotated's rule is Muon\(\), which sees more than an element; allowed is"),
        ("rotated(soap)", "which sees more than an element"),
        ("rotated(rotated(adam))", "which sees more than an element"),
        ("rotated(prodigy)", "which sees more than an element"),
        ("rotated(lamb)", "whose step depends on the parameter; allowed is.*weight decay is an argument of"),
        ("rotated(laprop)", "whose exp_avg is neither kind of average"),
        ("rotated(schedule_free(sgd))", "which looks ahead; allowed is"),
        ("schedule_free(nesterov(form=velocity))", "which looks ahead; allowed is a rule that takes the gradient at"),
        ("grafted(soap, schedule_free(sgd))", "Grafted's magnitude is .* which looks ahead"),
        ("cautious(rule=5)", "Cautious's rule is 5; allowed is a rule, as in"),
        ("rotated", r"Rotated wraps a rule; write it in its brackets, as in Rotated\(adam\)"),
        ("schedule_free(cautious)", "Cautious wraps a rule; write it in its brackets"),
        ("grafted(muon)", "Grafted wraps 2 rules, direction and magnitude; write them in its brackets"),
        ("cautious(muon, sgd)", "cautious cannot be read: it wraps 1 rule and was given 2"),
        ("grafted(adam, sgd, lion)", "it wraps 2 rules and was given 3"),
        ("muon(muon)", "it wraps no rules and was given 1"),
        ("soap(adam)", "it wraps no rules and was given 1"),
        ("cautious(muon", "cannot be read; write a name"),
        ("rotated(adam(lr=1e-3)", "cannot be read; write name=value"),
        ("cautious(adam)(sgd)", "cannot be read; write name=value"),
        ("cautious(5)", "cannot be read; write name=value"),
    ],
)
def test_what_cannot_be_wrapped_and_text_that_nests_wrongly(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules.parse(text)
