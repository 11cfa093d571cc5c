"""What *Test connection* says: how far the clocks differ, and an error in one sentence. Pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow_provider_lingyang.gateway.dates import parse_date
from airflow_provider_lingyang.gateway.errors import LOOK_UP, LingyangError

_CLOCK_GRAIN = timedelta(seconds=2)
_ACCEPTED_SKEW = timedelta(minutes=11)
"""Beyond 10 minutes the gateway refuses a call."""
_ROUND_BRACKETS = str.maketrans("[]", "()")


def skew_seconds(reported: Any, asked: datetime, answered: datetime) -> float | None:
    """Return by how much this machine's clock is ahead; 0 when the difference is no more than the call explains.

    :return: None: no gateway that accepted the call's timestamp reports such a time.
    """
    try:
        gateway = parse_date(reported) if isinstance(reported, str) else None
    except ValueError:
        gateway = None
    if gateway is None or not asked - _ACCEPTED_SKEW <= gateway <= answered + _ACCEPTED_SKEW:
        return None
    # The gateway reports whole seconds.
    if asked - _CLOCK_GRAIN <= gateway <= answered + _CLOCK_GRAIN:
        return 0.0
    return (answered - gateway).total_seconds()


def sentence_of(error: LingyangError) -> str:
    """Return an error without the texts of the answer, which may hold anything."""
    error.msg = error.sub_msg = None
    # "It may have been executed" is no hint for a call that contacts no recipient.
    error.hint = (error.hint or "").replace(LOOK_UP, "").strip()
    # `airflow connections test` takes square brackets for markup, and hides their content.
    return str(error).translate(_ROUND_BRACKETS)
