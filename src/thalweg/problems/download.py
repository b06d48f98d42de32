"""Files from public mirrors: checked, and put in place whole or not at all."""

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
    import pooch  # of the lab extra, as rich is: only who downloads needs them

    return Path(pooch.os_cache("thalweg"))


def fetch(file: str, md5: str, mirrors: Sequence[str], folder: Path) -> Path:
    """The path of `file` in `folder`, downloaded from the first mirror that has it whole, unless it is there already.

    Args:
        file: the name, at the mirrors and in the folder.
        md5: the published checksum, in hex; a file with another one is never put in place.
        mirrors: addresses of folders, with the slash at the end.
        folder: made if it does not exist.

    Raises:
        ValueError: no mirror gave the file, each with its reason, or the folder cannot be written.
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
            except (OSError, ValueError) as error:  # what requests raises, or the checksum is another
                failures.append(f"{place}: {error}")
    raise ValueError(
        f"{file} could not be downloaded ({'; '.join(failures)}); try again when online, "
        "or name a folder that holds the files with --data DIR"
    )


class _Bar:
    """Shows a download's progress as pooch reports it, and ends one that is larger than any of our files."""

    def __init__(self, progress: "Progress", name: str) -> None:
        self._progress, self._task = progress, progress.add_task(name, total=None)
        self._got = 0
        self.total = 0

    def update(self, size: int) -> None:
        """Another `size` bytes have come."""
        self._got += size
        if self._got > _MOST:
            raise ValueError(f"sent more than {_MOST:,} bytes")
        self._progress.update(self._task, completed=self._got, total=self.total or None)

    def reset(self) -> None:
        """Pooch winds its bar back at the end, and sets it to the whole."""
        self._got = 0

    def close(self) -> None:
        """Nothing to do: the progress is closed by whoever opened it."""
