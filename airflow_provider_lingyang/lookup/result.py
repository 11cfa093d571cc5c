"""The result of one recipient, its time of creation, and the evidence of a look-up. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_lingyang.gateway.dates import CHINA, read_date
from airflow_provider_lingyang.lookup.slots import read_slots

_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2}):?(\d{2})?", re.ASCII)
_EPOCH = re.compile(r"(\d{10})(\d{3})?(?:\.\d+)?", re.ASCII)
_COMPACT = re.compile(r"\d{14}", re.ASCII)
_FIRST_YEAR = 2015
"""The platform is younger: an earlier year stands for "no date" (0001-01-01, 1970-01-01, 2000-01-01)."""


@dataclass(slots=True)
class TaskResult:
    """The result of one recipient. Equality compares all fields as they came: slots as text differ from a dict.

    :param biz_id: the recipient's id.
    :param raw_output_params: the slots as they came, see :func:`~airflow_provider_lingyang.lookup.slots.read_slots`;
        read on first use, because of many recipients only the status matters. Not in the repr: personal data belongs
        into no log.
    :param status: the platform's word for how far it is, if the query names a ``status_field``.
    :param task_id: the platform's task, if the query names a ``task_id_field``.
    :param created_at: the platform's text, if the query names a ``created_at_field``.
    """

    biz_id: str
    raw_output_params: Any = field(default=None, repr=False)
    status: str | None = None
    task_id: str | None = None
    created_at: str | None = field(default=None, repr=False)
    _read: tuple[Mapping[str, Any], bool] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def output_params(self) -> Mapping[str, Any]:
        """The slots, as a dict; empty where the answer held none."""
        return self._slots[0]

    @property
    def readable(self) -> bool:
        """Whether the slots could be read: nothing at all can; no JSON, or a message without slots, cannot."""
        return self._slots[1]

    @property
    def _slots(self) -> tuple[Mapping[str, Any], bool]:
        if self._read is None:
            self._read = read_slots(self.raw_output_params)
        return self._read


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """The evidence of a look-up. An id in neither field stays in doubt.

    :param results: ``biz_id`` → every result of it, in the order they came. Only ids that were asked for.
    :param absent: asked ids of which the answer proves that it holds every result there is: an id in ``absent`` and not
        in ``results`` has none; an id in both has no other than those. ``lookup_settle`` is not considered here.
    :param alone: asked ids to look up one by one for a proof: an answer about several ids may omit some unnoticed.
    :param why: why ids are missing in ``absent``, in words, without personal data; empty where none is missing.
    """

    results: Mapping[str, Sequence[TaskResult]]
    absent: frozenset[str]
    why: str = ""
    alone: frozenset[str] = frozenset()


def standing(
    result: TaskResult, task_id: str | None, progress: int, zone: tzinfo | None = None
) -> tuple[int, float, int]:
    """Return the rank of a result among those of one recipient: the highest counts for a wait.

    Our own task first, then the newest, then the one that is furthest: in whatever order they came.

    :param task_id: the task that was accepted, where it is known.
    :param progress: higher: further; done is further than failed.
    :param zone: of a ``created_at`` that names none; None: China's.
    """
    own = 1 if task_id is None or result.task_id is None else 2 if result.task_id == task_id else 0
    moment = None if result.created_at is None else epoch_seconds(result.created_at, zone)
    return own, -math.inf if moment is None else moment, progress


def spellings(statuses: Sequence[str]) -> tuple[str, ...]:
    """Return statuses, and every spelling of those that are Booleans.

    A Boolean is "true" to JSON, and "True" to Python and to databases.
    """
    found: list[str] = []
    for status in statuses:
        of_boolean = status.casefold() in ("true", "false")
        found += (status.lower(), status.capitalize(), status.upper()) if of_boolean else (status,)
    return tuple(found)


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
        zones = [each for each in (written.tzinfo, zone) if each is not None] or [CHINA]
        # Of an hour that a clock shows twice, the second.
        return max(written.replace(tzinfo=each, fold=1).timestamp() for each in zones)
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
        if hours <= 14 and minutes <= 59:
            offset = timedelta(hours=hours, minutes=minutes)
            return timezone(-offset if found[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            "created_at_zone is neither an IANA name (Asia/Shanghai) nor an offset (+08:00)"
        ) from None
