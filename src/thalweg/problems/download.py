"""Downloads from public mirrors, verified by checksum and put in place whole or not at all."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rich.progress import Progress

_MOST = 1 << 28
_TIMEOUT = 30.0


def cache_folder() -> Path:
    """The user's cache folder for this package, as the system has it: on Linux ``~/.cache/thalweg``."""
    import pooch  # pooch and rich belong to the lab extra, and only downloads need them

    return Path(pooch.os_cache("thalweg"))


def fetch(file: str, md5: str, mirrors: Sequence[str], folder: Path) -> Path:
    """The path of `file` in `folder`, downloaded if it is not there, from the first mirror that has it whole.

    Args:
        file: the name, at the mirrors and in the folder.
        md5: the published checksum, in hex; a file with a different one is not put in place.
        mirrors: URLs of folders, with a slash at the end.
        folder: created if it does not exist.

    Raises:
        ValueError: every mirror failed (the reasons are given), or the folder cannot be written.
    """
    import pooch
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the cache folder {folder} cannot be written: {error.strerror or error}") from None
    pooch.get_logger().setLevel("WARNING")
    failures: list[str] = []
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    for mirror in mirrors:
        place = urlsplit(mirror).netloc
        with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
            bar: Any = _Bar(progress, f"{file} from {place}")
            get: Any = pooch.HTTPDownloader(progressbar=bar, timeout=_TIMEOUT)
            try:
                return Path(pooch.retrieve(mirror + file, f"md5:{md5}", file, folder, downloader=get))
            except (OSError, ValueError) as error:  # from requests, or because of a wrong checksum
                failures.append(f"{place}: {error}")
    raise ValueError(
        f"{file} could not be downloaded ({'; '.join(failures)}); try again when online, "
        "or name a folder that holds the files with --data DIR"
    )


class _Bar:
    """Shows the progress that pooch reports, and ends a download that is larger than any of our files."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=None)
        self._got = 0
        self.total = 0

    def update(self, size: int) -> None:
        """Count another `size` bytes."""
        self._got += size
        if self._got > _MOST:
            raise ValueError(f"sent more than {_MOST:,} bytes")
        self._progress.update(self._task, completed=self._got, total=self.total or None)

    def reset(self) -> None:
        """Start again at zero: pooch resets its bar at the end, and then reports the total."""
        self._got = 0

    def close(self) -> None:
        """Do nothing: the progress display is closed where it was opened."""
