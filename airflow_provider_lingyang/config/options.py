"""The section ``[lingyang]`` of Airflow's configuration: settings of the machine rather than of a campaign.

One table, from which the provider's metadata derives. Airflow reads that while it starts: nothing heavy is imported.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from airflow_provider_lingyang.config.arguments import ArgumentError


class Option(NamedTuple):
    """An option; ``least`` is the smallest number."""

    default: str | int
    description: str
    least: int = 0


LEDGER_PATIENCE = 60
"""Seconds: default of ``ledger_patience``."""
RECEIVER_LIMIT_PATIENCE = 1800
"""Seconds: default of ``receiver_limit_patience``."""
SHARD_PATIENCE = 3600
"""Seconds: default of ``shard_patience``."""
OPTIONS = {
    "spool_dir": Option(
        "",
        "Folder for the private copy of an audience while it is validated and sent (about 370 MB per million rows). "
        "Default: the system's folder for temporary files.",
    ),
    "xcom_ids_limit": Option(
        1000,
        "Up to this many accepted biz_ids are pushed as XCom by the submit operator, and this many single results are "
        "returned by the sensor.",
    ),
    "lookups_at_a_time": Option(
        10,
        "So many look-ups of one wait for results are under way at a time, at most. How fast they follow each other is "
        "held back by the connection's max_requests_per_second.",
        least=1,
    ),
    "ledger_patience": Option(
        LEDGER_PATIENCE,
        "For so many seconds, from the first failure on, a submission waits for a ledger that cannot be read or "
        "written. It sends nothing meanwhile, keeps the outcomes of requests under way, and goes on when the ledger is "
        "back. 0: it ends at once. Once the task was asked to stop, 4 seconds are all there is.",
    ),
    "receiver_limit_patience": Option(
        RECEIVER_LIMIT_PATIENCE,
        "For so many seconds, from its first refusal for a limit of one receiver (isv.BUSINESS_LIMIT_CONTROL) on, a "
        "campaign waits and sends the refused request again: once a campaign, whatever becomes of its tries. Then it "
        "sends the request's recipients one by one, where a look-up shows that none of them was contacted.",
    ),
    "shard_patience": Option(
        SHARD_PATIENCE,
        "For so many seconds a batch of a submission with shards waits for other shards that have not sent the "
        "batches before it, or have not begun. Then the try ends, and names them.",
    ),
}


def _text(name: str) -> str:
    from airflow.providers.common.compat.sdk import conf

    return str(conf.get("lingyang", name, fallback=OPTIONS[name].default) or "")


def _whole_number(name: str) -> int:
    """Return the value of an option.

    :raises ArgumentError: it is no whole number, or less than its least.
    """
    text, least = _text(name).strip(), OPTIONS[name].least
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        bound = f" of at least {least}" if least else ""
        raise ArgumentError(f"[lingyang] {name} must be a whole number{bound}; it is {text[:40]!r}")
    return int(text)


spool_dir = partial(_text, "spool_dir")
xcom_ids_limit = partial(_whole_number, "xcom_ids_limit")
lookups_at_a_time = partial(_whole_number, "lookups_at_a_time")
ledger_patience = partial(_whole_number, "ledger_patience")
receiver_limit_patience = partial(_whole_number, "receiver_limit_patience")
shard_patience = partial(_whole_number, "shard_patience")
