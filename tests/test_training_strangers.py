"""Scripts with the habits of scripts that were written for other purposes are raced with few changed lines."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from test_training_run import final, plan_of
from thalweg import Entry, problems
from thalweg.problems.training import Training
from thalweg.race import functions

START = """
import thalweg; run = thalweg.current_run()
import torch
from torch import nn
x = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
y = x.sum(1, keepdim=True)
"""
MODEL = """
model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
"""
STEP = """
    optimizer.zero_grad()
    loss = (model(x) - y).pow(2).mean()
    loss.backward()
    optimizer.step()
    run.report(val_loss=loss.item())
"""

SCRIPTS: dict[str, str] = {
    "argparse and main": START + """
import argparse, sys
from tqdm import tqdm

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, required=True)
    args = parser.parse_args()
    assert (sys.argv[0], args.epochs) == ("script.py", 20)
    model = nn.Linear(3, 1)
    optimizer = run.optimizer(model, lr=args.lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.9)
    for epoch in tqdm(range(args.epochs)):
""" + STEP.replace("\n    ", "\n        ") + """
        scheduler.step()
    torch.save(model.state_dict(), "mnist_cnn.pt")

if __name__ == "__main__":
    main()
""",
    "a configuration that is executed, relative data, an optional logger": START + MODEL + """
import os, pickle
learning_rate, max_iters, wandb_log, compile, device = 1e-3, 20, False, True, "cpu"
exec(open("configurator.py").read())
meta = pickle.load(open(os.path.join("data", "meta.pkl"), "rb"))
assert (max_iters, meta) == (15, 7)
os.makedirs("out", exist_ok=True)
if compile and torch.cuda.is_available():
    model = torch.compile(model)
optimizer = run.optimizer(model, lr=learning_rate)
if wandb_log:
    import wandb
iter_num = 0
while True:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * (1 - iter_num / max_iters)
""" + STEP + """
    torch.save({"optimizer": optimizer.state_dict(), "iter": iter_num}, os.path.join("out", "ckpt.pt"))
    iter_num += 1
    if iter_num > max_iters:
        break
""",
    "a scaler, an average, a second optimizer, accumulated gradients": START + MODEL + """
critic = nn.Linear(3, 1)
optimizer, second = run.optimizer(model, lr=1e-3), run.optimizer(critic, lr=1e-2)
average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
scaler = torch.amp.GradScaler("cuda", enabled=torch.cuda.is_available())
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
schedule = torch.optim.lr_scheduler.SequentialLR(
    optimizer, [warmup, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)], milestones=[5])
for i in range(20):
    for part in x.chunk(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
            loss = (model(part) - part.sum(1, keepdim=True)).pow(2).mean() / 2
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    second.zero_grad()
    critic(x).pow(2).mean().backward()
    second.step()
    average.update_parameters(model)
    schedule.step()
    average.eval()
    with torch.no_grad():
        run.report(val_loss=(average(x) - y).pow(2).mean().item(), critic=critic(x).pow(2).mean().item())
""",
    "a closure, a plateau, early stopping, a best checkpoint": START + MODEL + """
import copy, random, numpy as np
torch.manual_seed(0), random.seed(0), np.random.seed(0)
torch.use_deterministic_algorithms(True)
torch.autograd.set_detect_anomaly(True)
optimizer = run.optimizer(model, lr=1e-2)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
best, waited = float("inf"), 0
for epoch in range(1000):
    def closure():
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        return loss
    loss = optimizer.step(closure)
    scheduler.step(loss.item())
    run.report(val_loss=loss.item(), lr=optimizer.param_groups[0]["lr"])
    waited = 0 if loss.item() < best - 1e-4 else waited + 1
    if loss.item() < best:
        best, kept = loss.item(), copy.deepcopy(model.state_dict())
    if waited > 5:
        print("Early stopping")
        break
model.load_state_dict(kept)
""",
}  # fmt: skip
ARGUMENTS = {"argparse and main": " --epochs 20"}


def files(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "meta.pkl").write_bytes(b"\x80\x04K\x07.")
    (folder / "configurator.py").write_text("max_iters = 15\nfor arg in __import__('sys').argv[1:]: raise ValueError")


@pytest.mark.filterwarnings("default:Anomaly Detection", "ignore::ResourceWarning")  # strangers leave files open
@pytest.mark.parametrize("rule", ["adamw(lr=0.01)", "schedule_free(adam(lr=0.01))"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_with_habits_of_its_own_is_raced(
    name: str, rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: Callable[[], None]
):
    files(tmp_path)
    (tmp_path / "script.py").write_text(SCRIPTS[name], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    training, entry = problems.read(f"script.py{ARGUMENTS.get(name, '')}"), Entry(rule)
    assert isinstance(training, Training)
    training = replace(training, metric_name="val_loss", higher_is_better=False)
    status, known = functions.run(training, plan_of(training, entry, steps=12), entry, final(entry))
    assert (status, known["message"]) == ("finished", "")
    assert known["curve"].step == tuple(range(1, 13))
    assert known["curve"].validation_metric[-1] < known["curve"].validation_metric[0]


@pytest.fixture
def restored(request: pytest.FixtureRequest) -> Any:
    """Puts back what scripts change for good, each of which has a process of its own in a race."""
    import torch

    yield
    torch.use_deterministic_algorithms(False)
    torch.autograd.set_detect_anomaly(False)
