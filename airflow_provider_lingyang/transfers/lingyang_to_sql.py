"""Write what the people of a campaign answered into a table."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    BaseOperator,
)

from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink
from airflow_provider_lingyang.results import task_arguments as wanted
from airflow_provider_lingyang.results.completion import FOREIGN, UNKNOWN
from airflow_provider_lingyang.results.rows import (
    AnswerRow,
    Tally,
    check_table,
    row_of,
    slot_columns,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.lookup.query import TaskResult
    from airflow_provider_lingyang.results.lookup import Look
    from airflow_provider_lingyang.results.poller import Wait, Wanted
    from airflow_provider_lingyang.results.recipient_store import Person
    from airflow_provider_lingyang.results.table import AnswerTable

log = logging.getLogger(__name__)

_PAGE = 1000
"""People of one transaction, at most."""
_BETWEEN_LINES = 5.0
"""Seconds between two lines of the log."""
_RETRY = "A retry goes on from there: who has a row keeps that one row"


class LingyangToSqlOperator(BaseOperator):
    """Write what the people of a campaign answered into a table: one row each, and the same row whenever it runs again.

    It looks once at everybody and writes each as he is now, finished or not; to wait first, put a
    ``LingyangResultSensor`` before it. Whose answers, and where they are, is said as for that sensor.

    The columns are ``biz_id``, ``task_id``, ``plan_id``, ``campaign_key``, ``status``, ``output_params`` (all slots, as
    JSON text), one per slot (text; NULL where it is not filled) and ``fetched_at`` (UTC). The key is ``campaign_key``,
    ``plan_id``, ``biz_id``; where the ids do not come from a campaign the first two are ``''`` and 0. Of a row that is
    there only these columns are written, so columns of your own keep what they hold; they must allow NULL or have a
    default.

    A later answer overwrites an earlier one, a slot that is blank now included. An answer without any slot, or with
    slots that are no JSON, says nothing about them: it brings ``status``, ``task_id`` and ``fetched_at`` up to date
    and leaves the slots as they are, unless they are another task's.

    A thousand people at most are one transaction. People whom the platform does not know, and those of whom it knows
    another task only, get no row and are counted.

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
        ``task_id`` from your own table, or the path of a ``.sql`` file. Rows of other people are left alone. Templated.
    :param results_conn_id: connection of the database that ``results_sql`` runs on. Templated. (In SQLite another file
        than the table's: one that is read by thousands cannot be written meanwhile.)
    :param results_parameters: bound to ``results_sql``. Templated.
    :param required_slots: a list of slots that must be filled where there is no status. Default: the manifest's
        ``output_slots``. Not templated.

    *Where to*

    :param table: the table's name, with its schema where need be: plain identifiers separated by dots. Templated.
    :param sql_conn_id: connection of the table's database, of any type whose hook is a ``DbApiHook``; tested with
        SQLite, PostgreSQL and MariaDB. Templated.
    :param slots: slots that get a column: a list, or slot → column, where a name is the table's own (such as
        ``status``) or cannot name a column. Default: ``required_slots``. Not templated.
    :param create_table: make the table where it is not there; False by default. Not templated.

    *How*

    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param kwargs: Airflow's own. The events of assets in ``outlets`` tell ``campaign_key``, ``plan_id``, ``counts`` and
        ``table``.

    :return: ``table``, and ``counts``: ``recipients``; ``rows`` (people who have one now), ``inserted`` and
        ``updated``; ``filled`` (every slot that has a column is filled; without such slots: any is), ``empty`` (known,
        and not all filled), ``not_reached``, ``unknown`` and ``foreign``, which add up to ``recipients``; and
        ``unreadable`` (of ``rows``: slots that are no JSON).
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowSkipException: the campaign was only validated.
    :raises AirflowFailException: nobody to look up, a look-up that no repetition can cure, or a table that is not there
        or lacks columns, which is found out before the first look-up.
    :raises AirflowException: a look-up or the database failed for the moment. What had worked is written; a retry goes
        on from there.
    """

    template_fields: Sequence[str] = (*wanted.TEMPLATE_FIELDS, "table", "sql_conn_id")
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
        required_slots: Sequence[str] | None = None,
        # where to
        table: str,
        sql_conn_id: str,
        slots: Sequence[str] | Mapping[str, str] | None = None,
        create_table: bool = False,
        # how
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
        self.table = table
        self.sql_conn_id = sql_conn_id
        self.slots = slots
        self.create_table = create_table
        self.lingyang_conn_id = lingyang_conn_id
        wanted.check(self)
        # What is given here may render to nothing.
        self._given = wanted.given_to(self)
        if not literals.is_open(table):
            check_table(table)
        literals.check_conn_id("sql_conn_id", sql_conn_id)
        if slots is not None:
            slot_columns(slots)
        elif required_slots is not None:
            slot_columns(required_slots, argument="required_slots")
        arguments.check_bool("create_table", create_table)

    def execute(self, context: Context) -> dict[str, Any]:
        """Look at everybody once, and write each page of answers as it comes."""
        from airflow_provider_lingyang.results.recipient_sources import NothingToWaitForError

        wanted.leave_plan_link(self, context)
        try:
            whose = wanted.wanted_by(self, context, given=self._given)
            transfer = self._transfer(whose)
        except NothingToWaitForError as error:
            raise AirflowSkipException(str(error)) from None
        except arguments.ArgumentError as error:
            raise AirflowFailException(str(error)) from None
        try:
            counts = transfer.run(wanted.pull_of(context), create=self.create_table)
        finally:
            transfer.close()
        wanted.tell_outlets_of(self, context, counts, table=self.table)
        return {"table": self.table, "counts": counts}

    def _transfer(self, whose: Wanted) -> _Transfer:
        from airflow_provider_lingyang.results.table import AnswerTable
        from airflow_provider_lingyang.storage.query import sql_hook

        check_table(self.table)
        if self.slots is not None:
            columns = slot_columns(self.slots)
        else:
            columns = slot_columns(whose.required_slots, argument="the campaign's output_slots")
        campaign = whose.source.get("campaign") or {"campaign_key": "", "plan_id": 0}
        key, plan_id = campaign["campaign_key"], campaign["plan_id"]
        if not isinstance(key, str) or not isinstance(plan_id, int):
            raise arguments.ArgumentError("the campaign's manifest holds no campaign_key and plan_id")
        hook = sql_hook(self.sql_conn_id)
        table = AnswerTable(hook, self.sql_conn_id, self.table, columns, key, plan_id)
        return _Transfer(whose, table, self.table, list(columns))


class _Transfer:
    """One look, page by page into the table."""

    def __init__(self, whose: Wanted, table: AnswerTable, name: str, slots: Sequence[str]) -> None:
        self._whose = whose
        self._table = table
        self._name = name
        self._slots = slots
        self._tally: Tally | None = None
        self._wait: Wait | None = None
        self._failure: str | None = None
        self._last_line = time.monotonic()

    def run(self, pull: Any, *, create: bool) -> dict[str, int]:
        from airflow_provider_lingyang.config import options as config
        from airflow_provider_lingyang.results.poller import Wait, WaitError, WaitFailed
        from airflow_provider_lingyang.results.table import TableError, TableWrongError
        from airflow_provider_lingyang.storage.private_sqlite import SpoolError

        try:
            self._table.prepare(create=create)
            self._tally = Tally(config.spool_dir())
        except TableWrongError as error:
            raise AirflowFailException(str(error)) from None
        except (TableError, SpoolError) as error:
            raise AirflowException(str(error)) from None
        self._wait = Wait(self._whose, pull, tally=False, also=self._take)
        try:
            look = self._wait.look_now(first=True)
        except Exception as error:
            if self._failure is not None:
                raise AirflowException(f"{self._failure}. {self._so_far()}. {_RETRY}") from None
            if isinstance(error, WaitFailed):
                raise AirflowFailException(f"{error}. {self._so_far()}") from None
            if isinstance(error, (WaitError, SpoolError)):
                raise AirflowException(f"{error}. {self._so_far()}. {_RETRY}") from None
            raise
        return self._counted(look)

    def close(self) -> None:
        """Give everything back."""
        for thing in (self._table, self._tally, self._wait):
            if thing is not None:
                thing.close()

    def _take(self, people: Sequence[Person], results: Mapping[str, TaskResult]) -> None:
        from airflow_provider_lingyang.results.table import TableError
        from airflow_provider_lingyang.storage.private_sqlite import SpoolError

        assert self._wait is not None
        assert self._tally is not None
        rules = self._wait.people.rules
        for start in range(0, len(people), _PAGE):
            told = [
                (person, row_of(person, results.get(person.biz_id), rules, self._slots))
                for person in people[start : start + _PAGE]
            ]
            rows = [row for _, row in told if isinstance(row, AnswerRow)]
            try:
                self._tally.note(told, self._table.write(rows) if rows else set())
            except (TableError, SpoolError) as error:
                self._failure = str(error)
                raise
            now = time.monotonic()
            if now - self._last_line >= _BETWEEN_LINES:
                self._last_line = now
                log.info("table %s: %s", self._name, self._so_far())

    def _counted(self, look: Look) -> dict[str, int]:
        if look.failed:
            raise AirflowException(
                f"{look.failed} look-up(s) failed, the last: {look.reason}. {self._so_far()}. {_RETRY}"
            ) from None
        recipients, counts = self._counts()
        known = counts["rows"] + counts[FOREIGN]
        if self._whose.results is not None:
            # Of whom nothing is in the table of answers, nothing comes by.
            counts[UNKNOWN] = recipients - known
        if known + counts[UNKNOWN] != recipients:
            raise AirflowException(f"not everybody was asked, and nothing failed. {self._so_far()}. {_RETRY}")
        told = {"recipients": recipients, **counts}
        log.info("table %s: %s", self._name, ", ".join(f"{name} {count}" for name, count in told.items()))
        return told

    def _counts(self) -> tuple[int, dict[str, int]]:
        assert self._wait is not None
        assert self._tally is not None
        return len(self._wait.people), self._tally.counts()

    def _so_far(self) -> str:
        """Return how far it came, in words."""
        if self._wait is None or not self._wait.is_open:
            return "Nobody was asked yet"
        recipients, counts = self._counts()
        rows = counts["rows"]
        asked = rows + counts[FOREIGN] + counts[UNKNOWN]
        text = f"Of {recipients} people {rows} were written"
        if without := asked - rows:
            text += f", {without} were asked and have no row"
        return f"{text}, {recipients - asked} were not asked"
