"""Wait for the results of a campaign."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_lingyang.assets.lingyang import add_to_outlet_events
from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.results.task_arguments import ResultsTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.results.completion import WaitProgress
    from airflow_provider_lingyang.results.lookup import PollOutcome
    from airflow_provider_lingyang.results.poller import ResultsPoller
    from airflow_provider_lingyang.triggers.lingyang import LingyangResultTrigger

log = logging.getLogger(__name__)

OnIncomplete = Literal["fail", "skip", "succeed"]
_MAX_TRIGGER_BYTES = 30_000
"""Of a trigger's arguments: they are one text in Airflow's database, which MySQL limits to 64 KB."""
_DEFERRAL_TIMEOUTS = ("Trigger timeout", "Trigger/execution timeout")
"""What the schedulers of Airflow 3 and 2 say of a deferral that they end."""
_TIMEOUT_MARGIN = 300.0
"""Seconds after the deadline when Airflow itself ends the deferral: the trigger may be at its last poll until then."""


class LingyangResultSensor(ResultsTask, BaseSensorOperator):
    """Wait until enough of a campaign's recipients are finished, and return their results.

    A recipient is finished when its status is in the ``done_values`` or ``failed_values`` of ``result_query`` or,
    without a status, when every required slot is filled. A recipient that was not reached is finished: counted, not an
    error. A result of another task than the accepted one belongs to another campaign. The platform has no public
    look-up for these tasks, so ``result_query`` describes yours as data; where results are pushed to you, read them
    from your table with ``results_sql``.

    For the arguments that say which recipients to wait for and where their results are, see
    :class:`~airflow_provider_lingyang.results.task_arguments.ResultsTask`: ``campaign``, ``biz_ids``, ``ids_sql``,
    ``ids_conn_id``, ``ids_parameters``, ``lingyang_conn_id``, ``result_query``, ``results_sql``, ``results_conn_id``,
    ``results_parameters``, ``required_slots``.

    :param complete_ratio: share of the recipients that must be finished, in (0, 1]; 1.0 by default.
    :param on_incomplete: too few recipients are finished at the ``timeout``: ``fail`` (default), ``skip``, or
        ``succeed`` with the results so far.
    :param deferrable: wait in the triggerer, without holding a worker, whatever ``mode`` says. Default: ``[operators]
        default_deferrable``.
    :param kwargs: Airflow's own: ``poke_interval``, ``timeout`` (both in seconds, or timedeltas), ``mode``,
        ``soft_fail`` … They mean the same in every mode. A deferred wait polls less often while nothing changes: at
        most four times ``poke_interval`` apart, or ``max_wait``. The events of assets in ``outlets`` hold
        ``campaign_key``, ``plan_id`` and ``counts``.

    :return: ``counts`` (recipients, finished, answered, not_reached, waiting, unknown, foreign), ``slots`` (slot →
        value → number of recipients), and ``results`` (biz_id → state, status, task_id, slots) while they are
        at most ``[lingyang] xcom_ids_limit``, else null. A value longer than 4,096 bytes of UTF-8 is cut there, and
        ends with ``… [cut, N bytes]``; slots whose names are longer than 255 bytes are not counted unless required.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowSkipException: the campaign was only validated; or it is incomplete, and ``on_incomplete`` says so.
    :raises AirflowSensorTimeout: too few recipients were finished in time.
    :raises AirflowFailException: no recipients, a look-up that no retry can cure, or ids that the gateway does not know
        ``lookup_settle`` seconds after the wait began.
    :raises PollError: a query failed the first time, or a disk is full; a retry may help.
    """

    argument_checks: ClassVar = {
        **ResultsTask.argument_checks,
        "complete_ratio": arguments.check_ratio,
        "on_incomplete": arguments.one_of(OnIncomplete),
        "deferrable": arguments.check_bool,
    }

    def __init__(
        self,
        *,
        complete_ratio: float = 1.0,
        on_incomplete: OnIncomplete = "fail",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.complete_ratio = complete_ratio
        self.on_incomplete = on_incomplete
        self.deferrable = deferrable
        self._poller: ResultsPoller | None = None
        self._started: float | None = None
        self._has_polled = False
        self._incomplete: tuple[WaitProgress | None, PollOutcome] | None = None
        literals.check_task(self, self.argument_checks)

    def execute(self, context: Context) -> dict[str, Any]:
        """Poll until enough recipients are finished: in this process, rescheduled, or deferred."""
        self._push_plan_link(context)
        with self._waiting():
            return self._with_outlet_events(context, self._wait(context))

    def _with_outlet_events(self, context: Context, value: dict[str, Any]) -> dict[str, Any]:
        """Add the value's counts to the events of the outlets, and return the value."""
        complete = self._incomplete is None
        add_to_outlet_events(context, campaign=self.campaign, counts=value["counts"], complete=complete)
        return value

    def _wait(self, context: Context) -> dict[str, Any]:
        if self.deferrable:
            started = time.time()
            return self._poll_or_defer(context, started, started + self.timeout)
        try:
            value: dict[str, Any] = super().execute(context)
            return value
        except (AirflowSensorTimeout, AirflowSkipException):
            if self._incomplete is None:
                raise
        # Airflow's own timeout, after a poll that was not enough.
        return self._end_incomplete()

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Poll all unfinished recipients; done when enough are finished."""
        value = self._poll(context)
        return False if value is None else PokeReturnValue(is_done=True, xcom_value=value)

    def _poll(self, context: Context) -> dict[str, Any] | None:
        """Poll all unfinished recipients, and return the value of the task once enough are finished."""
        from airflow_provider_lingyang.results.completion import PollError
        from airflow_provider_lingyang.results.poller import ResultsPoller

        self._incomplete = None
        started = self._when_started(context)
        try:
            if self._poller is None:
                self._poller = ResultsPoller(self._results_request(context))
            outcome = self._poller.poll_sync(first=not self._has_polled)
            self._has_polled = True
            progress = self._poller.judge(self.complete_ratio, outcome, time.time() - started)
        except (PollError, arguments.ArgumentError) as error:
            if isinstance(error, PollError) and error.retryable:
                raise
            raise AirflowFailException(str(error)) from None
        if progress is not None and progress.complete:
            return self._poller.xcom_value(progress)
        self._incomplete = progress, outcome
        return None

    def execute_complete(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Poll once more after the trigger has fired, and end as a poke would."""
        from airflow_provider_lingyang.results.completion import PollError
        from airflow_provider_lingyang.triggers.lingyang import BROKEN, FAILED, read_event

        try:
            ending = read_event(event)
        except ValueError as error:
            raise PollError(str(error), retryable=True) from None
        if ending.status == FAILED:
            raise AirflowFailException(ending.reason)
        if ending.status == BROKEN:
            raise PollError(ending.reason or "", retryable=True)
        return self._resume(context, ending.started, ending.deadline)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after a deferral. Poll once more, too, where Airflow ended it by its timeout."""
        if next_method == "__fail__" and (next_kwargs or {}).get("error") in _DEFERRAL_TIMEOUTS:
            next_method, next_kwargs = "_resume_late", None
        self._push_plan_link(context)
        with self._waiting():
            return super().resume_execution(next_method, next_kwargs, context)

    def _resume_late(self, context: Context) -> dict[str, Any]:
        now = time.time()
        return self._resume(context, now - self.timeout, now)

    def _resume(self, context: Context, started: float, deadline: float) -> dict[str, Any]:
        # The query worked before the deferral, so a failure now is for the moment.
        self._has_polled = True
        return self._with_outlet_events(context, self._poll_or_defer(context, started, deadline))

    def _poll_or_defer(self, context: Context, started: float, deadline: float) -> dict[str, Any]:
        self._started = started
        if (value := self._poll(context)) is not None:
            return value
        if (left := deadline - time.time()) > 0:
            trigger = self._trigger(context, started, deadline)
            log.info("waiting in the triggerer, for %.0f s at most", left)
            timeout = timedelta(seconds=left + _TIMEOUT_MARGIN)
            self.defer(trigger=trigger, method_name="execute_complete", timeout=timeout)
        return self._end_incomplete()

    def _trigger(self, context: Context, started: float, deadline: float) -> LingyangResultTrigger:
        from airflow_provider_lingyang.triggers.lingyang import LingyangResultTrigger

        assert self._poller is not None
        request = asdict(self._poller.request)
        trigger = LingyangResultTrigger(
            request=request,
            complete_ratio=self.complete_ratio,
            poke_interval=self.poke_interval,
            max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            started=started,
            deadline=deadline,
        )
        if _size(trigger) > _MAX_TRIGGER_BYTES and "campaign" not in request["source"]:
            # The trigger carries a pointer to this task's XCom instead of the ids.
            trigger.request = request | {"source": {"xcom": self._push_ids(context)}}
        if _size(trigger) > _MAX_TRIGGER_BYTES:
            raise AirflowFailException(
                f"a deferred wait's arguments may be {_MAX_TRIGGER_BYTES} bytes long, and these are {_size(trigger)}: "
                "shorten results_sql, its parameters or result_query, or set deferrable=False with mode='reschedule'"
            )
        return trigger

    def _push_ids(self, context: Context) -> dict[str, Any]:
        """Push the ids as XCom ``biz_ids``, or find them there, and return a pointer to it."""
        from airflow_provider_lingyang.results.completion import PollError
        from airflow_provider_lingyang.results.recipient_sources import pull_xcom

        assert self._poller is not None
        ti = context["ti"]
        map_index = -1 if ti.map_index is None else ti.map_index
        pointer = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": map_index}
        if self._poller.is_open:
            ti.xcom_push(key="biz_ids", value=list(self._poller.store.biz_ids()))
        elif pull_xcom(pointer, "biz_ids") is None:
            # The wait was deferred before, and its trigger may have been just short enough to hold the query.
            raise PollError("the query of the ids failed, and no XCom holds them", retryable=True)
        return pointer

    def _when_started(self, context: Context) -> float:
        """Return when the wait began. In reschedule mode each poll is a new process, so Airflow knows."""
        if self._started is None:
            self._started = time.time()
            rescheduled = self.mode == "reschedule" and not self.deferrable
            if rescheduled and (first := self._first_reschedule_date(context)) is not None:
                self._has_polled, self._started = True, first.timestamp()
        return self._started

    def _first_reschedule_date(self, context: Context) -> datetime | None:
        """Return when the task was rescheduled first, or None while it has not been."""
        ti = context["ti"]
        if reader := getattr(ti, "get_first_reschedule_date", None):
            first: datetime | str | None = reader(context)
            # `airflow dags test` of Airflow 3.0 gives text.
            return datetime.fromisoformat(first) if isinstance(first, str) else first
        # Airflow 2, where a sensor asks the database itself.
        from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]  # in Airflow 2 only

        started: datetime | None = _orig_start_date(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
            try_number=(ti.max_tries or 0) - (self.retries or 0) + 1,
        )
        return started

    def _end_incomplete(self) -> dict[str, Any]:
        """End a wait that was not enough, as ``on_incomplete`` says."""
        assert self._incomplete is not None
        progress, outcome = self._incomplete
        if progress is None or outcome.failed:
            raise AirflowSensorTimeout(
                f"timed out after {self.timeout:g} s, and the last poll failed, so the number of finished recipients "
                f"is not known: {outcome.reason}. Before it: "
                f"{progress or 'no look-up of this process succeeded; earlier ones are in the log'}"
            )
        message = (
            f"timed out after {self.timeout:g} s: {progress}; {progress.needed} had to be finished. "
            f"Waited for: {progress.unfinished_ids()}"
        )
        if self.on_incomplete == "succeed":
            log.warning("%s; on_incomplete='succeed' goes on with the results so far", message)
            assert self._poller is not None
            return self._poller.xcom_value(progress)
        if self.on_incomplete == "skip":
            raise AirflowSkipException(message)
        raise AirflowSensorTimeout(message)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        """Close the poller in the end; skip the task, and say why, where Airflow's flags ask for that."""
        try:
            yield
        except AirflowSkipException as error:
            if isinstance(error.__cause__, AirflowException):
                # Airflow has replaced the message, of a skip too.
                raise AirflowSkipException(str(error.__cause__)) from None
            raise
        except (AirflowFailException, AirflowSensorTimeout) as error:
            soft = self.soft_fail or self.never_fail
            raise (AirflowSkipException(str(error)) if soft else error) from None
        finally:
            poller, self._poller = self._poller, None
            if poller is not None:
                poller.close()


def _size(trigger: LingyangResultTrigger) -> int:
    # As Airflow stores it: a Chinese character takes six bytes. What encryption adds, _MAX_TRIGGER_BYTES allows for.
    return len(json.dumps(trigger.serialize()[1], default=str))
