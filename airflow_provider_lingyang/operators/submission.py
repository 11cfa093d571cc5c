"""One try of a submission: read, validate, decide, send, account."""

from __future__ import annotations

import logging
from contextlib import ExitStack, closing, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException, TaskDeferred

from airflow_provider_lingyang.assets.lingyang import add_to_outlet_events
from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.config import arguments, literals, options
from airflow_provider_lingyang.config.literals import CHECKS, TEMPLATED
from airflow_provider_lingyang.delivery import lateness
from airflow_provider_lingyang.delivery.campaign import Campaign, CampaignSpec, EmptyAudience, parse_book
from airflow_provider_lingyang.delivery.lost_history import LostLedger
from airflow_provider_lingyang.delivery.manifest import Manifest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.schedule import SendSchedule, SendWindow
from airflow_provider_lingyang.delivery.unsent_rows import explained
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.ledger.patience import Patience, impatient, patient
from airflow_provider_lingyang.links.lingyang import push_plan_link
from airflow_provider_lingyang.operators import ledgers
from airflow_provider_lingyang.operators.reporting import TryReport
from airflow_provider_lingyang.operators.task_tries import task_try_of

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)


class SubmissionTry:
    """One try of a submission.

    :param task: a ``LingyangSubmitBatchOperator`` with its arguments rendered; its module imports this one.
    :param resumed: whether the try goes on after a deferral.
    """

    def __init__(
        self,
        task: Any,
        context: Context,
        cancellation: Cancellation,
        *,
        resumed: bool,
    ) -> None:
        ti = context["ti"]
        self.task = task
        self.context = context
        self.cancellation = cancellation
        self.task_try = task_try_of(task, context, resumed=resumed)
        own_key = task.campaign_key is not None
        self.manifest = Manifest(
            str(task.campaign_key) if own_key else f"{ti.dag_id}/{ti.run_id}/{ti.task_id}",
            task.output_slots,
            {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index},
        )
        self.manifest.history_counted = not (self.task_try.has_history or self.task_try.in_loop or own_key)
        self.report = TryReport(task, ti, self.manifest, self.task_try)

    def run(self) -> dict[str, Any]:
        """Submit, and return the manifest."""
        finished = False
        try:
            with self.report.accounted() as account:
                self.task.rendering.check(self.task)
                literals.check_rendered_task(self.task, CHECKS)
                self.manifest.ids_limit = options.xcom_ids_limit()
                if not self.task.validate_only:
                    found = ledgers.find_ledger(
                        self.task.ledger_conn_id, self.context, self.manifest.campaign_key, self.task_try
                    )
                    self.report.ledger = patient(
                        found, Patience(options.ledger_patience(), self.cancellation)
                    )
                finished = self._run()
            if finished:
                # Only now: for a Clear, a submission without a published manifest is unfinished.
                self._finish()
            else:
                self._leave()
        except AirflowSkipException:
            self._leave()
            self._release()
            raise
        except (Exception, TaskDeferred):
            self._release()
            raise
        else:
            self._release()
        finally:
            self.report.ledger.close()
        if self.task.validate_only:
            # An event would start DAGs that wait for the campaign.
            self.task.outlets = []
        add_to_outlet_events(self.context, campaign=account, counts=account["counts"])
        return account

    def _release(self) -> None:
        """Release the claim, where that is quick: otherwise the next try waits a minute."""
        if not self.cancellation.grace_expired():
            with suppress(LedgerError):
                impatient(self.report.ledger).release()

    def _leave(self) -> None:
        """Note that this task instance has no recipient, so that the campaign is not kept for it."""
        if self.manifest.plan_id is not None:
            with suppress(LedgerError):
                impatient(self.report.ledger).leave(self.manifest.plan_id)

    def _finish(self) -> None:
        try:
            self.report.ledger.finish()
        except LedgerError as error:
            failure = self.report.broken_off(
                f"{error}. No recipient is left to send to, but the ledger does not know that the submission is "
                "finished: the next try notes it"
            )
            raise failure from None

    def _run(self) -> bool:
        """Read and send; return whether every recipient is in a final state."""
        task_try, manifest, ledger = self.task_try, self.manifest, self.report.ledger
        # First of all: a try that the ledger does not know of may have sent anything, as far as later ones can tell.
        lost = None
        if not ledger.claim():
            lost = ledgers.lost_ledger(self.task.ledger_conn_id, ledger, task_try, manifest.campaign_key)
        settle = arguments.parse_settle(self.task.settle)
        TEMPLATED["on_clear"]("on_clear", self.task.on_clear)
        if settle and not ledger.is_durable and not self.task.validate_only:
            raise arguments.ArgumentError(
                "settle needs a ledger, which this task has not: set ledger_conn_id"
            )
        if self.task.on_clear == "resubmit" and (task_try.map_index >= 0 or task_try.in_loop):
            raise arguments.ArgumentError(
                "on_clear='resubmit' is not for mapped tasks and not for tasks in a loop: their instances share one "
                "campaign"
            )
        cancellation = self.cancellation
        hook = LingyangHook(self.task.lingyang_conn_id, sleep=cancellation.sleep)
        hook.limiter = ledgers.find_rate_limiter(ledger, self.task.ledger_conn_id, hook)
        settings = hook.settings
        result_query = hook.result_query
        campaign = Campaign(
            self._spec(hook),
            manifest,
            ledger,
            host=settings.url,
            app_key=settings.app_key,
            key=settings.app_secret,
        )
        self._link(hook)
        schedule = SendSchedule(
            limiter=hook.limiter,
            window=SendWindow.parse(self.task.send_window),
            until=arguments.parse_deadline(self.task.send_until),
        )
        policy = Policy(
            max_in_flight=self.task.max_in_flight,
            max_attempts=settings.max_attempts,
            lookup_settle=hook.lookup_settle,
            answer_within=settings.answer_within,
            dedupes_by_code=hook.read("dedupes_by_code").dedupes_by_code,
            on_in_doubt=self.task.on_in_doubt,
            on_rejected=self.task.on_rejected,
            ledger_patience=options.ledger_patience(),
            receiver_limit_patience=options.receiver_limit_patience(),
            shards=self.task.shards,
            is_resumed=task_try.resumed,
            shard_patience=options.shard_patience(),
        )
        read_rows = partial(self.task._read_rows, self.context)
        with (
            AudienceStore(options.spool_dir(), keeps_left_out=ledger.shows_rows) as audience,
            closing(hook),
            ExitStack() as ending,
        ):
            if not self.task.validate_only:
                try:
                    self._skip_if_late(campaign.spec.plan_id, lost)
                except AirflowSkipException:
                    if self.task.shards is not None:
                        with suppress(LedgerError):
                            campaign.open(cancellation, resubmit=False)
                            campaign.leave_order()
                    raise
                campaign.open(cancellation, resubmit=self.task.on_clear == "resubmit", settle=settle)
            ending.enter_context(explained(audience, manifest, ledger, cancellation))
            try:
                campaign.read(read_rows, audience, cancellation, history_unknown=lost is not None)
            except EmptyAudience:
                if self.task.shards is not None and not self.task.validate_only:
                    campaign.leave_order()
                raise
            if self.task.validate_only:
                campaign.show_plan(audience, schedule, result_query.proves if result_query else None)
                return False
            self.report.ids_query = self._ids_query(audience)
            campaign.send(
                audience,
                new_wire=hook.new_client,
                look_up=hook.look_up if result_query else None,
                dated=bool(result_query and result_query.created_at_field),
                created_at_zone=result_query.zone if result_query else None,
                schedule=schedule,
                policy=policy,
                cancellation=cancellation,
                settle=settle,
                lost=lost,
            )
        return not manifest.doubts

    def _ids_query(self, audience: AudienceStore) -> dict[str, Any] | None:
        """Return the query from which a result sensor can read the ids that XCom does not carry; None: there is none.

        Warn, before anything is sent, where the sensor has no other way to them.
        """
        task, manifest = self.task, self.manifest
        if len(audience) <= manifest.ids_limit:
            return None
        left_out = manifest.audience - len(audience)
        if task.sql is None:
            why = "the audience came without a query"
        elif audience.derived():
            why = "its query selects no biz_id"
        elif left_out and manifest.ledger is None:
            why = f"its query gives {left_out} more recipients, left out here"
        else:
            return {
                "sql": task.sql,
                "conn_id": task.sql_conn_id,
                "parameters": task.parameters,
                "column": task.columns.get("biz_id", "biz_id"),
            }
        if manifest.ledger is None:
            log.warning(
                "%d recipients are more than XCom carries ([lingyang] xcom_ids_limit=%d), and %s: a "
                "LingyangResultSensor with campaign=… cannot find them. Give this task a ledger_conn_id, the sensor an "
                "ids_sql, or raise the limit",
                len(audience),
                manifest.ids_limit,
                why,
            )
        return None

    def _skip_if_late(self, plan_id: int, lost: LostLedger | None) -> None:
        """Skip a run that comes too late, unless it has begun to send: then it goes on.

        :param lost: there were earlier tries, and the ledger knows nothing of them.
        :raises AirflowSkipException: saying so.
        """
        due = lateness.due_at(self.context.get("dag_run"))
        why = lateness.too_late(due, self.task.max_lateness, datetime.now(UTC))
        if why is None:
            return
        # Of this task instance only: other runs may have sent under the same campaign_key.
        # campaign.open decides on a lost ledger of a task that had begun.
        if self.report.ledger.has_begun(plan_id) or self.report.ledger.begun_at is not None:
            log.warning("%s; the task has begun to send, so it goes on", why)
            return
        raise AirflowSkipException(
            f"nothing was read, and nothing was sent by this try: {why}. "
            + (f"{lost.warning}. " if lost is not None else "")
            + "To send all the same, trigger a new run, or raise max_lateness and clear this task"
        )

    def _link(self, hook: LingyangHook) -> None:
        manifest = self.manifest
        assert manifest.plan_id is not None
        try:
            manifest.plan_url = hook.plan_url(manifest.plan_id)
        except LingyangConfigError as error:
            # A missing link holds up no call.
            log.warning("no link to the plan: %s", error)
        push_plan_link(self.task, self.context["ti"], manifest.plan_url)

    def _spec(self, hook: LingyangHook) -> CampaignSpec:
        connection = hook.read("plan_variables_as_text", "international_numbers")
        return CampaignSpec(
            plan_id=arguments.parse_number("plan_id", self.task.plan_id),
            channel=self.task.channel,
            use_book_info=parse_book(self.task.use_book_info),
            columns=self.task.columns,
            task_defaults=self.task.task_defaults,
            input_params_columns=arguments.named_columns(
                "input_params_columns", self.task.input_params_columns
            ),
            output_slots=self.task.output_slots,
            keep_columns=self.task.keep_columns,
            batch_size=self.task.batch_size,
            max_recipients=self.task.max_recipients,
            plan_variables_as_text=connection.plan_variables_as_text,
            international_numbers=connection.international_numbers == "allow",
            on_invalid=self.task.on_invalid,
            on_duplicate_contact=self.task.on_duplicate_contact,
        )
