"""Trajectories of other implementations, in ../shared/golden and tests/data, compared step by step."""

import json
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch

from thalweg import conventions
from thalweg.conventions import TABLE
from thalweg.rules import Muon

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
RECORDED = Path(__file__).with_name("data")
CLOSE = {"torch": 1e-12, "keras": 1e-9, "optax": 1e-12, "textbook": 1e-12}


@cache
def _cases(framework: str) -> list[dict[str, Any]]:
    paths = [folder / f"{framework}.json" for folder in (GOLDEN, RECORDED)]
    return [case for path in paths if path.is_file() for case in json.loads(path.read_text())["cases"]]


def _ids() -> list[Any]:
    found = [
        pytest.param(framework, i, id=f"{framework}-{c['optimizer']}-{c['kwargs']}-{c['lr_kind']}")
        for framework in CLOSE
        for i, c in enumerate(_cases(framework))
    ]
    skip = pytest.mark.skip(reason="there is no ../shared/golden beside the repository")
    return found if GOLDEN.is_dir() else [*found, pytest.param("textbook", 0, marks=skip)]


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize(("framework", "index"), _ids())
def test_trajectory(framework: str, index: int, backend: str) -> None:
    case = _cases(framework)[index]
    p = torch.nn.Parameter(torch.tensor(case["start"], dtype=torch.float64))
    theirs = case["kwargs"]
    optimizer = conventions.optimizer(framework, case["optimizer"], [p], lr=case["lr"][0], **theirs, backend=backend)
    for lr, gradient, expected in zip(case["lr"], case["gradients"], case["parameters"], strict=True):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        torch.testing.assert_close(
            p.detach(), torch.tensor(expected, dtype=torch.float64), rtol=CLOSE[framework], atol=0
        )


_PACKAGES = json.loads((RECORDED / "packages.json").read_text())
_SUMMED = {"Prodigy": 1e-6, "DAdaptAdam": 1e-6}
"""pytorch_optimizer adds up their sums in float32."""


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c['framework']}-{c['optimizer']}-{i}") for i, c in enumerate(_PACKAGES["cases"])]
)
def test_names_of_packages(case: dict[str, Any], backend: str) -> None:
    """Last points recorded from pytorch_optimizer, optax and Keras, and the points to evaluate where there are any."""
    start, *gradients = ([torch.tensor(x, dtype=torch.float64) for x in xs]
                         for xs in (_MUONS["start"], *_MUONS["gradients"]))  # fmt: skip
    params = [torch.nn.Parameter(x.clone()) for x in start]
    theirs: dict[str, Any] = case["kwargs"]
    if "momentum_dtype" in theirs:
        theirs = {**theirs, "momentum_dtype": getattr(torch, theirs["momentum_dtype"])}
    optimizer = conventions.optimizer(case["framework"], case["optimizer"], params, **theirs, backend=backend)
    for gs in gradients * _PACKAGES["times"]:
        for p, g in zip(params, gs, strict=True):
            p.grad = g.clone()
        optimizer.step()
    for key, turn in (("points", optimizer.train), ("evaluation", optimizer.eval)):
        turn()
        for p, first, wanted in zip(params, start, case.get(key, []), strict=key == "points"):
            _near(p.detach(), torch.tensor(wanted, dtype=torch.float64), first, _SUMMED.get(case["optimizer"], 1e-10))


@cache
def _modern() -> list[dict[str, Any]]:
    path = GOLDEN / "modern.json"
    return json.loads(path.read_text()) if path.is_file() else []


def _is_known(framework: str, optimizer: str) -> bool:
    try:
        return framework in TABLE and bool(TABLE[framework].find(optimizer))
    except ValueError:
        return False


def _modern_ids() -> list[Any]:
    """The cases of all optimizers that are known here."""
    found = [
        pytest.param(i, id=f"{c['framework']}-{c['optimizer']}-{i}")
        for i, c in enumerate(_modern())
        if _is_known(c["framework"], c["optimizer"])
    ]
    skip = pytest.mark.skip(reason="there is no ../shared/golden beside the repository")
    return found if GOLDEN.is_dir() else [pytest.param(0, marks=skip)]


_MUONS = json.loads((RECORDED / "muons.json").read_text())
_ROUNDED = {"keras": 1e-6}
"""Keras computes √max(m, n), and the numbers of Adafactor, in float32."""


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{c['framework']}-{c['optimizer']}-{i}") for i, c in enumerate(_MUONS["cases"])]
)
def test_matrices_and_all_others(case: dict[str, Any], backend: str) -> None:
    """Last points recorded from timm, pytorch_optimizer, Keras and K. Jordan's code, with groups as they have them."""
    start, *gradients = ([torch.tensor(x, dtype=torch.float64) for x in xs]
                         for xs in (_MUONS["start"], *_MUONS["gradients"]))  # fmt: skip
    params = {int(i): torch.nn.Parameter(start[int(i)].clone()) for i in case["points"]}
    given: list[Any] = [
        params[use] if isinstance(use, int) else {**use, "params": [params[i] for i in use["params"]]}
        for use in case["use"]
    ]
    optimizer = conventions.optimizer(case["framework"], case["optimizer"], given, **case["kwargs"], backend=backend)
    if case["framework"] == "muon":  # recorded in float64
        for group in optimizer.param_groups:
            if isinstance(group["rule"], Muon):
                group["rule"] = group["rule"].replace(precision="full")
    for gs in gradients:
        for i, p in params.items():
            p.grad = gs[i].clone()
        optimizer.step()
    for i, p in params.items():
        _near(p.detach(), torch.tensor(case["points"][str(i)], dtype=torch.float64), start[i],
              _ROUNDED.get(case["framework"], 1e-10))  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", "numba"])
@pytest.mark.parametrize("index", _modern_ids())
def test_todays_rules(index: int, backend: str) -> None:
    """Tensors of several shapes, to 1e-10 of the distance moved; where there is one, also the point to evaluate."""
    case = _modern()[index]
    tensor: Callable[[Any], torch.Tensor] = partial(torch.tensor, dtype=torch.float64)
    params = [torch.nn.Parameter(tensor(x)) for x in case["start"]]
    optimizer = conventions.optimizer(case["framework"], case["optimizer"], params, **case["kwargs"], backend=backend)
    evaluation: list[Any] = case.get("evaluation") or [None] * len(case["gradients"])
    for gradients, expected, evaluated in zip(case["gradients"], case["parameters"], evaluation, strict=True):
        for p, g in zip(params, gradients, strict=True):
            p.grad = tensor(g)
        optimizer.step()
        for p, start, wanted in zip(params, case["start"], expected, strict=True):
            if tensor(wanted).norm() > 1e6:
                continue  # a vector diverges to 1e17 in the package's own Shampoo, where rounding decides on everything
            _near(p.detach(), tensor(wanted), tensor(start))
        if evaluated is not None:
            optimizer.eval()
            for p, start, wanted in zip(params, case["start"], evaluated, strict=True):
                _near(p.detach(), tensor(wanted), tensor(start))
            optimizer.train()


def _near(ours: torch.Tensor, theirs: torch.Tensor, start: torch.Tensor, close: float = 1e-10) -> None:
    """Assert that two points are nearer than `close` times the distance from the start, or than rounding is."""
    assert (ours - theirs).norm() <= close * (start - theirs).norm() + 1e-15 * start.norm()
