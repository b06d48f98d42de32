"""The commands around training functions: try, range, and what a race says to those that cannot be raced."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from thalweg import Entry, Race
from thalweg.cli import looking as told_by
from thalweg.cli.exits import Mistake
from thalweg.cli.starting import init
from thalweg.problems.training import Training, higher_is_better, of_function
from thalweg.race import functions, looking
from thalweg.race import plan as planning
from thalweg.race.inspecting import Inspection
from thalweg.race.looking import Look, Sweep
from thalweg.race.plan import Task
from thalweg.race.progress import Page, Shown
from thalweg.race.session import TrainingRun, Trial
from thalweg.race.trying import told


def trained(function: Callable[[TrainingRun], Any], trial: Trial, seed: int = 0, **settings: Any) -> tuple[str, Any]:
    training, entry = of_function(function), Entry(settings.pop("entry", "adam(lr=0.01)"))
    plan = planning.make(training, [entry], trials=1, seeds=1, steps=settings.get("steps", 10**9), seed=0)
    return functions.run(training, plan, entry, Task("trial", entry.name, "final", 0, seed), trial=trial)


def odd(run: TrainingRun, *, seeded: bool = False, drawn: bool = False) -> None:
    """Three layers: one is never used, and the gradients of another are not finite once."""
    if seeded:
        torch.manual_seed(0)
    used, unused, wild = (nn.Linear(3, 1) for _ in range(3))
    optimizer = run.optimizer(nn.ModuleDict({"used": used, "unused": unused, "wild": wild}))
    chance = torch.Generator()
    if drawn:
        chance.seed()
    for step in run.steps(1_000):
        x = torch.randn(4, 3, generator=chance if drawn else None)
        optimizer.zero_grad()
        (used(x).pow(2).mean() + wild(x).mean() * (torch.inf if step == 2 else 1.0)).backward()
        optimizer.step()
        for p in wild.parameters():
            p.detach().zero_()
        if step % 4 == 0:
            run.report(validation=float(used.weight.detach().abs().sum()))


def seen(**how: bool) -> Look:
    found: list[Trial] = []
    for seed in (0, 0, 1):
        status, known = trained(lambda run: odd(run, **how), Trial(5, seen=Inspection()), seed, entry="sgd(lr=0.01)")
        assert (status, known["message"]) == ("finished", "")
        found.append(known["trial"])
    return Look(told(of_function(odd_named), found[0]), tuple(found))


def odd_named(run: TrainingRun) -> None:
    odd(run)


def test_a_look_finds_missing_gradients_by_name_and_what_seeds_do():
    plain, seeded, drawn = seen(), seen(seeded=True), seen(drawn=True)
    assert plain.seen.missing == dict.fromkeys(("unused.weight", "unused.bias"), plain.seen.steps)
    assert plain.seen.infinite == {"wild.weight": 1, "wild.bias": 1}
    assert (plain.training.steps, plain.training.metric_name) == (1_000, "validation")
    assert [step for step, _ in plain.seen.reports][:2] == [1, 5]
    assert len(plain.seen.seconds) == len(plain.seen.stepping) == plain.seen.steps - 2
    assert 0 < plain.stepping < plain.step
    assert plain.run() > 999 * plain.step
    assert dict(told_by.gradients(plain))["gradients"] == (
        "missing: unused.weight in every step, unused.bias in every step; not finite: wild.weight in 1 of "
        f"{plain.seen.steps} steps, wild.bias in 1 of {plain.seen.steps} steps"
    )
    [(_, metric)] = told_by.metric(plain)
    assert re.fullmatch(r"validation, of which higher is better: [\d.]+ → [\d.]+ from step 1 to 5", metric)
    said = [" ".join(text for _, text in told_by.chance(look)) for look in (plain, seeded, drawn)]
    assert said[0] == "two runs are equal bit for bit first weights and results differ"
    assert "the function seeds itself; replicates would all be the same" in said[1]
    assert said[2].startswith("two runs differ: something draws random numbers by itself")
    assert [(look.repeats, look.varies) for look in (plain, seeded, drawn)] == [
        (True, (True, True)), (True, (False, False)), (False, (True, True)),
    ]  # fmt: skip


def valley(run: TrainingRun, noise: float = 0.0) -> None:
    """Gradient descent on x²/2 with noisy gradients, which falls fastest at lr 1 and diverges from 2 on."""
    x = nn.Parameter(torch.ones(10))
    optimizer = run.optimizer([x])
    for _ in run.steps(100):
        optimizer.zero_grad()
        ((x - 0.1 * torch.randn(10)).pow(2).sum() / 2 + noise * torch.randn(())).backward()
        optimizer.step()
    run.report(validation=1.0)


def test_a_range_test_ends_where_the_loss_diverges_and_says_what_it_doubts():
    n, low, high = 60, 1e-3, 100.0
    factor = (high / low) ** (1 / (n - 1))
    entry = f"sgd(lr={low}, schedule='exponential({factor!r})')"
    rates = tuple(low * factor**k for k in range(n))

    def sweep(noise: float) -> Sweep:
        losses: list[tuple[float, ...]] = []
        for seed in range(2):
            _, known = trained(
                lambda run: valley(run, noise), Trial(n, seen=Inspection(most=n)), seed, entry=entry, steps=n
            )
            found = known["trial"].seen
            assert found.rates == pytest.approx(rates[: len(found.rates)])
            losses.append(tuple(parts[0] for _, parts in sorted(found.losses.items())))
        return Sweep(Entry("sgd"), rates, tuple(losses))

    clear, noisy = sweep(0.0), sweep(100.0)
    begins, ends = clear.space
    assert 1e-3 < begins < 0.3 < ends < 6
    assert not clear.doubts
    assert any("twice its noise" in doubt for doubt in noisy.doubts)
    assert nn.Parameter.backward is torch.Tensor.backward
    assert torch.Tensor.backward.__module__ == "torch._tensor"


@pytest.mark.parametrize(
    ("metric", "higher"),
    [("validation", True), ("accuracy", True), ("val_loss", False), ("perplexity", False), ("mean-error", False)],
)
def test_the_name_of_a_metric_says_which_way_it_is_better(metric: str, higher: bool):
    assert higher_is_better(metric) is higher


WRONG = {
    "typo": ("mine.py:trian", r"has no function trian; did you mean 'train'"),
    "missing": ("mien.py:train", r"there is no file mien.py; wanted is a Python file with a function train"),
    "mute": ("mine.py:mute", r"mine.py:mute ended without a report; call run.report\(validation=…\)"),
    "endless": ("mine.py:endless", r"does not say how many steps it takes; write for step in run.steps\(n\)"),
    "raises": ("mine.py:raises", r"KeyError at step 1 \(mine.py, line \d+\): 'k'"),
    "sized": ("mine.py:train", r"makes its batches by itself; leave the batch_size of sgd\(batch_size=2\) out"),
}
MINE = """
import torch

def steps(run, n=10):
    model = torch.nn.Linear(2, 1)
    optimizer = run.optimizer(model)
    for step in run.steps(n) if n else range(10**9):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        yield step

def train(run):
    for _ in steps(run): run.report(validation=1.0)

def mute(run):
    for _ in steps(run): pass

def endless(run):
    for _ in steps(run, 0): run.report(validation=1.0)

def raises(run):
    for _ in steps(run): {}["k"]
"""


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_raced_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    text, said = WRONG[name]
    with pytest.raises(ValueError, match=said) as raised:
        Race(text, ["sgd(batch_size=2)" if name == "sized" else "sgd"], workers=1)
    assert len(str(raised.value).splitlines()) <= 1 + 8


PROBLEM = """
import torch, thalweg
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

x = torch.linspace(-1, 1, 40)[:, None]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.unused, self.wild = nn.Linear(1, 1), nn.Linear(1, 1), nn.Linear(1, 1)

def loss(model, batch):
    return sound(model, batch) + (0 * model.wild(batch["x"])).abs().sqrt().mean()  # whose gradient at 0 is infinite

def sound(model, batch):
    return (model.used(batch["x"]) - batch["x"]).pow(2).mean()

class Rows(torch.utils.data.Dataset):
    def __len__(self): return 40
    def __getitem__(self, i): return {"x": x[i] + 0.1 * torch.randn(1)}

def make(of=loss):
    loader = lambda: DataLoader(Rows(), 8, shuffle=True)
    return thalweg.Problem("rows", Net, of, loader, loader, {"x": x}, metric={"error": sound},
                           higher_is_better=False, steps=50)

def tensors():
    return thalweg.Problem("rows", Net, sound, {"x": x}, {"x": x}, {"x": x}, metric={"error": sound},
                           higher_is_better=False, steps=50)
"""


@pytest.mark.parametrize("function", ["make", "tensors"])
def test_a_problem_is_looked_at_as_a_training_is(function: str, tmp_path: Path):
    (tmp_path / "mine.py").write_text(PROBLEM, encoding="utf-8")
    found = looking.look(f"{tmp_path / 'mine.py'}:{function}", Entry("sgd(lr=0.1)"), steps=10)
    seen, made = found.seen, function == "make"
    training = found.training
    assert (training.name, training.metric_name, training.higher_is_better) == ("rows", "error", False)
    assert training.steps == 50
    missing = {*seen.missing} - {"wild.weight", "wild.bias"}
    assert missing == {"unused.weight", "unused.bias"}
    assert {*seen.infinite} == ({"wild.weight", "wild.bias"} if made else set())
    assert (found.repeats, found.varies) == (True, (True, True))
    assert len(seen.reports) == (1 if made else 6)  # one whose weights are not finite has diverged
    assert made or seen.reports[0][1] != seen.reports[-1][1]


WRITES = """
import os, tempfile, torch

def train(run):
    os.makedirs("out", exist_ok=True)
    torch.save({}, "out/ckpt.pt")
    open("log.txt", "a").write("x")
    open(os.path.join(tempfile.mkdtemp(), "mine"), "w").write("x")
    optimizer = run.optimizer(torch.nn.Linear(1, 1))
    for step in run.steps(5):
        optimizer.step()
        run.report(validation=1.0)
"""


def test_a_training_that_writes_where_others_do_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(WRITES, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.warns(UserWarning, match=r"mine.py:train writes log.txt, out in the current folder, .*mkdtemp\(\)"):
        Race("mine.py:train", ["sgd(lr=0.1)"], workers=2)
    Race("mine.py:train", ["sgd(lr=0.1)"], workers=1)


def test_nothing_is_overwritten_by_a_start(tmp_path: Path):
    (tmp_path / "my_training.py").write_text("mine")
    with pytest.raises(Mistake, match=r"my_training.py exists already; name another file with --out"):
        init("loop", tmp_path)
    with pytest.raises(Mistake, match=r"there is no start for 'lop'; did you mean 'loop'"):
        init("lop", tmp_path)
    assert (tmp_path / "my_training.py").read_text() == "mine"


def test_a_notebook_shows_a_page_and_the_runs(tmp_path: Path):
    (tmp_path / "page.html").write_text('<b class="x">é</b>', encoding="utf-8")
    page: Any = Page(tmp_path / "page.html")
    assert page == tmp_path / "page.html"
    assert re.search(r'srcdoc="&lt;b class=&quot;x&quot;&gt;é&lt;/b&gt;"', page._repr_html_())
    training = Training(valley, "<mine>")
    plan = planning.make(training, [Entry("sgd", "<b>")], trials=2, seeds=1, steps=10, seed=0)
    shown: Any = Shown(plan)
    assert "&lt;b&gt;" in shown._repr_html_()
    assert "<b>" not in shown._repr_html_()
