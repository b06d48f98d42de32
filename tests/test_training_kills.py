"""A race of a training function that is killed in the middle of a run, with a loader with workers, goes on there."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from processes import HAS_PROC, adopting, children, command, wait_for
from thalweg.race.checkpoints import beside
from thalweg.store import read

pytestmark = pytest.mark.skipif(not HAS_PROC, reason="reads /proc to find processes")

MINE = """
import os, time
import torch
from torch import nn

class Noisy(torch.utils.data.Dataset):
    def __len__(self): return 30
    def __getitem__(self, i): return torch.ones(3) * i / 30 + torch.randn(3)

def train(run):
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.2), nn.Linear(4, 1))
    optimizer = run.optimizer(model)
    run.load()
    loader = run.loader(Noisy(), batch_size=4, num_workers=2, multiprocessing_context="fork")
    for step, x in enumerate(run.batches(loader, 40)):
        optimizer.zero_grad()
        loss = (model(x) - x.mean(1, keepdim=True)).pow(2).mean()
        loss.backward()
        optimizer.step()
        with open(os.path.join(os.path.dirname(__file__), "steps.txt"), "a") as file:
            print(run.phase, run.step, file=file)
        time.sleep(0.02)
        run.save()
        run.report(val_loss=loss.item())
"""


MOMENTS = ("tune 15", "tune 27", "final 22")


def test_a_killed_race_goes_on_in_the_middle_of_a_run(tmp_path: Path):
    found: list[Any] = []
    with adopting():
        for folder in (tmp_path / "whole", tmp_path / "killed"):
            folder.mkdir()
            (folder / "mine.py").write_text(MINE, encoding="utf-8")
            (steps := folder / "steps.txt").touch()
            settings = ["--rules", "adam(lr=0.01)", "--seeds", "1", "--workers", "1", "--out", str(folder)]
            # A store of many has its records elsewhere, and its checkpoints as one of its own has them.
            store = folder / "race.db" if folder.name == "whole" else tmp_path / "lab.db"
            settings += [] if folder.name == "whole" else ["--store", str(store)]
            line = ["race", f"{folder / 'mine.py'}:train", *settings]
            for moment in MOMENTS if folder.name == "killed" else ():
                known = children(os.getpid())
                process = command(line)
                wait_for(
                    lambda steps=steps, process=process, moment=moment: (
                        f"{moment}\n" in steps.read_text() or not process.is_alive()
                    )
                )
                assert process.pid
                os.kill(process.pid, signal.SIGKILL)
                process.join()
                wait_for(lambda known=known: children(os.getpid()) <= known, patience=5)
                assert len([*(folder / "checkpoints").glob("*.pt")]) == 1
            process = command(line)
            process.join()
            assert process.exitcode == 0
            assert not (folder / "checkpoints").exists()
            runs = read(store).runs
            assert [run.status for run in runs] == ["finished", "finished"]
            found.append([(run.curve.validation_metric, run.validation_metric) for run in runs])
    assert found[0] == found[1]
    taken = (tmp_path / "killed" / "steps.txt").read_text().splitlines()
    assert taken.count("tune 1") == 1
    assert taken.count("tune 40") == 1
    assert taken.count("final 40") == 1
    assert taken.count("final 1") == 1 + len(MOMENTS) + 1  # every command looks at a few steps before it begins


def test_checkpoints_are_beside_a_store_in_a_file_or_where_they_should_be(tmp_path: Path):
    file = tmp_path / "lab.db"
    assert beside(file) == beside(f"sqlite:///{file}") == tmp_path / "checkpoints"
    assert beside(None) is beside("sqlite://") is beside("postgresql://me@nowhere/lab") is None
