"""Groups on different devices, and what is said of parameters that are where they cannot be stepped."""

from typing import Any

import pytest
import torch

import thalweg
from thalweg import kernels, rules
from thalweg.bench import device as bench
from thalweg.bench import proofs
from thalweg.bench.result import OURS, Kind
from thalweg.bench.workloads import Workload
from thalweg.cli import main
from thalweg.kernels import States, Work, eager, triton
from thalweg.kernels.residents import Residents
from thalweg.stages import Stages


def meta(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(*shape, device="meta"))


def test_a_group_is_on_one_device() -> None:
    model = [("here", torch.nn.Parameter(torch.zeros(2))), ("there", meta(3))]
    with pytest.raises(ValueError, match=r"'here' is on the CPU, and 'there' of the same group on meta; move"):
        thalweg.Optimizer(model, "adam")
    optimizer = thalweg.Optimizer([model[0][1]], "adam")
    with pytest.raises(ValueError, match="on the CPU"):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2)), meta(3)]})
    assert len(optimizer.param_groups) == 1


def test_groups_on_several_devices_are_stepped_each_where_it_is() -> None:
    here, there = torch.nn.Parameter(torch.ones(3)), meta(4)
    optimizer = thalweg.Optimizer([{"params": [here]}, {"params": [there]}], "adam", lr=0.5)
    for p in (here, there):
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.testing.assert_close(here.detach(), torch.full((3,), 0.5))
    assert optimizer.state[there]["exp_avg"].is_meta


def test_a_device_that_triton_does_not_know_is_named() -> None:
    p = meta(3)
    p.grad = torch.zeros_like(p)
    for params, name in (([p], "0"), ([("bias", p)], "'bias'")):
        optimizer = thalweg.Optimizer(params, "adam", backend="triton")
        said = rf"parameter {name} of shape \(3,\) is on meta: Triton has no kernels for meta"
        with pytest.raises(ValueError, match=said):
            optimizer.step()


def test_a_gradient_on_another_device_is_named() -> None:
    """A parameter that has moved without its gradient, as far as the CPU can show it."""
    p = torch.nn.Parameter(torch.ones(2, 3))
    work = Work(rules.parse("adam"), Stages(), [p], titles=["layer.weight"])
    residents = Residents(torch.device("cpu"))
    residents.prepare([work], States({}, exposed=False))
    with pytest.raises(
        RuntimeError, match=r"parameter 'layer.weight' of shape \(2, 3\) is on cpu, and its gradient on m"
    ):
        residents._fits(0, torch.ones(2, 3, device="meta"))  # pyright: ignore[reportPrivateUsage]


def test_no_triton_is_no_obstacle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "installed", lambda: False)
    assert triton.lacking(torch.device("cuda")) == "Triton is not installed"
    p = meta(3)
    p.grad = torch.zeros_like(p)
    optimizer = thalweg.Optimizer([p], "adam")
    optimizer.step()
    assert float(optimizer.state[p]["step"]) == 1


def test_too_little_memory_for_the_state_names_the_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise torch.OutOfMemoryError("out of memory")

    p = torch.nn.Parameter(torch.ones(4, 5))
    p.grad = torch.ones_like(p)
    optimizer = thalweg.Optimizer([("layer.weight", p)], "adam", backend="eager")
    monkeypatch.setattr(eager, "_start", none)
    with pytest.raises(torch.OutOfMemoryError, match=r"parameter 'layer.weight' of shape \(4, 5\); state_dtype="):
        optimizer.step()
    assert torch.equal(p.detach(), torch.ones(4, 5))


def test_there_is_no_such_backend() -> None:
    with pytest.raises(ValueError, match="allowed is 'auto' or 'eager' or 'foreach' or 'numba' or 'triton'; did you"):
        kernels.backend("tritn")


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "cuda:x"])
def test_the_bench_needs_a_gpu(name: str) -> None:
    if name == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ValueError, match=r"torch finds no device cuda|allowed is cpu, and cuda"):
        bench.chosen(name)


def test_the_bench_on_the_cpu_measures_what_it_says() -> None:
    work = Workload("small", "small", ((8, 8), (8,)))
    found = bench.measure(torch.device("cpu"), [work], ("adam", "nadam"), rounds=1)
    assert [(line.rule, line.kind, line.dtype) for line in found.lines] == [
        ("adam", "step", "float32"), ("adam", "whole", "float32"), ("adam", "whole", "bfloat16"),
        ("adam", "ema", "float32"), ("nadam", "whole", "float32"),
    ]  # fmt: skip
    assert set(found.lines[1].device) == {OURS, "foreach", "fused"}
    assert set(found.lines[4].device) == {OURS, "foreach"}
    # Adam reads p, g, m and v, writes p, m and v; a whole step reads g once more and writes it.
    assert found.lines[1].floor == pytest.approx((28 + 8) * 72 / found.bandwidth)
    assert bench.table(found).row_count == 5
    assert '"adam"' in found.to_json()
    late = bench.measure(torch.device("cpu"), [work], ("adam",), rounds=1, most=-1.0)
    assert not late.lines
    assert len(late.left_out) == 4


def test_every_aim_has_its_figure() -> None:
    """Of the times; that they are judged by what is in the table."""
    kinds: list[tuple[str, Kind]] = [("adam", "whole"), ("adam", "ema"), ("nadam", "whole")]
    lines = [
        bench.Line(workload.title, rule, kind, "float32", {OURS: 1.0, "foreach": 3.0, "fused": 1.4}, {}, 0.95)
        for workload in bench.WORK[2:]
        for rule, kind in kinds
    ]
    found = list(bench.verdicts(lines))
    assert [figure.holds for figure in found] == 2 * [True, True, False, False]
    assert [figure.aim for figure in found[:4]] == ["at least 90 %", "at least 1.3×", "at least 1.5×", "at least 2.0×"]


def test_the_command_for_a_gpu_runs_to_its_last_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CPU plays the device; a graph that replays nothing must be found out."""

    def here(_: str) -> torch.device:
        return torch.device("cpu")

    def recorded(_: torch.device, step: Any) -> Any:
        step()
        return lambda: None

    small = tuple(Workload(work.name, work.title, ((4, 4), (4,))) for work in bench.WORK)
    monkeypatch.setattr(bench, "chosen", here)
    monkeypatch.setattr(bench, "WORK", small)
    monkeypatch.setattr(proofs, "graph", recorded)
    monkeypatch.setenv("COLUMNS", "160")
    with pytest.raises(SystemExit) as ended:
        main(("bench", "--device", "cuda", "--quick"))
    assert ended.value.code == 0
    said = capsys.readouterr().out
    last = said[said.index("figure ") :]
    for what in (
        "new gradients",
        "captured steps with a schedule",
        "waits and copies",
        "the same bits",
        "at most 1e-06",
    ):
        assert what in last
    assert "unequal" in last


def test_the_largest_layout_of_the_bench() -> None:
    assert bench.WORK[-1].parameters == 1_557_611_200
