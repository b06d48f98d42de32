"""Ways to train: compiled models and steps, parametrizations, accumulated gradients, two processes, mixed precision."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.utils import parametrize

import thalweg
from cases import TORCHS

SOURCES = {"torch": torch.optim, "thalweg": thalweg.optim}
X = torch.randn(12, 6, generator=torch.Generator().manual_seed(1))


class Symmetric(nn.Module):
    """A parametrization: the symmetric matrix with the upper half of `w`."""

    def forward(self, w: Tensor) -> Tensor:
        return w.triu() + w.triu(1).mT


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))


def plain() -> nn.Module:
    return network()


def compiled() -> nn.Module:
    torch.compiler.reset()
    return torch.compile(network(), backend="aot_eager")  # pyright: ignore


def parametrized() -> nn.Module:
    model: Any = network()
    parametrize.register_parametrization(model[0], "weight", Symmetric())
    nn.utils.parametrizations.weight_norm(model[2])
    return model


def trained(model: nn.Module, source: Any, accumulate: int = 1) -> list[Tensor]:
    optimizer = source.AdamW(model.parameters(), lr=0.01, weight_decay=0.1)
    for step in range(8):
        (model(X).square().mean() / accumulate).backward()
        if (step + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
    return [p.detach() for p in model.parameters()]


@pytest.mark.filterwarnings("default:::torch")
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("make", [plain, compiled, parametrized], ids=lambda f: f.__name__)
def test_a_model_trains_as_with_torch(make: Callable[[], nn.Module], accumulate: int) -> None:
    theirs, ours = (trained(make(), source, accumulate) for source in SOURCES.values())
    for a, b in zip(theirs, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=2e-6, atol=1e-7)


def _one_of_two(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    try:
        for name, source in SOURCES.items():
            model = nn.parallel.DistributedDataParallel(network())
            optimizer = source.Adam(model.parameters(), lr=0.01)
            for _ in range(5):
                optimizer.zero_grad()
                model(X[rank::2]).square().mean().backward()
                optimizer.step()
            torch.save([p.detach() for p in model.parameters()], f"{folder}/{name}-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_as_with_torch(tmp_path: Path) -> None:
    mp.spawn(_one_of_two, args=(str(tmp_path),), nprocs=2)  # pyright: ignore
    kept = {
        (name, rank): torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True)
        for name in SOURCES
        for rank in (0, 1)
    }
    for a, b in zip(kept["thalweg", 0], kept["thalweg", 1], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(kept["torch", 0], kept["thalweg", 0], strict=True):
        torch.testing.assert_close(b, a, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("name", TORCHS)
def test_the_states_tensors_go_through_safetensors(name: str, tmp_path: Path) -> None:
    safetensors = pytest.importorskip(
        "safetensors.torch", reason="safetensors is not installed; it comes with 'clients'"
    )
    settings: dict[str, Any] = {"SGD": {"momentum": 0.9}}.get(name, {})

    def step(model: nn.Module, optimizer: Any) -> None:
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()

    model = network()
    optimizer = getattr(thalweg.optim, name)(model.parameters(), lr=0.01, **settings)
    for _ in range(3):
        step(model, optimizer)
    state = copy.deepcopy(optimizer.state_dict())  # a state_dict contains the optimizer's own tensors
    tensors = {f"{i}.{n}": x for i, held in state["state"].items() for n, x in held.items() if isinstance(x, Tensor)}
    safetensors.save_file({n: x.contiguous() for n, x in tensors.items()}, tmp_path / "state.safetensors")

    twin = copy.deepcopy(model)
    again = getattr(thalweg.optim, name)(twin.parameters(), lr=0.01, **settings)
    for full, x in safetensors.load_file(tmp_path / "state.safetensors").items():
        i, _, key = full.partition(".")
        assert x.dtype == state["state"][int(i)][key].dtype
        state["state"][int(i)][key] = x
    again.load_state_dict(state)
    for m, o in ((model, optimizer), (twin, again)):
        step(m, o)
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


# -------------------------------------------------------------------------------- compiled, whole steps


STEPS: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
    "Adam": (thalweg.optim.Adam, (), {"lr": 0.01}),
    "SGD": (thalweg.optim.SGD, (), {"lr": 0.01, "momentum": 0.9}),
    "Optimizer": (thalweg.Optimizer, ("adam",), {"clip_norm": 1.0, "schedule": thalweg.schedules.constant()}),
}


@pytest.mark.filterwarnings("default:::torch")
@pytest.mark.parametrize("name", STEPS)
def test_a_whole_step_under_the_compiler(name: str) -> None:
    cls, arguments, keywords = STEPS[name]
    ends: list[list[Tensor]] = []
    for compiling in (False, True):
        torch.compiler.reset()
        model = network()
        optimizer = cls(model.parameters(), *arguments, **keywords)

        def step(model: nn.Module = model, optimizer: Any = optimizer) -> Tensor:
            optimizer.zero_grad()
            loss = model(X).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run: Any = torch.compile(step, backend="aot_eager") if compiling else step  # pyright: ignore
        for _ in range(6):
            run()
        ends.append([p.detach() for p in model.parameters()])
    for a, b in zip(*ends, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(ends[1], network().parameters(), strict=True):
        assert (a - b).abs().max() > 0.005, "it trained"


# -------------------------------------------------------------------------------- mixed precision

UNSCALES: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any], bool]] = {
    "Adam": (thalweg.optim.Adam, (), {}, False),
    "Adam(fused=True)": (thalweg.optim.Adam, (), {"fused": True}, True),
    "NAdam": (thalweg.optim.NAdam, (), {}, False),
    "Optimizer": (thalweg.Optimizer, ("adam",), {}, False),
    "Optimizer(clip_norm)": (thalweg.Optimizer, ("adam",), {"clip_norm": 0.1}, True),
    "Optimizer(clip_value)": (thalweg.Optimizer, ("adam",), {"clip_value": 0.1}, True),
}


@pytest.mark.parametrize("name", UNSCALES)
def test_only_optimizers_that_must_unscale_by_themselves(name: str) -> None:
    # Lightning and others refuse to clip gradients for an optimizer that unscales them itself.
    cls, arguments, keywords, own = UNSCALES[name]
    model = network()
    optimizer = cls(model.parameters(), *arguments, **keywords)
    assert optimizer._step_supports_amp_scaling is own
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    other = copy.deepcopy(model)
    reference = cls(other.parameters(), *arguments, **keywords)
    for _ in range(3):
        optimizer.zero_grad()
        reference.zero_grad()
        scaler.scale(model(X).square().mean()).backward()
        other(X).square().mean().backward()
        scaler.step(optimizer)
        scaler.update()
        reference.step()
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)
