"""One race at a time on a file: two that run the same would do everything twice."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from thalweg.store.errors import StoreError


@contextmanager
def claim(place: str | Path) -> Generator[None]:
    """Hold the store at a path until the end; it is free at once when the process dies.  A URL cannot be held.

    Raises:
        StoreError: another process holds it.
    """
    if isinstance(place, str) and "://" in place:
        yield
        return
    lock = FileLock(Path(place).with_name(f".{Path(place).name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{place} is in use: another race is running in this folder; wait until it has ended, or choose another "
            "with --out"
        ) from None
    except (OSError, NotImplementedError):
        pass  # where files cannot be locked, on some network disks, two races at once only cost time
    try:
        yield
    finally:
        lock.release()
