"""Allows one race at a time on a file, since two would do everything twice."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from thalweg.store.errors import StoreError


@contextmanager
def claim(place: str | Path) -> Generator[None]:
    """Lock the store at a path until the end; the lock is released when the process dies.  URLs are not locked.

    Raises:
        StoreError: another process has locked it.
    """
    if isinstance(place, str) and "://" in place:
        yield
        return
    with suppress(OSError):  # which whoever opens the store reports
        Path(place).parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(Path(place).with_name(f".{Path(place).name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(
            f"{place} is in use: another race is running in this folder; wait until it has ended, or choose another "
            "with --out"
        ) from None
    except (OSError, NotImplementedError):
        pass  # files on some network disks cannot be locked; two races at once there only cost time
    try:
        yield
    finally:
        lock.release()
