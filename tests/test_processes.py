"""Sharded, shared and compiled training, in processes of their own; each with torch's class and with ours."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

TESTS = Path(__file__).resolve().parent

COMMON = """
import importlib.util, os, pickle, sys, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist, thalweg
from torch import nn
torch.set_num_threads(1)
SOURCES = {"torch": torch.optim, "thalweg": thalweg.optim}
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
os.environ["THALWEG_BACKEND"] = "numba"

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3))

def data(step):
    return torch.randn(12, 6, generator=torch.Generator().manual_seed(step))

def begin():
    dist.init_process_group("gloo", store=dist.FileStore(folder + "/store", world), rank=rank, world_size=world)

def write(what, name="result"):
    with open(f"{folder}/{name}{rank}", "wb") as file:
        pickle.dump(what, file)
"""

SHARDED = """
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

def sharded():
    model = network()
    for layer in (model[0], model[2]):
        fully_shard(layer)
    return fully_shard(model)

def train(model, optimizer, steps):
    for step in steps:
        optimizer.zero_grad()
        own = data(step)[rank::world]
        model(own).square().mean().backward()
        optimizer.step()

def whole(model):
    return [p.full_tensor().detach() if isinstance(p, DTensor) else p.detach().clone() for p in model.parameters()]
"""

FSDP = (
    COMMON
    + SHARDED
    + """
begin()
found = {}
for name, source in SOURCES.items():
    for cls, settings in (("AdamW", {"amsgrad": True}), ("SGD", {"momentum": 0.9})):
        model = sharded()
        optimizer = getattr(source, cls)(model.parameters(), lr=0.05, **settings)
        train(model, optimizer, range(6))
        assert all(isinstance(p, DTensor) for p in model.parameters())
        kept = [x for s in optimizer.state.values() for k, x in s.items() if x is not None and x.ndim]
        assert kept and all(isinstance(x, DTensor) for x in kept), kept
        found[cls, name] = whole(model)
write(found)
dist.destroy_process_group()
"""
)

CLIPPED = (
    COMMON
    + SHARDED
    + """
begin()
def small():  # of the last layer's weight one process has nothing
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 1))

found = {}
every = ({"clip_norm": 0.1}, {"clip_each": 0.05}, {"clip_norm": 0.1, "clip_each": 0.07, "ema": 0.9},
         {"nonfinite": "skip"}, {"rule": "lamb(lr=0.05)"}, {"rule": "novograd(lr=0.05)", "clip_norm": 0.1})
# Triton's interpreter takes long, and what is sharded or not is none of its business.
for backend, some in (("numba", every), ("eager", every), ("foreach", every), ("triton", every[2:5])):
    if backend == "triton" and not importlib.util.find_spec("triton"):
        continue
    os.environ["THALWEG_BACKEND"] = backend
    for settings in some:
        model, alone = small(), small()
        for layer in (model[0], model[2]):
            fully_shard(layer)
        fully_shard(model)
        rule = settings.get("rule", "momentum(lr=0.5)")
        further = {name: x for name, x in settings.items() if name != "rule"}
        reference = {"backend": "eager"} if backend == "triton" else {}
        optimizers = [thalweg.Optimizer(model.parameters(), rule, **further),
                      thalweg.Optimizer(alone.parameters(), rule, **further, **reference)]
        for step in range(5):
            for m, own, optimizer in zip((model, alone), (data(step)[rank::world], data(step)), optimizers):
                m(own).square().mean().backward()
                g = m[0].weight.grad
                if step == 2 and settings.get("nonfinite") and (m is alone or rank == 0):
                    (g if m is alone else g._local_tensor)[0, 0] = float("nan")
                optimizer.step()
                optimizer.zero_grad()
        assert [o.skipped_steps for o in optimizers] == [int("nonfinite" in settings)] * 2
        found[backend, str(settings)] = whole(model), whole(alone)
write(found)
dist.destroy_process_group()
"""
)

MATRICES = (
    COMMON
    + """
from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh

begin()
mesh = init_device_mesh("cpu", (world,))
found = {}
both = ["", "triton"] if importlib.util.find_spec("triton") else [""]
rules = ("muon", "normuon(split=2)", "soap(every=2)", "shampoo", "adafactor", "sm3")
for rule, backend in [(rule, backend) for backend in both for rule in rules]:
    os.environ["THALWEG_BACKEND"] = backend or "auto"
    torch.manual_seed(0)
    first, *gs = torch.randn(6, 4, 4, dtype=torch.float64)
    p = nn.Parameter(distribute_tensor(first.clone(), mesh, [Shard(0)]))
    q = nn.Parameter(first.clone())
    optimizers = [thalweg.Optimizer([p], rule), thalweg.Optimizer([q], rule, backend="eager" if backend else "auto")]
    for g in gs:
        p.grad, q.grad = distribute_tensor(g.clone(), mesh, [Shard(0)]), g.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert optimizers[0].state[p]["step"] == 5
    found[rule, backend] = p.full_tensor().detach(), q.detach()
write(found)
dist.destroy_process_group()
"""
)

CHECKPOINT = (
    COMMON
    + SHARDED
    + """
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

if world > 1:
    begin()
found = {}
for name, source in SOURCES.items():
    model = sharded() if world > 1 else network()
    optimizer = source.AdamW(model.parameters(), lr=0.05)
    if world > 1:
        train(model, optimizer, range(4))
    weights, state = get_state_dict(model, optimizer)
    held = {"model": weights, "optimizer": state}
    if world > 1:
        dcp.save(held, checkpoint_id=f"{folder}/{name}")
        train(model, optimizer, range(4, 7))
    else:
        dcp.load(held, checkpoint_id=f"{folder}/{name}")
        set_state_dict(model, optimizer, model_state_dict=held["model"], optim_state_dict=held["optimizer"])
        steps = {int(s["step"]) for s in optimizer.state.values()}
        assert steps == {4}, steps
        train(model, optimizer, range(4, 7))
    found[name] = whole(model)
write(found, f"of{world}_")
if world > 1:
    dist.destroy_process_group()
"""
)

ELSEWHERE = (
    COMMON
    + SHARDED
    + """
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

# Which steps are taken by how many processes, and of a process alone which has not stopped.
PARTS = {2: range(4), 4: range(4, 7), 1: range(7, 10)}
begin() if world > 1 else None
found = {}
for name, make in (
    ("adamw", lambda params: thalweg.optim.AdamW(params, lr=0.05)),
    ("clipped", lambda params: thalweg.Optimizer(params, "nadam(lr=0.05)", clip_norm=0.1, backend="eager")),
):
    model = sharded() if world > 1 else network()
    optimizer = make(model.parameters())
    at = {n: f"{folder}/{name}-of{n}" for n in PARTS}
    if world != 2:
        weights, state = get_state_dict(model, optimizer)
        held = {"model": weights, "optimizer": state}
        dcp.load(held, checkpoint_id=at[2 if world == 4 else 4])
        set_state_dict(model, optimizer, model_state_dict=held["model"], optim_state_dict=held["optimizer"])
    train(model, optimizer, PARTS[world])
    if world > 1:
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=at[world])
        continue
    alone = network()
    train(alone, make(alone.parameters()), range(10))
    found[name] = whole(model), whole(alone)
    assert {int(s["step"]) for s in optimizer.state.values()} == {10}
write(found, f"of{world}_")
if world > 1:
    dist.destroy_process_group()
"""
)

SHARED = (
    COMMON
    + """
import torch.multiprocessing as mp

class Share:
    '''A SharedAdam, as in asynchronous actor-critic: its state is made at the beginning, in shared memory.'''
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                state["step"] = torch.zeros(()).share_memory_()
                state["exp_avg"] = torch.zeros_like(p).share_memory_()
                state["exp_avg_sq"] = torch.zeros_like(p).share_memory_()

class TorchShared(Share, torch.optim.Adam): pass
class OurShared(Share, thalweg.optim.Adam): pass

def work(model, optimizer, turn, done, own):
    for step in range(4):
        turn.acquire()
        optimizer.zero_grad()
        model(data(2 * step + own)).square().mean().backward()
        optimizer.step()
        done.release()

if __name__ == "__main__":
    found = {}
    context = mp.get_context("fork")
    for name, cls in (("torch", TorchShared), ("thalweg", OurShared)):
        model = network().share_memory()
        optimizer = cls(model.parameters(), lr=0.05)
        turns, done = [context.Semaphore(0) for _ in range(2)], context.Semaphore(0)
        workers = [context.Process(target=work, args=(model, optimizer, turns[i], done, i)) for i in range(2)]
        [worker.start() for worker in workers]
        for i in range(8):  # the workers take turns, so that the result is unique
            turns[i % 2].release()
            assert done.acquire(timeout=60)
        [worker.join(60) for worker in workers]
        assert all(worker.exitcode == 0 for worker in workers)
        held = [optimizer.state[p] for p in model.parameters()]
        found[name] = [p.detach().clone() for p in model.parameters()]
        found[name] += [s[k].clone() for s in held for k in ("step", "exp_avg", "exp_avg_sq")]
    write(found)
"""
)

HOGWILD = (
    COMMON
    + """
import torch.multiprocessing as mp

def work(model, seed):
    optimizer = thalweg.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)
    for step in range(100):
        optimizer.zero_grad()
        model(data(1000 * seed + step)).square().mean().backward()
        optimizer.step()

if __name__ == "__main__":
    model = network().share_memory()
    before = model(data(0)).square().mean().item()
    context = mp.get_context("fork")
    workers = [context.Process(target=work, args=(model, i)) for i in range(2)]
    [worker.start() for worker in workers]
    [worker.join(60) for worker in workers]
    assert all(worker.exitcode == 0 for worker in workers)
    after = model(data(0)).square().mean().item()
    assert after < before / 2, (before, after)
    write({})
"""
)

THREADS = (
    COMMON
    + """
import threading, traceback

steps, threads = 60, 4
models = [network() for _ in range(2)]
optimizers = [thalweg.optim.NAdam(m.parameters(), lr=0.01) for m in models]
gradients = [torch.randn(p.shape, generator=torch.Generator().manual_seed(1)) for p in models[0].parameters()]
for m in models:
    for p, g in zip(m.parameters(), gradients):
        p.grad = g.clone()
running, failed = threading.Event(), []
running.set()

def guarded(act):
    try:
        act()
    except BaseException:
        failed.append(traceback.format_exc())

def work():
    for _ in range(steps):
        optimizers[0].step()

def look():
    while running.is_set():
        assert all(x.clone().isfinite().all() for s in optimizers[0].state_dict()["state"].values() for x in s.values())

def replace():
    while running.is_set():
        for p, g in zip(models[0].parameters(), gradients):
            p.grad = g.clone()

sys.setswitchinterval(1e-5)
others = [threading.Thread(target=guarded, args=(act,)) for act in (look, replace)]
workers = [threading.Thread(target=guarded, args=(work,)) for _ in range(threads)]
[t.start() for t in others + workers]
[t.join() for t in workers]
running.clear()
[t.join() for t in others]
assert not failed, failed[0]
for _ in range(threads * steps):
    optimizers[1].step()
steps = [[s["step"] for s in o.state.values()] for o in optimizers]
write([[p.detach() for p in m.parameters()] + own for m, own in zip(models, steps)])
"""
)

COMPILED = (
    COMMON
    + """
import torch._dynamo
found = {}
for name, source in SOURCES.items():
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    optimizer = source.AdamW(model.parameters(), lr=0.05)

    @torch.compile(backend=sys.argv[4])
    def step(x):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(data(i)).item() for i in range(4)]
    found[name] = [p.detach().clone() for p in model.parameters()] + [torch.tensor(losses)]
write(found)
"""
)


def launch(program: str, folder: Path, world: int = 1, *arguments: str) -> None:
    """Run a program in `world` processes, each with its rank."""
    script = folder / "program.py"
    script.write_text(program, encoding="utf-8")
    environment = {
        **os.environ,
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }
    started = [
        subprocess.Popen(
            [sys.executable, script, str(rank), str(world), str(folder), *arguments], cwd=folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(world)
    ]  # fmt: skip
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(said)


def result(folder: Path, name: str = "result") -> list[Any]:
    """What the processes have written, in the order of their ranks."""
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob(f"{name}[0-9]"))]


def same(ours: Any, theirs: Any) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_fsdp_on_two_processes(tmp_path: Path) -> None:
    launch(FSDP, tmp_path, 2)
    of_ranks = result(tmp_path)
    assert len(of_ranks) == 2
    for found in of_ranks:
        for cls in ("AdamW", "SGD"):
            same(found[cls, "thalweg"], found[cls, "torch"])


def test_norms_are_of_the_whole_of_sharded_parameters(tmp_path: Path) -> None:
    launch(CLIPPED, tmp_path, 2)
    of_ranks = result(tmp_path)
    assert len(of_ranks) == 2
    for found in of_ranks:
        assert len(found) == (21 if importlib.util.find_spec("triton") else 18)
        for sharded, alone in found.values():
            same(sharded, alone)


def test_matrices_that_are_sharded_are_stepped_as_wholes(tmp_path: Path) -> None:
    launch(MATRICES, tmp_path, 2)
    of_ranks = result(tmp_path)
    assert len(of_ranks) == 2
    for found in of_ranks:
        assert len(found) == (12 if importlib.util.find_spec("triton") else 6)
        for sharded, alone in found.values():
            torch.testing.assert_close(sharded, alone, rtol=1e-9, atol=1e-12)


def test_a_checkpoint_of_two_processes_loads_in_one(tmp_path: Path) -> None:
    launch(CHECKPOINT, tmp_path, 2)
    (both, _) = result(tmp_path, "of2_")
    launch(CHECKPOINT, tmp_path, 1)
    (alone,) = result(tmp_path, "of1_")
    same(both["thalweg"], both["torch"])
    for name in ("torch", "thalweg"):
        same(alone[name], both[name])


def test_a_training_moves_from_two_processes_to_four_to_one(tmp_path: Path) -> None:
    for world in (2, 4, 1):
        (tmp_path / "store").unlink(missing_ok=True)
        launch(ELSEWHERE, tmp_path, world)
    [found] = result(tmp_path, "of1_")
    assert len(found) == 2
    for what, (moved, alone) in found.items():
        for p, q in zip(moved, alone, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5, msg=str(what))


def test_a_shared_adam_counts_its_steps(tmp_path: Path) -> None:
    launch(SHARED, tmp_path)
    (found,) = result(tmp_path)
    assert found["torch"][4] == 8
    torch.testing.assert_close(found["thalweg"], found["torch"], rtol=1e-3, atol=1e-4)


def test_hogwild(tmp_path: Path) -> None:
    launch(HOGWILD, tmp_path)


def test_threads_that_share_an_optimizer(tmp_path: Path) -> None:
    """They step, read its state and replace gradients at once; each step is applied exactly once, as a whole."""
    launch(THREADS, tmp_path)
    ((shared, alone),) = result(tmp_path)
    for a, b in zip(shared, alone, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("backend", ["eager", "inductor"])
def test_a_compiled_training_step(backend: str, tmp_path: Path) -> None:
    if backend == "inductor" and not any(map(shutil.which, ("g++", "clang++"))):
        pytest.skip("there is no C++ compiler, which inductor needs")
    launch(COMPILED, tmp_path, 1, backend)
    (found,) = result(tmp_path)
    # Compiled code rounds differently.
    torch.testing.assert_close(found["thalweg"], found["torch"], rtol=1e-3, atol=1e-4)
