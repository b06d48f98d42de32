"""Shortens a failing program: lines are left out as long as it still fails in the same way."""

from dataclasses import replace

from fuzz.children import Outcome, Server
from fuzz.world import Program


def shrink(outcome: Outcome, server: Server) -> Outcome:
    """The shortest program found by leaving out lines, many at once at first."""
    assert outcome.difference is not None
    kind = outcome.difference.kind
    best = Outcome(_cut(outcome.program, outcome.difference.line), outcome.difference)
    size = len(best.program.lines) // 2
    while size:
        tried = [
            replace(best.program, lines=best.program.lines[:i] + best.program.lines[i + size :])
            for i in range(1, len(best.program.lines) - size + 1)
        ]
        for found in server.run(tried):
            shorter = len(found.program.lines) < len(best.program.lines)
            if found.difference is not None and found.difference.kind == kind and shorter:
                best = Outcome(_cut(found.program, found.difference.line), found.difference)
        if len(best.program.lines) > len(tried[0].lines if tried else ()):
            size //= 2
    return best


def _cut(program: Program, line: int) -> Program:
    return replace(program, lines=program.lines[: line + 1])
