"""Measurements beside the table, such as start-up and memory.  What a process does only once is timed in a new one."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from thalweg.bench import changing, contenders, floors, muons, packages, timing
from thalweg.bench.pairs import PAIRS
from thalweg.bench.result import OURS, Extra
from thalweg.bench.timing import Contender

_IMPORT = """
import json, time, torch
start = time.perf_counter()
import thalweg; thalweg.Optimizer, thalweg.rules.Adam
print(json.dumps(time.perf_counter() - start))
"""

_FIRST_STEP = """
import json, time, torch, thalweg
model = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
model(torch.randn(8, 784)).sum().backward()
start = time.perf_counter()
thalweg.Optimizer(model.parameters(), thalweg.rules.Adam()).step()
print(json.dumps(time.perf_counter() - start))
"""

# A small step first loads the code and the compiler; the peak is counted from there.
_MEMORY = """
import gc, json, os, sys, torch
from thalweg.bench import contenders, pairs, workloads

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def step(shapes):
    params = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer, call = contenders.alone(params, sys.argv[1])
    for _ in range(3):
        call()
    state = [x for held in optimizer.state.values() for x in held.values() if x.ndim]
    return sum(x.nbytes for x in (*params, *(p.grad for p in params), *state))

step([(160, 160)])
gc.collect()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
kept = step(workloads.WORKLOADS["resnet18"].shapes)
print(json.dumps((status("VmHWM") - before - kept) / kept))
"""

Say = Callable[[str], None]


def measure(say: Say, warn: Say) -> list[Extra]:
    """All extras; memory is measured on Linux only.  `warn` is told what could not be measured."""
    parts: dict[str, Callable[[], list[Extra]]] = {
        "starting up": starting,
        "a thousand steps of zero gradients": subnormals,
        "state of 16 bits": halved,
        "sets of gradients that change": changing.measure,
        "today's rules, over their floors": floors.measure,
        "Muon beside torch's operations and its floor": muons.measure,
        "other packages": packages.measure,
    }
    if Path("/proc/self/clear_refs").exists():
        parts["memory"] = memory
    found: list[Extra] = []
    for what, part in parts.items():
        say(what)
        try:
            found += part()
        except RuntimeError as error:  # what was measured before is kept
            warn(f"{what}: not measured, {str(error).splitlines()[-1]}")
    return found


def starting() -> list[Extra]:
    """The time of the import, and of the first step of a process with and without kernels on disk."""
    imported = median(_in_process(_IMPORT) for _ in range(3))
    with tempfile.TemporaryDirectory() as folder:
        cold = _in_process(_FIRST_STEP, THALWEG_CACHE_DIR=folder)
        warm = median(_in_process(_FIRST_STEP, THALWEG_CACHE_DIR=folder) for _ in range(3))
    return [
        Extra("import of thalweg, beyond import of torch", imported, "s"),
        Extra("first step of a process, no kernels on disk yet", cold, "s"),
        Extra("first step of a process, kernels on disk", warm, "s"),
    ]


def subnormals(steps: int = 1_000, rounds: int = 5) -> list[Extra]:
    """The time of a step after zero gradients have shrunk the state, relative to a new optimizer's; ideally 1."""
    everyone: list[Contender] = []
    ways = (OURS, *PAIRS["adam"].ways)
    for way in ways:
        for age in ("aged", "new"):
            p = torch.nn.Parameter(torch.ones(2**18))
            _, call = contenders.alone([p], way)
            p.grad = torch.randn(2**18)
            call()
            if age == "aged":
                p.grad.zero_()
                for _ in range(steps):
                    call()
            everyone.append(Contender(f"{way} {age}", lambda: None, call))
    times = timing.measure(everyone, rounds)
    return [
        Extra(
            f"Adam's step after {steps:,} zero gradients over a new one's, {way}",
            times[f"{way} aged"].median / times[f"{way} new"].median,
            "×",
        )
        for way in ways
    ]


def halved(elements: int = 2**24, rounds: int = 5) -> list[Extra]:
    """The time of Adam's step with stochastically rounded bfloat16 state, relative to float32 state."""
    p = torch.nn.Parameter(torch.ones(elements))
    p.grad = torch.randn(elements)
    kept: dict[str, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}
    everyone = [
        Contender(name, lambda: None, PAIRS["adam"].ours([p], state_dtype=dtype).step) for name, dtype in kept.items()
    ]
    times = timing.measure(everyone, rounds)
    ratio = times["bfloat16"].median / times["float32"].median
    return [Extra(f"Adam's step of {elements:,} with state in bfloat16 over one with state in float32", ratio, "×")]


def memory() -> list[Extra]:
    """The peak memory of a step of ResNet-18 beyond parameters, gradients and state, as a share of these."""
    return [
        Extra(f"memory beyond parameters, gradients and state, {way}", 100 * _in_process(_MEMORY, way), "%")
        for way in (OURS, *PAIRS["adam"].ways)
    ]


def _in_process(code: str, *arguments: str, **environment: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ | environment, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"a process that the bench started failed: {done.stderr.strip() or done.returncode}")
    return float(json.loads(done.stdout))
