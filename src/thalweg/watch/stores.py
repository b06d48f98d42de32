"""Where the races are that a page follows: in a store, in a folder, or in the folders of a folder."""

from collections.abc import Iterator
from pathlib import Path

from thalweg.store import Held, NoRace, Reader, StoreError, locate

RECORDS = "race.db"


class Stores:
    """The stores of what a user named: ``races/digits``, a folder of such folders, ``lab.db`` or a database's URL.

    Args:
        what: what the user named; with ``/NAME`` after a store, the race to show first.

    Attributes:
        name: what is followed, for people, without a password.
        first: the race to show first, or None.
        problem: why a store cannot be read at present, or None.

    Raises:
        StoreError: it is neither a folder nor a store, or a store that cannot be read.
    """

    def __init__(self, what: str) -> None:
        self.first: str | None = None
        self.problem: str | None = None
        self._folder: Path | None = None
        self._place: str | Path = what
        path = Path(what)
        if "://" not in what and path.name == RECORDS and path.is_file():
            path = path.parent
        if "://" not in what and path.is_dir():
            self._folder = path
            self.name = str(path)
        elif "://" in what or any(one.is_file() for one in (path, *path.parents)):
            self._place, self.first = locate(what)
            self.name = ""
        else:
            raise StoreError(
                f"there is no folder and no store {what}; name the folder of a race, such as races/digits, one of many "
                "races, or a store; a folder may be empty until a race begins in it"
            )
        self._readers: dict[str, Reader] = {}
        self._races: dict[str, tuple[Reader, str]] = {}
        self._alone = True
        self.races()
        if self.problem and self._alone:
            raise StoreError(self.problem)

    def races(self) -> dict[str, Held]:
        """All races that there are at present, by the names under which a page shows them."""
        found: dict[str, Held] = {}
        problems: list[str] = []
        self._races.clear()
        there = dict(self._places())
        for gone in self._readers.keys() - there.keys():
            self._readers.pop(gone).close()
        for label, place in there.items():
            try:
                reader = self._readers.get(label) or Reader(place)
                self._readers[label] = reader
                self.name = self.name or reader.place
                for held in reader.races():
                    name = label if label else held.name
                    found[name], self._races[name] = held, (reader, held.name)
            except NoRace:
                continue
            except StoreError as error:
                problems.append(str(error))
        self.problem = problems[0] if problems else None
        return found

    def where(self, name: str) -> tuple[Reader, str]:
        """The reader of a race, and its name in its store; ``KeyError`` if there is none of that name."""
        return self._races[name]

    def _places(self) -> Iterator[tuple[str, str | Path]]:
        """The stores, by the label of each; empty if there is one only."""
        if self._folder is None:
            yield "", self._place
            return
        own = self._folder / RECORDS
        if own.is_file():
            yield "", own
            return
        self._alone = False
        for pattern in (f"*/{RECORDS}", f"*/*/{RECORDS}"):
            for file in sorted(self._folder.glob(pattern)):
                yield str(file.parent.relative_to(self._folder)), file

    def close(self) -> None:
        """Close all connections."""
        for reader in self._readers.values():
            reader.close()
