"""Races on a Ray cluster of two nodes: the same results as on this machine, though a worker and a node are killed."""

import contextlib
import io
import os
import shutil
import signal
import tempfile
import threading
import warnings
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import nn

import thalweg
from processes import HAS_PROC, ended, tree, wait_for
from thalweg.race import WorkerError
from thalweg.store import Reader, read

pytest.importorskip("ray", reason="Ray is not installed: pip install 'thalweg[ray]'")
pytestmark = [
    pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes"),
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]

PROBLEM = """
from pathlib import Path
import torch
from torch import nn
import thalweg
from beside import error
from thalweg.race import streaming

streaming.EVERY = 0.0
SLOPE = float((Path(__file__).parent / "slope.txt").read_text())

def problem():
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    pair = x, SLOPE * x.sum(1, keepdim=True)
    return thalweg.Problem("far", lambda: nn.Linear(3, 1), nn.functional.mse_loss, pair, pair, pair, error,
                           metric_name="error", higher_is_better=False, batch_size=8, steps=20)

def train(run):
    model = nn.Linear(3, 1)
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    optimizer = run.optimizer(model)
    for step in run.steps(20):
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(x), SLOPE * x.sum(1, keepdim=True))
        loss.backward()
        optimizer.step()
        run.report(validation_loss=float(loss.detach()))
"""


@pytest.fixture(scope="module")
def cluster() -> Generator[Any]:
    """Two nodes of one processor each, whose files are in a folder with a short name, since sockets need one."""
    from ray.cluster_utils import Cluster

    before, folder = tree(os.getpid()), tempfile.mkdtemp(prefix="r")
    small: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("RAY_TMPDIR", folder)
        for name, value in {"USAGE_STATS_ENABLED": "0", "enable_metrics_collection": "0", "DEDUP_LOGS": "0"}.items():
            patch.setenv(f"RAY_{name}", value)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            made = Cluster(initialize_head=True, head_node_args=small)
            made.add_node(**small)
        try:
            yield made
        finally:
            made.shutdown()
            left = tree(os.getpid()) - before
            shutil.rmtree(folder, ignore_errors=True)
    wait_for(lambda: ended(left), patience=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    (tmp_path / "slope.txt").write_text("2.0")
    loss = "def error(prediction, target):\n    return float(((prediction - target) ** 2).double().mean())\n"
    (tmp_path / "beside.py").write_text(loss)
    return tmp_path


def race(folder: Path, function: str, **more: Any) -> thalweg.Race:
    rules = ["sgd", "adam"]
    return thalweg.Race(f"{folder / 'mine.py'}:{function}", rules, trials=4, seeds=2, finalists=1, **more)


def numbers(results: Any) -> list[tuple[Any, ...]]:
    return [
        (r.key, r.status, r.best_step, r.validation_metric, r.test_metric, r.curve.train_loss) for r in results.runs
    ]


def timeless(results: Any) -> Any:
    """The results as if each run had taken one second: how long a run took differs, and stands in the table."""
    return replace(results, runs=tuple(replace(run, seconds=1.0) for run in results.runs))


@pytest.mark.parametrize("function", ["train", "problem"])
def test_a_worker_and_a_node_are_killed_and_the_results_are_the_same(function: str, cluster: Any, folder: Path):
    undisturbed = race(folder, function, workers=1).run()
    second = [*cluster.worker_nodes][-1]
    kills: list[str] = []
    streamed: list[str] = []

    def disturb(event: Any) -> None:
        with Reader(folder / "race.db") as reader:
            streamed.extend(points.key for points in reader.live())
        if event.run is None:
            return
        if len(kills) == 0 and event.done >= 2:
            kills.append("worker")
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if "ray::" in " ".join(process.cmdline()) and "_do" in " ".join(process.cmdline()):
                        process.send_signal(signal.SIGKILL)
        elif len(kills) == 1 and event.done >= 5 and function == "problem":
            kills.append("node")
            cluster.remove_node(second, allow_graceful=False)

    # Populations would do all in two tasks.
    found = race(folder, function, populations="never", ray=cluster.address, store=folder / "race.db").run(disturb)
    assert numbers(found) == numbers(undisturbed)
    assert numbers(read(folder / "race.db")) == numbers(undisturbed)
    assert repr(timeless(found)) == repr(timeless(undisturbed))
    assert kills == (["worker", "node"] if function == "problem" else ["worker"])
    assert streamed or function == "problem"


def test_an_address_that_does_not_answer_is_one_sentence(folder: Path):
    for address in ("127.0.0.1:1", "nothing"):
        with pytest.raises(WorkerError, match=rf"^no Ray cluster answers at {address} .*ray start --head"):
            race(folder, "problem", ray=address).run()


def test_a_problem_that_cannot_be_sent_is_one_sentence_and_what_there_is_stays(cluster: Any, tmp_path: Path):
    held = threading.Lock()  # cannot be pickled

    def error(prediction: Any, target: Any) -> Any:
        with held:
            return ((prediction - target) ** 2).double().mean()

    x = torch.ones(8, 1)
    problem = thalweg.Problem("held", lambda: nn.Linear(1, 1), nn.functional.mse_loss, (x, x), (x, x), (x, x), error)
    said = "^the problem cannot be sent to other processes, nor to a cluster; leave --ray out$"
    with pytest.raises(WorkerError, match=said):
        thalweg.Race(problem, ["sgd"], seeds=1, steps=2, ray=cluster.address, store=tmp_path / "race.db").run()
    assert read(tmp_path / "race.db").runs == ()
