"""The platform's dates: one time zone, two forms of text. Pure."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Final

CHINA: Final = timezone(timedelta(hours=8), "CST")
"""GMT+8, the platform's only time zone (no daylight saving since 1991)."""

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_JAVA_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2}) (\d{1,2}) (\d{2}:\d{2}:\d{2}) (?:(CST)|UTC|GMT([+-]\d{2}:?\d{2})?) (\d{4})",
    re.ASCII,
)
_ISO_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}[ Tt]\d{2}", re.ASCII)


@lru_cache(256)
def parse_date(text: str) -> datetime:
    """Return the moment a platform date means, in China's time, on a host of any time zone and locale.

    :param text: ``yyyy-MM-dd HH:mm:ss`` (China's time), Java's ``Thu Mar 14 15:16:52 CST 2024`` (CST is
        China), or ISO 8601 (with an offset, else China's time).
    :raises ValueError: for anything else.
    """
    return in_china(read_date(text))


def read_date(text: str) -> datetime:
    """Return the moment as it is written: naive where no zone stands in the text."""
    if found := _JAVA_DATE.fullmatch(text):
        month, day, clock, china, offset, year = found.groups()
        if month not in _MONTHS:
            raise ValueError("not a date")
        zone = "+08:00" if china else offset or "Z"
        text = f"{year}-{_MONTHS.index(month) + 1:02}-{day:0>2}T{clock}{zone}"
    elif not _ISO_DATE.match(text):
        raise ValueError("not a date with a time")
    return datetime.fromisoformat(text)


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
