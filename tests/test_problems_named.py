"""The built-in problems: what is known of each, and their errors."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from test_problems_images import folder_of
from thalweg import Entry, problems
from thalweg.problems.chance import reproducible
from thalweg.race import course
from thalweg.race import plan as planning
from thalweg.race.training import train

TEXT = "".join(f"{i}: to be or not to be, {i % 7}\n" for i in range(60))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(problem: problems.Problem, text: str, steps: int = 300) -> Any:
    entry = Entry(text)
    plan = planning.make(problem, [entry], trials=1, seeds=1, seed=0, steps=steps)
    return train(problem, plan, entry, course.Search(plan, plan.entries[0]).tasks[0])


def test_quadratic_deep_begins_and_ends_where_deepobs_does():
    problem = problems.get("quadratic-deep")
    with reproducible(0):
        start, _ = problem.evaluate(problem.fresh(), "test")
    assert start == pytest.approx(353.44676, abs=1e-4)  # as published
    entry = Entry("adam(lr=1e-3)")
    plan = planning.make(problem, [entry], trials=1, seeds=2, steps=700, seed=0, finalists=1)
    for seed in range(2):
        (task,) = course.Search(plan, plan.entries[0]).tasks
        final: Any = planning.Task(task.key, task.entry, "final", 0, seed, task.tuned)
        ended = train(problem, plan, entry, final)
        assert ended.best_step == 700
        assert 106.50 <= ended.test_metric <= 106.75  # 106.68 as published


def test_the_lowest_value_of_the_noisy_quadratic_is_known():
    problem = problems.get("noisy-quadratic(dimensions=7, condition=100)")
    problem.check()
    model = problem.fresh()
    (theta,) = model.parameters()
    loss, excess = problem.evaluate(model, "test")
    torch.nn.init.zeros_(theta)
    least, none = problem.evaluate(model, "test")
    assert none == pytest.approx(0, abs=1e-6)
    assert excess == pytest.approx(loss - least, rel=1e-4)
    # At the start θ = 1, and the trace of Q says what the noise adds.
    eigenvalues = torch.logspace(-2, 0, 7)
    assert least == pytest.approx(0.5 * 0.6**2 * float(eigenvalues.sum()), rel=0.1)
    assert run(problem, "sgd(lr=0.3)", steps=300).validation_metric < 0.1 < excess


def test_sparse_features_are_few_and_mostly_rare():
    problem = problems.get("sparse-logistic(features=500, present=10)")
    problem.check()
    x, y = problem.tensors("train")
    counts = x.flatten().bincount(minlength=500)
    assert x.shape[1] == 10
    assert int(counts[0]) > 50 * int(counts[400:].double().mean())
    assert 0.3 < float(y.mean()) < 0.7
    ended = run(problem, "adagrad(lr=0.3)")
    assert ended.curve.validation_loss[0] == pytest.approx(math.log(2), abs=1e-5)
    assert ended.validation_metric < 0.55


@pytest.mark.parametrize("name", ["char-transformer(width=16, block=8)", "char-lstm(width=16, block=8)"])
def test_the_next_character_is_learned_from_any_text(name: str, text: Path):
    problem = problems.get(name, data=text)
    problem.check()
    x, y = problem.tensors("train")
    codes = sorted(set(TEXT))
    assert "".join(codes[i] for i in x[0]) == TEXT[:8]
    assert "".join(codes[i] for i in y[0]) == TEXT[1:9]
    assert len(x) == (len(TEXT) - 2 * (len(TEXT) // 20) - 1) // 8
    model = problem.fresh()
    before = problem.predict(model, x[:2])
    changed = x[:2].clone()
    changed[:, 5:] = 0
    torch.testing.assert_close(problem.predict(model, changed)[:, :5], before[:, :5])  # it does not see what follows
    ended = run(problem, "adam(lr=0.01)", steps=60)
    assert ended.curve.validation_loss[0] == pytest.approx(math.log(len(codes)), abs=0.2)
    assert ended.validation_metric < 0.6 * math.log(len(codes))


def test_a_text_may_be_the_only_one_in_its_folder(text: Path):
    given = {data: problems.get("char-lstm", data=data).fingerprint() for data in (text, text.parent)}
    assert len(set(given.values())) == 1


@pytest.mark.parametrize("name", ["mnist-cnn", "mnist-autoencoder"])
def test_networks_for_images(name: str, tmp_path: Path):
    problem = problems.get(name, data=folder_of(tmp_path))
    problem.check()
    assert problem.name == f"{name}-24"
    x, y = problem.tensors("train")
    if name == "mnist-cnn":
        assert x.shape == (15, 1, 4, 4)
    else:
        assert torch.equal(x, y)
        sizes = [p.shape[0] for p in problem.fresh().parameters() if p.ndim == 2]
        assert sizes == [400, 200, 100, 50, 25, 6, 25, 50, 100, 200, 400, 16]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("char-lstm", None, "char-lstm reads a text: name the file, or a folder .* with --data FILE"),
        ("char-lstm", "nowhere.txt", "there is no file .*nowhere.txt; name a text"),
        ("char-lstm", "", r"the folder .* has no file \*\.txt"),
        ("char-lstm", "short.txt", "short.txt has 30 characters; char-lstm with block=64 needs at least 1,300"),
        ("char-lstm", "bytes.bin", "bytes.bin is no text in UTF-8: byte 0 "),
        ("char-transformer(width=6)", "short.txt", "width is 6 and its heads 4; the width must be a multiple"),
        ("char-transformer(layers=0)", "short.txt", r"layers is 0; allowed is a whole number in \[1, 10000\]"),
        ("mnist-cnn(channels=(4, 0))", "", "mnist-cnn's channels is 0"),
        ("mnist-cnn(channels=(1, 1, 1, 1, 1))", "", "5 convolutions, which leave nothing of 28×28 pixels"),
        ("noisy-quadratic(condition=-1)", None, "noisy-quadratic's condition is -1; allowed is"),
        ("noisy-quadratic", "", "noisy-quadratic brings its own data"),
        ("sparse-logistic(features=1.5)", None, r"sparse-logistic's features is 1\.5; allowed is a whole number"),
    ],
)
def test_what_is_wrong_is_said(name: str, data: str | None, says: str, tmp_path: Path):
    (tmp_path / "bytes.bin").write_bytes(b"\xff\xfe\x00")
    if data == "short.txt":
        (tmp_path / data).write_text("to be or not to be, that is it", encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        problems.get(name, data=None if data is None else tmp_path / data)


def test_tinyshakespeare(shared: Path):
    problem = problems.get("char-transformer", data=shared / "data" / "tinyshakespeare")
    assert problem.source.startswith("input.txt: 1,115,394 characters, 65 different ones, in windows of 64;")
    assert len(problem.tensors("train")[0]) == 15_685
    assert [len(problem.tensors(split)[0]) for split in ("validation", "test")] == [200, 200]
