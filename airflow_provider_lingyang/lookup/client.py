"""Look-ups over a client of the gateway: one driver for tasks, one for event loops."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_lingyang.gateway.attempts import Call
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.lookup import calls
from airflow_provider_lingyang.lookup.page import Page
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.lookup.result import LookupAnswer, TaskResult

if TYPE_CHECKING:
    # Each has an HTTP library of its own, and a caller needs one of them.
    from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient
    from airflow_provider_lingyang.gateway.client import GatewayClient

T = TypeVar("T")


def fetch_results(
    client: GatewayClient,
    query: ResultQuery,
    biz_ids: Sequence[str],
    *,
    task_ids: Mapping[str, str | None] | None = None,
) -> dict[str, TaskResult]:
    """Look results up: one for each recipient.

    :param biz_ids: as many calls are made as ``max_biz_ids`` and the pages ask for.
    :param task_ids: ``biz_id`` → the task that is meant, where it is known; see :meth:`ResultQuery.preferred`.
    :return: results by ``biz_id``, without ids that the platform does not know.
    :raises LingyangError: the typed reason, after the last attempt.
    """
    return _drive(client, calls.fetch(query, biz_ids, client.clock, task_ids))


def look_up(client: GatewayClient, query: ResultQuery, biz_ids: Sequence[str]) -> LookupAnswer:
    """Look results up as evidence: every result of each recipient, and the absences that are proven.

    :param biz_ids: as many calls are made as ``max_biz_ids`` and the pages ask for.
    :raises LingyangError: the first call failed; after a later failure the results so far are returned.
    """
    return _drive(client, calls.prove(query, biz_ids, client.clock))


def _drive(client: GatewayClient, steps: Generator[Call[Page], Page, T]) -> T:
    try:
        call = next(steps)
        while True:
            try:
                page = client.perform(call)
            except LingyangError as error:
                call = steps.throw(error)
            else:
                call = steps.send(page)
    except StopIteration as end:
        found: T = end.value
        return found


async def fetch_results_async(
    client: AsyncGatewayClient,
    query: ResultQuery,
    biz_ids: Sequence[str],
    *,
    task_ids: Mapping[str, str | None] | None = None,
) -> dict[str, TaskResult]:
    """Look results up: one for each recipient; see :func:`fetch_results`. One call at a time."""
    steps = calls.fetch(query, biz_ids, client.clock, task_ids)
    try:
        call = next(steps)
        while True:
            try:
                page = await client.perform(call)
            except LingyangError as error:
                call = steps.throw(error)
            else:
                call = steps.send(page)
    except StopIteration as end:
        found: dict[str, TaskResult] = end.value
        return found
