"""Formats of newer versions: what they have written is refused, not guessed at."""

from __future__ import annotations

from airflow_provider_lingyang.errors import LedgerRefusedError


def refuse_newer(found: int, known: int, what: str) -> None:
    """Refuse a format that a newer version of this package has written.

    :param what: what is written in it, and where.
    :raises LedgerRefusedError: it is newer.
    """
    if found > known:
        raise LedgerRefusedError(
            f"{what} has format {found}, of a newer version of airflow-provider-lingyang; the version on this worker "
            f"knows formats up to {known}, so nothing is sent: install the newer version on this worker"
        )
