"""Checkpoints of other packages and of other forms of a rule: what their buffers mean is converted, if it is said."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import thalweg
from thalweg import conventions, optim, rules
from thalweg.cli import main
from thalweg.rule import Rule

SHAPES = ((4, 5), (6, 4), (4, 2, 3, 3))
GENERATOR = torch.Generator().manual_seed(0)
START = [torch.randn(shape, dtype=torch.float64, generator=GENERATOR) for shape in SHAPES]
GRADIENTS = [[torch.randn(shape, dtype=torch.float64, generator=GENERATOR) for shape in SHAPES] for _ in range(8)]
HALF = 4


def drive(optimizer: Any, ps: list[Any], gs: list[list[Tensor]]) -> None:
    for some in gs:
        for p, g in zip(ps, some, strict=True):
            p.grad = g.clone()
        optimizer.step()


def parameters(points: list[Tensor]) -> list[Any]:
    return [torch.nn.Parameter(p.detach().clone()) for p in points]


def whole(rule: Rule) -> list[Any]:
    """The points after all steps by one optimizer."""
    ps = parameters(START)
    drive(thalweg.Optimizer(ps, rule), ps, GRADIENTS)
    return ps


def half(rule: Rule) -> tuple[list[Any], dict[str, Any]]:
    """The points and the checkpoint after half of the steps."""
    ps = parameters(START)
    optimizer = thalweg.Optimizer(ps, rule)
    drive(optimizer, ps, GRADIENTS[:HALF])
    return ps, copy.deepcopy(optimizer.state_dict())


def close(ours: list[Any], theirs: list[Any], tolerance: float = 1e-12) -> None:
    for p, q, first in zip(ours, theirs, START, strict=True):
        assert (p - q).norm() <= tolerance * (q - first).norm()


FORMS: list[tuple[Rule, Rule]] = [
    (rules.Muon(), rules.Muon(form="accumulated")),
    (rules.Muon(form="accumulated", nesterov=False), rules.Muon(nesterov=False, momentum=0.95)),
    (rules.named("normuon"), rules.named("normuon", form="accumulated")),
    (rules.Momentum(form="averaged", lr=0.1), rules.Momentum(lr=0.01)),
    (rules.Momentum(form="velocity", lr=0.1), rules.Momentum(form="averaged", lr=1.0)),
    (rules.LAMB(bias_correction=False), rules.LAMB(bias_correction=False, grad_averaging=False)),
]


@pytest.mark.parametrize(("left", "other"), FORMS, ids=str)
def test_a_state_of_one_form_goes_on_in_another(left: Rule, other: Rule) -> None:
    ps, saved = half(left)
    optimizer = thalweg.Optimizer(ps, other)
    with pytest.raises(ValueError, match="was stepped by"):
        optimizer.load_state_dict(saved)  # never silently
    conventions.load(optimizer, saved, "thalweg")
    drive(optimizer, ps, GRADIENTS[HALF:])
    close(ps, whole(left), 1e-9)


def test_torchs_muon_goes_on_in_our_optimizer_from_torchs_own_checkpoint() -> None:
    ps = parameters(START[:2])
    theirs = torch.optim.Muon(ps, lr=0.02, momentum=0.9)
    drive(theirs, ps, [gs[:2] for gs in GRADIENTS[:HALF]])
    saved = copy.deepcopy(theirs.state_dict())
    qs = parameters(ps)
    ours = thalweg.Optimizer(qs, rules.Muon(form="accumulated", momentum=0.9))
    conventions.load(ours, saved, "torch.optim.Muon")
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(ours.state[q]["momentum_buffer"], theirs.state[p]["momentum_buffer"] / (1 - 0.9))
    drop_in = optim.Muon(parameters(ps), lr=0.02, momentum=0.9)
    conventions.load(drop_in, ours.state_dict(), "thalweg")  # and back
    for p, q in zip(ps, drop_in.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(drop_in.state[q]["momentum_buffer"], theirs.state[p]["momentum_buffer"])


def test_optaxs_form_needs_the_number_of_steps() -> None:
    ps = parameters(START[:2])
    theirs = torch.optim.Muon(ps, lr=0.02)
    drive(theirs, ps, [gs[:2] for gs in GRADIENTS[:HALF]])
    rule = conventions.rule("optax.contrib", "muon", lr=0.02, beta=0.95)
    ours = thalweg.Optimizer(ps, rule)
    with pytest.raises(ValueError, match="depends on the number of steps, and the checkpoint has none; give steps="):
        conventions.load(ours, theirs.state_dict(), "torch.optim.Muon")
    assert not ours.state
    conventions.load(ours, theirs.state_dict(), "torch.optim.Muon", steps=HALF)
    # As if it had been optax's all along: the buffer is the same average.
    qs = parameters(START[:2])
    other = thalweg.Optimizer(qs, rule)
    drive(other, qs, [gs[:2] for gs in GRADIENTS[:HALF]])
    for p, q in zip(ps, qs, strict=True):
        torch.testing.assert_close(
            ours.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"], check_dtype=False
        )
        q.data.copy_(p.data)
    drive(ours, ps, [gs[:2] for gs in GRADIENTS[HALF:]])
    drive(other, qs, [gs[:2] for gs in GRADIENTS[HALF:]])
    for p, q, first in zip(ps, qs, START[:2], strict=True):
        assert (p - q).norm() <= 1e-9 * (q - first).norm()


def converted(state: dict[str, Any], source: str, to: str, tmp_path: Path, *more: str) -> Any:
    """A checkpoint, converted from file to file by the command."""
    old, new = tmp_path / "old.pt", tmp_path / "new.pt"
    torch.save({"epoch": 3, "optimizer": state}, old)
    given = ["convert", source, "--to", to, "--state", str(old), "--out", str(new), *more]
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert not ended.value.code
    whole = torch.load(new, weights_only=True)
    assert whole["epoch"] == 3
    return whole["optimizer"]


def test_files_are_converted_between_packages_and_back(tmp_path: Path) -> None:
    ps = parameters(START[:2])
    theirs = torch.optim.Muon(ps, lr=0.02, momentum=0.9, weight_decay=0.3)
    drive(theirs, ps, [gs[:2] for gs in GRADIENTS[:HALF]])
    saved = theirs.state_dict()
    dions = converted(saved, "torch.optim.Muon", "dion.Muon", tmp_path)
    group = dions["param_groups"][0]
    assert (group["lr"], group["mu"], group["weight_decay"], group["algorithm"]) == (0.02, 0.9, 0.3, "muon")
    for i in range(2):
        torch.testing.assert_close(dions["state"][i]["momentum"], saved["state"][i]["momentum_buffer"] / (1 - 0.9))
    back = converted(dions, "dion.Muon", "torch.optim.Muon", tmp_path)
    again = torch.optim.Muon(parameters(ps), lr=1.0)
    again.load_state_dict(back)
    assert again.param_groups[0]["momentum"] == 0.9
    for q, i in zip(again.param_groups[0]["params"], range(2), strict=True):
        torch.testing.assert_close(again.state[q]["momentum_buffer"], saved["state"][i]["momentum_buffer"])
    rule = conventions.rule("dion", "Muon", nesterov=True, epsilon=1e-7)  # as near to torch's as dion has it
    ours = thalweg.Optimizer(parameters(ps), rule, decay_form="scaled")
    ours.load_state_dict(converted(dions, "dion.Muon", "thalweg", tmp_path))
    assert ours.param_groups[0]["weight_decay"] == 0.3
    assert ours.param_groups[0]["momentum"] == 0.9


def test_groups_of_muon_and_adam_are_each_converted(tmp_path: Path) -> None:
    ps = parameters([*START[:2], torch.ones(3, dtype=torch.float64)])
    groups = [
        {"params": [0, 1], "use_muon": True, "lr": 0.05, "momentum": 0.9, "weight_decay": 0.1},
        {"params": [2], "use_muon": False, "lr": 0.02, "betas": (0.8, 0.9), "eps": 1e-10, "weight_decay": 0.2},
    ]
    state = {
        0: {"momentum_buffer": ps[0].data}, 1: {"momentum_buffer": ps[1].data},
        2: {"exp_avg": ps[2].data, "exp_avg_sq": 2 * ps[2].data, "step": 7},
    }  # fmt: skip
    kellers = {"state": state, "param_groups": groups}
    made = converted(kellers, "muon.SingleDeviceMuonWithAuxAdam", "pytorch_optimizer.Muon", tmp_path)
    muon, adam = made["param_groups"]
    assert (muon["use_muon"], muon["lr"], muon["momentum"], muon["weight_decay"]) == (True, 0.05, 0.9, 0.1)
    assert (adam["use_muon"], adam["lr"], adam["betas"], adam["step"]) == (False, 0.02, (0.8, 0.9), 7)
    torch.testing.assert_close(made["state"][2]["exp_avg_sq"], 2 * ps[2].data)
    dions = converted(kellers, "muon.SingleDeviceMuonWithAuxAdam", "dion.Muon", tmp_path)
    torch.testing.assert_close(dions["state"][1]["momentum"], ps[1].data / (1 - 0.9))
    assert dions["param_groups"][1]["algorithm"] == "adamw"
    torch.testing.assert_close(dions["state"][2]["variance"], 2 * ps[2].data)


SAVED: dict[str, Any] = {
    "state": {0: {"momentum_buffer": torch.ones(3, 3)}}, "param_groups": [{"params": [0], "lr": 0.1, "momentum": 0.9}]
}  # fmt: skip


@pytest.mark.parametrize(
    ("source", "to", "message"),
    [
        ("torch.optim.Muonn", "dion.Muon", "torch has no optimizer 'Muonn'; did you mean 'Muon'"),
        (
            "optax.contrib.muon",
            "dion.Muon",
            "optax.contrib.muon cannot be converted; those of thalweg can, and of torch",
        ),
        ("torch.optim.Muon", "pytorch_optimizer.Lamb", "the checkpoint is of Muon.*, and pytorch_optimizer.Lamb has"),
        (
            "torch.optim.Muon",
            "muon",
            "muon has SingleDeviceMuon, .* for the checkpoint's Muon; name one, as in muon.Sin",
        ),
        ("thalweg", "torch.optim.Muon", "names no rule; it was not saved by a thalweg.Optimizer"),
    ],
)
def test_what_cannot_be_converted(source: str, to: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conventions.convert(SAVED, source, to)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps({}).encode(), "is no checkpoint of tensors, numbers and text"),
        ({"model": {}, "epoch": 3}, "has no optimizers' states among model, epoch"),
        ([1, 2], "contains a list"),
    ],
    ids=["text", "no state", "list"],
)
def test_files_that_are_no_checkpoints(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old.pt"
    old.write_bytes(content) if isinstance(content, bytes) else torch.save(content, old)
    given = ["convert", "torch.optim.Muon", "--to", "dion.Muon", "--state", str(old), "--out", str(tmp_path / "new.pt")]
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new.pt").exists()
