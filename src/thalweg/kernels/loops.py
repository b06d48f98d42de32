"""Native loops around the functions of a printed module: over its rows of numbers, and over the chunks of a table.

They are the same for all modules, and compiled once: to compile them took longer than what is printed.  What they are
given is a `JOB` by its address; see `thalweg.kernels.records`.
"""

from typing import Any

import numba

from thalweg.kernels import memory
from thalweg.kernels.records import JOB, SHARES, offsets

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
integer: Any = numba.int32
word: Any = memory.word
fetch: Any = memory.fetch
flush: Any = memory.flush
restore: Any = memory.restore
start: Any = memory.start
take: Any = memory.take
ask: Any = memory.ask

J = offsets(JOB)
AHEAD = 6  # how many chunks ahead memory is asked for: the arrays of small parameters lie all over it


@cfunc("void(int64)", nopython=True, error_model="numpy")
def host(job: int) -> None:
    """Compute the scalars of all rows."""
    rows, groups, scalars = word(job + J.rows), word(job + J.groups), word(job + J.scalars)
    for r in range(word(job + J.row_count)):
        row = rows + 8 * r * word(job + J.row_words)
        group = groups + 8 * word(row) * word(job + J.group_words)
        new = word(job + J.number_out) + 8 * r * word(job + J.kept)
        start(word(job + J.numbers), row, group, scalars + r * word(job + J.scalar_bytes), new)


@cfunc("void(int64)", nopython=True, error_model="numpy")
def worker(job: int) -> None:
    """Step chunks until none is left: first those of this thread's share, then of the others'."""
    flushes = word(job + J.flushes) != 0
    mode = flush() if flushes else integer(0)
    pieces, cuts, table = word(job + J.pieces), word(job + J.cuts), word(job + J.table)
    scalars, totals, wide = word(job + J.scalars), word(job + J.totals), word(job + J.row_bytes)
    width, sums, chunk = word(job + J.scalar_bytes), word(job + J.total_bytes), word(job + J.chunk)
    first = word(job + J.columns)
    end, chunks = first + word(job + J.arrays), word(job + J.chunks)
    threads = word(job + J.threads)
    me = ask(word(job + J.thread)) % threads
    for k in range(threads):
        share = (me + k) % threads
        last = pieces * (share + 1) // threads
        piece = pieces * share // threads + take(job + SHARES + 64 * share)
        while piece < last:
            for c in range(word(cuts + 8 * piece), word(cuts + 8 * piece + 8)):
                row = table + c * wide
                ahead = row + AHEAD * wide
                if c + AHEAD < chunks:
                    for a in range(first, end):
                        fetch(word(ahead + 8 * a))
                        fetch(word(ahead + 8 * a) + 64)
                start(chunk, row, scalars + word(row + 8) * width, word(row + 16), totals + c * sums)
            piece = pieces * share // threads + take(job + SHARES + 64 * share)
    if flushes:
        restore(mode)
