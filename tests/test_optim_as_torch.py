"""What torch's own tests check of its optimizers: hooks, differentiable steps, fake tensors, saved types.

Settings come from torch's descriptions of its optimizers (``optim_db``); the expected result is that of torch's class.
"""

import copy
import functools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cases import TORCHS
from thalweg import optim
from thalweg.conventions import TABLE

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch.testing._internal import common_optimizers

NAMES = TORCHS
every = pytest.mark.parametrize("name", NAMES)


def settings(name: str, **keywords: Any) -> Iterator[dict[str, Any]]:
    """All of torch's descriptions for a CPU, with foreach, fused and differentiable if they are supported."""
    common = cast(Any, common_optimizers)
    info = next(info for info in common.optim_db if info.optim_cls.__name__ == name)
    for given in common._get_optim_inputs_including_global_cliquey_kwargs("cpu", torch.float32, info, **keywords):
        yield copy.deepcopy(given.kwargs)


def classes(name: str) -> tuple[Any, Any]:
    return getattr(optim, name), getattr(torch.optim, name)


def parameter(dtype: torch.dtype = torch.float32) -> nn.Parameter:
    torch.manual_seed(0)
    p = nn.Parameter(torch.randn(3, 2, dtype=dtype))
    p.grad = torch.randn_like(p)
    return p


def outcome(does: Callable[[], Any]) -> tuple[Any, str]:
    """What a call returns, or the type of its error and the message."""
    try:
        return does(), ""
    except Exception as error:
        return type(error), str(error)


# ------------------------------------------------------------ hooks, and users' own entries


@every
def test_entries_of_users_are_saved_and_loaded(name: str) -> None:
    for given in settings(name, skip=("differentiable",)):
        ends: list[Any] = []
        for cls in classes(name):
            p = parameter()
            optimizer = cls([p], **given)
            optimizer.step()
            optimizer.state["epoch"] = 3
            optimizer.state["note"] = {"step": None, "mean": torch.ones(7, dtype=torch.float16)}
            optimizer.state[p]["seen"] = torch.ones(5, dtype=torch.int64)
            optimizer.state[p]["nothing"] = None
            saved = optimizer.state_dict()
            again = cls([parameter()], **given)
            again.load_state_dict(copy.deepcopy(saved))
            mine = again.state[again.param_groups[0]["params"][0]]
            ends.append((saved["state"]["epoch"], saved["state"]["note"], again.state["epoch"], again.state["note"],
                         mine["seen"], mine["nothing"], saved["state"][0].keys()))  # fmt: skip
        torch.testing.assert_close(ends[0][:6], ends[1][:6], rtol=0, atol=0)
        assert ends[0][6] == ends[1][6]


@every
def test_hooks_see_and_may_change_what_torchs_see(name: str) -> None:
    def note(optimizer: Any) -> None:
        optimizer.state["test"] = 1

    def drop(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        state["dropped"] = state["state"].pop("test", None)
        return state

    def faster(_: Any, state: dict[str, Any]) -> dict[str, Any]:
        state = copy.deepcopy(state)
        state["param_groups"][0]["lr"] = 0.003
        return state

    def loaded(optimizer: Any) -> None:
        optimizer.state["lr then"] = optimizer.param_groups[0]["lr"]

    for given in settings(name):
        ends: list[Any] = []
        for cls in classes(name):
            optimizer = cls([parameter()], **copy.deepcopy(given))
            optimizer.register_state_dict_pre_hook(note)
            first = optimizer.state_dict()["state"]
            optimizer.register_state_dict_post_hook(drop)
            second = optimizer.state_dict()
            optimizer.register_load_state_dict_pre_hook(faster)
            optimizer.register_load_state_dict_post_hook(loaded)
            optimizer.load_state_dict(second)
            ends.append(
                (
                    first,
                    second["dropped"],
                    second["state"],
                    {k: x for k, x in optimizer.state.items() if isinstance(k, str)},
                )
            )
        torch.testing.assert_close(ends[0], ends[1], rtol=0, atol=0)


# ------------------------------------------------------------ gradients of the step, groups of several formulas

TENSORS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"lr": 0.01}) for name in NAMES),
    *((name, {"weight_decay": 0.3}) for name in NAMES if name != "Rprop"),
    *((name, {"lr": 0.01, "weight_decay": 0.3, "decoupled_weight_decay": True}) for name in ("Adam", "NAdam", "RAdam")),
    *((name, {"eps": 1e-2}) for name in NAMES if name not in ("SGD", "ASGD", "Rprop")),
    *((name, {"beta1": 0.8, "beta2": 0.95}) for name in ("Adam", "AdamW")),
    ("SGD", {"momentum": 0.8}),
    ("RMSprop", {"momentum": 0.8}),
    ("RMSprop", {"alpha": 0.8}),
    ("Adadelta", {"rho": 0.8}),
]


@pytest.mark.parametrize("seen", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("name", "given"), TENSORS, ids=str)
def test_autograd_sees_what_torchs_shows_it(name: str, given: dict[str, Any], seen: torch.dtype) -> None:
    def gradients(cls: Any) -> Any:
        p = parameter(seen)
        start = p.detach().clone().requires_grad_()
        p = start.clone()  # the step changes it in place, which a leaf that requires gradients does not allow
        hyper = {
            key: torch.tensor(x, dtype=seen, requires_grad=True) for key, x in given.items() if not isinstance(x, bool)
        }
        keywords: dict[str, Any] = {**given, **hyper}
        if "beta1" in keywords:
            keywords["betas"] = (keywords.pop("beta1"), keywords.pop("beta2"))
        optimizer = cls([p], differentiable=True, **keywords)
        grads = [torch.randn(3, 2, dtype=seen, requires_grad=True) for _ in range(3)]
        for g in grads:
            p.grad = g
            optimizer.step()
        found = torch.autograd.grad(p.square().sum(), [start, *grads, *hyper.values()], allow_unused=True)
        return [p.detach(), *found, *(x for x in optimizer.state[p].values() if isinstance(x, Tensor) and x.ndim)]

    ours, theirs = (outcome(functools.partial(gradients, cls)) for cls in classes(name))
    if theirs[1]:
        assert ours == theirs
        return
    assert len(ours[0]) == len(theirs[0])
    for a, b in zip(ours[0], theirs[0], strict=True):
        assert a is b is None or torch.equal(cast(Tensor, a), cast(Tensor, b))


def test_a_product_of_momenta_has_a_gradient() -> None:
    found: list[Tensor] = []
    for cls in classes("NAdam"):
        p = parameter(torch.float64)
        p, g = p.detach().requires_grad_().clone(), torch.ones(3, 2, dtype=torch.float64)
        optimizer = cls([p], differentiable=True)
        product = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        state = {"step": torch.tensor(5.0), "exp_avg": g * 0.1, "exp_avg_sq": g * 0.2, "mu_product": product.clone()}
        optimizer.state[p].update(state)
        p.grad = g
        optimizer.step()
        found += torch.autograd.grad(p.sum(), product)
    assert found[0] != 0
    assert torch.equal(*found)


@every
def test_groups_of_one_optimizer_may_be_of_several_formulas(name: str) -> None:
    for given in settings(name, skip=("differentiable",)):
        ends: list[Tensor] = []
        for cls in classes(name):
            first, second = parameter(torch.float64), parameter(torch.float64)
            optimizer = cls([{"params": [first], **copy.deepcopy(given)}, {"params": [second]}], lr=1e-2)
            for _ in range(3):
                optimizer.step()
            ends += [first.detach(), second.detach()]
        torch.testing.assert_close(ends[:2], ends[2:], rtol=1e-7, atol=1e-12)


def test_steps_continue_from_the_state_of_differentiable_ones() -> None:
    for name, given in (("SGD", {"momentum": 0.9}), ("Adam", {}), ("NAdam", {})):
        ends: list[Tensor] = []
        for cls in classes(name):
            p = parameter(torch.float64).detach()
            g = torch.ones_like(p)
            optimizer = cls([p], differentiable=True, **cast("dict[str, Any]", given))
            for step in range(6):
                optimizer.param_groups[0]["differentiable"] = optimizer.defaults["differentiable"] = step < 3
                p.grad = g * (step + 1)
                optimizer.step()
            ends.append(p)
        torch.testing.assert_close(*ends, rtol=1e-7, atol=0)


# ------------------------------------------------------------ fake and meta tensors, and what torch refuses


STEPS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {}


def kind(function: Callable[[Any, dict[str, Any]], Any]) -> Callable[[Any, dict[str, Any]], Any]:
    STEPS[function.__name__] = function
    return function


@kind
def meta(cls: Any, given: dict[str, Any]) -> Any:
    p = nn.Parameter(torch.empty(3, 2, device="meta"))
    p.grad = torch.empty_like(p)
    return described(cls([p], **given))


@kind
def fake(cls: Any, given: dict[str, Any]) -> Any:
    with FakeTensorMode():
        return described(cls([parameter()], **given))


@kind
def left_fake(cls: Any, given: dict[str, Any]) -> Any:
    with FakeTensorMode():
        p = parameter()
    return described(cls([p], **given))


def described(optimizer: Any) -> dict[str, tuple[torch.Size, torch.device]]:
    """The shapes and devices of the state after two steps."""
    for _ in range(2):
        optimizer.step()
    return {key: (x.shape, x.device) for key, x in optimizer.state_dict()["state"].get(0, {}).items()}


@kind
def capturable(cls: Any, given: dict[str, Any]) -> Any:
    optimizer = cls(
        [parameter()], **given, **({"capturable": True} if "capturable" in cls([parameter()]).defaults else {})
    )
    optimizer.step()


@kind
def capturable_later(cls: Any, given: dict[str, Any]) -> Any:
    optimizer = cls([parameter()], **given)
    optimizer.step()
    if "capturable" in optimizer.defaults:
        optimizer.param_groups[0]["capturable"] = True
    optimizer.step()


@pytest.mark.parametrize("what", STEPS)
@every
def test_special_steps_do_as_in_torch(name: str, what: str) -> None:
    for given in settings(name, skip=("differentiable",)):
        ours, theirs = (outcome(functools.partial(STEPS[what], cls, copy.deepcopy(given))) for cls in classes(name))
        assert ours == theirs, given


# ------------------------------------------------------------ saved types, names, messages


@every
def test_states_are_saved_in_torchs_types(name: str) -> None:
    saved: list[dict[str, Any]] = []
    for cls in classes(name):
        optimizer = cls([parameter()])
        optimizer.step()
        saved.append(optimizer.state_dict()["state"].get(0, {}))
    assert {key: x.dtype for key, x in saved[0].items()} == {key: x.dtype for key, x in saved[1].items()}
    torch.testing.assert_close(saved[0], saved[1], rtol=1e-6, atol=1e-12)


def test_every_name_of_torchs_module_is_found_here() -> None:
    assert set(torch.optim.__all__) <= set(dir(optim))
    for name in {*torch.optim.__all__} - {*TABLE["torch"].names, "lr_scheduler", "swa_utils"}:
        assert getattr(optim, name) is getattr(torch.optim, name)
    for part in ("lr_scheduler", "swa_utils"):
        for name in getattr(torch.optim, part).__all__:
            assert getattr(getattr(optim, part), name) is getattr(getattr(torch.optim, part), name)
    from thalweg.optim.lr_scheduler import StepLR
    from thalweg.optim.optimizer import Optimizer

    assert isinstance(optim.Adam([parameter()]), Optimizer)
    assert optim.Optimizer is torch.optim.Optimizer
    assert StepLR is torch.optim.lr_scheduler.StepLR


@pytest.mark.parametrize("name", [name for name in NAMES if "betas" in TABLE["torch"].names[name].arguments])
def test_betas_may_be_tensors(name: str) -> None:
    ends: list[Tensor] = []
    for cls in classes(name):
        p = parameter(torch.float64)
        optimizer = cls([p], betas=(torch.tensor(0.5), torch.tensor(0.75)), foreach=False)
        for _ in range(3):
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=0)


@every
def test_what_is_allowed_is_added_only_to_errors_about_values(name: str) -> None:
    with pytest.raises(ValueError, match=r"^optimizer got an empty parameter list$"):
        getattr(optim, name)([])
    with pytest.raises(
        ValueError, match=rf"Invalid learning rate: -1.*: {name}'s lr is -1; allowed is a finite number"
    ):
        getattr(optim, name)([parameter()], lr=-1)


def test_a_parameter_taken_out_before_it_had_a_buffer_is_forgotten() -> None:
    saved: list[dict[str, Any]] = []
    for cls in classes("SGD"):
        ps = [parameter(), parameter()]
        optimizer = cls(ps, lr=0.1)
        optimizer.step()
        del optimizer.param_groups[0]["params"][0]
        saved.append(optimizer.state_dict())
    assert saved[0]["state"] == saved[1]["state"] == {}
