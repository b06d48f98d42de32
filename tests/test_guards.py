"""Memory between guard pages, where reading or writing one element too far crashes.

Parameters, gradients and states of odd sizes and every type end at the end of a page, or start at its start.
"""

import pytest

from cases import FLAT
from fuzz.children import Server
from fuzz.world import Program

SIZES = (1, 3, 7, 17, 31, 65, 1023)
DTYPES = ("float32", "float64", "bfloat16", "float16")
WHERE = ("guarded", "guarded at the start")


def program(make: str, dtype: str, where: str) -> Program:
    others = ", ".join(f"param(({n},), {dtype!r}, {n}, {where!r})" for n in SIZES)
    lines = [f"ps += [{others}]", f"o = {make}"]
    lines += [f"give(ps, {seed}, {where!r}); o.step()" for seed in range(2)]
    lines.append(f"for p in ps:\n    for k in range(9): flip(o, p, k, {where!r})")
    lines += [f"give(ps, {seed}, {where!r}); o.step()" for seed in range(2, 4)]
    return Program(tuple(lines), ("eager", "fused"))


def check(server: Server, programs: list[Program]) -> None:
    for outcome in list(server.run(programs)):
        at = outcome.difference
        assert at is None, f"{outcome.program}\n# line {at.line + 1} {at.kind}: {at.text}"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FLAT)
def test_rules_stay_in_their_memory(name: str, dtype: str, server: Server) -> None:
    make = f"thalweg.Optimizer(ps, rules.parse({str(FLAT[name].example())!r}))"
    check(server, [program(make, dtype, where) for where in WHERE])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "services",
    ["clip_norm=1.0, nonfinite='skip'", "clip_value=0.5, weight_decay=0.1, maximize=True", "ema=0.9"],
)
def test_services_stay_in_their_memory(services: str, dtype: str, server: Server) -> None:
    make = f"thalweg.Optimizer(ps, rules.parse('adam'), {services})"
    check(server, [program(make, dtype, where) for where in WHERE])


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeroing_stays_in_its_memory(dtype: str, server: Server) -> None:
    made = [program("thalweg.Optimizer(ps, rules.parse('adam'))", dtype, where) for where in WHERE]
    lines = [tuple(line.replace("o.step()", "o.step(zero_grad=True)") for line in one.lines) for one in made]
    check(server, [Program(own, ("eager", "fused")) for own in lines])


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("index", [-1, "n"])
def test_guards_bite(where: str, index: int | str, server: Server) -> None:
    n = 2048  # floats: two pages
    at = n if index == "n" else -1
    lines = (
        "import ctypes",
        f"x = param(({n},), 'float32', 1, {where!r})",
        f"ctypes.c_float.from_address(x.data_ptr() + 4 * {at}).value",
    )
    (outcome,) = server.run([Program(lines, ("", "eager"))])
    assert outcome.difference is not None
    assert outcome.difference.kind == "dies of SIGSEGV in the first world"
