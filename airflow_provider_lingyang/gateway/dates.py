"""The platform's dates: one time zone, two forms of text. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

CHINA: Final = timezone(timedelta(hours=8), "CST")
"""GMT+8, the platform's only time zone (no daylight saving since 1991)."""

_MONTH_NAMES = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_JAVA_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d{2}):(\d{2}):(\d{2}) (CST|UTC|GMT(?:[+-]\d{2}:?\d{2})?) (\d{4})",
    re.ASCII,
)
_ISO_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}[ Tt]\d{2}", re.ASCII)


_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?", re.ASCII)
_EPOCH = re.compile(r"(\d{10})(\d{3})?(?:\.\d+)?", re.ASCII)
_COMPACT = re.compile(r"\d{14}", re.ASCII)
_FIRST_YEAR = 2015
"""The platform is younger: an earlier year stands for "no date" (0001-01-01, 1970-01-01, 2000-01-01)."""


@lru_cache(256)
def parse_date(text: str) -> datetime:
    """Return the moment a platform date means, in China's time, on a host of any time zone and locale.

    :param text: ``yyyy-MM-dd HH:mm:ss`` (China's time), Java's ``Thu Mar 14 15:16:52 CST 2024`` (CST is
        China), or ISO 8601 (with an offset, else China's time).
    :raises ValueError: for anything else.
    """
    return in_china(_read(text))


def _read(text: str) -> datetime:
    """Return the moment as it is written: naive where no zone stands in the text."""
    if found := _JAVA_DATE.fullmatch(text):
        month, day, hour, minute, second, zone, year = found.groups()
        if month not in _MONTHS:
            raise ValueError("not a date")
        return datetime(
            int(year), _MONTHS[month], int(day), int(hour), int(minute), int(second), tzinfo=_zone(zone)
        )
    if not _ISO_DATE.match(text):
        raise ValueError("not a date with a time")
    return datetime.fromisoformat(text)


@lru_cache(256)
def placed(text: str, zone: tzinfo | None = None) -> float | None:
    """Return the epoch seconds that a time of creation means; None where nothing says so.

    :param text: as :func:`parse_date` takes it, epoch milliseconds or seconds, or ``yyyyMMddHHmmss``.
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
            written = _read(text)
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


def date_text(moment: datetime) -> str:
    """Return a datetime as the platform writes it: ``yyyy-MM-dd HH:mm:ss`` at China's time."""
    return _china_text(in_china(moment))


# Only of China's time, which has no hour twice: elsewhere two moments can be equal.
@lru_cache(256)
def _china_text(moment: datetime) -> str:
    # Not %Y: on Linux it does not pad the year 1, which is what databases hold for "no date".
    return moment.isoformat(" ", "seconds")[:19]


def in_china(moment: datetime) -> datetime:
    """Return a datetime in China's time: a naive one already is, an aware one is converted."""
    if moment.tzinfo is CHINA:
        return moment
    return moment.replace(tzinfo=CHINA) if moment.tzinfo is None else moment.astimezone(CHINA)


def _zone(name: str) -> timezone:
    if name == "CST":
        return CHINA
    offset = name.removeprefix("GMT").replace(":", "")
    if name == "UTC" or not offset:
        return UTC
    sign = -1 if offset[0] == "-" else 1
    return timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
