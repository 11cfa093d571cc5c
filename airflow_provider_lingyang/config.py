"""The section ``[lingyang]`` of Airflow's configuration: settings of the machine rather than of a campaign."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import conf

from airflow_provider_lingyang.campaign.arguments import ArgumentError

IDS_LIMIT = 1000


def spool_dir() -> str:
    """Return the folder for private copies of audiences; empty: the system's for temporary files."""
    return str(conf.get("lingyang", "spool_dir", fallback="") or "")


def xcom_ids_limit() -> int:
    """Return how many ids may travel by XCom, 1,000 by default.

    :raises ArgumentError: it is no whole number.
    """
    text = str(conf.get("lingyang", "xcom_ids_limit", fallback=IDS_LIMIT)).strip()
    if not (text.isascii() and text.isdigit()):
        raise ArgumentError(f"[lingyang] xcom_ids_limit must be a whole number; it is {text!r}")
    return int(text)
