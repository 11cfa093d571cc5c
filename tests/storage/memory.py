"""What this process holds in memory: not only what Python knows of, because drivers written in C keep rows themselves."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

from airflow_provider_lingyang.storage.query import stream_rows


def _held() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def growth_while_reading(conn_id: str, sql: str, count: int) -> float:
    """Return by how many MB the process grows at most while it reads so many rows."""
    with suppress(AttributeError):
        # What earlier tests gave back would be taken again unseen.
        ctypes.CDLL(None).malloc_trim(0)
    highest = before = _held()
    with stream_rows(conn_id, sql) as (_, rows):
        number = 0
        for number, _row in enumerate(rows, 1):
            # A driver that reads everything first has done so when it gives the first row.
            if number % 5000 == 1:
                highest = max(highest, _held())
    assert number == count
    return highest - before
