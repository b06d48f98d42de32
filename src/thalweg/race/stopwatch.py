"""Seconds for a race: time on the wall, less what a thread has waited for a processor that other programs used."""

import os
import time


def seconds() -> float:
    """The time in seconds, from an arbitrary start, in which this thread ran or waited for something of its own.

    On Linux the kernel counts how long a thread that could run has waited for its turn.  That is the fault of others,
    and is left out: a budget in seconds then buys as many steps beside other programs as alone, but for what they take
    of caches and memory.  Elsewhere nothing is left out.
    """
    waited = _waited()
    while True:
        now, before = time.perf_counter(), waited
        waited = _waited()
        if waited == before:  # otherwise it has waited in between, which the time has or has not in it
            return now - waited


def _waited() -> float:
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return 0.0
    try:
        _, nanoseconds, _ = os.read(file, 100).split()
    finally:
        os.close(file)
    return int(nanoseconds) / 1e9
