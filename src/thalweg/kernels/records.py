"""What Python and the native functions share, by name: each record is one structured dtype of 64-bit words.

Python fills arrays of these dtypes; native code reads the same bytes at the offsets that `offsets` gives.  A record is
found by its address, which stays valid while the array that holds it is alive: whoever hands an address to native code
keeps the array.
"""

from collections import namedtuple
from typing import Any

import numpy as np


def _record(words: str) -> np.dtype[Any]:
    return np.dtype([(word, np.int64) for word in words.split()])


PARAM = _record(
    "listed object given type ndim dims numel dtype itemsize storage base deleter data grad counter group ordinal "
    "home active"
)
"""A parameter.

``listed``: the Python object that the group's list has; ``object``: the one whose memory is stepped, the same but for
a `DTensor`, whose gradient ``given`` is found in Python.  ``type``: its Python type.  ``ndim`` sizes and strides begin
at index ``dims`` of the list of all.  ``storage``, ``base`` and ``deleter``: its memory when it was last examined.
``data`` and ``grad``: where the elements are in this step, ``counter``: where its versions are counted.  ``home``: it
has a bucket.  ``active``: `SKIPPED` without a gradient, `FUSED` if its bucket steps it, `EXAMINE` if Python is to say,
or `EAGER`.
"""

SKIPPED, FUSED, EXAMINE, EAGER = range(4)
"""What becomes of a parameter in a step, as its record has it in ``active``."""

LOOK = _record("params count lists list_count dims layout examined bases base_mask types type_count dimensions")
"""What `native.look` is given: parameters, the lists they must still be in, the layout of torch's objects.

``bases`` is a hash table of the memory that is written, ``types`` are the Python types that may be stepped natively.
There is room for so many ``dimensions`` per parameter.
"""

LIST = _record("object count")
"""A Python list of parameters, as a group has it, and how many there must be in it."""

HELD = _record("object param address deleter dtype scalar")
"""A tensor of the state: of which parameter, where its elements were, whose memory; ``scalar``: it is one number."""

ENTRY = _record("object version")
"""A dictionary of the state, and the number that CPython gave its contents when they were last compared."""

BUCKET = _record(
    "params members count chunks first sizes offsets table columns row_bytes steps step_bytes numbers number_bytes "
    "number_count number_out rows row_words row_count slots slot_mask stamp each seed salted"
)
"""Parameters whose step is one formula: what `rows.assign` and `rows.finish` are given.

``members``: the index of each member's record.  ``first``: the first of each member's chunks.  ``sizes`` and
``offsets``: of each chunk, elements and bytes.  ``steps``, ``numbers``: addresses of each member's count of steps and
numbers of state, which have so many bytes each.  ``rows``: what `rows.assign` sorts the members into (group, step,
numbers), by way of a hash table of ``slots``.  ``each``: every member is a group of its own.
"""

JOB = _record(
    "threads pieces cuts table scalars totals row_bytes arrays columns chunks thread rows row_words row_count groups "
    "group_words number_out numbers chunk flushes scalar_bytes total_bytes kept"
)
"""What `loops.host` and `loops.worker` are given.

``numbers`` and ``chunk``: the functions of a printed module, which compute the scalars of a row of numbers and step a
chunk; ``flushes``: whether that flushes subnormal numbers.  So many ``arrays`` begin at so many ``columns`` of a table.
``scalar_bytes``, ``total_bytes`` and ``kept``: how many bytes of scalars and of sums a row has, and how many new
numbers of state.  ``thread``: the function that numbers OpenMP's threads.
"""

SHARES = 256
"""Bytes from the beginning of a job to where its threads' shares are counted, one cache line each."""

LAYOUT = _record(
    "implementation storage autograd counter ndim sizes strides offset numel dtype keys data deleter version grad "
    "plain owned none assign type list_items list_size dict_version"
)
"""Where things stand in torch's objects, in bytes; ``plain``, ``owned`` and ``none`` are what is found there.

``dict_version`` is 0 where Python does not number the contents of its dictionaries, as before 3.13.
"""


def offsets(record: np.dtype[Any]) -> Any:
    """The offset of each word of a record in bytes, by name: a tuple of constants to compilers."""
    fields: Any = record.fields
    return namedtuple("Offsets", fields)(*(fields[name][1] for name in fields))  # pyright: ignore


def address(record: np.ndarray[Any, Any]) -> int:
    """Where an array begins, in memory."""
    return record.ctypes.data
