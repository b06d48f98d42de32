"""Native functions that look at state that is shown, in Python's and torch's own objects.

As those of `thalweg.kernels.native` they are given records by their address, with Python's lock held.  They are not
compiled before there is state to look at.
"""

from typing import Any

import numba

from thalweg.kernels import memory, tensors
from thalweg.kernels.records import ENTRY, FUSED, HELD, LAYOUT, LOOK, PARAM, offsets

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
fetch: Any = memory.fetch
word: Any = memory.word
save_word: Any = memory.save_word
word16: Any = memory.word16
word32: Any = memory.word32
save_word32: Any = memory.save_word32
width, shaped = tensors.width, tensors.shaped

P, T, L, H, E = map(offsets, (PARAM, LAYOUT, LOOK, HELD, ENTRY))
PARAM_BYTES, HELD_BYTES, ENTRY_BYTES = PARAM.itemsize, HELD.itemsize, ENTRY.itemsize


@cfunc("int64(int64, int64, int64)", nopython=True, error_model="numpy")
def changed(job: int, entries: int, count: int) -> int:
    """How many of these `ENTRY` dictionaries may have changed; -1 where only Python can tell.  Notes what they are."""
    at = word(word(job + L.layout) + T.dict_version)
    if at == 0:
        return -1
    found = 0
    for i in range(count):
        entry = entries + ENTRY_BYTES * i
        if i + 8 < count:
            fetch(word(entry + 8 * ENTRY_BYTES + E.object) + at)
        version = word(word(entry + E.object) + at)
        if version != word(entry + E.version):
            save_word(entry + E.version, version)
            found += 1
    return found


@cfunc("int64(int64, int64, int64)", nopython=True, error_model="numpy")
def held(job: int, tensors: int, count: int) -> int:
    """Which of these `HELD` tensors is no longer what and where it was; `count` if none."""
    o, dims = word(job + L.layout), word(job + L.dims)
    for i in range(count):
        h = tensors + HELD_BYTES * i
        if i + 12 < count:
            fetch(word(h + 12 * HELD_BYTES + H.object) + word(o + T.implementation))
        if i + 8 < count:
            soon = word(word(h + 8 * HELD_BYTES + H.object) + word(o + T.implementation))
            fetch(soon)
            fetch(soon + 64)
            fetch(soon + 128)
        if i + 4 < count:
            soon = word(word(h + 4 * HELD_BYTES + H.object) + word(o + T.implementation))
            fetch(word(soon + word(o + T.storage)))
            fetch(word(soon + word(o + T.counter)))
        python = word(h + H.object)
        tensor = word(python + word(o + T.implementation))
        known = False
        for k in range(word(job + L.type_count)):
            known = known or word(word(job + L.types) + 8 * k) == word(python + word(o + T.type))
        if not known:
            return i
        if word(h + H.scalar):
            plain = word(tensor + word(o + T.keys)) == word(o + T.plain)
            if not plain or word(tensor + word(o + T.numel)) != 1:
                return i
            if word16(tensor + word(o + T.dtype)) != word(h + H.dtype):
                return i
        else:
            param = word(job + L.params) + PARAM_BYTES * word(h + H.param)
            if not shaped(tensor, word(h + H.dtype), param, dims, o):
                return i
        storage, dtype = word(tensor + word(o + T.storage)), word(h + H.dtype)
        size = width(dtype)
        begin = word(storage + word(o + T.data))
        if begin == 0 or begin + size * word(tensor + word(o + T.offset)) != word(h + H.address):
            return i
        # Memory that is to be copied when first written has another owner.
        deleter = word(storage + word(o + T.deleter))
        if word(h + H.deleter) == 0:
            save_word(h + H.deleter, deleter)
        if word(h + H.deleter) != deleter:
            return i
    return count


@cfunc("void(int64, int64, int64)", nopython=True, error_model="numpy")
def renew(job: int, tensors: int, count: int) -> None:
    """Count up the versions of these `HELD` tensors, which a step has written."""
    o = word(job + L.layout)
    for i in range(count):
        h = tensors + HELD_BYTES * i
        if word(word(job + L.params) + PARAM_BYTES * word(h + H.param) + P.active) == FUSED:
            tensor = word(word(h + H.object) + word(o + T.implementation))
            counter = word(tensor + word(o + T.counter)) + word(o + T.version)
            save_word32(counter, word32(counter) + 1)
