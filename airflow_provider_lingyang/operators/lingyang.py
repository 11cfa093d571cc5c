"""Submit a campaign to Lingyang customer-service cloud."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    conf,
)

from airflow_provider_lingyang.assets.lingyang import tell_outlets
from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.config import options as config
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink, leave_link

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.audience.parser import AudienceReader, Problem, Recipient
    from airflow_provider_lingyang.audience.store import Spool
    from airflow_provider_lingyang.delivery.campaign import CampaignSpec
    from airflow_provider_lingyang.delivery.manifest import Manifest
    from airflow_provider_lingyang.delivery.schedule import Later
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook
    from airflow_provider_lingyang.ledger.base import Attempt, Ledger

log = logging.getLogger(__name__)

_ON_CLEAR = ("reuse", "resubmit")
_SHOWN = 10


class Rows:
    """An audience that was handed over, shown in the UI and in logs as what it is and never as what it holds."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return f"<audience: {type(self.rows).__name__}, not shown>"

    def __iter__(self) -> Iterator[Any]:
        if not arguments.is_listing(self.rows):
            raise arguments.ArgumentError(
                f"audience must be a list of rows (mappings of names to values); it is a {type(self.rows).__name__}"
            )
        return iter(self.rows)


class LingyangSubmitBatchOperator(BaseOperator):
    """Phone, text or mail the people of an audience, through a plan of Lingyang customer-service cloud.

    The audience is read once, validated as a whole, and only then sent, in the order of ``batch_num``. A ledger
    remembers between tries what became of everybody, so that a retry, a Clear or a resume goes on where the last try
    ended and contacts nobody twice: on Airflow 3.3 and later the task's own state, elsewhere a database
    (``ledger_conn_id``). Without either every failure is final, and a later try sends nothing.

    API page: ``alibaba.lingyang.utouch.submit.initiative.batch.task``.

    *What*

    :param plan_id: the plan, as its number or its digits. Templated.
    :param campaign_key: within a campaign (this key and the plan) nobody is sent to twice. Default: dag_id / run_id /
        task_id. An own one outlives the DAG run and needs ``ledger_conn_id``. Templated.
    :param channel: what the plan does: ``call`` or ``sms`` (each row needs a phone number) or ``email``
        (an email address). Default None: each row needs a phone number, an email or an ``outer_user_id``.
    :param use_book_info: the account book that pays: ``use_platform``, ``book_code``, ``book_owner_id``.
        Default None: not sent. Templated.

    *Who*: one source

    :param audience: rows as a list of mappings, an XComArg of one (``other_task.output``), or a lazy
        sequence. What came by XCom was stored by the upstream task; prefer ``sql`` for personal data.
        Never rendered: text in it is data, not a template.
    :param sql: a SELECT, or the path of a ``.sql`` file. Templated.
    :param sql_conn_id: connection of the database that ``sql`` runs on, any ``DbApiHook``. Templated.
    :param parameters: bound to ``sql`` as the database's driver wants them. Templated.
    :param columns: API field → column of the rows, where names differ (case never matters). Every column
        must be of use: as an API field, here, or in ``input_params_columns``.
    :param task_defaults: API field → value, for rows that lack it (NULL or blank). Values templated.
    :param input_params_columns: columns folded into the JSON of ``input_params``: a list, or plan
        variable → column. A NULL in one makes the row invalid.
    :param output_slots: slots of ``output_params`` that the plan fills, each sent as ``""``.

    *How*

    :param batch_size: tasks in one request at most, 100 by default (the platform documents no limit).
    :param max_in_flight: requests of one ``batch_num`` under way at a time, 1 by default, 100 at most.
    :param send_window: hours of the day in which requests leave, at Asia/Shanghai's time, such as ``"09:00-20:30"``.
        Outside them the task waits as a deferred one. Default None: any hour.
    :param send_until: nothing leaves after this moment: a datetime, or text of one (without a time zone:
        Asia/Shanghai); the task then fails, with the rest not sent. Default None: no end. Templated.
    :param max_recipients: more valid rows than this fail before anything is sent. Default None: no limit.
    :param validate_only: validate, count and show the plan, as a table in the log and as ``plan`` in the manifest; send
        nothing. Default False.

    *What if*

    :param on_invalid: ``fail`` (default) or ``skip`` the invalid rows and send the others.
    :param on_duplicate_contact: one contact in several rows: ``warn`` (default), ``fail``, or
        ``keep_first`` and leave the later rows out.
    :param on_rejected: some were rejected: ``continue`` (default), or ``fail`` after their ``batch_num``.
    :param on_in_doubt: nobody can tell whether a request was executed: ``stop`` (default), or ``continue`` without it.
    :param on_empty: no rows: ``skip`` (default), ``fail`` or ``succeed``.
    :param on_clear: a finished submission is cleared: ``reuse`` (default) what it did and send to new rows only, or
        ``resubmit`` everybody, which is refused where others with this ``campaign_key`` have sent too. An unfinished
        one always goes on. Templated.
    :param settle: what you found out about requests in doubt: task_unique_code → ``accepted`` or ``not_executed``, as
        a dict or its JSON. Default None. Templated.
    :param ledger_conn_id: a database (any ``DbApiHook``) that keeps the ledger, in tables created on first use.
        Default None: the task's own state. Templated.

    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param kwargs: Airflow's own. The events of assets in ``outlets`` tell ``campaign_key``, ``plan_id`` and ``counts``;
        ``validate_only`` makes none.

    :return: the manifest, plain JSON of a few KB: ``campaign_key``, ``plan_id``, ``output_slots``,
        ``counts``, ``batches``, ``reasons``, ``duration_s`` … It is also XCom ``manifest``, pushed before
        every raise too. XCom ``biz_ids`` holds the accepted ids, null when more than
        ``[lingyang] xcom_ids_limit``; XCom ``task_ids`` the platform's tasks of these, where known.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowFailException: the audience or a setting is wrong, or a person must act first; no retry helps.
    :raises AirflowException: sending broke off, and a retry goes on from there.
    :raises TaskDeferred: ``send_window`` is closed, or the gateway throttles for more than a minute.
    :raises AirflowSkipException: nobody to send to.
    """

    template_fields: Sequence[str] = (
        "plan_id",
        "campaign_key",
        "use_book_info",
        "audience",
        "sql",
        "sql_conn_id",
        "parameters",
        "task_defaults",
        "send_until",
        "on_clear",
        "settle",
        "ledger_conn_id",
        "lingyang_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "sql": "sql",
        "parameters": "json",
        "use_book_info": "json",
        "task_defaults": "json",
        "settle": "json",
    }
    operator_extra_links = (LingyangPlanLink(),)
    plan_url_left = ""
    ui_color = "#ffe8d6"

    def __init__(
        self,
        *,
        # what
        plan_id: int | str,
        campaign_key: str | None = None,
        channel: str | None = None,
        use_book_info: Mapping[str, Any] | None = None,
        # who
        audience: Any = None,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        task_defaults: Mapping[str, Any] | None = None,
        input_params_columns: Sequence[str] | Mapping[str, str] | None = None,
        output_slots: Sequence[str] | None = None,
        # how
        batch_size: int = 100,
        max_in_flight: int = 1,
        send_window: str | None = None,
        send_until: datetime | str | None = None,
        max_recipients: int | None = None,
        validate_only: bool = False,
        # what if
        on_invalid: str = "fail",
        on_duplicate_contact: str = "warn",
        on_rejected: str = "continue",
        on_in_doubt: str = "stop",
        on_empty: str = "skip",
        on_clear: str = "reuse",
        settle: Mapping[str, str] | str | None = None,
        ledger_conn_id: str | None = None,
        lingyang_conn_id: str = "lingyang_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan_id = plan_id
        self.campaign_key = campaign_key
        self.channel = channel
        self.use_book_info = use_book_info
        literals.check_rows("audience", audience)
        self.audience = audience
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.columns = {} if columns is None else columns
        self.task_defaults = {} if task_defaults is None else task_defaults
        self.input_params_columns = [] if input_params_columns is None else input_params_columns
        self.output_slots = [] if output_slots is None else output_slots
        self.batch_size = batch_size
        self.max_in_flight = max_in_flight
        self.send_window = send_window
        self.send_until = send_until
        self.max_recipients = max_recipients
        self.validate_only = validate_only
        self.on_invalid = on_invalid
        self.on_duplicate_contact = on_duplicate_contact
        self.on_rejected = on_rejected
        self.on_in_doubt = on_in_doubt
        self.on_empty = on_empty
        self.on_clear = on_clear
        self.settle = settle
        self.ledger_conn_id = ledger_conn_id
        self.lingyang_conn_id = lingyang_conn_id
        self._killed_at: float | None = None
        self._ledger: Any = None
        self._biz_ids_query: dict[str, Any] | None = None
        self._resumed = False
        self._check_arguments()
        self._given = [name for name, value in self._templated() if value is not None]

    @property
    def audience(self) -> Any:
        """The rows that were handed over; a list is wrapped, so that no rendering shows or templates it."""
        return self._audience

    @audience.setter
    def audience(self, value: Any) -> None:
        # Another task's output, what a task group is mapped over, a param of the DAG: Airflow resolves them first.
        open_yet = hasattr(value, "iter_references")
        self._audience = value if value is None or open_yet or isinstance(value, Rows) else Rows(value)

    def _check_arguments(self) -> None:
        if (self.sql is None) == (self.audience is None):
            raise arguments.ArgumentError(
                "give one source of the audience: either sql (with sql_conn_id) or audience"
            )
        if (self.sql is None) != (self.sql_conn_id is None):
            raise arguments.ArgumentError("sql and sql_conn_id belong together")
        if self.parameters is not None and self.sql is None:
            raise arguments.ArgumentError("parameters belong to sql")
        if self.campaign_key is not None and self.ledger_conn_id is None:
            raise arguments.ArgumentError(
                "an own campaign_key needs ledger_conn_id: a task's own state ends with its DAG run"
            )
        if self.channel is not None:
            arguments.check_choice("channel", self.channel, arguments.CHANNELS)
        arguments.check_mapping("columns", self.columns)
        arguments.check_fields("columns", self.columns)
        arguments.check_columns("columns", self.columns)
        arguments.check_mapping("task_defaults", self.task_defaults)
        arguments.check_fields("task_defaults", self.task_defaults, without=("biz_id",))
        arguments.plan_variables(self.input_params_columns)
        arguments.check_names("output_slots", self.output_slots)
        arguments.check_positive("batch_size", self.batch_size)
        # Each is a thread, and a connection to the gateway.
        arguments.check_positive("max_in_flight", self.max_in_flight, most=100)
        arguments.check_window("send_window", self.send_window)
        if self.max_recipients is not None:
            arguments.check_positive("max_recipients", self.max_recipients)
        arguments.check_bool("validate_only", self.validate_only)
        arguments.check_choice("on_invalid", self.on_invalid, ("fail", "skip"))
        arguments.check_choice(
            "on_duplicate_contact", self.on_duplicate_contact, ("warn", "fail", "keep_first")
        )
        arguments.check_choice("on_rejected", self.on_rejected, ("continue", "fail"))
        arguments.check_choice("on_in_doubt", self.on_in_doubt, ("stop", "continue"))
        arguments.check_choice("on_empty", self.on_empty, ("skip", "fail", "succeed"))
        self._check_literals()

    def _check_literals(self) -> None:
        """Raise where a templated argument holds in the DAG file already what can never be right."""
        literals.check_number("plan_id", self.plan_id)
        if self.campaign_key is not None:
            literals.check_text("campaign_key", self.campaign_key, "text")
        literals.check_book("use_book_info", self.use_book_info)
        if self.sql is not None:
            literals.check_text("sql", self.sql, "a SELECT, or the path of a .sql file")
            literals.check_conn_id("sql_conn_id", self.sql_conn_id)
        literals.check_parameters("parameters", self.parameters)
        literals.check_defaults("task_defaults", self.task_defaults)
        literals.check_until(self.send_until)
        literals.check_on_clear("on_clear", self.on_clear, _ON_CLEAR)
        literals.check_settle(self.settle)
        if self.ledger_conn_id is not None:
            literals.check_conn_id("ledger_conn_id", self.ledger_conn_id)
        literals.check_conn_id("lingyang_conn_id", self.lingyang_conn_id)

    def _templated(self) -> Iterator[tuple[str, Any]]:
        """Yield the arguments that mean something else when they are missing, and their values as they are now."""
        for name in self.template_fields:
            value = getattr(self, name)
            if name not in ("settle", "on_clear"):  # blank is nothing to settle; on_clear has its choices
                yield name, value
            if name in ("use_book_info", "task_defaults") and isinstance(value, Mapping):
                yield from ((f"{name}[{key!r}]", inner) for key, inner in value.items())

    def execute(self, context: Context) -> dict[str, Any]:
        """Read, validate, decide, send, account."""
        return self._submit(context, resumed=False)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Go on after the task was deferred until it may send again."""
        self._resumed = True
        return self._submit(context, resumed=True)

    def on_kill(self) -> None:
        """Let no further request leave. Runs in a signal handler: notes the time and does nothing else."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()

    def _submit(self, context: Context, *, resumed: bool) -> dict[str, Any]:
        from airflow_provider_lingyang.delivery.manifest import Manifest
        from airflow_provider_lingyang.ledger.base import Attempt, NoLedger

        ti = context["ti"]
        source = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        attempt = Attempt(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=-1 if ti.map_index is None else ti.map_index,
            try_number=ti.try_number,
            max_tries=getattr(ti, "max_tries", None),
            resumed=resumed,
        )
        own_key = self.campaign_key is not None
        manifest = Manifest(
            str(self.campaign_key) if own_key else f"{ti.dag_id}/{ti.run_id}/{ti.task_id}",
            self.output_slots,
            source,
        )
        manifest.past_counted = not (attempt.has_past or own_key)
        self._ledger = NoLedger()
        finished = False
        try:
            with self._accounted(ti, manifest, attempt) as account:
                for name, value in self._templated():
                    if name in self._given:
                        arguments.check_rendered(name, value)
                manifest.ids_limit = config.xcom_ids_limit()
                if not self.validate_only:
                    self._ledger = self._find_ledger(context, manifest.campaign_key, attempt)
                finished = self._run(ti, manifest, attempt)
            if finished:
                # Only now: a submission whose account was not published is not finished for a Clear.
                self._finish()
        finally:
            self._ledger.close()
        if self.validate_only:
            # An event would start DAGs that wait for the campaign.
            self.outlets = []
        tell_outlets(context, campaign=account, counts=account["counts"])
        return account

    def _finish(self) -> None:
        from airflow_provider_lingyang.ledger.base import LedgerError

        try:
            self._ledger.finish()
        except LedgerError as error:
            failure = self._broken_off(
                f"{error}. Nobody is left to be sent to, but the ledger does not know that the submission is finished: "
                "the next try notes it"
            )
            raise failure from None

    def _find_ledger(self, context: Context, campaign_key: str, attempt: Attempt) -> Ledger:
        """Return where tries leave what later ones need.

        :raises ArgumentError: the ledger that there is could not hold.
        :raises AirflowFailException: there is none, and one is needed.
        """
        from airflow_provider_lingyang.ledger.base import NoLedger
        from airflow_provider_lingyang.storage.query import sql_hook

        if self.ledger_conn_id is not None:
            from airflow_provider_lingyang.ledger.sql import SqlLedger

            log.info("The ledger is on connection %r, campaign_key %r", self.ledger_conn_id, campaign_key)
            return SqlLedger(sql_hook(self.ledger_conn_id), self.ledger_conn_id, campaign_key, attempt)
        if attempt.map_index >= 0:
            raise arguments.ArgumentError(
                "a mapped task needs a ledger that its instances share, so that no two of them send to one person: "
                "give it ledger_conn_id, or use one task"
            )
        store = context.get("task_state_store")
        if store is None:
            log.info(
                "No ledger: nothing is remembered between tries. Should this task fail, a retry or Clear sends "
                "nothing; set ledger_conn_id to have it go on instead"
            )
            if attempt.try_number > 1:
                raise AirflowFailException(
                    f"this is try {attempt.try_number}: without a ledger nobody knows what an earlier try sent, so "
                    "this one sends nothing. What failed and what was sent is in the log of try 1; for the rest, start "
                    "a new run, or set ledger_conn_id for the next time"
                )
            return NoLedger()
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        from airflow_provider_lingyang.ledger.task_state import TaskStateLedger

        for section, option in (("state_store", "clear_on_success"), ("workers", "state_store_backend")):
            value = conf.get(section, option, fallback="")
            if str(value).strip().lower() not in ("", "false"):
                raise arguments.ArgumentError(
                    f"[{section}] {option} is set, so the task's state is no safe place for the "
                    "ledger: give the task ledger_conn_id"
                )
        log.info("The ledger is in the task's own state")
        return TaskStateLedger(store, attempt, NEVER_EXPIRE)

    def _run(self, ti: Any, manifest: Manifest, attempt: Attempt) -> bool:
        """Read and send; return whether everybody is in a final state."""
        from airflow_provider_lingyang.audience.store import Spool
        from airflow_provider_lingyang.cancellation import Stop
        from airflow_provider_lingyang.delivery.campaign import Campaign
        from airflow_provider_lingyang.delivery.dispatcher import Policy
        from airflow_provider_lingyang.delivery.schedule import Gate, SendWindow, parse_until
        from airflow_provider_lingyang.hooks.lingyang import LingyangHook

        settle = arguments.parse_settle(self.settle)
        arguments.check_choice("on_clear", self.on_clear, _ON_CLEAR)
        if settle and not self._ledger.remembers and not self.validate_only:
            raise arguments.ArgumentError(
                "settle needs a ledger, which this task has not: set ledger_conn_id"
            )
        if self.on_clear == "resubmit" and attempt.map_index >= 0:
            raise arguments.ArgumentError(
                "on_clear='resubmit' is not for mapped tasks: their instances share one campaign"
            )
        knows_past = self._ledger.claim()
        stop = Stop(lambda: self._killed_at)
        hook = LingyangHook(self.lingyang_conn_id, sleep=stop.sleep)
        settings = hook.settings
        result_query = hook.result_query
        campaign = Campaign(
            self._spec(),
            manifest,
            self._ledger,
            host=settings.url,
            app_key=settings.app_key,
            key=settings.app_secret,
        )
        self._link(ti, hook, manifest)
        gate = Gate(
            max_requests_per_second=hook.max_requests_per_second,
            window=SendWindow.parse(self.send_window),
            until=parse_until(self.send_until),
        )
        policy = Policy(
            max_in_flight=self.max_in_flight,
            max_attempts=settings.max_attempts,
            lookup_settle=hook.lookup_settle,
            dedupes_by_code=hook.dedupes_by_code,
            on_in_doubt=self.on_in_doubt,
            on_rejected=self.on_rejected,
        )
        with Spool(config.spool_dir()) as spool, closing(hook):
            if not self.validate_only:
                campaign.open(resubmit=self.on_clear == "resubmit")
            campaign.read(self._rows, spool, stop, unknown_past=not knows_past)
            if self.validate_only:
                campaign.show_plan(spool, gate)
                return False
            self._hand_over_ids(spool, manifest)
            campaign.send(
                spool,
                new_wire=lambda: hook.new_client(max_attempts=1),
                look_up=hook.fetch_results if result_query else None,
                dated=bool(result_query and result_query.created_at_field),
                gate=gate,
                policy=policy,
                stop=stop,
                settle=settle,
                unknown_past=not knows_past,
            )
        return not manifest.doubts

    def _link(self, ti: Any, hook: LingyangHook, manifest: Manifest) -> None:
        from airflow_provider_lingyang.gateway.errors import LingyangConfigError

        assert manifest.plan_id is not None
        try:
            manifest.plan_url = hook.plan_url(manifest.plan_id)
        except LingyangConfigError as error:
            # Nobody should wait for a call because of a link.
            log.warning("no link to the plan: %s", error)
        leave_link(self, ti, manifest.plan_url)

    def _spec(self) -> CampaignSpec:
        from airflow_provider_lingyang.delivery.campaign import CampaignSpec, parse_book

        return CampaignSpec(
            plan_id=arguments.parse_number("plan_id", self.plan_id),
            channel=self.channel,
            use_book_info=parse_book(self.use_book_info),
            columns=self.columns,
            task_defaults=self.task_defaults,
            input_params_columns=arguments.plan_variables(self.input_params_columns),
            output_slots=self.output_slots,
            batch_size=self.batch_size,
            max_recipients=self.max_recipients,
            on_invalid=self.on_invalid,
            on_duplicate_contact=self.on_duplicate_contact,
        )

    @contextmanager
    def _rows(self, reader: AudienceReader) -> Iterator[Iterator[Recipient | list[Problem]]]:
        if self.sql is None:
            yield (reader.mapping(number, row) for number, row in enumerate(self.audience, 1))
            return
        from airflow_provider_lingyang.storage.query import stream_rows

        with stream_rows(str(self.sql_conn_id), self.sql, self.parameters) as (names, rows):
            read = reader.header(names)
            yield (read(number, values) for number, values in enumerate(rows, 1))

    def _hand_over_ids(self, spool: Spool, manifest: Manifest) -> None:
        """Find out, before anything is sent, how a result sensor will get at the ids; say so where it cannot."""
        if len(spool) <= manifest.ids_limit:
            return
        left_out = manifest.audience - len(spool)
        derived = spool.derived()
        if self.sql is not None and not derived and not (left_out and manifest.ledger is None):
            self._biz_ids_query = {
                "sql": self.sql,
                "conn_id": self.sql_conn_id,
                "parameters": self.parameters,
                "column": self.columns.get("biz_id", "biz_id"),
            }
        if self._biz_ids_query is not None or manifest.ledger is not None:
            return
        if self.sql is None:
            why = "the audience came without a query"
        elif derived:
            why = "its query selects no biz_id"
        else:
            why = f"its query gives {left_out} more, who are left out"
        log.warning(
            "%d recipients are more than XCom carries ([lingyang] xcom_ids_limit=%d), and %s: a LingyangResultSensor "
            "with campaign=… cannot find them. Give this task a ledger_conn_id, the sensor an ids_sql, or raise the "
            "limit",
            len(spool),
            manifest.ids_limit,
            why,
        )

    @contextmanager
    def _accounted(self, ti: Any, manifest: Manifest, attempt: Attempt) -> Iterator[dict[str, Any]]:
        """Publish the manifest however it ends, and say in one sentence what happened.

        Gives the manifest as plain JSON, filled at the end.
        """
        from airflow_provider_lingyang.audience.store import AudienceError
        from airflow_provider_lingyang.delivery.campaign import NobodyToSendTo
        from airflow_provider_lingyang.delivery.dispatcher import SubmissionStopped
        from airflow_provider_lingyang.delivery.schedule import Later
        from airflow_provider_lingyang.gateway.errors import LingyangError
        from airflow_provider_lingyang.ledger.base import LedgerError, LedgerRefusedError
        from airflow_provider_lingyang.storage.private_sqlite import SpoolError
        from airflow_provider_lingyang.storage.query import QueryError

        nothing = "nothing was sent" + (" by this try" if attempt.has_past else "")
        account: dict[str, Any] = {}
        failure: AirflowException | None = None
        later: Later | None = None
        try:
            yield account
        except NobodyToSendTo as error:
            if self.on_empty == "succeed":
                log.warning("%s", error)
            else:
                failure = (AirflowSkipException if self.on_empty == "skip" else AirflowFailException)(
                    str(error)
                )
        except (AudienceError, arguments.ArgumentError, LingyangError, LedgerRefusedError) as error:
            failure = AirflowFailException(f"{nothing}: {str(error).rstrip('.')}. {manifest.in_words()}")
        except (SpoolError, QueryError) as error:
            failure = self._broken_off(f"{nothing}: {str(error).rstrip('.')}. {manifest.in_words()}")
        except LedgerError as error:
            failure = self._broken_off(f"{error}, so nothing more was sent. {manifest.in_words()}")
        except SubmissionStopped as error:
            failure = self._broken_off(
                f"{error}. {manifest.in_words()}. {_way_out(manifest, self._ledger)}", final=error.final
            )
        except Later as error:
            touched = manifest.accepted + manifest.already_accepted + manifest.rejected + manifest.in_doubt
            if self._ledger.remembers or not touched:
                later = error
            else:
                failure = self._broken_off(
                    f"{error.why}. {manifest.in_words()}. {_way_out(manifest, self._ledger)}"
                )
        except AirflowException as error:
            failure = error
        except Exception as error:
            # Not chained, and without its text: what an unforeseen error repeats of the data is unknown.
            log.error(
                "unforeseen %s:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            failure = AirflowFailException(
                f"unforeseen {type(error).__name__}, see the traceback above. {manifest.in_words()}. "
                f"{_way_out(manifest, self._ledger)}"
            )
        except BaseException:
            self._publish(ti, manifest, account)
            raise
        if failure is None and later is None and manifest.doubts:
            log.warning("%s. %s", manifest.in_words(), _way_out(manifest, self._ledger))
        if problem := self._publish(ti, manifest, account, waits=failure is None and later is not None):
            failure = failure or self._broken_off(f"{problem}. {manifest.in_words()}")
        if failure is not None:
            # from None: the original may repeat data, and Airflow prints what an error is chained to.
            raise failure from None
        if later is not None:
            self._wait_until(later)

    def _broken_off(self, message: str, *, final: bool = False) -> AirflowException:
        """Return the failure of a try; final too where a later one could not go on."""
        final = final or not self._ledger.remembers
        return (AirflowFailException if final else AirflowException)(message)

    def _wait_until(self, later: Later) -> None:
        from airflow.providers.standard.triggers.temporal import DateTimeTrigger

        log.info("%s. Until then the task holds no worker", later)
        self.defer(trigger=DateTimeTrigger(moment=later.until.astimezone(UTC)), method_name="resume")

    def _publish(
        self, ti: Any, manifest: Manifest, account: dict[str, Any], *, waits: bool = False
    ) -> str | None:
        """Push the manifest and the ids, and log the manifest last; return what went wrong, without raising it."""
        account |= manifest.to_json()
        problem = None
        xcoms: dict[str, Any] = {"manifest": account, "biz_ids": manifest.biz_ids}
        if manifest.task_ids is not None:
            xcoms["task_ids"] = manifest.task_ids
        without = manifest.rejected_ids
        if manifest.biz_ids is None and self._biz_ids_query is not None and without is not None:
            xcoms["biz_ids_query"] = {**self._biz_ids_query, "without": without}
        if self._resumed:
            # What was pushed before the deferral is still there, and of other ids.
            xcoms = {"task_ids": None, "biz_ids_query": None} | xcoms
        if _null_is_refused():
            # What is not there is read as null, too, so nothing may be there before the end: it would stay.
            xcoms = {"manifest": account} if waits else {k: v for k, v in xcoms.items() if v is not None}
        for key, value in xcoms.items():
            try:
                ti.xcom_push(key=key, value=value)
            except Exception as error:
                # Without its text: a backend may quote what it was given.
                problem = (
                    f"XCom {key!r} could not be pushed ({type(error).__name__}); the manifest is in the log"
                )
                log.error("%s", problem)
        log.info("manifest %s", json.dumps(account, ensure_ascii=False))
        return problem


def _null_is_refused() -> bool:
    """Whether Airflow fails when it is to keep null as XCom, as 3.0 does."""
    from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

    return AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS


def _way_out(manifest: Manifest, ledger: Ledger) -> str:
    from airflow_provider_lingyang.ledger.base import LOST

    if not ledger.remembers:
        return _way_out_without_ledger(manifest)
    # What a lost ledger held is no request that anybody could find in the console.
    if codes := [doubt.task_unique_code for doubt in manifest.doubts if doubt.task_unique_code != LOST]:
        line = ", ".join(f'"{code}": "accepted"' for code in codes[:_SHOWN])
        more = f" and {len(codes) - _SHOWN} more, see in_doubt in the manifest" if len(codes) > _SHOWN else ""
        return (
            "Find out in the Lingyang console whether the requests in doubt were executed, then give this task "
            f"settle={{{line}}}{more} (or 'not_executed') and clear it; it goes on from there and repeats nobody. "
            "(settle is the operator's argument; in the examples it comes from the Airflow Variable lingyang_settle)"
        )
    return (
        "The ledger knows who was reached: correct the cause; the next try, or Clear, goes on with the others"
    )


def _way_out_without_ledger(manifest: Manifest) -> str:
    if manifest.in_doubt:
        return (
            "Find out in the Lingyang console whether the request in doubt was executed. Without a ledger this run "
            "sends nothing more: send the remaining people in a new run, from an audience without those already reached"
        )
    if manifest.accepted or manifest.rejected:
        return (
            "Without a ledger this run sends nothing more: correct the cause, then send the remaining people in a "
            "new run, from an audience without those already reached"
        )
    return "Nothing was executed: correct the cause, then trigger a new run"
