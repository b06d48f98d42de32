"""Times a race against the loops that people write: how many runs a minute each gets done on two cores."""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from thalweg.bench import machine
from thalweg.problems import Problem
from thalweg.problems.images import mnist
from thalweg.problems.networks import accuracy, mlp
from thalweg.race import Race

HIDDEN: tuple[tuple[int, ...], ...] = ((128, 64), (32,))
"""The widths of the hidden layers of the models that are raced."""

WRITTEN, QUICK, RACE = "the loop people write", "two processes, data in memory, fused", "a race"
PROCESSES = 2

# A run is a new model and so many steps; the loop that people write evaluates it once, at the end, as the other does.
_LOOP = """
import json, sys, time
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

way, file, hidden, steps, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
x, y, x_test, y_test = torch.load(file)
if way == "quick":
    torch.set_num_threads(1)

def model():
    widths = [x.shape[1], *hidden]
    layers = [layer for a, b in zip(widths, widths[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))

def written(steps):
    net, loader = model(), DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    done = 0
    while done < steps:
        for inputs, targets in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(inputs), targets).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return net

def quick(steps):
    net = model()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    done = 0
    while done < steps:
        for at in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[at]), y[at]).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return net

run = {"written": written, "quick": quick}[way]
run(20)
print("ready", flush=True)
sys.stdin.readline()
for _ in range(runs):
    net = run(steps).eval()
    with torch.no_grad():
        (net(x_test).argmax(1) == y_test).double().mean().item()
print("done", flush=True)
"""


@dataclass(frozen=True)
class Measured:
    """What one way has done.

    Attributes:
        way: `WRITTEN`, `QUICK` or `RACE`.
        hidden: the widths of the model's hidden layers.
        steps: the steps of a run.
        runs: how many runs it has done.
        seconds: how long that took; of a race with starting its processes, evaluations and records.
        cpu: the seconds of processor time that it took.
    """

    way: str
    hidden: tuple[int, ...]
    steps: int
    runs: int
    seconds: float
    cpu: float

    @property
    def per_minute(self) -> float:
        """Runs per minute."""
        return 60 * self.runs / self.seconds


def measure(
    data: Path | None, steps: int, trials: int, say: Callable[[str], None], widths: Sequence[tuple[int, ...]] = HIDDEN
) -> list[Measured]:
    """Time all ways, one after another, for each model.

    Args:
        data: a folder of MNIST's files, or None for random images in the numbers of MNIST-10k.
        steps: the steps of a run.
        trials: the trials of the race, in which Adam's rate is tuned.
        say: is told what is being timed.
        widths: the hidden layers of each model.
    """
    found: list[Measured] = []
    for hidden in widths:
        problem = _problem(data, hidden)
        named = "-".join(map(str, hidden))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "data.pt"
            torch.save((*problem.tensors("train"), *problem.tensors("test")), file)
            loops = ((WRITTEN, "written", 1, 6), (QUICK, "quick", PROCESSES, 6))
            for way, name, processes, runs in loops:
                say(f"{way}, hidden layers {named}")
                do = partial(_loop, name, file, hidden, steps, processes, runs)
                found.append(Measured(way, hidden, steps, runs * processes, *_timed(do)))
        say(f"{RACE}, hidden layers {named}")
        race = Race(problem, ["adam"], trials=trials, seeds=5, steps=steps, workers=PROCESSES)
        count = 0

        def run(race: Race = race) -> float:
            nonlocal count
            began = time.perf_counter()
            count = len(race.run().runs)
            return time.perf_counter() - began

        seconds, cpu = _timed(run)
        found.append(Measured(RACE, hidden, steps, count, seconds, cpu))
    return found


def _problem(data: Path | None, hidden: tuple[int, ...]) -> Problem:
    if data is not None:
        return replace(mnist(data=data, hidden=hidden), batch_size=64)
    chance = torch.Generator().manual_seed(0)
    classes = torch.randn(784, 10, generator=chance)

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        x = torch.rand(n, 784, generator=chance)
        return x, (x @ classes).argmax(1)

    return Problem(
        "random images", mlp("bench", 784, 10, hidden, 0.0, False), nn.functional.cross_entropy, drawn(6_667),
        drawn(1_333), drawn(2_000), accuracy, batch_size=64,
    )  # fmt: skip


def _loop(way: str, file: Path, hidden: tuple[int, ...], steps: int, processes: int, runs: int) -> float:
    """The seconds that so many processes take, each for so many runs, from when all are ready."""
    command = [sys.executable, "-c", _LOOP, way, str(file), json.dumps(hidden), str(steps), str(runs)]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for process in started:
            _heard(process, "ready")
        began = time.perf_counter()
        for process in started:
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in started:
            _heard(process, "done")
        return time.perf_counter() - began
    finally:
        for process in started:
            process.communicate()


def _heard(process: "subprocess.Popen[str]", word: str) -> None:
    assert process.stdout
    if process.stdout.readline().strip() != word:
        raise RuntimeError("a process that the bench started has failed; what it said is above")


def _timed(do: Callable[[], float]) -> tuple[float, float]:
    """The seconds that something says it took, and the processor time of this process and of those it has ended."""
    before = _cpu()
    seconds = do()
    return seconds, _cpu() - before


def _cpu() -> float:
    used = [resource.getrusage(of) for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def to_json(found: Sequence[Measured], warnings: Sequence[str]) -> str:
    """The result for machines."""
    document = {
        "machine": machine.describe(),
        "load": os.getloadavg()[0],
        "warnings": [*warnings],
        "measured": [asdict(one) for one in found],
    }
    return json.dumps(document, indent=1) + "\n"
