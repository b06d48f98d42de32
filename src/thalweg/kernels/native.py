"""Native functions that look at tensors of parameters and gradients, in Python's and torch's own objects.

What they are given are records by their address; see `thalweg.kernels.records`.  They are called with Python's lock
held, since they read Python's and torch's own objects.
"""

from typing import Any

import numba
from numba import njit

from thalweg.kernels import memory, tensors
from thalweg.kernels.records import EXAMINE, FUSED, LAYOUT, LIST, LOOK, PARAM, SKIPPED, offsets

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
fetch: Any = memory.fetch
call: Any = memory.call
word: Any = memory.word
save_word: Any = memory.save_word
word16: Any = memory.word16
width, strided, shaped = tensors.width, tensors.strided, tensors.shaped

P, T, L, S = map(offsets, (PARAM, LAYOUT, LOOK, LIST))
PARAM_BYTES, LIST_BYTES = PARAM.itemsize, LIST.itemsize


@njit(error_model="numpy")
def hashed(base: int, mask: int) -> int:
    return ((base >> 4) * 0x9E3779B1 >> 7) & mask


@njit(error_model="numpy")
def written(base: int, job: int) -> bool:
    """Whether memory that begins here is, or may be, written in a step."""
    slots, mask = word(job + L.bases), word(job + L.base_mask)
    slot = hashed(base, mask)
    while word(slots + 8 * slot) != 0:
        if word(slots + 8 * slot) == base:
            return True
        slot = (slot + 1) & mask
    return False


@njit(error_model="numpy")
def state_of(param: int, dims: int, o: int, job: int) -> int:
    """What is to be done to a parameter; notes where its elements and its gradient's are."""
    tensor = word(word(param + P.object) + word(o + T.implementation))
    g = word(param + P.given)
    if g == 0:
        meta = word(tensor + word(o + T.autograd))
        if meta == 0:
            return SKIPPED
        g = word(meta + word(o + T.grad))
        if g == word(o + T.none):
            return SKIPPED
    dtype = word(param + P.dtype)
    if word(param + P.home) == 0 or word(word(param + P.object) + word(o + T.type)) != word(param + P.type):
        return EXAMINE
    if not shaped(tensor, dtype, param, dims, o):
        return EXAMINE
    storage = word(tensor + word(o + T.storage))
    base, deleter = word(storage + word(o + T.data)), word(storage + word(o + T.deleter))
    if storage != word(param + P.storage) or base != word(param + P.base) or deleter != word(param + P.deleter):
        return EXAMINE
    size = word(param + P.itemsize)
    if base + size * word(tensor + word(o + T.offset)) != word(param + P.data):
        return EXAMINE
    save_word(param + P.counter, word(tensor + word(o + T.counter)) + word(o + T.version))
    if not shaped(g, dtype, param, dims, o):
        return EXAMINE
    storage = word(g + word(o + T.storage))
    begin = word(storage + word(o + T.data))
    # Memory that a storage owns alone overlaps no other storage's; of any other memory Python finds out.
    if begin == 0 or word(storage + word(o + T.deleter)) != word(o + T.owned) or written(begin, job):
        return EXAMINE
    save_word(param + P.grad, begin + size * word(g + word(o + T.offset)))
    return FUSED


@njit(error_model="numpy")
def enrolled(job: int, index: int, trusted: int) -> int:
    """Note what a parameter is; 0 if it cannot be stepped natively, 1 if it is as it was but elsewhere, else 2.

    It must be plain, each element once and none between, and of memory that it owns alone, unless that is `trusted`.
    """
    o, param = word(job + L.layout), word(job + L.params) + PARAM_BYTES * index
    python = word(param + P.object)
    tensor, kind = word(python + word(o + T.implementation)), word(python + word(o + T.type))
    known = False
    for k in range(word(job + L.type_count)):
        known = known or word(word(job + L.types) + 8 * k) == kind
    dtype, ndim = word16(tensor + word(o + T.dtype)), word(tensor + word(o + T.ndim))
    if not known or word(tensor + word(o + T.keys)) != word(o + T.plain) or not (5 <= dtype <= 7 or dtype == 15):
        return 0
    storage, numel = word(tensor + word(o + T.storage)), word(tensor + word(o + T.numel))
    base, deleter = word(storage + word(o + T.data)), word(storage + word(o + T.deleter))
    if ndim > word(job + L.dimensions) or numel == 0 or base == 0 or not (trusted or deleter == word(o + T.owned)):
        return 0
    sizes, strides = strided(tensor, o, ndim)
    dense = 1
    for _ in range(ndim):
        for k in range(ndim):
            if word(strides + 8 * k) == dense and word(sizes + 8 * k) > 1:
                dense *= word(sizes + 8 * k)
    if dense != numel:
        return 0
    dims = word(job + L.dims)
    same = word(param + P.type) == kind and shaped(tensor, word(param + P.dtype), param, dims, o)
    save_word(param + P.type, kind)
    save_word(param + P.storage, storage)
    save_word(param + P.base, base)
    save_word(param + P.deleter, deleter)
    size = width(dtype)
    save_word(param + P.data, base + size * word(tensor + word(o + T.offset)))
    if same:
        return 1
    save_word(param + P.ndim, ndim)
    save_word(param + P.numel, numel)
    save_word(param + P.dtype, dtype)
    save_word(param + P.itemsize, size)
    for k in range(ndim):
        save_word(dims + 8 * (word(param + P.dims) + k), word(sizes + 8 * k))
        save_word(dims + 8 * (word(param + P.dims) + ndim + k), word(strides + 8 * k))
    return 2


@cfunc("void(int64, int64, int64, int64)", nopython=True, error_model="numpy")
def enroll(job: int, members: int, count: int, trusted: int) -> None:
    """Note what parameters are; what is found of each, as of `enrolled`, takes the place of its index."""
    for k in range(count):
        save_word(members + 8 * k, enrolled(job, word(members + 8 * k), trusted))


@cfunc("void(int64, int64, int64)", nopython=True, error_model="numpy")
def write(job: int, bases: int, count: int) -> None:
    """Note where memory begins that is written in a step."""
    slots, mask = word(job + L.bases), word(job + L.base_mask)
    for i in range(count):
        base = word(bases + 8 * i)
        slot = hashed(base, mask)
        while word(slots + 8 * slot) != 0 and word(slots + 8 * slot) != base:
            slot = (slot + 1) & mask
        save_word(slots + 8 * slot, base)


@cfunc("int64(int64)", nopython=True, error_model="numpy")
def look(job: int) -> int:
    """Look at all parameters of a `LOOK`; the number of those to examine in Python, or -1 if the lists have changed."""
    o, dims, lists = word(job + L.layout), word(job + L.dims), word(job + L.lists)
    param = word(job + L.params)
    asked = 0
    for k in range(word(job + L.list_count)):
        found = word(lists + k * LIST_BYTES + S.object)
        count = word(lists + k * LIST_BYTES + S.count)
        if word(found + word(o + T.list_size)) != count:
            return -1
        items = word(found + word(o + T.list_items))
        at = word(o + T.implementation)
        meta = word(o + T.autograd)
        for i in range(count):
            # What will be read soon is fetched from memory now: objects lie all over it.
            if i + 16 < count:
                fetch(word(items + 8 * (i + 16)) + at)
            if i + 12 < count:
                soon = word(word(items + 8 * (i + 12)) + at)
                fetch(soon)
                fetch(soon + 64)
                fetch(soon + 128)
            if i + 8 < count:
                soon = word(word(items + 8 * (i + 8)) + at)
                fetch(word(soon + meta))
                fetch(word(soon + word(o + T.storage)))
                fetch(word(soon + word(o + T.counter)))
            if i + 4 < count:
                soon = word(word(word(items + 8 * (i + 4)) + at) + meta)
                if soon != 0:
                    soon = word(soon + word(o + T.grad))
                    fetch(soon)
                    fetch(soon + 64)
                    fetch(soon + 128)
            if i + 2 < count:
                soon = word(word(word(items + 8 * (i + 2)) + at) + meta)
                if soon != 0:
                    fetch(word(word(soon + word(o + T.grad)) + word(o + T.storage)))
            if word(items + 8 * i) != word(param + P.listed):
                return -1
            state = state_of(param, dims, o, job)
            if state == EXAMINE:
                save_word(word(job + L.examined) + 8 * asked, (param - word(job + L.params)) // PARAM_BYTES)
                asked += 1
            save_word(param + P.active, state)
            param += PARAM_BYTES
    return asked


@cfunc("int64(int64)", nopython=True, error_model="numpy")
def drop(job: int) -> int:
    """Set all gradients of a `LOOK` to none, as ``p.grad = None`` does; -1 if the lists have changed."""
    o, lists = word(job + L.layout), word(job + L.lists)
    param, meta = word(job + L.params), word(o + T.autograd)
    for k in range(word(job + L.list_count)):
        found, count = word(lists + k * LIST_BYTES + S.object), word(lists + k * LIST_BYTES + S.count)
        if word(found + word(o + T.list_size)) != count:
            return -1
        items = word(found + word(o + T.list_items))
        for i in range(count):
            if word(items + 8 * i) != word(param + P.listed):
                return -1
            if i + 8 < count:
                fetch(word(word(word(items + 8 * (i + 8)) + word(o + T.implementation)) + meta))
            own = word(word(word(items + 8 * i) + word(o + T.implementation)) + meta)
            if own != 0:
                g = own + word(o + T.grad)
                if word(g) != word(o + T.none):
                    call(word(o + T.assign), o + T.none, g)
            param += PARAM_BYTES
    return 0
