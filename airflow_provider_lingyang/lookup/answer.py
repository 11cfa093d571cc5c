"""The evidence of a look-up about some recipients: results, and proven absences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_lingyang.lookup.result import TaskResult


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
