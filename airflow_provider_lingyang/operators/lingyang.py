"""Submit a campaign to Lingyang customer-service cloud."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
    XComArg,
)

from airflow_provider_lingyang import config
from airflow_provider_lingyang.campaign import arguments

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.campaign.audience import AudienceReader, Problem, Recipient
    from airflow_provider_lingyang.campaign.campaign import CampaignSpec
    from airflow_provider_lingyang.campaign.manifest import Manifest
    from airflow_provider_lingyang.campaign.spool import Spool

log = logging.getLogger(__name__)


class Rows:
    """An audience that was handed over, shown in the UI and in logs as what it is and never as what it holds."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __repr__(self) -> str:
        return f"<audience: {type(self.rows).__name__}, not shown>"

    def __iter__(self) -> Iterator[Any]:
        if isinstance(self.rows, (str, bytes, Mapping)) or not isinstance(self.rows, Iterable):
            raise arguments.ArgumentError(
                f"audience must be a list of rows (mappings of names to values); it is a {type(self.rows).__name__}"
            )
        return iter(self.rows)


class LingyangSubmitBatchOperator(BaseOperator):
    """Phone, text or mail the people of an audience, through a plan of Lingyang customer-service cloud.

    The audience is read once, validated as a whole, and only then sent, in the order of ``batch_num``.
    Without a ledger every failure after the first request left is final, and a later try sends nothing.

    API page: ``alibaba.lingyang.utouch.submit.initiative.batch.task``.

    *What*

    :param plan_id: the plan, as its number or its digits. Templated.
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
    :param max_recipients: more valid rows than this fail before anything is sent. Default None: no limit.
    :param validate_only: validate, count and show the plan; send nothing. Default False.

    *What if*

    :param on_invalid: ``fail`` (default) or ``skip`` the invalid rows and send the others.
    :param on_duplicate_contact: one contact in several rows: ``warn`` (default), ``fail``, or
        ``keep_first`` and leave the later rows out.
    :param on_empty: no rows: ``skip`` (default), ``fail`` or ``succeed``.

    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.

    :return: the manifest, plain JSON of a few KB: ``campaign_key``, ``plan_id``, ``output_slots``,
        ``counts``, ``batches``, ``reasons``, ``duration_s`` … It is also XCom ``manifest``, pushed before
        every raise too. XCom ``biz_ids`` holds the accepted ids, null when more than
        ``[lingyang] xcom_ids_limit``.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowFailException: the audience or a setting is wrong, or sending broke off; no retry helps.
    :raises AirflowSkipException: nobody to send to.
    """

    template_fields: Sequence[str] = (
        "plan_id",
        "use_book_info",
        "audience",
        "sql",
        "sql_conn_id",
        "parameters",
        "task_defaults",
        "lingyang_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"sql": "sql", "use_book_info": "json", "task_defaults": "json"}  # noqa: RUF012
    ui_color = "#ffe8d6"

    def __init__(
        self,
        *,
        # what
        plan_id: int | str,
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
        max_recipients: int | None = None,
        validate_only: bool = False,
        # what if
        on_invalid: str = "fail",
        on_duplicate_contact: str = "warn",
        on_empty: str = "skip",
        lingyang_conn_id: str = "lingyang_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan_id = plan_id
        self.channel = channel
        self.use_book_info = use_book_info
        self.audience = audience
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.columns = {} if columns is None else columns
        self.task_defaults = {} if task_defaults is None else task_defaults
        self.input_params_columns = [] if input_params_columns is None else input_params_columns
        self.output_slots = [] if output_slots is None else output_slots
        self.batch_size = batch_size
        self.max_recipients = max_recipients
        self.validate_only = validate_only
        self.on_invalid = on_invalid
        self.on_duplicate_contact = on_duplicate_contact
        self.on_empty = on_empty
        self.lingyang_conn_id = lingyang_conn_id
        self._killed = False
        self._check_arguments()

    @property
    def audience(self) -> Any:
        """The rows that were handed over; a list is wrapped, so that no rendering shows or templates it."""
        return self._audience

    @audience.setter
    def audience(self, value: Any) -> None:
        self._audience = value if value is None or isinstance(value, (XComArg, Rows)) else Rows(value)

    def _check_arguments(self) -> None:
        if (self.sql is None) == (self.audience is None):
            raise arguments.ArgumentError(
                "give one source of the audience: either sql (with sql_conn_id) or audience"
            )
        if (self.sql is None) != (self.sql_conn_id is None):
            raise arguments.ArgumentError("sql and sql_conn_id belong together")
        if self.parameters is not None and self.sql is None:
            raise arguments.ArgumentError("parameters belong to sql")
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
        if self.max_recipients is not None:
            arguments.check_positive("max_recipients", self.max_recipients)
        arguments.check_bool("validate_only", self.validate_only)
        arguments.check_choice("on_invalid", self.on_invalid, ("fail", "skip"))
        arguments.check_choice(
            "on_duplicate_contact", self.on_duplicate_contact, ("warn", "fail", "keep_first")
        )
        arguments.check_choice("on_empty", self.on_empty, ("skip", "fail", "succeed"))

    def execute(self, context: Context) -> dict[str, Any]:
        """Read, validate, send, account."""
        from airflow_provider_lingyang.campaign.manifest import Manifest

        ti = context["ti"]
        source = {"dag_id": ti.dag_id, "run_id": ti.run_id, "task_id": ti.task_id, "map_index": ti.map_index}
        key = f"{ti.dag_id}/{ti.run_id}/{ti.task_id}"
        manifest = Manifest(key, self.output_slots, source)
        with self._accounted(ti, manifest) as account:
            manifest.ids_limit = config.xcom_ids_limit()
            log.info(
                "No ledger: nothing is remembered between tries. Should this task fail, a retry or Clear sends "
                "nothing: correct the cause and start a new run"
            )
            if ti.map_index is not None and ti.map_index >= 0 and not self.validate_only:
                raise AirflowFailException(
                    "nothing was sent: a mapped task needs a ledger that its instances share, so that no two of them "
                    "send to one person; this version has none. Use one task, or one task for each plan"
                )
            if ti.try_number > 1 and not self.validate_only:
                raise AirflowFailException(
                    f"this is try {ti.try_number}: without a ledger nobody knows what an earlier try sent, so this one "
                    "sends nothing. What failed and what was sent is in the log of try 1; for the rest, start a new run"
                )
            self._run(ti, manifest)
        return account

    def on_kill(self) -> None:
        """Let no further request leave. Runs in a signal handler: sets a flag and nothing else."""
        self._killed = True

    def _run(self, ti: Any, manifest: Manifest) -> None:
        from airflow_provider_lingyang.campaign.campaign import Campaign
        from airflow_provider_lingyang.campaign.spool import Spool
        from airflow_provider_lingyang.campaign.submission import Pace, Stop
        from airflow_provider_lingyang.hooks.lingyang import LingyangHook

        stop = Stop(lambda: self._killed)
        hook = LingyangHook(self.lingyang_conn_id, sleep=stop.sleep_before_attempt)
        settings = hook.settings
        pace = Pace(hook.max_requests_per_second, sleep=stop.sleep)
        campaign = Campaign(
            self._spec(), manifest, host=settings.url, app_key=settings.app_key, key=settings.app_secret
        )
        with Spool(config.spool_dir()) as spool, closing(hook):
            campaign.read(self._rows, spool, stop.told)
            if self.validate_only:
                campaign.show_plan(spool)
                return
            self._hand_over_ids(ti, spool, manifest)
            campaign.send(spool, hook.get_conn().submit_struct, pace, stop.told)

    def _spec(self) -> CampaignSpec:
        from airflow_provider_lingyang.campaign.campaign import CampaignSpec, parse_book, parse_plan_id

        return CampaignSpec(
            plan_id=parse_plan_id(self.plan_id),
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
        from airflow_provider_lingyang.hooks.rows import stream_rows

        with stream_rows(str(self.sql_conn_id), self.sql, self.parameters) as (names, rows):
            read = reader.header(names)
            yield (read(number, values) for number, values in enumerate(rows, 1))

    def _hand_over_ids(self, ti: Any, spool: Spool, manifest: Manifest) -> None:
        """Make sure, before anything is sent, that a result sensor can get at the ids."""
        if len(spool) <= manifest.ids_limit:
            return
        if self.sql is not None and not spool.derived():
            query = {
                "sql": self.sql,
                "conn_id": self.sql_conn_id,
                "parameters": self.parameters,
                "column": self.columns.get("biz_id", "biz_id"),
            }
            ti.xcom_push(key="biz_ids_query", value=query)
            return
        log.warning(
            "%d recipients are more than [lingyang] xcom_ids_limit=%d, and no query of this task selects their biz_id: "
            "a LingyangResultSensor needs ids_sql (or biz_ids) of its own, or a higher limit",
            len(spool),
            manifest.ids_limit,
        )

    @contextmanager
    def _accounted(self, ti: Any, manifest: Manifest) -> Iterator[dict[str, Any]]:
        """Publish the manifest however it ends, and say in one sentence what happened.

        Gives the manifest as plain JSON, filled at the end.
        """
        from airflow_provider_lingyang.campaign.campaign import NobodyToSendTo
        from airflow_provider_lingyang.campaign.spool import AudienceError, SpoolError
        from airflow_provider_lingyang.campaign.submission import SubmissionStopped
        from airflow_provider_lingyang.gateway.errors import LingyangError
        from airflow_provider_lingyang.hooks.rows import QueryError

        account: dict[str, Any] = {}
        failure: AirflowException | None = None
        try:
            yield account
        except NobodyToSendTo as error:
            if self.on_empty == "succeed":
                log.warning("%s", error)
            else:
                failure = (AirflowSkipException if self.on_empty == "skip" else AirflowFailException)(
                    str(error)
                )
        except (AudienceError, SpoolError, QueryError, arguments.ArgumentError, LingyangError) as error:
            # Final, although a database may come back: a later try would send nothing either.
            failure = AirflowFailException(f"nothing was sent: {error}. {manifest.in_words()}")
        except SubmissionStopped as error:
            failure = AirflowFailException(f"{error}. {manifest.in_words()}. {_way_out(manifest)}")
        except AirflowException as error:
            failure = error
        except Exception as error:
            # Not chained, and without its text: what an unforeseen error repeats of the data is unknown.
            log.error(
                "unforeseen %s:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
            )
            failure = AirflowFailException(
                f"unforeseen {type(error).__name__}, see the traceback above. {manifest.in_words()}. "
                f"{_way_out(manifest)}"
            )
        except BaseException:
            self._publish(ti, manifest, account)
            raise
        if problem := self._publish(ti, manifest, account):
            failure = failure or AirflowFailException(f"{problem}. {manifest.in_words()}")
        if failure is not None:
            # from None: the original may repeat data, and Airflow prints what an error is chained to.
            raise failure from None

    def _publish(self, ti: Any, manifest: Manifest, account: dict[str, Any]) -> str | None:
        """Push the manifest and the ids, and log the manifest last; return what went wrong, without raising it."""
        account |= manifest.to_json()
        problem = None
        for key, value in (("manifest", account), ("biz_ids", manifest.biz_ids)):
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


def _way_out(manifest: Manifest) -> str:
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
