"""A native function that counts up the versions of what kernels on a device have written.

As those of `thalweg.kernels.native` it is given records by their address, with Python's lock held.  It is compiled when
parameters on a device are first stepped.
"""

from typing import Any

import numba

from thalweg.kernels import memory
from thalweg.kernels.records import FUSED, LAYOUT, LOOK, PARAM, offsets

cfunc: Any = numba.cfunc  # no types are known of what Numba makes of a function
word: Any = memory.word
word32: Any = memory.word32
save_word32: Any = memory.save_word32

P, T, L = map(offsets, (PARAM, LAYOUT, LOOK))
PARAM_BYTES = PARAM.itemsize


@cfunc("void(int64, int64)", nopython=True, error_model="numpy")
def count(job: int, grads: int) -> None:
    """Count up the versions of those parameters of a `LOOK` that were stepped; if `grads`, of their gradients, too."""
    o, param = word(job + L.layout), word(job + L.params)
    for _ in range(word(job + L.count)):
        if word(param + P.active) == FUSED:
            counter = word(param + P.counter)
            save_word32(counter, word32(counter) + 1)
            g = word(param + P.given) if grads else 0
            if grads and g == 0:
                meta = word(word(word(param + P.object) + word(o + T.implementation)) + word(o + T.autograd))
                g = word(meta + word(o + T.grad)) if meta != 0 else 0
            if g != 0 and g != word(o + T.none):
                counter = word(g + word(o + T.counter)) + word(o + T.version)
                save_word32(counter, word32(counter) + 1)
        param += PARAM_BYTES
