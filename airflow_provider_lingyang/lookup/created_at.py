"""When a result was created, from the text of a look-up. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_lingyang.gateway.dates import CHINA, read_date

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?", re.ASCII)
_EPOCH = re.compile(r"(\d{10})(\d{3})?(?:\.\d+)?", re.ASCII)
_COMPACT = re.compile(r"\d{14}", re.ASCII)
_FIRST_YEAR = 2015
"""The platform is younger: an earlier year stands for "no date" (0001-01-01, 1970-01-01, 2000-01-01)."""


@lru_cache(256)
def epoch_seconds(text: str, zone: tzinfo | None = None) -> float | None:
    """Return the epoch seconds that a time of creation means; None where nothing says so.

    :param text: a platform date, epoch milliseconds or seconds, or ``yyyyMMddHHmmss``.
    :param zone: where a text without a zone is meant; None: in China. Where it is given and the text has another, the
        later moment is meant: what is younger is less likely to be taken for an earlier campaign's.
    """
    text = text.strip()
    try:
        if found := _EPOCH.fullmatch(text):
            seconds = float(found[1]) + float(found[2] or 0) / 1000
            written = datetime.fromtimestamp(seconds, UTC)
            zone = None
        elif _COMPACT.fullmatch(text):
            written = datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007  # placed below
        else:
            written = read_date(text)
        if written.year < _FIRST_YEAR:
            return None
        moments = [written.replace(tzinfo=CHINA)] if written.tzinfo is None and zone is None else []
        if written.tzinfo is not None:
            moments.append(written)
        if zone is not None:
            # Of an hour that a clock shows twice, the second.
            moments.append(written.replace(tzinfo=zone, fold=1))
        return max(moment.timestamp() for moment in moments)
    except (ValueError, OverflowError, OSError):
        return None


def zone_named(name: str) -> tzinfo:
    """Return the zone of an IANA name (``Asia/Shanghai``), of ``Z``, or of an offset (``+08:00``).

    :raises ValueError: there is none such.
    """
    if name.upper() in ("Z", "UTC", "GMT"):
        return UTC
    if found := _OFFSET.fullmatch(name):
        hours, minutes = int(found[2]), int(found[3] or 0)
        if hours > 14 or minutes > 59:
            raise ValueError("no offset that a zone has")
        offset = timedelta(hours=hours, minutes=minutes)
        return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, OSError):
        raise ValueError("no zone of that name") from None
