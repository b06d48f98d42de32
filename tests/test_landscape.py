"""Landscapes of networks: recorded paths, the plane, the losses on it, and what is said of them."""

# pyright: reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
# pyright: reportUnknownMemberType=false

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call  # pyright: ignore[reportUnknownVariableType]

import thalweg
import thalweg.race
from pages import WEBGL, Page, opened
from thalweg import landscape
from thalweg.cli import main
from thalweg.landscape import Measure, Recorded, Trajectory, plane, recorded, surface, trajectory
from thalweg.landscape.recorded import Paths
from thalweg.problems import Problem, get


class Free(nn.Module):
    """Parameters of chosen shapes, and a buffer."""

    p: nn.Parameter
    weight: nn.Parameter
    count: Tensor

    def __init__(self, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))


def walk(folder: Path, steps: int = 12, seed: int = 0, keep: int = 1_000, **shapes: tuple[int, ...]) -> np.ndarray:
    """Record a random walk; returns its snapshots as rows."""
    model = Free(**(shapes or {"weight": (3, 5), "bias": (4,)}))
    generator = torch.Generator().manual_seed(seed)
    rows: list[np.ndarray] = []
    with Trajectory(model, folder, keep=keep) as path:
        for step in range(steps):
            if step:
                path.record()
            rows.append(np.concatenate([p.detach().double().numpy().ravel() for p in model.parameters()]))
            with torch.no_grad():
                for p in model.parameters():
                    p += torch.randn(p.shape, generator=generator)
                model.count += 1
    return np.array(rows)


# Recording


@given(calls=st.integers(1, 70), keep=st.integers(2, 9))
def test_snapshots_stay_evenly_spaced_and_the_last_is_there(
    calls: int, keep: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("thin")
    model = Free(p=(2,))
    with Trajectory(model, folder, keep=keep) as path:
        for call in range(1, calls):
            nn.init.constant_(model.p, call)
            model.count.fill_(10 * call)
            path.record()
    found = Recorded(folder)
    steps = found.steps
    assert steps[0] == 0
    assert steps[-1] == calls - 1
    gaps = np.diff(steps)
    assert len(set(gaps[:-1].tolist())) <= 1  # all equal, but for the last one's
    assert len(gaps) < 2 or gaps[-1] <= gaps[0]
    assert min(calls, keep) / 2 <= len(steps) <= keep + 1
    for k, step in enumerate(steps):
        snapshot = found.snapshot(k)
        assert snapshot["p"].tolist() == [step, step]
        assert int(snapshot["count"]) == 10 * step


@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"])
def test_every_type_is_read_as_it_was_written(kind: str, tmp_path: Path) -> None:
    model: Any = nn.Module()
    model.p = nn.Parameter(torch.randn(3, 4).to(getattr(torch, kind)))
    model.q = nn.Parameter(torch.randn(4, 3).t())  # not contiguous
    with Trajectory(model, tmp_path):
        pass
    snapshot = Recorded(tmp_path).snapshot(0)
    assert torch.equal(snapshot["p"], trajectory.real(model.p.detach()))
    assert torch.equal(snapshot["q"], model.q)
    assert Recorded(tmp_path).columns("p", 3, 7).dtype == torch.float64
    with Trajectory(model, tmp_path, dtype=torch.bfloat16, existing="replace"):
        pass
    assert Recorded(tmp_path).snapshot(0)["q"].dtype == torch.bfloat16
    assert torch.equal(Recorded(tmp_path).snapshot(0)["q"], model.q.to(torch.bfloat16))


def test_a_write_that_fails_leaves_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Free(p=(1_000,), q=(7,))
    path = Trajectory(model, tmp_path)
    for value in (1.0, 2.0):
        nn.init.constant_(model.p, value)
        path.record()
    put: Callable[[int, memoryview, int], None] = getattr(trajectory, "_put")  # noqa: B009 -- it is private

    def full(file: int, data: memoryview, at: int) -> None:
        if len(data) == 4_000:
            put(file, data[:1_999], at)
            raise OSError(28, "No space left on device")
        put(file, data, at)

    monkeypatch.setattr(trajectory, "_put", full)
    nn.init.constant_(model.p, 3.0)
    with pytest.raises(OSError, match="No space left"):
        path.record()
    assert Recorded(tmp_path).steps == [0, 1, 2]  # while it is open, too
    assert [float(Recorded(tmp_path).snapshot(k)["p"].sum()) for k in range(3)] == [0, 1_000, 2_000]


def test_a_killed_process_leaves_what_was_written_and_it_can_be_continued(tmp_path: Path) -> None:
    program = f"""
import os, signal, torch
from thalweg import Trajectory
model = torch.nn.Linear(2, 2)
path = Trajectory(model, {str(tmp_path)!r}, keep=4)
for k in range(5):
    torch.nn.init.constant_(model.weight, k + 1)
    path.record()
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert Recorded(tmp_path).steps == [0, 2, 4]
    model = nn.Linear(2, 2)
    with pytest.raises(ValueError, match="has a trajectory already; give another folder, or existing='replace'"):
        Trajectory(model, tmp_path, keep=4)
    with pytest.raises(ValueError, match="has a trajectory of another number of snapshots to keep"):
        Trajectory(model, tmp_path, keep=5, existing="continue")
    with Trajectory(model, tmp_path, keep=4, existing="continue") as path:
        assert not path.record()
        assert path.record()
    assert Recorded(tmp_path).steps == [0, 2, 4, 6]
    assert torch.equal(Recorded(tmp_path).snapshot(3)["weight"], model.weight)
    assert Recorded(tmp_path).snapshot(2)["weight"].tolist() == [[4, 4], [4, 4]]


def lazy() -> nn.Module:
    return nn.LazyLinear(2)


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        (lambda: nn.Linear(2, 2), {"keep": 1}, "keep is 1; allowed is a whole number >= 2"),
        (lambda: nn.Linear(2, 2), {"keep": True}, "keep is True; allowed"),
        (lambda: nn.Linear(2, 2), {"dtype": torch.int8}, "dtype is torch.int8; allowed are floating types"),
        (lambda: nn.Linear(2, 2), {"existing": "x"}, "existing is 'x'; allowed are 'refuse'"),
        (nn.ReLU, {}, "ReLU has no parameters"),
        (lazy, {}, "weight has no shape yet; pass a batch"),
    ],
)
def test_what_cannot_be_recorded_is_refused(
    model: Callable[[], nn.Module], settings: Any, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        Trajectory(model(), tmp_path / "x", **settings)
    assert not (tmp_path / "x").exists()


def test_a_model_that_changes_is_refused(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    path = Trajectory(model, tmp_path)
    model.weight = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"weight has the shape \[2, 3\], and had \[2, 2\]"):
        path.record()
    model.register_parameter("more", nn.Parameter(torch.zeros(1)))
    with pytest.raises(ValueError, match="other parameters or buffers than when"):
        path.record()
    path.close()
    path.close()
    with pytest.raises(ValueError, match="is closed; make another one"):
        path.record()
    assert Recorded(tmp_path).steps == [0]


# The plane


def directions(made: plane.Plane) -> np.ndarray:
    return np.stack([torch.cat(list(part.values())).numpy() for part in (made.first, made.second)])


def test_the_plane_is_that_of_the_singular_vectors_of_all_snapshots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "BLOCK", 8 * 20 * 4)  # four columns of twenty snapshots at a time
    first, second = walk(tmp_path / "a", 12), walk(tmp_path / "b", 8, seed=1)
    paths = Paths.of([tmp_path / "a", tmp_path / "b"])
    made = plane.principal(paths)
    rows = np.concatenate([first, second])
    _, sizes, vectors = np.linalg.svd(rows - rows.mean(0))
    np.testing.assert_allclose(torch.cat(list(made.origin.values())), rows.mean(0), atol=1e-12)
    np.testing.assert_allclose(np.abs(directions(made) @ vectors[:2].T), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(np.array(made.variance), sizes[:2] ** 2 / (sizes**2).sum(), rtol=1e-9)
    for walked, place in zip((first, second), plane.places(made, paths), strict=True):
        points = (walked - rows.mean(0)) @ directions(made).T
        np.testing.assert_allclose(place.points, points, atol=1e-9)
        near = rows.mean(0) + points @ directions(made)
        np.testing.assert_allclose(place.distance, np.linalg.norm(walked - near, axis=1), atol=1e-6)
        np.testing.assert_allclose(place.gone, np.linalg.norm(walked - walked[0], axis=1), atol=1e-9)


def test_random_directions_are_normalised_by_filter(tmp_path: Path) -> None:
    rows = walk(tmp_path, 5, weight=(3, 2, 2), bias=(3,))
    paths = Paths.of([tmp_path])
    made = plane.random(paths, seed=4)
    for direction in (made.first, made.second):
        norms = direction["weight"].reshape(3, 4).norm(dim=1)
        np.testing.assert_allclose(norms, np.linalg.norm(rows[-1, :12].reshape(3, 4), axis=1), rtol=1e-12)
        assert not direction["bias"].any()
    assert not torch.equal(made.first["weight"], made.second["weight"])
    assert torch.equal(made.first["weight"], plane.random(paths, seed=4).first["weight"])
    [place] = plane.places(made, paths)
    away = rows - rows[-1]
    points, *_ = np.linalg.lstsq(directions(made).T, away.T, rcond=None)
    np.testing.assert_allclose(place.points, points.T, atol=1e-9)
    np.testing.assert_allclose(place.distance, np.linalg.norm(away - points.T @ directions(made), axis=1), atol=1e-6)


# The losses


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Problem, list[Path]]:
    """Two short runs on the digits, of one start."""
    problem = get("digits(hidden=16, batch_norm=True)")
    x, y = problem.tensors("train")
    folders: list[Path] = []
    for rule in ("sgd(lr=0.5)", "adam(lr=0.01)"):
        torch.manual_seed(0)
        model = problem.fresh()
        optimizer = thalweg.Optimizer(model.parameters(), rule)
        folders.append(tmp_path_factory.mktemp("digits"))
        with Trajectory(model, folders[-1], about={"label": rule.partition("(")[0]}) as path:
            for step in range(12):
                part = slice(64 * step, 64 * step + 64)
                optimizer.zero_grad()
                problem.loss(model(x[part]), y[part]).backward()
                optimizer.step()
                path.record()
    return problem, folders


@pytest.mark.parametrize("statistics", ["frozen", "recomputed"])
def test_losses_of_the_grid_are_those_of_direct_evaluation(statistics: Any, digits: tuple[Problem, list[Path]]) -> None:
    problem, folders = digits
    made = landscape.draw(folders, Measure.of(problem, samples=300, seed=5, statistics=statistics), side=5)
    chosen = torch.randperm(1077, generator=torch.Generator().manual_seed(5))[:300].sort().values
    x, y = (part[chosen] for part in problem.tensors("train"))
    model = problem.fresh()
    buffers = {n: b for n, b in Recorded(folders[0]).snapshot(12).items() if n in dict(model.named_buffers())}
    p = made.plane

    def direct(i: float, j: float) -> float:
        weights = {
            n: (p.origin[n] + i * p.first[n] + j * p.second[n]).reshape(q.shape).float()
            for n, q in model.named_parameters()
        }
        # In training mode normalisation is by the batch's own statistics: recomputed ones differ in the variance, which
        # is divided by n − 1 for them.
        model.train(statistics == "recomputed")
        with torch.no_grad():
            if statistics == "frozen":
                return float(problem.loss(functional_call(model, {**weights, **buffers}, (x,)), y))
            z = x @ weights["0.weight"].T + weights["0.bias"]
            z = (z - z.mean(0)) / (z.var(0) + 1e-5).sqrt() * weights["1.weight"] + weights["1.bias"]
            return float(problem.loss(z.relu() @ weights["3.weight"].T + weights["3.bias"], y))

    expected = [[direct(i, j) for i in made.grid.x] for j in made.grid.y]
    np.testing.assert_allclose(made.grid.losses, expected, rtol=1e-6)
    assert np.ptp(made.grid.losses) > 0.1
    assert "on 300 of 1,077 training samples, drawn once at random (seed 5)" in made.said[0]
    assert statistics in made.said[1]
    for walked, place, folder in zip(made.walks, made.places, folders, strict=True):
        assert walked.snapshots == list(range(13))
        last = Recorded(folder).snapshot(12)
        if statistics == "frozen":
            model.eval()
            with torch.no_grad():
                true = float(problem.loss(functional_call(model, last, (x,)), y))
            assert walked.true[-1] == pytest.approx(true, rel=1e-6)
        assert walked.shown[-1] == pytest.approx(direct(*place.points[12].tolist()), rel=1e-6)
    one, two = made.plane.variance or (0, 0)
    assert f"The plane holds {100 * (one + two):.1f} % of the variance" in made.hidden[0]
    assert f"its last loss is {made.walks[1].true[-1]:.4g}, and {made.walks[1].shown[-1]:.4g}" in made.hidden[2]


def test_grids_go_from_coarse_to_fine_and_evaluate_each_point_once() -> None:
    asked: list[tuple[float, float]] = []

    def loss(x: float, y: float) -> float:
        asked.append((x, y))
        return x + 10 * y

    seen = list(surface.grown(loss, (-1.0, 1.0, 0.0, 4.0), 17))
    assert len(asked) == len(set(asked)) == 17 * 17
    grids = [step.grid for step in seen if step.grid is not None]
    assert [grid.losses.shape for grid in grids] == [(5, 5), (9, 9), (17, 17)]
    for grid in grids:
        np.testing.assert_allclose(grid.losses, grid.x + 10 * grid.y[:, None], rtol=1e-12)
        assert (grid.x[0], grid.x[-1], grid.y[0], grid.y[-1]) == (-1, 1, 0, 4)
    assert all(step.left is not None and step.left >= 0 for step in seen)
    assert seen[-1].left == 0
    with pytest.raises(ValueError, match="side is 6; allowed are 5, 9, 17"):
        next(surface.grown(loss, (0, 1, 0, 1), 6))


def test_a_model_of_ones_own_is_measured_and_left_as_it_was(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    with Trajectory(model, tmp_path) as path:
        for _ in range(4):
            for p in model.parameters():
                nn.init.normal_(p)
            path.record()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    x = torch.randn(8, 2)
    measure = Measure(model, lambda: model(x).square().mean())
    made = landscape.draw(tmp_path, measure, side=5)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert model[2].training
    assert "frozen" in made.said[0]
    assert np.isfinite(made.grid.losses).all()
    with pytest.raises(ValueError, match="can be recomputed only with forward"):
        Measure(model, lambda: 0.0, statistics="recomputed")


def test_a_path_that_diverges_is_drawn_as_far_as_it_is_finite(tmp_path: Path) -> None:
    model = nn.Linear(2, 3)
    with Trajectory(model, tmp_path) as path:
        for value in (1.0, 2.0, 4.0, math.inf, math.nan):
            nn.init.normal_(model.weight)
            with torch.no_grad():
                model.weight[0, 0] = value
            path.record()
    x = torch.randn(8, 2)
    made = landscape.draw(tmp_path, Measure(model, lambda: model(x).square().mean()), side=5)
    assert made.plane.left_out == 2
    assert np.isfinite(made.grid.losses).all()
    assert "2 snapshots are not finite, and left out." in made.hidden
    landscape.write(made, tmp_path / "page.html")


# What is wrong with a folder


def broken(name: str, data: bytes | None) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        walk(folder)
        if data is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(data)

    return act


def one_snapshot(folder: Path) -> None:
    Trajectory(Free(weight=(3, 5), bias=(4,)), folder).close()


def none_finished(folder: Path) -> None:
    one_snapshot(folder)
    (folder / recorded.INDEX).write_bytes(b"\xff" * 16 * 1_001)


def unmoved(folder: Path) -> None:
    with Trajectory(Free(weight=(3, 5), bias=(4,)), folder) as path:
        path.record()


def straight(folder: Path) -> None:
    model = Free(weight=(3, 5), bias=(4,))
    with Trajectory(model, folder) as path:
        for k in range(5):
            nn.init.constant_(model.weight, k)
            path.record()


def newer(folder: Path) -> None:
    walk(folder)
    (folder / recorded.ABOUT).write_text(json.dumps({"format": 99}))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder.mkdir(), "has no trajectory; record one with thalweg.Trajectory(model, "),
        (one_snapshot, "has one snapshot; a path needs two at least, so call record() after steps"),
        (none_finished, "has no snapshots; a path needs two"),
        (unmoved, "the path never moves: all snapshots are equal"),
        (straight, "the path of 6 snapshots is a straight line, which spans no plane"),
        (lambda folder: walk(folder, weight=(3, 5), bias=(5,)), "its bias has the shape [4], and in"),
        (lambda folder: walk(folder, weight=(3, 5)), "it has a parameter bias, and"),
        (lambda folder: walk(folder, weight=(3, 5), bias=(4,), more=(1,)), "it has no parameter more, and"),
        (broken(recorded.ABOUT, b"{"), "is damaged: trajectory.json cannot be read"),
        (broken(recorded.ABOUT, b"\xff\xfe"), "is damaged: trajectory.json cannot be read"),
        (broken(recorded.ABOUT, b"[]"), "is damaged: trajectory.json does not describe a trajectory"),
        (newer, "was written by a newer thalweg (format 99)"),
        (broken(recorded.INDEX, None), "is damaged: index.bin is missing"),
        (broken(recorded.INDEX, b"x"), "is damaged: index.bin has 1 bytes, and must have 16,016"),
        (broken(recorded.WEIGHTS, None), "is damaged: weights.bin is missing"),
        (broken(recorded.WEIGHTS, b"x" * 99), "is damaged: weights.bin has 99 bytes, fewer than its 12 snapshots need"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused_in_a_sentence(make: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    make(tmp_path / "run")
    model = Free(weight=(3, 5), bias=(4,))
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        landscape.draw(tmp_path / "run", Measure(model, lambda: model.weight.square().sum()), side=5)
    assert "\n" not in str(error.value)


def test_paths_of_two_architectures_are_refused(tmp_path: Path) -> None:
    walk(tmp_path / "a")
    walk(tmp_path / "b", weight=(3, 5), bias=(9,))
    with pytest.raises(ValueError, match=r"b is of another architecture: its bias has the shape \[9\], and in .*\[4\]"):
        Paths.of([tmp_path / "a", tmp_path / "b"])


# Memory

_MEASURED = """
import sys, torch
from pathlib import Path
from torch import nn
from thalweg import landscape
from thalweg.landscape import recorded, trajectory
model = nn.Sequential(nn.Linear(3000, 3000), nn.ReLU(), nn.Linear(3000, 330), nn.ReLU(), nn.Linear(330, 10))
folder, count = sys.argv[1], int(sys.argv[2])
with landscape.Trajectory(model, folder, keep=count, dtype=torch.bfloat16) as path:
    for k in range(count - 1):
        with torch.no_grad():
            for p in model.parameters():
                p.view(-1)[k::97] += 0.01 * (k % 7 - 2.5)
        path.record()
x = torch.randn(64, 3000)
made = landscape.draw(folder, landscape.Measure(model, lambda: model(x).square().mean()), side=5)
assert len(made.paths) == count
# Not getrusage, whose maximum is that of the process that started this one, if that was larger.
[peak] = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
print(sum(p.numel() for p in model.parameters()), int(peak) / 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc")
def test_memory_grows_with_parameters_and_with_snapshots_but_not_with_their_product(tmp_path: Path) -> None:
    """All snapshots would take 1.3 GB in float64; more were measured once, see docs/landscapes.md."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(tmp_path), "16"], capture_output=True, text=True, check=True
    )
    weights, gigabytes = map(float, done.stdout.split())
    assert weights > 9.9e6
    assert gigabytes < 1


# The command, races, and trainers


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Any, str]:
    """The exit code of a command, and what it says."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr()
    return ended.value.code, told.out if ended.value.code == 0 else told.err


def test_a_race_records_paths_and_its_report_links_the_landscape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    race = ("race", "digits(hidden=8)", "--rules", "sgd(lr=0.5),nesterov(lr=0.1)", "--seeds", "1", "--steps", "20",
            "--workers", "1", "--out", "races/mine")  # fmt: skip
    assert says(capsys, *race)[0] == 0
    code, said = says(capsys, "landscape", "races/mine")
    assert code == 2
    assert "has recorded no paths; the same thalweg race command with --trajectory records them" in said
    assert "landscape.html" not in Path("races/mine/report.html").read_text(encoding="utf-8")
    code, said = says(capsys, *race, "--trajectory")
    assert code == 0
    assert said.count("as in the race") == 2
    assert 'href="landscape.html"' in Path("races/mine/report.html").read_text(encoding="utf-8")
    runs = [Recorded(folder) for folder in sorted(Path("races/mine/paths").iterdir())]
    assert [run.label for run in runs] == ["nesterov(lr=0.1)", "sgd(lr=0.5)"]
    assert [run.steps for run in runs] == [list(range(21))] * 2
    starts = [run.snapshot(0) for run in runs]
    assert all(torch.equal(starts[0][name], starts[1][name]) for name in starts[0])
    results = thalweg.race.Results.read("races/mine/race.db")
    problem = get("digits(hidden=8)")
    for run in runs:  # the weights to evaluate, also of a rule that looks ahead
        model = problem.fresh()
        model.load_state_dict(run.snapshot(20))
        [before] = results.replicates(run.label)
        assert problem.evaluate(model, "validation")[0] == before.curve.validation_loss[-1]
    code, said = says(capsys, "landscape", "races/mine", "--side", "5", "--directions", "random", "--out", "x.html")
    assert code == 0
    assert "5 × 5 points" in said
    assert "The directions are random" in said
    assert Path("x.html").stat().st_size > 1e6
    for arguments, wrong in (
        (["nothing"], "nothing has no trajectory; record one with"),
        (["races/mine", "--directions", "up"], "directions is 'up'; allowed are 'principal' and 'random'"),
        (["races/mine", "--side", "7"], "side is 7; allowed are 5, 9, 17, 33, 65, 129"),
        (["races/mine", "--problem", "logistic"], "the model, Linear, is of another architecture: it has a parameter"),
        (["races/mine", "--split", "all"], "split is 'all'; allowed are"),
        (["races/mine", "--statistics", "x"], "statistics is 'x'; allowed are"),
    ):
        code, said = says(capsys, "landscape", *arguments)
        assert (code, said.count("\n")) == (2, 1), said
        assert wrong in said


def test_paths_of_a_training_function_are_refused_before_the_race(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(_FUNCTION)
    code, said = says(capsys, "race", "mine.py:train", "--rules", "sgd", "--out", "r", "--trajectory")
    assert code == 2
    assert "makes its model by itself, so its paths cannot be recorded from outside; record them in it, with" in said
    assert not Path("r/race.db").exists()


_FUNCTION = """
import torch


def train(run):
    model = torch.nn.Linear(2, 1)
    optimizer = run.optimizer(model)
    for step in run.steps(4):
        loss = model(torch.ones(3, 2)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.report(validation_loss=float(loss))
    run.finish(test=1.0)
"""


def test_the_page_shows_what_was_measured(digits: tuple[Problem, list[Path]], tmp_path: Path) -> None:
    problem, folders = digits
    made = landscape.draw([*folders, folders[0]], Measure.of(problem, samples=50), side=5)
    file = landscape.write(made, tmp_path / "page.html")
    page = Page(file.read_text(encoding="utf-8"))
    assert page.loads == ["data:,"]
    assert {"contours", "relief", "distances", "losses"} <= page.data.keys()
    np.testing.assert_allclose(page.data["contours"]["data"][0]["customdata"], made.grid.losses)
    for sentence in (*made.said, *made.hidden):
        assert sentence in re.sub(r"\s+", " ", page.words)
    assert "sgd 1" in page.words
    assert "sgd 2" in page.words
    assert page.data["losses"]["data"][0]["y"] == made.walks[0].true
    assert page.data["distances"]["data"][0]["y"] == made.places[0].distance.tolist()


def test_what_is_recorded_by_lightning_and_transformers_are_their_steps(tmp_path: Path) -> None:
    """In a process of its own: both warn while they are imported."""
    pytest.importorskip("lightning", reason="lightning is not installed")
    pytest.importorskip("transformers", reason="transformers is not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TRAINERS, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lightning, transformers = Recorded(tmp_path / "lightning"), Recorded(tmp_path / "transformers")
    assert lightning.steps == transformers.steps == [0, 1, 2, 3]
    for run in (lightning, transformers):
        weights = [run.snapshot(k)[run.parameters[0]["name"]] for k in range(4)]
        assert len({tuple(x.flatten().tolist()) for x in weights}) == 4
    assert torch.equal(lightning.snapshot(3)["layer.weight"], torch.load(tmp_path / "last.pt"))


_TRAINERS = """
import sys, torch
from torch import nn
import lightning.pytorch as pl
from thalweg import landscape
folder = sys.argv[1]
data = [(torch.randn(3), torch.randn(2)) for _ in range(24)]

class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def training_step(self, batch, _):
        return nn.functional.mse_loss(self.layer(batch[0]), batch[1])
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

module = Module()
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                     accumulate_grad_batches=2,
                     enable_progress_bar=False, callbacks=[landscape.for_lightning(folder + "/lightning")])
trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=4))
torch.save(module.layer.weight.detach().clone(), folder + "/last.pt")

from transformers import Trainer, TrainingArguments

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)
    def forward(self, x, labels):
        return {"loss": nn.functional.mse_loss(self.layer(x), labels)}

arguments = TrainingArguments(folder + "/out", max_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True,
                              save_strategy="no", disable_tqdm=True, gradient_accumulation_steps=2)
Trainer(Model(), arguments, train_dataset=[{"x": x, "labels": y} for x, y in data],
        callbacks=[landscape.for_transformers(folder + "/transformers")]).train()
"""


def test_a_browser_draws_the_page(digits: tuple[Problem, list[Path]], tmp_path: Path) -> None:
    problem, folders = digits
    made = landscape.draw(folders, Measure.of(problem, samples=50), side=5)
    file = landscape.write(made, tmp_path / "page.html")
    with opened(file.as_uri(), width=390, flags=WEBGL) as (page, errors):
        drawn = "['contours', 'relief', 'distances', 'losses'].every((id) => document.getElementById(id)._fullLayout)"
        end = time.monotonic() + 60
        while not page.evaluate(f"() => {drawn} && document.querySelectorAll('#contours path').length > 5"):
            assert time.monotonic() < end
            time.sleep(0.2)
        assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert not errors
