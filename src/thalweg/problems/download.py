"""Files from public mirrors: checked, and put in place whole or not at all."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

_CHUNK = 1 << 16
_MOST = 1 << 28
_TIMEOUT = 30.0


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/thalweg``, or else ``~/.cache/thalweg``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thalweg"


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
    path = folder / file
    if path.is_file() and _md5(path) == md5:
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # In the same folder, so that the move into place is one atomic rename.
        work = Path(tempfile.mkdtemp(prefix=".download-", dir=folder))
    except OSError as error:
        raise ValueError(f"the cache folder {folder} cannot be written: {error.strerror or error}") from None
    failures: list[str] = []
    try:
        for mirror in mirrors:
            try:
                _download(mirror + file, md5, work / file)
                os.replace(work / file, path)
                return path
            except (OSError, HTTPException, _Damaged) as error:
                failures.append(f"{urlsplit(mirror).netloc}: {getattr(error, 'reason', None) or error}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    raise ValueError(
        f"{file} could not be downloaded ({'; '.join(failures)}); try again when online, "
        "or name a folder that holds the files with --data DIR"
    )


class _Damaged(Exception):
    """What came is not what was published."""


def _download(url: str, md5: str, path: Path) -> None:
    # rich belongs to the lab extra; only who downloads needs it.
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    request = urllib.request.Request(url, headers={"User-Agent": "thalweg"})
    with (
        urllib.request.urlopen(request, timeout=_TIMEOUT) as response,
        path.open("wb") as file,
        Progress(*columns, console=Console(stderr=True), transient=True) as progress,
    ):
        said = response.headers.get("Content-Length")
        total = int(said) if said and said.isdigit() else None
        task = progress.add_task(f"{path.name} from {urlsplit(url).netloc}", total=total)
        got = 0
        while chunk := response.read(_CHUNK):
            got += len(chunk)
            if got > _MOST:
                raise _Damaged(f"sent more than {_MOST:,} bytes")
            file.write(chunk)
            progress.update(task, completed=got)
    if total is not None and got < total:
        raise _Damaged(f"sent {got:,} of {total:,} bytes")
    if _md5(path) != md5:
        raise _Damaged(f"sent a file with checksum {_md5(path)}, published is {md5}")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
