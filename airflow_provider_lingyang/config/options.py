"""The section ``[lingyang]`` of Airflow's configuration: settings of the machine rather than of a campaign."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lingyang.config.arguments import LEDGER_PATIENCE, RECEIVER_LIMIT_PATIENCE, ArgumentError

IDS_LIMIT = 1000
LOOKUPS = 10


def spool_dir() -> str:
    """Return the folder for private copies of audiences; empty: the system's for temporary files."""
    return str(conf.get("lingyang", "spool_dir", fallback="") or "")


def xcom_ids_limit() -> int:
    """Return how many ids may travel by XCom, 1,000 by default.

    :raises ArgumentError: it is no whole number.
    """
    return _whole_number("xcom_ids_limit", IDS_LIMIT)


def lookups_at_a_time() -> int:
    """Return how many look-ups of one wait are under way at a time, 10 by default.

    :raises ArgumentError: it is no whole number of at least 1.
    """
    return _whole_number("lookups_at_a_time", LOOKUPS, least=1)


def ledger_patience() -> int:
    """Return for how many seconds a ledger that cannot be read or written is waited for, 60 by default; 0: not at all.

    :raises ArgumentError: it is no whole number.
    """
    return _whole_number("ledger_patience", LEDGER_PATIENCE)


def receiver_limit_patience() -> int:
    """Return for how many seconds a campaign waits at most for limits of single receivers, 1,800 by default.

    :raises ArgumentError: it is no whole number.
    """
    return _whole_number("receiver_limit_patience", RECEIVER_LIMIT_PATIENCE)


def _whole_number(option: str, fallback: int, least: int = 0) -> int:
    text = str(conf.get("lingyang", option, fallback=fallback)).strip()
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        bound = f" of at least {least}" if least else ""
        raise ArgumentError(f"[lingyang] {option} must be a whole number{bound}; it is {text[:40]!r}")
    return int(text)
