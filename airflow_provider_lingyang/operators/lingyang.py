"""Submit a campaign to Lingyang customer-service cloud."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.config.literals import (
    CHECKS,
    TEMPLATED,
    Channel,
    OnClear,
    OnDuplicateContact,
    OnEmpty,
    OnInDoubt,
    OnInvalid,
    OnRejected,
    SettledAs,
    check_task_defaults,
)
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.audience.parser import Problems, Recipient, RowParser


class Hidden:
    """An argument that may hold personal data. The UI and logs show its type, never its value."""

    name = ""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<{self.name}{type(self.value).__name__}, not shown>"


class Rows(Hidden):
    """Rows given as an argument."""

    name = "audience: "

    def __iter__(self) -> Iterator[Any]:
        arguments.check_no_frame("audience", self.value)
        if not arguments.is_listing(self.value):
            raise arguments.ArgumentError(
                f"audience must be a list of rows (mappings of names to values); it is a {type(self.value).__name__}"
            )
        return iter(self.value)


class LingyangSubmitBatchOperator(BaseOperator):
    """Phone, text or mail the recipients of an audience, through a plan of Lingyang customer-service cloud.

    The audience is read once, validated as a whole, and only then sent, in the order of ``batch_num``. A ledger
    keeps between tries what became of each recipient, so that a retry, a Clear or a resume goes on where the last
    try ended and contacts no recipient twice: on Airflow 3.3 and later the task's own state, elsewhere a database
    (``ledger_conn_id``). Without either every failure is final, and a later try sends nothing.

    API page: ``alibaba.lingyang.utouch.submit.initiative.batch.task``.

    *What*

    :param plan_id: the plan, as its number or its digits. Templated.
    :param campaign_key: within a campaign (this key and the plan) no recipient is sent to twice. Default: dag_id /
        run_id / task_id. An own one outlives the DAG run and needs ``ledger_conn_id``. Templated.
    :param channel: what the plan does: ``call`` or ``sms`` (each row needs a phone number) or ``email``
        (an email address). Default None: each row needs a phone number, an email or an ``outer_user_id``.
    :param use_book_info: the account book that pays: ``use_platform``, ``book_code``, ``book_owner_id``.
        Default None: not sent. Templated.

    *Recipients*: one source

    :param audience: rows as a list of mappings, an XComArg of one (``other_task.output``), or a lazy
        sequence. What came by XCom was stored by the upstream task; prefer ``sql`` for personal data.
        Never rendered: text in it is data, not a template.
    :param sql: a SELECT, or the path of a ``.sql`` file. Templated.
    :param sql_conn_id: connection of the database that ``sql`` runs on, any ``DbApiHook``. Templated.
    :param parameters: bound to ``sql`` as the database's driver wants them. Templated.
    :param columns: API field → column of the rows, where names differ (case never matters). Every column
        must be of use: as an API field, here, in ``input_params_columns`` or in ``keep_columns``.
    :param task_defaults: API field → value, for rows that lack it (NULL or blank). Values templated.
    :param input_params_columns: columns folded into the JSON of ``input_params``: a list, or plan
        variable → column. A NULL in one makes the row invalid.
    :param output_slots: slots of ``output_params`` that the plan fills, each sent as ``""``.
    :param keep_columns: up to 20 columns of the rows, such as ids and tiers, that are kept with each recipient in the
        ledger's tables (``ledger_conn_id``): its view ``lingyang_recipients`` shows them, as JSON, and
        ``LingyangToSqlOperator`` gives each a column. Text of up to 200 characters, numbers, truth values, dates. No
        column that is sent as a contact, ``user_name`` or a plan variable. A value that holds a contact or an identity
        number makes its row invalid, as far as :func:`~airflow_provider_lingyang.gateway.contacts.holds_contact`
        finds it.
        Default None: none.

    *How*

    :param batch_size: tasks in one request at most, 100 by default (the platform documents no limit).
    :param max_in_flight: requests of one ``batch_num`` under way at a time, 1 by default, 100 at most.
    :param shards: how many task instances send a part of this campaign each, such as those of a mapped task: a
        ``batch_num`` then waits until all of them have sent the earlier ones, as a deferred task where that takes
        long. Needs ``ledger_conn_id``. Default None: each task instance keeps the order of its own part.
    :param send_window: hours of the day in which requests leave, at Asia/Shanghai's time, such as ``"09:00-20:30"``.
        Outside them the task waits as a deferred one. Default None: any hour.
    :param send_until: nothing leaves after this moment: a datetime, or text of one (without a time zone:
        Asia/Shanghai); the task then fails, with the rest not sent. Default None: no end. Templated.
    :param max_lateness: a timedelta. A run that comes later than this after its time is skipped, and nothing is read:
        unpausing a DAG starts the latest missed run at once, ``catchup=False`` drops only those before it. The time
        of a scheduled or backfilled run is its ``data_interval_end``, of any other its ``run_after`` (Airflow 2: the
        logical date). A task that has begun to send goes on, however late. Default None: no run is too late.
    :param max_recipients: more valid rows than this fail before anything is sent. Default None: no limit.
    :param validate_only: validate, count and show the plan, as a table in the log and as ``plan`` in the manifest; send
        nothing. Default False.

    *What if*

    :param on_invalid: ``fail`` (default) or ``skip`` the invalid rows and send the others.
    :param on_duplicate_contact: one contact in several rows: ``warn`` (default), ``fail``, or
        ``keep_first`` and leave the later rows out.
    :param on_rejected: some were rejected: ``continue`` (default), or ``fail`` after their ``batch_num``.
    :param on_in_doubt: it is unknown whether a request was executed: ``stop`` (default), or ``continue`` without it.
    :param on_empty: no rows: ``skip`` (default), ``fail`` or ``succeed``.
    :param on_clear: a finished submission is cleared: ``reuse`` (default) what it did and send to new rows only, or
        ``resubmit`` all, which is refused where others with this ``campaign_key`` have sent too. An unfinished
        one always goes on. Templated.
    :param settle: what you found out about requests in doubt: task_unique_code → ``accepted`` or ``not_executed``, as
        a dict or its JSON. A word is about one intent to send: ``CODE`` means the first request with that code,
        ``CODE#2`` the second; the message and the manifest (``in_doubt``) name them so. It is applied once; where a
        look-up is possible, a recipient found counts as accepted although ``not_executed`` was said. For a lost ledger
        the try that refuses, say 2, names ``*#2 CAMPAIGN_KEY``, which counts in try 3 only. A word about anything else
        changes nothing, and a warning names it. Default None. Templated.
    :param ledger_conn_id: a database (any ``DbApiHook``) that keeps the ledger, in tables created on first use.
        Default None: the task's own state. Templated.

    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param kwargs: Airflow's own. The events of assets in ``outlets`` hold ``campaign_key``, ``plan_id`` and ``counts``;
        ``validate_only`` makes none.

    :return: the manifest, plain JSON of a few KB: ``campaign_key``, ``plan_id``, ``output_slots``,
        ``counts``, ``batches``, ``reasons``, ``duration_s`` … It is also XCom ``manifest``, pushed before
        every raise too. XCom ``biz_ids`` holds the accepted ids, null when more than
        ``[lingyang] xcom_ids_limit``; XCom ``task_ids`` the platform's tasks of these, where known.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowFailException: the audience or a setting is wrong, or a person must act first; no retry helps.
    :raises AirflowException: sending broke off, and a retry goes on from there.
    :raises TaskDeferred: ``send_window`` is closed, or the gateway throttles for more than a minute.
    :raises AirflowSkipException: the audience is empty, or the run is later than ``max_lateness``.
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
    pushed_plan_url = ""
    ui_color = "#ffe8d6"

    def __init__(
        self,
        *,
        # what
        plan_id: int | str,
        campaign_key: str | None = None,
        channel: Channel | None = None,
        use_book_info: Mapping[str, Any] | None = None,
        # recipients
        # Any: the output of another task stands for the rows in the DAG file.
        audience: Any = None,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        columns: Mapping[str, str] | None = None,
        task_defaults: Mapping[str, Any] | None = None,
        input_params_columns: Sequence[str] | Mapping[str, str] | None = None,
        output_slots: Sequence[str] | None = None,
        keep_columns: Sequence[str] | None = None,
        # how
        batch_size: int = 100,
        max_in_flight: int = 1,
        shards: int | None = None,
        send_window: str | None = None,
        send_until: datetime | str | None = None,
        max_lateness: timedelta | None = None,
        max_recipients: int | None = None,
        validate_only: bool = False,
        # what if
        on_invalid: OnInvalid = "fail",
        on_duplicate_contact: OnDuplicateContact = "warn",
        on_rejected: OnRejected = "continue",
        on_in_doubt: OnInDoubt = "stop",
        on_empty: OnEmpty = "skip",
        # Templated, so any text may stand there in the DAG file.
        on_clear: OnClear | str = "reuse",
        settle: Mapping[str, SettledAs | str] | str | None = None,
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
        self.keep_columns = [] if keep_columns is None else keep_columns
        self.batch_size = batch_size
        self.max_in_flight = max_in_flight
        self.shards = shards
        self.send_window = send_window
        self.send_until = send_until
        self.max_lateness = max_lateness
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
        if (self.sql is None) == (self.audience is None):
            raise arguments.ArgumentError(
                "give one source of the audience: either sql (with sql_conn_id) or audience"
            )
        literals.check_query(self, "sql", "sql_conn_id", "parameters")
        if self.campaign_key is not None and self.ledger_conn_id is None:
            raise arguments.ArgumentError(
                "an own campaign_key needs ledger_conn_id: a task's own state ends with its DAG run"
            )
        literals.check_task(self, CHECKS)
        if self.shards is not None and self.ledger_conn_id is None:
            raise arguments.ArgumentError(
                "shards needs ledger_conn_id: there they see how far the others are"
            )
        if self.keep_columns and self.ledger_conn_id is None:
            raise arguments.ArgumentError("keep_columns needs ledger_conn_id: the ledger's tables keep them")
        if not literals.holds_open([self.keep_columns, self.columns, self.input_params_columns]):
            variables = arguments.named_columns("input_params_columns", self.input_params_columns)
            arguments.check_kept_is_not_sent_as("keep_columns", self.keep_columns, self.columns, variables)
        literals.check_templated(self, TEMPLATED)
        check_task_defaults("task_defaults", self.task_defaults)
        # Not those that a subclass adds, which it may set later. A blank settle settles nothing; on_clear has choices.
        may_be_blank = ("settle", "on_clear")
        self.rendering = literals.Rendering(
            self,
            [name for name in LingyangSubmitBatchOperator.template_fields if name not in may_be_blank],
            parameters=["parameters"],
            mappings=["use_book_info", "task_defaults"],
        )

    @property
    def audience(self) -> Any:
        """The rows given as an argument; a list is wrapped, so that no rendering shows or templates it."""
        return self._audience

    @audience.setter
    def audience(self, value: Any) -> None:
        # Another task's output, what a task group is mapped over, a param of the DAG: Airflow resolves them first.
        open_yet = hasattr(value, "iter_references")
        self._audience = value if value is None or open_yet or isinstance(value, Rows) else Rows(value)

    def execute(self, context: Context) -> dict[str, Any]:
        """Read, validate, decide, send, account."""
        return self._submit(context, resumed=False)

    def resume(self, context: Context, event: Any = None) -> dict[str, Any]:
        """Go on after the task was deferred until it may send again."""
        return self._submit(context, resumed=True)

    def on_kill(self) -> None:
        """On SIGTERM: let no further request leave. Runs in a signal handler, so it notes the time and nothing else."""
        if self._killed_at is None:
            self._killed_at = time.monotonic()

    def _submit(self, context: Context, *, resumed: bool) -> dict[str, Any]:
        from airflow_provider_lingyang.cancellation import Cancellation
        from airflow_provider_lingyang.operators.submission import SubmissionTry

        cancellation = Cancellation(lambda: self._killed_at)
        return SubmissionTry(self, context, cancellation, resumed=resumed).run()

    @contextmanager
    def _read_rows(self, context: Context, reader: RowParser) -> Iterator[Iterator[Recipient | Problems]]:
        """Open the source of the audience, and give its rows as the reader parses them."""
        if self.sql is None:
            yield (reader.parse_mapping(number, row) for number, row in enumerate(self.audience, 1))
            return
        from airflow_provider_lingyang.storage.query import stream_rows

        with stream_rows(str(self.sql_conn_id), self.sql, self.parameters) as (names, rows):
            read = reader.for_columns(names)
            yield (read(number, values) for number, values in enumerate(rows, 1))
