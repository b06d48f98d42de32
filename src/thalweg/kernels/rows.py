"""Native functions that sort the parameters of a step into rows, and count the step when it is done.

As those of `thalweg.kernels.native` they are given records by their address.
"""

from typing import Any

import numba
from numba import njit

from thalweg.kernels import memory
from thalweg.kernels.records import BUCKET, FUSED, PARAM, offsets
from thalweg.printers.noise import SEED, STEP, TENSOR

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
word: Any = memory.word
save_word: Any = memory.save_word
word32: Any = memory.word32
save_word32: Any = memory.save_word32
real32: Any = memory.real32
save_real32: Any = memory.save_real32
real64: Any = memory.real64
save_real64: Any = memory.save_real64

integer: Any = numba.int64
P, B = map(offsets, (PARAM, BUCKET))
PARAM_BYTES = PARAM.itemsize


@njit(error_model="numpy")
def read(address: int, size: int) -> float:
    return real64(address) if size == 8 else float(real32(address))


@njit(error_model="numpy")
def put(address: int, size: int, x: float) -> None:
    if size == 8:
        save_real64(address, x)
    else:
        save_real32(address, numba.float32(x))


@cfunc("int64(int64)", nopython=True, error_model="numpy")
def assign(b: int) -> int:
    """Sort the members of a `BUCKET` that are stepped into rows, and point its table at their memory; how many rows.

    Members that share group, step and numbers of state share a row.  All of that is read anew from where it is kept.
    """
    params, members, first = word(b + B.params), word(b + B.members), word(b + B.first)
    sizes, at, table = word(b + B.sizes), word(b + B.offsets), word(b + B.table)
    wide, words = word(b + B.row_bytes), 8 * word(b + B.row_words)
    numbers, count = word(b + B.numbers), word(b + B.number_count)
    rows, slots, mask = word(b + B.rows), word(b + B.slots), word(b + B.slot_mask)
    stamp = word(b + B.stamp) + 1
    save_word(b + B.stamp, stamp)
    used, row = 0, -1
    for m in range(word(b + B.count)):
        param = params + PARAM_BYTES * word(members + 8 * m)
        begin, end = word(first + 8 * m), word(first + 8 * m + 8)
        if word(param + P.active) != FUSED:
            for c in range(begin, end):
                save_word(table + c * wide, 0)
            continue
        group = m if word(b + B.each) else word(param + P.group)
        t = read(word(word(b + B.steps) + 8 * m), word(b + B.step_bytes)) + 1.0
        # The row of the member before, or one that the hash table has, or a new one.
        hashed, new = 0, rows + used * words
        save_word(new, group)
        save_real64(new + 8, t)
        for k in range(count):
            save_real64(new + 16 + 8 * k, read(word(numbers + 8 * (m * count + k)), word(b + B.number_bytes)))
        same = row >= 0
        for k in range(2 + count):
            same = same and word(rows + row * words + 8 * k) == word(new + 8 * k)
            hashed = (hashed ^ word(new + 8 * k)) * -7046029254386353131
            hashed ^= (hashed >> 29) & 0x7FFFFFFFF
        if not same:
            row = used
            slot = hashed & mask
            while word(slots + 16 * slot) == stamp:
                other = word(slots + 16 * slot + 8)
                same = True
                for k in range(2 + count):
                    same = same and word(rows + other * words + 8 * k) == word(new + 8 * k)
                if same:
                    row = other
                    break
                slot = (slot + 1) & mask
            if row == used:
                save_word(slots + 16 * slot, stamp)
                save_word(slots + 16 * slot + 8, used)
                used += 1
        salt = 0
        if word(b + B.salted):
            salt = word(b + B.seed) * SEED + integer(t) * STEP + word(param + P.ordinal) * TENSOR
        for c in range(begin, end):
            entry, offset = table + c * wide, word(at + 8 * c)
            save_word(entry, word(sizes + 8 * c))
            save_word(entry + 8, row)
            save_word(entry + 16, salt + offset // word(param + P.itemsize))
            save_word(entry + 24, word(param + P.data) + offset)
            save_word(entry + 32, word(param + P.grad) + offset)
    save_word(b + B.row_count, used)
    return used


@cfunc("void(int64)", nopython=True, error_model="numpy")
def finish(b: int) -> None:
    """Count a step of the members of a `BUCKET` that were stepped, and keep their new numbers of state.

    The version of each parameter goes up: autograd must see that what it has saved for `backward` is no more.
    """
    params, members, wide = word(b + B.params), word(b + B.members), word(b + B.row_bytes)
    table, first, count = word(b + B.table), word(b + B.first), word(b + B.number_count)
    for m in range(word(b + B.count)):
        param = params + PARAM_BYTES * word(members + 8 * m)
        if word(param + P.active) != FUSED:
            continue
        address, size = word(word(b + B.steps) + 8 * m), word(b + B.step_bytes)
        put(address, size, read(address, size) + 1.0)
        row = word(table + word(first + 8 * m) * wide + 8)
        for k in range(count):
            address = word(word(b + B.numbers) + 8 * (m * count + k))
            put(address, word(b + B.number_bytes), real64(word(b + B.number_out) + 8 * (row * count + k)))
        counter = word(param + P.counter)
        save_word32(counter, word32(counter) + 1)
