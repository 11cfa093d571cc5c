"""Wait until the people of a campaign have answered."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_lingyang.config import arguments
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink
from airflow_provider_lingyang.results import task_arguments as wanted

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.results.completion import Verdict
    from airflow_provider_lingyang.results.lookup import Look
    from airflow_provider_lingyang.results.poller import Wait

log = logging.getLogger(__name__)

_TRIGGER_ROOM = 30_000
"""Bytes of a trigger's arguments: they are one text in Airflow's database, and MySQL's ends at 64 KB."""
_BACKSTOP = 300.0
"""Seconds after the deadline when Airflow itself ends the wait: until then the trigger may be at its last look."""


class LingyangResultSensor(BaseSensorOperator):
    """Wait until enough of a campaign's people are finished, and return what they answered.

    A recipient is finished when its status is in the ``result_query``'s ``done_values`` or
    ``failed_values`` or, where there is no status, when every required slot is filled. People
    who were not reached are finished: counted, not an error. Answers of another task than the accepted one, where
    both are known, are not this campaign's. The platform has no public look-up for these
    tasks, so yours is described as data, in ``result_query``; where answers are pushed to you, they are read from
    your table with ``results_sql``.

    *Whose answers*: one source

    :param campaign: the manifest of a ``LingyangSubmitBatchOperator`` of the same run:
        ``campaign=submit.output``. Templated.
    :param biz_ids: a list of ids. Templated.
    :param ids_sql: a SELECT whose only column is the ``biz_id``, or the path of a ``.sql`` file. Templated.
    :param ids_conn_id: connection of the database that ``ids_sql`` runs on. Templated.
    :param ids_parameters: bound to ``ids_sql``. Templated.

    *Where they are*

    :param result_query: how to look up; default: the connection's. Templated.
    :param results_sql: instead of a look-up, a SELECT of ``biz_id``, ``output_params`` and perhaps ``status`` and
        ``task_id`` from your own table, or the path of a ``.sql`` file. Rows of people nobody waits for are left alone.
        What a status means, the ``done_values`` and ``failed_values`` of ``result_query`` say, which need hold nothing
        else then. Templated.
    :param results_conn_id: connection of the database that ``results_sql`` runs on. Templated.
    :param results_parameters: bound to ``results_sql``. Templated.

    *What is enough*

    :param required_slots: slots that must be filled where there is no status. Default: the manifest's
        ``output_slots``.
    :param complete_ratio: share of the recipients that must be finished, in (0, 1]; 1.0 by default.
    :param on_incomplete: ``timeout`` has passed and too few are finished: ``fail`` (default), ``skip``, or ``succeed``
        with what there is.

    *How*

    :param deferrable: wait in the triggerer, without holding a worker. Default: ``[operators] default_deferrable``.
    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param kwargs: Airflow's own: ``poke_interval``, ``timeout`` (both in seconds, or timedeltas), ``mode``,
        ``soft_fail`` … They mean the same in every mode. A deferred wait looks less often while nothing changes: at
        most four times ``poke_interval`` apart, or ``max_wait``. The events of assets in ``outlets`` tell
        ``campaign_key``, ``plan_id`` and ``counts``.

    :return: ``counts`` (recipients, finished, answered, not_reached, waiting, unknown, foreign), ``slots`` (slot →
        value → number of people), and ``results`` (biz_id → state, status, task_id, slots) while they are
        at most ``[lingyang] xcom_ids_limit``, else null.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowSkipException: the campaign was only validated; or it is incomplete, and ``on_incomplete`` says so.
    :raises AirflowSensorTimeout: too few were finished in time.
    :raises AirflowFailException: nobody to wait for, a look-up that no repetition can cure, or ids that the gateway
        does not know ``lookup_settle`` seconds after the wait began.
    :raises WaitError: a query did not work the first time, or a disk is full; another try may do better.
    """

    template_fields: Sequence[str] = wanted.TEMPLATE_FIELDS
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = wanted.TEMPLATE_FIELDS_RENDERERS
    operator_extra_links = (LingyangPlanLink(),)
    plan_url_left = ""
    ui_color = "#d6f0ff"

    def __init__(
        self,
        *,
        # whose answers
        campaign: Any = None,
        biz_ids: Any = None,
        ids_sql: str | None = None,
        ids_conn_id: str | None = None,
        ids_parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        # where they are
        result_query: Mapping[str, Any] | str | None = None,
        results_sql: str | None = None,
        results_conn_id: str | None = None,
        results_parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        # what is enough
        required_slots: Sequence[str] | None = None,
        complete_ratio: float = 1.0,
        on_incomplete: str = "fail",
        # how
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        lingyang_conn_id: str = "lingyang_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign
        self.biz_ids = biz_ids
        self.ids_sql = ids_sql
        self.ids_conn_id = ids_conn_id
        self.ids_parameters = ids_parameters
        self.result_query = result_query
        self.results_sql = results_sql
        self.results_conn_id = results_conn_id
        self.results_parameters = results_parameters
        self.required_slots = required_slots
        self.complete_ratio = complete_ratio
        self.on_incomplete = on_incomplete
        self.deferrable = deferrable
        self.lingyang_conn_id = lingyang_conn_id
        self._wait: Wait | None = None
        self._started: float | None = None
        self._has_looked = False
        self._incomplete: tuple[Verdict | None, Look] | None = None
        wanted.check(self)
        # What is given here may render to nothing.
        self._given = wanted.given_to(self)
        arguments.check_ratio("complete_ratio", complete_ratio)
        arguments.check_choice("on_incomplete", on_incomplete, ("fail", "skip", "succeed"))
        arguments.check_bool("deferrable", deferrable)

    def execute(self, context: Context) -> Any:
        """Look until enough are finished: here, rescheduled, or deferred."""
        wanted.leave_plan_link(self, context)
        try:
            value = self._waited(context)
        finally:
            self._close()
        wanted.tell_outlets_of(self, context, value["counts"], complete=self._incomplete is None)
        return value

    def _waited(self, context: Context) -> Any:
        if self.deferrable:
            started = time.time()
            try:
                return self._look_or_defer(context, started, started + self.timeout)
            except AirflowFailException as error:
                raise self._softened(error) from None
        try:
            return super().execute(context)
        except (AirflowSensorTimeout, AirflowSkipException):
            if self._incomplete is None:
                raise
        # Airflow's clock ran out after a look that was not enough.
        return self._out_of_time()

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look at everybody who is not finished, and say whether that is enough."""
        self._incomplete = None
        verdict, look = self._look(context)
        if verdict is not None:
            log.info("%s", verdict)
            if verdict.complete:
                assert self._wait is not None
                return PokeReturnValue(is_done=True, xcom_value=self._wait.value(verdict))
        if look.failed:
            log.warning(
                "%d look-up(s) failed, the next look asks again. The last: %s", look.failed, look.reason
            )
        self._incomplete = verdict, look
        return False

    def execute_complete(self, context: Context, event: Any = None) -> Any:
        """Look once more, after the trigger has fired, and end as a poke would."""
        from airflow_provider_lingyang.results.poller import WaitError
        from airflow_provider_lingyang.triggers.lingyang import BROKEN, FAILED, read_event

        try:
            ending = read_event(event)
        except ValueError as error:
            raise WaitError(str(error)) from None
        if ending.status == FAILED:
            raise AirflowFailException(ending.reason)
        if ending.status == BROKEN:
            raise WaitError(ending.reason)
        return self._resumed(context, ending.started, ending.deadline)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a deferral. Where Airflow itself ended it, in time's name, look once more, too."""
        wanted.leave_plan_link(self, context)
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowException as error:
            if isinstance(error, AirflowSkipException) and isinstance(error.__cause__, AirflowSkipException):
                # With soft_fail Airflow puts a word of its own over the reason, of a skip too.
                raise error.__cause__ from None
            if not _is_deferral_timeout(error):
                raise
        now = time.time()
        try:
            return self._resumed(context, now - self.timeout, now)
        except AirflowFailException as error:
            raise self._softened(error) from None

    def _resumed(self, context: Context, started: float, deadline: float) -> Any:
        # A query that has worked before it was deferred is in trouble rather than wrong.
        self._has_looked = True
        try:
            value = self._look_or_defer(context, started, deadline)
        finally:
            self._close()
        wanted.tell_outlets_of(self, context, value["counts"], complete=self._incomplete is None)
        return value

    def _look_or_defer(self, context: Context, started: float, deadline: float) -> Any:
        self._started = started
        poked = self.poke(context)
        if isinstance(poked, PokeReturnValue):
            return poked.xcom_value
        left = deadline - time.time()
        if left <= 0:
            return self._out_of_time()
        trigger = self._trigger(context, started, deadline)
        log.info("waiting in the triggerer, for %.0f s at most", left)
        self.defer(
            trigger=trigger,
            method_name="execute_complete",
            timeout=timedelta(seconds=left + _BACKSTOP),
        )
        return None

    def _trigger(self, context: Context, started: float, deadline: float) -> Any:
        from airflow_provider_lingyang.triggers.lingyang import LingyangResultTrigger

        assert self._wait is not None
        arguments_of_wait = self._wait.wanted.to_json()
        trigger = LingyangResultTrigger(
            wanted=arguments_of_wait,
            complete_ratio=self.complete_ratio,
            poke_interval=self.poke_interval,
            max_wait=self.max_wait.total_seconds() if self.max_wait else None,
            started=started,
            deadline=deadline,
        )
        if _size(trigger) > _TRIGGER_ROOM and "campaign" not in arguments_of_wait["source"]:
            # They are in this task's arguments already, or in somebody's XCom. A trigger carries a pointer instead.
            ti = context["ti"]
            source = arguments_of_wait["source"]
            ids = self._wait.people.all_ids() if self._wait.is_open else list(source.get("biz_ids", ()))
            ti.xcom_push(key="biz_ids", value=ids)
            place = -1 if ti.map_index is None else ti.map_index
            pointer = {
                "dag_id": ti.dag_id,
                "run_id": ti.run_id,
                "task_id": ti.task_id,
                "map_index": place,
            }
            trigger.wanted = arguments_of_wait | {"source": {"xcom": pointer}}
        if _size(trigger) > _TRIGGER_ROOM:
            raise AirflowFailException(
                f"a deferred wait's arguments may be {_TRIGGER_ROOM} bytes long, and these are {_size(trigger)}: "
                "shorten results_sql, its parameters or result_query, or set deferrable=False with mode='reschedule'"
            )
        return trigger

    def _look(self, context: Context) -> tuple[Verdict | None, Look]:
        from airflow_provider_lingyang.results.poller import Wait, WaitFailed
        from airflow_provider_lingyang.results.recipient_sources import NothingToWaitForError

        started = self._when_started(context)
        try:
            if self._wait is None:
                whose = wanted.wanted_by(self, context, given=self._given)
                self._wait = Wait(whose, wanted.pull_of(context))
            look = self._wait.look_now(first=not self._has_looked)
            self._has_looked = True
            if not self._wait.is_open:
                return None, look
            return self._wait.verdict(self.complete_ratio, look, time.time() - started), look
        except (arguments.ArgumentError, WaitFailed) as error:
            raise AirflowFailException(str(error)) from None
        except NothingToWaitForError as error:
            raise AirflowSkipException(str(error)) from None

    def _when_started(self, context: Context) -> float:
        """Return when the wait began: in reschedule mode, which is a new process each time, Airflow knows."""
        if self._started is None:
            first = None
            if self.mode == "reschedule" and not self.deferrable:
                first = self._first_look(context)
                self._has_looked = first is not None
            self._started = first.timestamp() if first else time.time()
        return self._started

    def _first_look(self, context: Context) -> Any:
        """Return when the task was rescheduled first, or None while it has not been."""
        ti = context["ti"]
        if reader := getattr(ti, "get_first_reschedule_date", None):
            first = reader(context)
            # `airflow dags test` of Airflow 3.0 gives text.
            return datetime.fromisoformat(first) if isinstance(first, str) else first
        # Airflow 2, where a sensor asks the database itself.
        from airflow.sensors.base import _orig_start_date  # type: ignore[import-not-found]

        return _orig_start_date(
            dag_id=ti.dag_id,
            task_id=ti.task_id,
            run_id=ti.run_id,
            map_index=ti.map_index,
            try_number=(ti.max_tries or 0) - (self.retries or 0) + 1,
        )

    def _out_of_time(self) -> Any:
        """End a wait that was not enough, as ``on_incomplete`` says."""
        assert self._incomplete is not None
        verdict, look = self._incomplete
        if verdict is None or look.failed:
            raise self._softened(
                AirflowSensorTimeout(
                    f"timed out after {self.timeout:g} s, and the last look failed, so nobody can tell who is "
                    f"finished: {look.reason}. Before it: {verdict or 'nothing was found out'}"
                )
            )
        message = (
            f"timed out after {self.timeout:g} s: {verdict}; {verdict.needed} had to be finished. "
            f"Waited for: {verdict.who()}"
        )
        if self.on_incomplete == "succeed":
            log.warning("%s; on_incomplete='succeed' goes on with what there is", message)
            assert self._wait is not None
            return self._wait.value(verdict)
        if self.on_incomplete == "skip":
            raise AirflowSkipException(message)
        raise self._softened(AirflowSensorTimeout(message))

    def _softened(self, error: AirflowException) -> AirflowException:
        """Return what an error becomes where Airflow's own flags ask for a skipped task instead of a failed one."""
        soft = self.soft_fail or getattr(self, "never_fail", False)
        return AirflowSkipException(str(error)) if soft else error

    def _close(self) -> None:
        waiting, self._wait = self._wait, None
        if waiting is not None:
            waiting.close()


def _size(trigger: Any) -> int:
    # As Airflow stores it: a Chinese character takes six bytes. What encryption adds, _TRIGGER_ROOM allows for.
    return len(json.dumps(trigger.serialize()[1], default=str))


def _is_deferral_timeout(error: BaseException | None) -> bool:
    # By its name: where it lives differs between versions. Airflow 2 has its scheduler's words instead.
    while error is not None:
        name = type(error).__name__
        if name == "TaskDeferralTimeout":
            return True
        if name == "TaskDeferralError" and str(error) == "Trigger/execution timeout":
            return True
        error = error.__cause__ or error.__context__
    return False
