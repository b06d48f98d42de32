"""The short form of ``make fuzz``: the first few hundred random programs, the same every time."""

import dataclasses

import pytest

from fuzz import draw, shrink
from fuzz.children import Server
from fuzz.world import Program

CHUNKS, LENGTH = 8, 40


@pytest.mark.parametrize("first", range(0, CHUNKS * LENGTH, LENGTH))
def test_random_programs(first: int, server: Server) -> None:
    programs = [draw.program(seed) for seed in range(first, first + LENGTH)]
    for seed, outcome in enumerate(list(server.run(programs)), first):
        if outcome.difference is not None:
            found = shrink.shrink(outcome, server)
            at = found.difference
            assert at is None, f"seed {seed}\n{found.program}\n# line {at.line + 1} {at.kind}: {at.text}"


def test_a_seed_gives_the_same_program_again() -> None:
    assert [draw.program(seed) for seed in range(50)] == [draw.program(seed) for seed in range(50)]
    assert len({draw.program(seed) for seed in range(50)}) == 50


WRONG = {
    "parameter value": "ps[0].data[0] += 1e-3",
    "state value": "value(o, ps[0]).mul_(1.001)",
    "state missing": "o.state.clear()",
    "step value": "count(o, ps[0]).add_(1)",
    "raises ValueError": "raise ValueError",
    "dies of SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "dies of exit 3": "import os; os._exit(3)",
    "parameter not finite": "ps[0].data[0] = torch.nan",
    "settings": "o.param_groups[0]['lr'] = 0.2",
    "parameter type": "ps[0] = ps[0].double()",
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_difference_between_worlds_is_found(kind: str, server: Server) -> None:
    wrong = f"if optim is not torch.optim: {WRONG[kind]}"
    lines = ("ps.append(param((3,)))", "o = optim.Adam(ps, lr=0.1)", "give(ps, 0); o.step()", wrong)
    right = Program(lines[:-1], ("torch", "eager"))
    outcomes = list(server.run([right, dataclasses.replace(right, lines=lines), right]))
    assert [x.difference and x.difference.kind for x in outcomes] == [None, kind, None]
    again = shrink.shrink(outcomes[1], server)
    assert again.difference is not None
    assert again.difference.kind == kind
