"""Native functions beside the printed kernels: a source for `thalweg.kernels.build.native`, which compiles it."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from thalweg.kernels import memory

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
fetch: Any = memory.fetch
put_word: Any = memory.put_word
word: Any = memory.word
number: Any = memory.stream(0, "float64")[0]
single: Any
put_single: Any
single, put_single, _ = memory.stream(1, "float32")
one = np.float32(1)


@intrinsic
def _member(typing: Any, function: Any, this: Any) -> Any:
    """Call ``const void *function(const void *this)``, as methods without arguments are called."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)])
        return builder.call(builder.inttoptr(args[0], kind.as_pointer()), [args[1]])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def _ask(typing: Any, function: Any, tensor: Any, answer: Any) -> Any:
    """Call ``int32_t function(AtenTensorHandle tensor, void *answer)`` of torch's C interface; 0 is success."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(32), [ir.IntType(64), ir.IntType(64)])
        return builder.sext(builder.call(builder.inttoptr(args[0], kind.as_pointer()), list(args[1:])), ir.IntType(64))

    return types.int64(types.int64, types.int64, types.int64), generate


ask: Any = _ask
member: Any = _member


@cfunc("int64(int64)", nopython=True)
def look(job: int) -> int:
    """Fill in the addresses, as `thalweg.kernels.addresses.Addresses` has them; 0, 1 or 2 for what has changed.

    The job, in int64: how many; where the handles of the parameters are; what is filled in: addresses of parameters and
    of gradients, and whether there is a gradient; ``TensorImpl::grad``, the tensor that is none, and of the C interface
    what gives data, layout, strides and dimensions; a word for answers; how many tables there are, and where they are
    described: their rows, where the column of gradients begins, the bytes from row to row, and where it says which
    gradient each row is of, and how far into it; and of the C interface what assigns a tensor to another.
    """
    count, handles, params, grads, there = word(job, 0), word(job, 1), word(job, 2), word(job, 3), word(job, 4)
    grad, none, data, layout = word(job, 5), word(job, 6), word(job, 7), word(job, 8)
    strides, dim, answer = word(job, 9), word(job, 10), job + 88
    moved, changed = 0, False
    for i in range(count):
        # What will be read soon is fetched from memory now: objects lie all over it.
        if i + 24 < count:
            fetch(word(handles, i + 24))
        if i + 16 < count:
            soon = word(word(handles, i + 16), 0)
            for line in range(4):
                fetch(soon + 64 * line)
        if i + 8 < count:
            soon = word(member(grad, word(word(handles, i + 8), 0)), 0)
            for line in range(4):
                fetch(soon + 64 * line)
        # A C++ ``Tensor`` is a pointer to its TensorImpl, and a handle of the C interface is where that pointer stands.
        p = word(handles, i)
        failed = ask(data, p, answer)
        if word(answer, 0) != word(params, i):
            put_word(params, i, word(answer, 0))
            moved = 1
        g = member(grad, word(p, 0))
        exists = 1 if word(g, 0) != none else 0
        put_word(answer, 0, 0)
        if exists:
            failed |= ask(layout, g, answer)
            if word(answer, 0) != 0:  # sparse
                return 2
            failed |= ask(strides, p, answer)
            steps = word(answer, 0)
            failed |= ask(strides, g, answer)
            others = word(answer, 0)
            failed |= ask(dim, g, answer)
            for k in range(word(answer, 0)):
                if word(steps, k) != word(others, k):
                    changed = True
            failed |= ask(data, g, answer)
        put_word(grads, i, word(answer, 0))
        if failed or word(there, i) != exists:
            put_word(there, i, exists)
            changed = True
    if changed:
        return 2
    tables = word(job, 13)
    for _ in range(word(job, 12)):
        column, bytes_of_row, which, offset = word(tables, 1), word(tables, 2), word(tables, 3), word(tables, 4)
        for row in range(word(tables, 0)):
            put_word(column + row * bytes_of_row, 0, word(grads, word(which, row)) + word(offset, row))
        tables += 40
    return moved


@cfunc("void(int64)", nopython=True)
def drop(job: int) -> None:
    """Set every gradient of the job of `look` to none, as ``p.grad = None`` does."""
    count, handles, grad, none = word(job, 0), word(job, 1), word(job, 5), job + 8 * 6
    for i in range(count):
        if i + 8 < count:
            fetch(word(member(grad, word(word(handles, i + 8), 0)), 0))
        g = member(grad, word(word(handles, i), 0))
        if word(g, 0) != word(none, 0):
            ask(word(job, 14), none, g)


@cfunc("void(int64, int64)", nopython=True)
def count(address: int, steps: int) -> None:
    """Add 1 to each of so many float32 at an address."""
    for i in range(steps):
        put_single(address, i, single(address, i) + one)


@cfunc("float64(int64, int64)", nopython=True)
def total(address: int, count: int) -> float:
    """The sum of `count` float64 at an address, one after the other."""
    added = 0.0
    for i in range(count):
        added += number(address, i)
    return added
