"""SQLite files that nobody else can read and that are gone after any crash."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_KB = 32_768
"""How much of a file is kept in memory."""


class SpoolError(Exception):
    """A private file could not be made or written."""


def open_private(folder: str, schema: str, what: str, *, cache_kb: int = CACHE_KB) -> sqlite3.Connection:
    """Return an SQLite file, readable by its owner only and unlinked at once. For one thread at a time.

    :param folder: where the file lies; empty: the system's folder for temporary files.
    :param schema: its tables.
    :param what: what it holds, for errors.
    :param cache_kb: how much of it is kept in memory, in KB.
    :raises SpoolError: it cannot be made.
    """
    with written(what, "made"):
        handle, path = tempfile.mkstemp(prefix="lingyang-", suffix=".spool", dir=folder or None)
        os.close(handle)
        try:
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # Without a journal nothing but this one file, and what is sorted, is ever written.
            for setting in (
                "journal_mode=OFF",
                "synchronous=OFF",
                "locking_mode=EXCLUSIVE",
                f"cache_size=-{cache_kb}",
            ):
                db.execute(f"PRAGMA {setting}")
            db.executescript(schema)
        finally:
            Path(path).unlink()
    return db


@contextmanager
def written(what: str, done: str = "written") -> Iterator[None]:
    """Turn an error of the disk or of SQLite into one that says what to do.

    :raises SpoolError: in its stead.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise SpoolError(
            f"{what} cannot be {done} ({why}): make room, or point [lingyang] spool_dir to a disk that has some"
        ) from None
