"""Triton's compiler takes the printed kernels, for a GPU that need not be there, and vectorises what they read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed: it is in the dev extra on Linux")

PROGRAM = """
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from thalweg import rules, trace
from thalweg.kernels import triton as device, words
from thalweg.printers import triton as printer
from thalweg.printers.lowering import Types
from thalweg.stages import Stages

HALF, REAL, DOUBLE = torch.bfloat16, torch.float32, torch.float64

def compiled(kernel, signature, fusion=True, warps=4, **constants):
    types = dict(part.split(":") for part in signature.split())
    source = ASTSource(kernel, {**types, **dict.fromkeys(constants, "constexpr")}, constants)
    options = {"enable_fp_fusion": fusion, "num_warps": warps}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]

def check(source, types):
    module, real = device.load(source.text), "fp64" if types.exact else "fp32"
    held = " ".join(f"held{k}:*fp64" for k in range(len(source.held)))
    compiled(module.numbers, f"table:*i64 given:*fp64 own:*fp64 live:*i32 steps:*fp32 salts:*i64 {held} "
             f"scalars:*{real} rows:i32 columns:i32 wide:i32 fields:i32", not source.exact,
             width=source.width, BLOCK=128)
    block, warps = device.block(source)
    text = compiled(module.chunk, f"table:*i64 chunks:*i64 scalars:*{real} salts:*i64 live:*i32 totals:*fp64 wide:i32",
                    not source.exact, warps, width=source.width, LONG=device.LONG, BLOCK=block, ALIGNED=True)
    wide = ".v2" if types.exact else ".v4"
    assert any(wide in line and "ld.global" in line for line in text.splitlines()), "loads are not vectorised"

for name, types, form in (
    ("adam", Types(HALF, HALF, REAL), Stages(unscale=True, clip_value=True, clip_norm=True, ema=True, decay="scaled")),
    ("radam", Types(REAL, REAL, REAL), Stages()),
    ("lamb", Types(torch.float16, REAL, REAL), Stages(clip_norm=True)),
    ("nadam", Types(DOUBLE, DOUBLE, DOUBLE), Stages()),
):
    rule = rules.parse(name)
    given = printer.columns(tuple(rule.numbers))
    for part in printer.step(trace.step(rule, form), types, True, given):
        check(part, types)
    check(printer.sums(trace.square(form, True), types, given), types)
numbers = "groups:i32 columns:i32 column:i32"
compiled(words.guard, f"squares:*fp64 count:i32 given:*fp64 {numbers} limits:*fp64 live:*i32 skipped:*i64",
         CLIP=True, SKIP=True, SINGLE=True, BLOCK=1024)
compiled(words.begin, f"given:*fp64 {numbers} scale:*fp32 found:*fp32 live:*i32", SCALED=True, FOUND=True)
compiled(words.clip_each, "own:*fp64 rows:i32 fields:i32 most:*fp64", BLOCK=128)
compiled(words.fold, "totals:*fp64 firsts:*i64 into:*fp64 table:*i64 wide:i32 fields:i32 field:i32 sums:i32 k:i32",
         BLOCK=1024)
print("compiled")
"""

LAUNCHED = """
import torch, triton, thalweg
from triton.backends.compiler import GPUTarget
from thalweg.kernels import triton as device

class Driver:
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0
    def get_current_target(self): return GPUTarget("cuda", 90, 32)

triton.runtime.driver.set_active(Driver())
names = []
def launch(kernel, programs, *arguments, **named):
    kernel.warmup(*arguments, grid=(programs,), **{"enable_fp_fusion": True, **named})
    names.append(kernel.__name__)
device.launch, device.lacking = launch, lambda _: None
services = {"clip_norm": 0.5, "clip_each": 0.1, "ema": 0.9, "nonfinite": "skip", "state_dtype": torch.bfloat16}
for rule, dtype, further in (("adam", torch.bfloat16, services), ("lamb", torch.float32, {})):
    p = torch.nn.Parameter(torch.zeros(40, 33, dtype=dtype))
    p.grad = torch.ones_like(p)
    thalweg.Optimizer([p], rule, backend="triton", **further).step(zero_grad=True)
assert {"numbers", "chunk", "fold", "begin", "guard", "clip_each"} == set(names), names
print("compiled")
"""


@pytest.mark.parametrize("program", [PROGRAM, LAUNCHED], ids=["kernels", "launches"])
def test_kernels_compile_for_a_gpu(program: str, tmp_path: Path) -> None:
    """By themselves; and as a step launches them, with what Triton makes of their arguments."""
    environment = {name: x for name, x in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=600, cwd=tmp_path,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path / "triton")},
    )  # fmt: skip
    assert done.stdout.endswith("compiled\n"), done.stderr[-3_000:]
