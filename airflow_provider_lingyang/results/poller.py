"""A wait for a campaign's results: open it once, poll it until enough recipients are finished.

One implementation for a sensor that pokes, for the trigger of a deferred one, and for the transfer to a table.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from airflow_provider_lingyang.config import options
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.errors import LedgerError, LedgerUnusableError
from airflow_provider_lingyang.gateway.answer_values import plain_text
from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient, tls_context
from airflow_provider_lingyang.gateway.errors import LingyangConfigError, LingyangError, Replay
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.ledger.pace import shared_limiter
from airflow_provider_lingyang.lookup.calls import LookUp
from airflow_provider_lingyang.lookup.query import ResultQuery, StatusMeaning, TaskResult
from airflow_provider_lingyang.results.completion import (
    UNKNOWN,
    WAITING,
    CompletionCriteria,
    PollError,
    WaitProgress,
)
from airflow_provider_lingyang.results.lookup import (
    Offload,
    PollOutcome,
    poll_gateway,
    poll_table,
    run_with_main_thread_calls,
)
from airflow_provider_lingyang.results.recipient_sources import load_recipients
from airflow_provider_lingyang.results.recipient_store import OnResults, RecipientRow, RecipientStore
from airflow_provider_lingyang.spelling import did_you_mean
from airflow_provider_lingyang.storage.private_sqlite import SpoolError
from airflow_provider_lingyang.storage.query import QueryError, sql_hook, stream_rows

log = logging.getLogger(__name__)

_TABLE_SETTLE = 30.0
"""Seconds; stands in for ``lookup_settle``, whose least default it is, where results come from a table."""
_COLUMNS = ("biz_id", "output_params", "status", "task_id", "created_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultsRequest:
    """The recipients to wait for, and where their results are. Plain JSON, so that a trigger can carry it.

    :param source: of the recipients, see ``results/recipient_sources.py``.
    :param required_slots: those that must be filled; empty: a status decides.
    :param result_query: how to look up, or what a status in a table means; None: the connection's.
    :param results: read results from a table: ``{"sql", "conn_id", "parameters"}``; None: look them up.
    """

    lingyang_conn_id: str
    source: Mapping[str, Any]
    required_slots: Sequence[str]
    result_query: Mapping[str, Any] | str | None = None
    results: Mapping[str, Any] | None = None


class ResultsPoller:
    """Polls for results. The first poll opens it: reads the connection and loads the recipients.

    :param request: the recipients, and where their results are.
    :param count_values: whether to count slot values and keep single results.
    :param on_results: called with each page of results; with it, criteria that can finish no recipient are allowed.
    """

    def __init__(
        self,
        request: ResultsRequest,
        *,
        count_values: bool = True,
        on_results: OnResults | None = None,
    ) -> None:
        self.request = request
        self._count_values = count_values
        self._on_results = on_results
        self._store: RecipientStore | None = None
        self._look_up: Callable[[Offload], Awaitable[PollOutcome]] | None = None
        """None: results come from a table, or no poll has opened it yet."""
        self._lookup_settle = 0.0
        self._was_answered = False
        self.failed = 0
        """Number of look-ups that failed, in all polls that :meth:`judge` has judged."""

    @property
    def is_open(self) -> bool:
        """Whether the recipients are loaded."""
        return self._store is not None

    @property
    def store(self) -> RecipientStore:
        """The recipients and their states, once it is open."""
        assert self._store is not None
        return self._store

    def close(self) -> None:
        """Release the store's file."""
        store, self._store = self._store, None
        if store is not None:
            store.close()

    async def poll(self, offload: Offload, *, first: bool) -> PollOutcome:
        """Poll all unfinished recipients.

        :param offload: runs a blocking function off the event loop.
        :param first: whether no poll came before. A query that fails then is wrong; later, it fails for the moment.
        :return: the outcome, failures for the moment included.
        :raises PollError: the wait cannot go on.
        """
        try:
            if self._store is None:
                await offload(self._open)
            if self._look_up is not None:
                return await self._look_up(offload)
            outcome: PollOutcome = await offload(self._poll_table)
            return outcome
        except (ArgumentError, LingyangConfigError) as error:
            raise PollError(str(error)) from None
        except LingyangError as error:
            if error.replay is Replay.NEVER:
                raise PollError(f"the look-up cannot work: {error}") from None
            return PollOutcome(failed=1, reason=error.facts)
        except QueryError as error:
            if first:
                raise PollError(str(error), retryable=True) from None
            return PollOutcome(failed=1, reason=str(error))
        except SpoolError as error:
            raise PollError(str(error), retryable=True) from None

    def poll_sync(self, *, first: bool) -> PollOutcome:
        """Poll, from a thread without an event loop; see :meth:`poll`."""
        return run_with_main_thread_calls(partial(self.poll, first=first))

    def judge(self, complete_ratio: float, outcome: PollOutcome, waited: float) -> WaitProgress | None:
        """Judge the latest poll: count its failures, log how far the wait has come, and return it.

        :param complete_ratio: share of the recipients that must be finished, in (0, 1].
        :param outcome: of the latest poll.
        :param waited: seconds since the wait began.
        :return: the progress, complete or not; None while no look-up has succeeded.
        :raises PollError: too few recipients are known to the gateway, so the wait can never complete.
        """
        self.failed += outcome.failed
        self._was_answered |= outcome.calls > 0 or not outcome.failed
        progress = self.store.progress(complete_ratio) if self._was_answered else None
        if progress is not None:
            log.info("%s", progress)
            if progress.complete:
                return progress
        if outcome.failed:
            log.warning(
                "%d look-up(s) failed, %d so far; the next poll retries them. The last: %s",
                outcome.failed,
                self.failed,
                outcome.reason,
            )
        if progress is None:
            return None
        if progress.statuses and waited >= 2 * (self._lookup_settle or _TABLE_SETTLE):
            log.warning(
                "this wait may never end: recipients have a status that is in neither done_values nor failed_values of "
                "the result_query: %s. Add each status that is final to one of them",
                progress.listed_statuses,
            )
        settled = waited >= self._lookup_settle and not outcome.failed and self._look_up is not None
        if settled and progress.out_of_reach:
            raise PollError(
                f"{progress}. Too few can ever be finished: a recipient that the gateway does not know after "
                f"{self._lookup_settle:g} s (lookup_settle) stays unknown: {progress.unfinished_ids()}. Check the ids, "
                "the App key, and the result_query's biz_ids_field and task_id_field; where a recipient can be looked "
                "up only once finished, raise lookup_settle to the time that takes"
            )
        return progress

    def xcom_value(self, progress: WaitProgress) -> dict[str, Any]:
        """Return what a sensor pushes: counts, slot values, and single results while they are few."""
        return {
            "counts": dict(progress.counts),
            "slots": self.store.value_counts(),
            "results": self.store.results(),
        }

    def _open(self) -> None:
        hook = LingyangHook(self.request.lingyang_conn_id)
        read_statuses = self._prepare_lookup if self.request.results is None else self._statuses_of_table
        criteria = CompletionCriteria(tuple(self.request.required_slots), *read_statuses(hook))
        if self._on_results is None and not (
            criteria.required_slots or criteria.done_values or criteria.failed_values
        ):
            raise ArgumentError(
                "cannot decide when a recipient is finished: set required_slots, or add status_field to result_query"
            )
        store = RecipientStore(
            criteria,
            options.spool_dir(),
            count_values=self._count_values,
            max_results_kept=options.xcom_ids_limit() if self._count_values else 0,
            state_if_unknown=UNKNOWN if self.request.results is None else WAITING,
            on_results=self._on_results,
        )
        try:
            load_recipients(store, self.request.source)
        except BaseException:
            store.close()
            raise
        self._store = store

    def _prepare_lookup(self, hook: LingyangHook) -> tuple[Sequence[str], Sequence[str]]:
        """Read what look-ups need, and return the ``done_values`` and ``failed_values``."""
        given = self.request.result_query
        own = "the task's own result_query"
        query = hook.result_query if given is None else ResultQuery.parse(given, where=own)
        if query is None:
            raise ArgumentError(
                f"no look-up is described: give this task or connection {self.request.lingyang_conn_id!r} a "
                "result_query (the platform has no public look-up for these tasks); where results are pushed to you, "
                "give results_sql instead"
            )
        if query.status_field and not (query.done_values or query.failed_values):
            raise ArgumentError(
                "result_query: a status_field needs done_values or failed_values, or no recipient ever finishes"
            )
        settings = hook.settings
        tls = None if settings.plain_http else tls_context()
        client = partial(AsyncGatewayClient, settings, limiter=self._limiter(hook), tls=tls)
        self._look_up = partial(self._poll_gateway, query, client, options.lookups_at_a_time())
        self._lookup_settle = hook.lookup_settle
        return query.done_values, query.failed_values

    def _limiter(self, hook: LingyangHook) -> RateLimiter:
        """Return the rate limiter of the campaign's ledger database, else that of this process."""
        ledger = (self.request.source.get("campaign") or {}).get("ledger")
        if not ledger:
            return hook.limiter
        conn_id, settings = ledger["ledger_conn_id"], hook.settings
        try:
            limiter = shared_limiter(
                sql_hook(conn_id),
                conn_id,
                settings.url,
                settings.app_key,
                hook.max_requests_per_second,
                options.ledger_patience(),
            )
            limiter.synchronise()
        except (QueryError, LedgerUnusableError) as error:
            # A wait only reads: where it may not write, it goes on all the same.
            log.warning(
                "max_requests_per_second and throttle bans hold for this process alone: %s. To have them hold for all "
                "tasks together, let this account read and update the table lingyang_ledger_pace",
                error,
            )
            return hook.limiter
        except LedgerError:
            # Away for the moment: look-ups wait for it.
            pass
        return limiter

    def _statuses_of_table(self, hook: LingyangHook) -> tuple[Sequence[str], Sequence[str]]:
        given = self.request.result_query
        own = StatusMeaning.parse(given or {}, where="the task's own result_query")
        statuses = own.done_values, own.failed_values
        if not any(statuses) and not self.request.required_slots:
            # Results in a table need no gateway, and so no connection to one.
            with suppress(LingyangConfigError):
                if query := hook.result_query:
                    return query.done_values, query.failed_values
        return statuses

    async def _poll_gateway(
        self,
        query: ResultQuery,
        open_client: Callable[..., AsyncGatewayClient],
        max_concurrent_calls: int,
        offload: Offload,
    ) -> PollOutcome:
        async def fetch(recipients: Sequence[RecipientRow]) -> Mapping[str, TaskResult]:
            # Several results may come for one recipient. The id of the accepted task picks one of them.
            task_ids = {biz_id: task_id for _, biz_id, task_id in recipients if task_id is not None}
            biz_ids = [biz_id for _, biz_id, _ in recipients]
            known_tasks = task_ids if query.task_id_field else None
            return await LookUp(client.perform, query, client.clock).fetch(biz_ids, known_tasks)

        async with open_client(offload=offload) as client:
            return await poll_gateway(
                self.store,
                fetch,
                offload,
                ids_per_call=query.max_biz_ids,
                max_concurrent_calls=max_concurrent_calls,
            )

    def _poll_table(self) -> PollOutcome:
        results = self.request.results or {}
        with stream_rows(results["conn_id"], results["sql"], results["parameters"]) as (names, rows):
            return poll_table(self.store, _results_in(names, rows, self.store.criteria))


def _results_in(
    names: Sequence[str], rows: Iterator[Sequence[Any]], criteria: CompletionCriteria
) -> Iterator[TaskResult]:
    """Yield the results in rows of ``biz_id``, ``output_params`` and perhaps ``status``, ``task_id``, ``created_at``.

    :raises ArgumentError: a column is missing, unknown or there twice, or the status means nothing.
    """
    columns = [name.lower() for name in names]
    for name in columns:
        if columns.count(name) > 1:
            raise ArgumentError(f"results_sql selects {name!r} twice: name the columns apart (AS)")
        if name not in _COLUMNS:
            raise ArgumentError(
                f"results_sql selects {name!r}; it takes {', '.join(_COLUMNS)}{did_you_mean(name, _COLUMNS)}"
            )
    if missing := [name for name in _COLUMNS[:2] if name not in columns]:
        raise ArgumentError(f"results_sql must select {' and '.join(missing)}, too")
    if "status" in columns and not (criteria.done_values or criteria.failed_values):
        raise ArgumentError(
            "results_sql selects a status, and nothing says what it means: add "
            "result_query={'done_values': […], 'failed_values': […]}"
        )
    slots = columns.index("output_params")
    texts = [(name, position) for position, name in enumerate(columns) if name != "output_params"]
    for row in rows:
        fields: dict[str, Any] = {name: plain_text(row[position]) for name, position in texts}
        if fields["biz_id"] is not None:
            yield TaskResult(raw_output_params=row[slots], **fields)
