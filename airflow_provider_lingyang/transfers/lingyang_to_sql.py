"""Write the results of a campaign into a table."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_lingyang.assets.lingyang import add_to_outlet_events
from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.results.completion import FOREIGN, TABLE_BYTES, UNKNOWN, PollError
from airflow_provider_lingyang.results.kept_columns import KeptColumns
from airflow_provider_lingyang.results.recipient_store import PAGE
from airflow_provider_lingyang.results.table import (
    WRITTEN,
    ResultRow,
    ResultsTable,
    result_row,
)
from airflow_provider_lingyang.results.task_arguments import ResultsTask

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.lookup.query import TaskResult
    from airflow_provider_lingyang.results.lookup import PollOutcome
    from airflow_provider_lingyang.results.poller import ResultsRequest
    from airflow_provider_lingyang.results.recipient_store import RecipientRow

log = logging.getLogger(__name__)

_TABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*){0,2}")
_LOG_INTERVAL = 5.0
"""Seconds between two log lines about progress."""
_RETRY = "A retry goes on from there: a recipient that has a row keeps that one row"


def slot_columns(slots: Sequence[str] | Mapping[str, str], *, argument: str = "slots") -> dict[str, str]:
    """Return slot → column.

    :param slots: a mapping, or a list of slots whose columns have the same names.
    :param argument: the argument that holds them, for errors.
    :raises ArgumentError: a column's name is impossible, one of the table's own, or there twice.
    """
    columns = arguments.named_columns(argument, slots)
    before: dict[str, str] = {}
    for slot, column in columns.items():
        # Databases differ in whether names that differ by case only are one column.
        other = before.setdefault(column.lower(), slot)
        if column.lower() in arguments.TABLE_COLUMNS:
            problem = f"{slot!r} would be column {column!r}, which the table has for itself"
        elif (bad := arguments.bad_column_name(column)) is not None:
            problem = bad
        elif other != slot:
            problem = f"{other!r} and {slot!r} would both be column {column!r}"
        else:
            continue
        raise arguments.ArgumentError(f"{argument}: {problem}: name another column, slots={{{slot!r}: '…'}}")
    return columns


def check_table(table: object) -> None:
    """Raise unless the argument is a table's name: plain identifiers, separated by dots where there are several."""
    if not isinstance(table, str) or not _TABLE.fullmatch(table):
        raise arguments.ArgumentError(
            f"table must be a plain name such as 'answers' or 'dw.answers'; it is {str(table)[:40]!r}"
        )


class LingyangToSqlOperator(ResultsTask):
    """Write the results of a campaign into a table: one row per recipient, and the same row whenever it runs again.

    It polls once, and writes each recipient in its present state, finished or not; to wait first, put a
    ``LingyangResultSensor`` before it. For the arguments that say which recipients and where their results are, see
    :class:`~airflow_provider_lingyang.results.task_arguments.ResultsTask`: ``campaign``, ``biz_ids``, ``ids_sql``,
    ``ids_conn_id``, ``ids_parameters``, ``lingyang_conn_id``, ``result_query``, ``results_sql``, ``results_conn_id``,
    ``results_parameters``, ``required_slots``.

    The columns are ``biz_id``, ``task_id``, ``plan_id``, ``campaign_key``, ``status``, ``output_params`` (all slots, as
    JSON text), one per slot (text; NULL where it is not filled), one for each of the campaign's ``keep_columns`` (text,
    from its ledger) and ``fetched_at`` (UTC). The key is ``campaign_key``, ``plan_id``, ``biz_id``; where the ids do
    not come from a campaign the first two are ``''`` and 0. In an existing row only these columns are written, so
    columns of your own keep their values; they must allow NULL or have a default.

    A later result overwrites an earlier one, a slot that is blank now included. A result without any slot, or with
    slots that cannot be read, leaves the slots as they are and updates ``status``, ``task_id`` and ``fetched_at``; a
    result of another task replaces them.

    A row that the table cannot hold (a column of yours that is too short) does not keep the others out: they are
    written, and then the task fails and names its ``biz_id``.

    One transaction holds a thousand recipients at most. A recipient that the platform does not know, or knows with
    another task only, gets no row and is counted.

    :param table: the table's name, with its schema where need be: plain identifiers separated by dots. Templated.
    :param sql_conn_id: connection of the table's database, of any type whose hook is a ``DbApiHook``; tested with
        SQLite, PostgreSQL and MariaDB. In SQLite it must be another file than that of ``results_conn_id``: one that is
        being read cannot be written. Templated.
    :param slots: slots that get a column: a list, or slot → column, where a name is the table's own (such as
        ``status``) or cannot name a column. Default: ``required_slots``. Not templated.
    :param create_table: create the table where it does not exist; False by default. Not templated.
    :param kwargs: Airflow's own. The events of assets in ``outlets`` hold ``campaign_key``, ``plan_id``, ``counts`` and
        ``table``.

    :return: ``table``, and ``counts``: ``recipients``; ``rows`` (recipients with a row now), ``inserted`` and
        ``updated``; ``filled`` (every slot that has a column is filled; without such slots: any is), ``empty`` (known,
        and not all filled), ``not_reached``, ``unknown`` and ``foreign``, which add up to ``recipients``; and
        ``unreadable`` (of ``rows``: slots that are no JSON, or a message without slots) and ``cut`` (of ``rows``: a
        value was longer than 65,535 bytes of UTF-8, and its beginning stands there, followed by ``… [cut, N bytes]``).
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowSkipException: the campaign was only validated.
    :raises AirflowFailException: no recipients, a look-up that no retry can cure, or a table that does not exist or
        lacks columns, which is found before the first look-up.
    :raises AirflowException: a look-up or the database failed for the moment. What had worked is written; a retry goes
        on from there.
    """

    template_fields: Sequence[str] = (*ResultsTask.template_fields, "table", "sql_conn_id")

    argument_checks: ClassVar = {
        **ResultsTask.argument_checks,
        "slots": literals.optional(lambda _, value: slot_columns(value)),
        "create_table": arguments.check_bool,
    }

    def __init__(
        self,
        *,
        table: str,
        sql_conn_id: str,
        slots: Sequence[str] | Mapping[str, str] | None = None,
        create_table: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.table = table
        self.sql_conn_id = sql_conn_id
        self.slots = slots
        self.create_table = create_table
        literals.check_templated(
            self, {"table": lambda _, value: check_table(value), "sql_conn_id": arguments.check_conn_id}
        )
        literals.check_task(self, self.argument_checks)
        required = self.required_slots
        if slots is None and required is not None and not literals.holds_open(required):
            slot_columns(required, argument="required_slots")

    def execute(self, context: Context) -> dict[str, Any]:
        """Poll all recipients once, and write each page of results as it comes."""
        self._push_plan_link(context)
        try:
            transfer = self._transfer(self._results_request(context))
        except arguments.ArgumentError as error:
            raise AirflowFailException(str(error)) from None
        with closing(transfer):
            counts = transfer.run(create=self.create_table)
        add_to_outlet_events(context, campaign=self.campaign, counts=counts, table=self.table)
        return {"table": self.table, "counts": counts}

    def _transfer(self, request: ResultsRequest) -> _Transfer:
        from airflow_provider_lingyang.storage.query import sql_hook

        check_table(self.table)
        if self.slots is not None:
            columns = slot_columns(self.slots)
        else:
            columns = slot_columns(request.required_slots, argument="the campaign's output_slots")
        campaign = request.source.get("campaign") or {"campaign_key": "", "plan_id": 0}
        key, plan_id = campaign["campaign_key"], campaign["plan_id"]
        if not isinstance(key, str) or not isinstance(plan_id, int):
            raise arguments.ArgumentError("the campaign's manifest holds no campaign_key and plan_id")
        kept = KeptColumns(campaign.get("ledger"))
        for slot, column in columns.items():
            if column.lower() in map(str.lower, kept.names):
                raise arguments.ArgumentError(
                    f"slot {slot!r} would be column {column!r}, which the campaign has kept of its audience: name "
                    f"another column, slots={{{slot!r}: '…'}}"
                )
        hook = sql_hook(self.sql_conn_id)
        table = ResultsTable(hook, self.sql_conn_id, self.table, columns, key, plan_id, kept=kept.names)
        return _Transfer(request, table, list(columns), kept)


class _Transfer:
    """Writes one poll, page by page, into the table."""

    def __init__(
        self, request: ResultsRequest, table: ResultsTable, slots: Sequence[str], kept: KeptColumns
    ) -> None:
        from airflow_provider_lingyang.results.poller import ResultsPoller

        self.table = table
        self.slots = slots
        self.kept = kept
        self.poller = ResultsPoller(request, count_values=False, on_results=self._write)
        self.counted: Counter[str] = Counter()
        self.last_line = time.monotonic()

    def run(self, *, create: bool) -> dict[str, int]:
        try:
            self.table.prepare(create=create)
        except PollError as error:
            raise (AirflowException if error.retryable else AirflowFailException)(str(error)) from None
        try:
            outcome = self.poller.poll_sync(first=True)
        except PollError as error:
            message = f"{error}. {self._so_far()}"
            if not error.retryable:
                raise AirflowFailException(message) from None
            raise AirflowException(f"{message}. {_RETRY}") from None
        return self._final_counts(outcome)

    def close(self) -> None:
        """Release the database connection and the private file."""
        self.table.close()
        self.kept.close()
        self.poller.close()

    def _write(self, recipients: Sequence[RecipientRow], results: Mapping[str, TaskResult]) -> None:
        criteria = self.poller.store.criteria
        # One transaction each.
        for start in range(0, len(recipients), PAGE):
            page = [
                result_row(recipient, results.get(recipient[1]), criteria, self.slots)
                for recipient in recipients[start : start + PAGE]
            ]
            rows = [row for row in page if isinstance(row, ResultRow)]
            if rows and (names := self.kept.names):
                kept = self.kept.read([row.biz_id for row in rows])
                rows = [row._replace(kept=kept.get(row.biz_id, [None] * len(names))) for row in rows]
            if rows:
                self.counted["inserted"] += self.table.write(rows)
            for row in page:
                if isinstance(row, str):
                    self.counted[row] += 1
                elif row.biz_id not in self.table.refused:
                    self.counted[row.kind] += 1
                    self.counted["unreadable"] += row.output_params is None
                    self.counted["cut"] += row.is_cut
            now = time.monotonic()
            if now - self.last_line >= _LOG_INTERVAL:
                self.last_line = now
                log.info("table %s: %s", self.table.name, self._so_far())

    def _counts(self) -> dict[str, int]:
        """Return the number of recipients of each kind, and of rows: all, inserted and updated."""
        rows, inserted = sum(self.counted[kind] for kind in WRITTEN), self.counted["inserted"]
        others = {name: self.counted[name] for name in (*WRITTEN, UNKNOWN, FOREIGN, "unreadable", "cut")}
        return {"rows": rows, "inserted": inserted, "updated": rows - inserted, **others}

    def _final_counts(self, outcome: PollOutcome) -> dict[str, int]:
        """Return the counts of a transfer that is complete.

        :raises AirflowException: it is not.
        """
        if outcome.failed:
            raise AirflowException(
                f"{outcome.failed} look-up(s) failed, the last: {outcome.reason}. {self._so_far()}. {_RETRY}"
            ) from None
        if refused := self.table.refused:
            shown = ", ".join(repr(biz_id[:64]) for biz_id in islice(refused, 20))
            raise AirflowException(
                f"{self.table.refusal}: the table cannot hold {len(refused)} row(s), of biz_id {shown}"
                f"{', …' if len(refused) > 20 else ''}; all others are written. {self._so_far()}. Widen the columns "
                f"(a slot's value has {TABLE_BYTES} bytes at most, output_params all slots), then clear this task"
            ) from None
        recipients, counts = len(self.poller.store), self._counts()
        if counts["cut"]:
            log.warning(
                "table %s: %d row(s) have a value that was longer than %d bytes: it ends with its length",
                self.table.name,
                counts["cut"],
                TABLE_BYTES,
            )
        known = counts["rows"] + counts[FOREIGN]
        if self.poller.request.results is not None:
            # A recipient without a row in the table of results is never passed to _write.
            counts[UNKNOWN] = recipients - known
        if known + counts[UNKNOWN] != recipients:
            raise AirflowException(
                f"not all recipients were looked up, and nothing failed. {self._so_far()}. {_RETRY}"
            )
        final = {"recipients": recipients, **counts}
        log.info(
            "table %s: %s", self.table.name, ", ".join(f"{name} {count}" for name, count in final.items())
        )
        return final

    def _so_far(self) -> str:
        """Describe the progress, for a message."""
        if not self.poller.is_open:
            return "No recipient was looked up yet"
        recipients, counts = len(self.poller.store), self._counts()
        rows = counts["rows"]
        looked_up = rows + counts[FOREIGN] + counts[UNKNOWN]
        text = f"Of {recipients} recipients {rows} were written"
        if without_row := looked_up - rows:
            text += f", {without_row} were looked up and have no row"
        refused = len(self.table.refused)
        if refused:
            text += f", {refused} were refused by the table"
        return f"{text}, {recipients - looked_up - refused} were not looked up"
