"""Groups on different devices, and what is said of parameters that are where they cannot be stepped."""

from typing import Any

import pytest
import torch

import thalweg
from thalweg import kernels
from thalweg.bench import device as bench
from thalweg.bench.result import OURS
from thalweg.bench.workloads import Workload
from thalweg.kernels import eager, triton


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
    optimizer = thalweg.Optimizer([p], "adam", backend="triton")
    with pytest.raises(ValueError, match=r"parameter 0 of shape \(3,\) is on meta: Triton has no kernels for meta"):
        optimizer.step()


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
        ("adam", "ema", "float32"), ("nadam", "step", "float32"),
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


def test_the_largest_layout_of_the_bench() -> None:
    assert bench.WORK[-1].parameters == 1_557_611_200
