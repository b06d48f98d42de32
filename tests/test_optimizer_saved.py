"""A saved optimizer resumes bit for bit, however it was saved; a state that does not fit is refused."""

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
from cases import ALL, BACKENDS, NAMED, drive, optimizer, parameter, start
from thalweg import rules
from thalweg.rule import Rule

backends = pytest.mark.parametrize("backend", BACKENDS)

Pair = tuple[list[Any], thalweg.Optimizer]


def _through_file(params: list[Any], opt: thalweg.Optimizer, fresh: Callable[[list[Any]], thalweg.Optimizer]) -> Pair:
    file = io.BytesIO()
    torch.save({"params": params, "state": opt.state_dict()}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    again = fresh(loaded["params"])
    again.load_state_dict(loaded["state"])
    return loaded["params"], again


def _deepcopied(params: list[Any], opt: thalweg.Optimizer, fresh: Callable[..., Any]) -> Pair:
    return copy.deepcopy((params, opt))


def _pickled(params: list[Any], opt: thalweg.Optimizer, fresh: Callable[..., Any]) -> Pair:
    return pickle.loads(pickle.dumps((params, opt)))


WAYS = {"state_dict": _through_file, "deepcopy": _deepcopied, "pickle": _pickled}


def _steps_vectors(text: str) -> bool:
    try:
        return bool(rules.parse(text).fit((7,)))
    except ValueError:
        return False


KINDS = [
    *filter(_steps_vectors, NAMED),
    *(str(cls.example()) for cls, _ in rules.wrappers().values()),
    "adam(amsgrad=corrected)",
    "momentum(nesterov=lookahead)",
    "rmsprop(centered=True, momentum=0.5)",
]


# Every kind of state in float64, and representative ones in the other types.
TYPED = [
    *((text, torch.float64) for text in KINDS),
    *((text, dtype) for text in ("adam", "nadam", "rmsprop_nesterov") for dtype in (torch.float32, torch.bfloat16)),
]


@backends
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("text", "dtype"), TYPED, ids=str)
def test_training_resumes_as_if_never_stopped(text: str, way: str, dtype: torch.dtype, backend: str) -> None:
    def fresh(params: list[Any]) -> thalweg.Optimizer:
        return thalweg.Optimizer(
            params, rules.parse(text), ema=0.9, weight_decay=0.01, decay_form="l2", clip_norm=1.0, backend=backend
        )

    params: list[Any] = [parameter(start(n), dtype) for n in (7, 1)]
    opt = fresh(params)
    drive(opt, params[:1], 1)  # one of them starts later
    drive(opt, params, 3, seed=1)
    opt.param_groups[0]["lr"] *= 0.5
    others, again = WAYS[way](params, opt, fresh)
    assert all(x is not y for x, y in zip(params, others, strict=True))
    for o, ps in ((opt, params), (again, others)):
        drive(o, ps, 3, seed=2)
        o.eval()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    for o in (opt, again):
        o.train()
    assert all(torch.equal(p, q) for p, q in zip(params, others, strict=True))
    for p, q in zip(params, others, strict=True):
        for name, value in opt.state[p].items():
            assert torch.equal(value, again.state[q][name])
            assert value.dtype == again.state[q][name].dtype


@backends
def test_16_bit_parameters_have_float32_state_and_float64_numbers(backend: str) -> None:
    p = parameter(dtype=torch.bfloat16)
    opt = optimizer(p, rules.parse("nadam"), backend)
    drive(opt, [p], 2)
    kept = {name: x.dtype for name, x in opt.state[p].items()}
    assert kept == {
        "step": torch.float32, "exp_avg": torch.float32, "exp_avg_sq": torch.float32, "mu_product": torch.float64,
    }  # fmt: skip
    saved = opt.state_dict()
    opt.load_state_dict(saved)
    assert {name: x.dtype for name, x in opt.state[p].items()} == kept
    # As in torch, loaded state is converted to the parameters' type.
    q = parameter(dtype=torch.float64)
    other = optimizer(q, rules.parse("nadam"), backend)
    other.load_state_dict(saved)
    assert other.state[q]["exp_avg"].dtype == torch.float64
    drive(other, [q], 1)


@backends
@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_state_saved_in_eval_mode_can_go_back_to_training(ema: float | None, backend: str) -> None:
    rule = rules.Momentum(nesterov="lookahead")
    p, q = parameter(), parameter()
    opt, other = (optimizer(x, rule, backend, ema=ema) for x in (p, q))
    drive(opt, [p], 3)
    trained = p.detach().clone()
    opt.eval()
    with torch.no_grad():
        q.copy_(p)
    other.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert not other.training
    with pytest.raises(RuntimeError, match="eval mode"):
        other.step()
    other.train()
    assert torch.equal(q, trained)
    opt.train()
    for o, x in ((opt, p), (other, q)):
        drive(o, [x], 2, seed=9)
    assert torch.equal(p, q)


@backends
def test_the_state_is_tensors_numbers_and_texts(backend: str, tmp_path: Path) -> None:
    def plain(x: Any) -> bool:
        if isinstance(x, dict):
            return all(plain(v) for v in x.values())  # pyright: ignore[reportUnknownVariableType]
        if isinstance(x, list | tuple):
            return all(plain(v) for v in x)  # pyright: ignore[reportUnknownVariableType]
        return x is None or isinstance(x, Tensor | float | int | str)

    for rule in ALL:
        p = parameter()
        # An average of the weights is one more formula to compile, which does not depend on the rule's options.
        opt = optimizer(p, rule, backend, ema=0.5 if rule == type(rule).example() else None)
        drive(opt, [p], 1)
        assert plain(opt.state_dict())
        assert opt.state_dict()["param_groups"][0]["rule"] == str(rule)


def _saved(text: str, shape: tuple[int, ...] = (7,), groups: int = 1, params: int = 1) -> dict[str, Any]:
    ps = [[torch.nn.Parameter(torch.ones(shape)) for _ in range(params)] for _ in range(groups)]
    opt = thalweg.Optimizer([{"params": g} for g in ps], rules.parse(text))
    drive(opt, [p for g in ps for p in g], 1)
    return opt.state_dict()


REFUSED: list[tuple[str, Callable[[], dict[str, Any]], str]] = [
    ("adam", lambda: _saved("adam", groups=2), "has 2 parameter groups, this optimizer has 1"),
    ("adam", lambda: _saved("adam", params=3), "group 0 of the state has 3 parameters, this optimizer's has 1"),
    ("adam", lambda: _saved("adam", shape=(2, 2)), r"exp_avg of parameter 0 of its group has shape \(2, 2\)"),
    ("adam", lambda: _saved("sgd"), r"stepped by SGD\(\), this optimizer's rule is Adam\(\)"),
    ("adam", lambda: _saved("amsgrad"), r"stepped by Adam\(amsgrad=True\)"),
    ("amsgrad", lambda: _saved("adam"), r"stepped by Adam\(\), this optimizer's rule is Adam\(amsgrad=True\)"),
    ("rmsprop(momentum=0.9)", lambda: _saved("rmsprop"), r"stepped by RMSProp\(\)"),
    ("rmsprop", lambda: _saved("rmsprop(momentum=0.9)"), r"stepped by RMSProp\(momentum=0.9\)"),
    ("rmsprop", lambda: _saved("rmsprop(eps=None)"), r"stepped by RMSProp\(eps=None\)"),
    ("rmsprop(eps=None)", lambda: _saved("rmsprop"), r"stepped by RMSProp\(\)"),
    ("adam", lambda: torch.optim.Adam([torch.nn.Parameter(torch.ones(7))]).state_dict(), "not saved by a thalweg"),
    ("adam", dict, "no state of an optimizer"),
    ("adam", lambda: {"weight": torch.ones(3)}, "no state of an optimizer"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "state", "said"), REFUSED)
def test_a_state_that_does_not_fit_is_refused(text: str, state: Callable[[], dict[str, Any]], said: str) -> None:
    p = parameter(dtype=torch.float32)
    opt = optimizer(p, rules.parse(text), "auto")
    drive(opt, [p], 1)
    before = str(opt.state_dict())
    with pytest.raises(ValueError, match=said):
        opt.load_state_dict(state())
    assert str(opt.state_dict()) == before, "and nothing was changed"


def test_numbers_of_the_rule_may_differ() -> None:
    p = parameter(dtype=torch.float32)
    opt = optimizer(p, rules.parse("adam(lr=0.5, beta1=0.5)"), "auto")
    opt.load_state_dict(_saved("adam(lr=0.25)"))
    assert (opt.param_groups[0]["lr"], opt.param_groups[0]["beta1"]) == (0.25, 0.9)
    drive(opt, [p], 1)


def test_rules_are_kept_when_copied() -> None:
    rule: Rule = rules.Adam(lr=0.1)
    opt = copy.deepcopy(optimizer(parameter(), rule, "eager", clip_norm=2.0, ema=0.5, nonfinite="skip"))
    assert (opt.rule, opt.clip_norm, opt.ema, opt.nonfinite, opt.backend) == (rule, 2.0, 0.5, "skip", "eager")
    opt.add_param_group({"params": [parameter()]})
    assert opt.param_groups[1]["rule"] == rule


@pytest.mark.parametrize("backend", BACKENDS)
def test_states_are_matched_by_name(backend: str) -> None:
    a, b = (torch.ones(2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    c, d = (x.detach().clone().requires_grad_() for x in (a, b))
    one = thalweg.Optimizer([("a", a), ("b", b)], rules.parse("adam"), backend=backend)
    a.grad, b.grad = torch.full_like(a, 2.0), torch.full_like(b, -3.0)
    one.step()
    c.data, d.data = a.detach().clone(), b.detach().clone()
    other = thalweg.Optimizer([("b", d), ("a", c)], rules.parse("adam"), backend=backend)
    other.load_state_dict(one.state_dict())
    for p, q in ((a, c), (b, d)):
        assert torch.equal(one.state[p]["exp_avg"], other.state[q]["exp_avg"])
        q.grad = p.grad
    one.step()
    other.step()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    third = thalweg.Optimizer([("b", d), ("A", c)], rules.parse("adam"), backend=backend)
    with pytest.raises(ValueError, match="this state has no parameter 'A'"):
        third.load_state_dict(one.state_dict())


# -------------------------------------------------------------------------------- names of wrapped models

WRAPPED: dict[str, tuple[str, str]] = {
    "compiled": ("_orig_mod.", ""),
    "into compiled": ("", "_orig_mod."),
    "distributed and compiled": ("module._orig_mod.", ""),
    "a part compiled": ("body._orig_mod.", "body."),
    "distributed into a part checkpointed": ("module.", "_checkpoint_wrapped_module."),
}


@pytest.mark.parametrize(("saved", "own"), WRAPPED.values(), ids=WRAPPED)
@pytest.mark.parametrize("drop_in", [False, True])
def test_parameter_names_match_whatever_wraps_the_model(saved: str, own: str, drop_in: bool) -> None:
    def made(names: list[str]) -> tuple[Any, list[Any]]:
        params = [parameter(start(3)) for _ in names]
        named = list(zip(names, params, strict=True))
        return thalweg.optim.Adam(named) if drop_in else thalweg.Optimizer(named, "adam"), params

    first, params = made([f"{saved}weight", f"{saved}bias"])
    drive(first, params, 2)
    second, others = made([f"{own}bias", f"{own}weight"])  # the other way round
    second.load_state_dict(first.state_dict())
    assert second.param_groups[0]["param_names"] == [f"{own}bias", f"{own}weight"]
    for p, q in zip(params, reversed(others), strict=True):
        assert torch.equal(first.state[p]["exp_avg"], second.state[q]["exp_avg"])
    with pytest.raises(ValueError, match=r"has no parameter"):
        made([f"{own}bias", f"{own}scale"])[0].load_state_dict(first.state_dict())


@pytest.mark.parametrize("drop_in", [False, True])
def test_hooks_that_unwrap_what_is_loaded_run_first(drop_in: bool) -> None:
    def made() -> tuple[Any, list[Any]]:
        params = [parameter(start(3)), parameter(start(3))]
        named = list(zip("ab", params, strict=True))
        return thalweg.optim.SGD(named, momentum=0.9) if drop_in else thalweg.Optimizer(named, "momentum"), params

    first, params = made()
    drive(first, params, 2)
    second, others = made()

    def unwrap(_: Any, state: Any) -> Any:
        return state["optimizer"]

    second.register_load_state_dict_pre_hook(unwrap)
    second.load_state_dict({"epoch": 3, "optimizer": first.state_dict()})
    for p, q in zip(params, others, strict=True):
        assert torch.equal(first.state[p]["momentum_buffer"], second.state[q]["momentum_buffer"])
