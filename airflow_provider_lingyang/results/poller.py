"""Waiting for a campaign's answers: who is waited for, where their answers are, how far they are.

The same for a task that pokes, for the trigger of a deferred one, and for what writes answers to a table.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from airflow_provider_lingyang.config import options as config
from airflow_provider_lingyang.config.arguments import ArgumentError, did_you_mean
from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient, tls_context
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError, Replay
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.lookup.query import (
    ResultQuery,
    TaskResult,
    parse_statuses,
    plain_text,
)
from airflow_provider_lingyang.results.completion import UNKNOWN, WAITING, Rules, Verdict
from airflow_provider_lingyang.results.lookup import Look, Offload, look_up, read_table
from airflow_provider_lingyang.results.offload import Here
from airflow_provider_lingyang.results.recipient_sources import Pull, fill
from airflow_provider_lingyang.results.recipient_store import Row, Take, WaitingList
from airflow_provider_lingyang.storage.private_sqlite import SpoolError
from airflow_provider_lingyang.storage.query import QueryError, stream_rows

log = logging.getLogger(__name__)

_COLUMNS = ("biz_id", "output_params", "status", "task_id")


class WaitError(Exception):
    """The wait broke off; another try may do better. No AirflowException: soft_fail treats those differently."""


class WaitFailed(Exception):
    """The wait cannot succeed, whatever is tried again; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Whose answers are wanted, and where they are. Plain JSON, so that it crosses into the triggerer.

    :param lingyang_conn_id: the gateway's connection.
    :param source: of the recipients, see ``results/recipient_sources.py``.
    :param required_slots: what must be filled where there is no status.
    :param result_query: how to look up; None: as the connection says.
    :param results: answers are in a table instead: ``{"sql", "conn_id", "parameters"}``.
    """

    lingyang_conn_id: str
    source: Mapping[str, Any]
    required_slots: Sequence[str]
    result_query: Mapping[str, Any] | str | None = None
    results: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


class Wait:
    """A wait for answers; opened by its first look.

    :param wanted: whose answers, and where they are.
    :param pull: reads an XCom.
    :param offload: runs a function where it may block. Default None: :meth:`look_now` runs it in its own thread.
    :param tally: whether to count and keep answers.
    :param also: is given all answers, too; then nobody needs to be able to finish.
    """

    def __init__(
        self,
        wanted: Wanted,
        pull: Pull,
        *,
        offload: Offload | None = None,
        tally: bool = True,
        also: Take | None = None,
    ) -> None:
        self.wanted = wanted
        self._pull = pull
        self._offload = offload
        self._tally = tally
        self._also = also
        self._people: WaitingList | None = None
        self._query: ResultQuery | None = None
        self._client_of: Callable[[], AsyncGatewayClient] | None = None
        self._calls_at_a_time = 1
        self.settle = 0.0

    @property
    def is_open(self) -> bool:
        """Whether it is known who is waited for."""
        return self._people is not None

    @property
    def people(self) -> WaitingList:
        """Who is waited for, once it is open."""
        assert self._people is not None
        return self._people

    def close(self) -> None:
        """Give the list's space back."""
        people, self._people = self._people, None
        if people is not None:
            people.close()

    async def look(self, *, first: bool) -> Look:
        """Look at everybody who is not finished.

        :param first: nobody has looked before: then a query that does not work is wrong, and later it is in trouble.
        :return: how it went; what failed for the moment is in there.
        :raises WaitFailed: no repetition can cure it.
        :raises WaitError: it cannot go on here.
        """
        assert self._offload is not None
        try:
            if self._people is None:
                await self._offload(self._open)
            if self.wanted.results is not None:
                look: Look = await self._offload(self._look_at_table)
                return look
            assert self._client_of is not None
            async with self._client_of() as client:
                return await self._look_up(client)
        except (ArgumentError, LingyangConfigError) as error:
            raise WaitFailed(str(error)) from None
        except LingyangError as error:
            if error.replay is Replay.NEVER:
                raise WaitFailed(f"the look-up cannot work: {error}") from None
            return Look(failed=1, reason=error.facts)
        except QueryError as error:
            if first:
                raise WaitError(str(error)) from None
            return Look(failed=1, reason=str(error))
        except SpoolError as error:
            raise WaitError(str(error)) from None

    def look_now(self, *, first: bool) -> Look:
        """Look, from a thread without an event loop; raises as :meth:`look` does."""
        here: Here[Look] = Here()
        self._offload = here.offload
        return here.run(self.look(first=first))

    def verdict(self, complete_ratio: float, look: Look, waited: float) -> Verdict:
        """Return what the answers so far mean.

        :param look: the latest.
        :param waited: seconds since the wait began.
        :raises WaitFailed: enough people can never be finished, because the gateway does not know them.
        """
        verdict = self.people.verdict(complete_ratio)
        late = waited >= self.settle and look.whole and self.wanted.results is None
        if late and verdict.out_of_reach and not verdict.complete:
            raise WaitFailed(
                f"{verdict}. Too few can ever be finished: whom the gateway does not know after {self.settle:g} s "
                f"(lookup_settle) it never will: {verdict.who()}. Check the ids, the App key, and the "
                "result_query's biz_ids_field and task_id_field; where a person can be looked up only once finished, "
                "raise lookup_settle to the time that takes"
            )
        return verdict

    def value(self, verdict: Verdict) -> dict[str, Any]:
        """Return what a sensor returns: counts, slots, and single results while they are few."""
        return {
            "counts": dict(verdict.counts),
            "slots": self.people.slots(),
            "results": self.people.results(),
        }

    def _open(self) -> None:
        hook = LingyangHook(self.wanted.lingyang_conn_id)
        given = self.wanted.result_query
        if self.wanted.results is None:
            self._query = query = self._look_up_described(hook)
            statuses: tuple[Sequence[str], Sequence[str]] = query.done_values, query.failed_values
            if query.status_field and not any(statuses):
                raise ArgumentError(
                    "result_query: a status_field needs done_values or failed_values, or nobody ever finishes"
                )
            settings, rate = hook.settings, hook.max_requests_per_second
            tls = None if settings.plain_http else tls_context()
            self._client_of = lambda: AsyncGatewayClient(settings, max_requests_per_second=rate, tls=tls)
            self._calls_at_a_time = config.lookups_at_a_time()
            self.settle = hook.lookup_settle
        else:
            statuses = parse_statuses(given, where="result_query") if given else ((), ())
            if not any(statuses) and not self.wanted.required_slots:
                statuses = _statuses_of_connection(hook)
        rules = Rules(tuple(self.wanted.required_slots), *statuses)
        if self._also is None and not rules.can_tell:
            raise ArgumentError(
                "nothing can tell who is finished: give required_slots, or the result_query a status_field"
            )
        people = WaitingList(
            rules,
            config.spool_dir(),
            tally=self._tally,
            keep=config.xcom_ids_limit() if self._tally else 0,
            absent=UNKNOWN if self.wanted.results is None else WAITING,
            also=self._also,
        )
        try:
            fill(people, self.wanted.source, self._pull)
        except BaseException:
            people.close()
            raise
        self._people = people

    def _look_up_described(self, hook: LingyangHook) -> ResultQuery:
        given = self.wanted.result_query
        query = (
            hook.result_query
            if given is None
            else ResultQuery.parse(given, where="the task's own result_query")
        )
        if query is None:
            raise ArgumentError(
                f"no look-up is described: give this task or connection {self.wanted.lingyang_conn_id!r} a "
                "result_query (the platform has no public look-up for these tasks); where answers are pushed to you, "
                "give results_sql instead"
            )
        return query

    async def _look_up(self, client: AsyncGatewayClient) -> Look:
        query = self._query
        assert query is not None
        assert self._offload is not None

        async def ask(people: Sequence[Row]) -> Mapping[str, TaskResult]:
            # Of a person with a task several results may come; without one all are as good.
            tasks = {biz_id: task_id for _, biz_id, task_id in people if task_id is not None}
            biz_ids = [biz_id for _, biz_id, _ in people]
            return await client.fetch_results(query, biz_ids, task_ids=tasks if query.task_id_field else None)

        return await look_up(
            self.people,
            ask,
            people_per_call=query.max_biz_ids,
            calls_at_a_time=self._calls_at_a_time,
            offload=self._offload,
        )

    def _look_at_table(self) -> Look:
        results = self.wanted.results or {}
        with stream_rows(results["conn_id"], results["sql"], results["parameters"]) as (names, rows):
            return read_table(self.people, _answers_in(names, rows, self.people.rules))


def _answers_in(names: Sequence[str], rows: Iterator[Sequence[Any]], rules: Rules) -> Iterator[TaskResult]:
    """Yield the answers in rows of ``biz_id``, ``output_params`` and perhaps ``status`` and ``task_id``.

    :raises ArgumentError: a column is missing or unknown, or the status means nothing.
    """
    places = {name.lower(): place for place, name in enumerate(names)}
    for name in places:
        if name not in _COLUMNS:
            raise ArgumentError(
                f"results_sql selects {name!r}; it takes {', '.join(_COLUMNS)}{did_you_mean(name, _COLUMNS)}"
            )
    if missing := [name for name in _COLUMNS[:2] if name not in places]:
        raise ArgumentError(f"results_sql must select {' and '.join(missing)}, too")
    if "status" in places and not (rules.done_values or rules.failed_values):
        raise ArgumentError(
            "results_sql selects a status, and nothing says what it means: add "
            "result_query={'done_values': […], 'failed_values': […]}"
        )

    def text(row: Sequence[Any], name: str) -> str | None:
        return plain_text(row[places[name]]) if name in places else None

    for row in rows:
        biz_id = text(row, "biz_id")
        if biz_id is not None:
            yield TaskResult(biz_id, row[places["output_params"]], text(row, "status"), text(row, "task_id"))


def _statuses_of_connection(hook: LingyangHook) -> tuple[Sequence[str], Sequence[str]]:
    try:
        query = hook.result_query
    except LingyangConfigError:
        # Answers that are in a table need no gateway, and so no connection to one.
        return (), ()
    return (query.done_values, query.failed_values) if query else ((), ())
