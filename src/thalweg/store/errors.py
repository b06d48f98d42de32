"""Errors of a store as one sentence."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy import exc

_ADVICE = {
    "not a database": "it is no race's store; choose another with --out or --store",
    "malformed": "the file is damaged; choose another with --out or --store",
    "readonly": "make it writable or choose another with --out or --store",
    "unable to open": "make the folder writable or choose another with --out or --store",
    "is full": "make room; what had ended is kept, and the same command goes on from it",
    "locked": "another program holds it; end that and give the same command again",
}


class StoreError(ValueError):
    """The store cannot be used; the message says why and what to do, in one sentence."""


class NoRace(StoreError):
    """There is no race there yet, or none of that name."""


class StoreWarning(UserWarning):
    """Something has happened to a store that its race outlives; the message says what, in one sentence."""


def damaged(name: str, what: str) -> StoreError:
    """The error for a store whose records are not reliable, with the reason `what`."""
    return StoreError(
        f"{name} cannot be used as a store: {what}; put a copy of the file in its place, or choose another "
        "with --out or --store"
    )


@contextmanager
def one_sentence(engine: sa.Engine | None, name: str) -> Generator[None]:
    """Errors of the database as one `StoreError`; `engine` is disposed of when anything is raised."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error, UnicodeDecodeError) as error:
        cause = " ".join(str(error.orig if isinstance(error, exc.DBAPIError) else error).split())
        if isinstance(error, UnicodeDecodeError):
            cause = "malformed text"
        advice = next((words for part, words in _ADVICE.items() if part in cause), "check the store and try again")
        if engine is not None:
            engine.dispose()
        raise StoreError(f"{name} cannot be used as a store ({cause}); {advice}") from None
    except BaseException:
        if engine is not None:
            engine.dispose()
        raise


@contextmanager
def as_written(name: str) -> Generator[None]:
    """Encloses the reading of records: any error caused by a damaged one becomes a `StoreError`."""
    try:
        yield
    except (StoreError, exc.SQLAlchemyError):
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
        raise damaged(name, f"its records cannot be read ({type(error).__name__})") from error
