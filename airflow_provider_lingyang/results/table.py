"""A table of results in any database behind a ``DbApiHook``: check, create, and write it page by page.

No error's text holds values of rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from airflow_provider_lingyang.config.arguments import TABLE_COLUMNS
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import (
    FOREIGN,
    NOT_REACHED,
    TABLE_BYTES,
    CompletionCriteria,
    PollError,
    as_text,
    cut,
    cut_slots,
    state_of,
)
from airflow_provider_lingyang.results.recipient_store import RecipientRow
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    UniqueViolationError,
    UnreachableError,
    chunks,
    marks,
    portions,
    sqlstate,
)

FILLED, EMPTY = "filled", "empty"
WRITTEN = (FILLED, EMPTY, NOT_REACHED)
"""Kinds of recipients that have a row."""
_TRIES = 5
_ALL_ALIKE = 20
"""Rows refused one by one, and none taken, until the table is considered wrong."""
_STATEMENT_BYTES = 4 * 2**20
"""A quarter of the largest statement of MariaDB and MySQL by default."""
_MYSQL_VALUES = {(number,) for number in (1118, 1153, 1264, 1292, 1366, 1406)}
"""MySQL's error numbers for values that a column, a row or a statement cannot hold; drivers differ in the class."""
_MOMENT = "%Y-%m-%d %H:%M:%S.%f"
_KEY = "campaign_key, plan_id, biz_id"
_THIS = "campaign_key=? AND plan_id=?"


class ResultRow(NamedTuple):
    """What a row holds of one recipient.

    :param kind: one of :data:`WRITTEN`.
    :param output_params: the slots as JSON text; None where they cannot be read.
    :param slots: text or None, in the order of the columns.
    :param holds_slots: whether the result holds any slot; without, the slots of an existing row stay as they are.
    :param is_cut: whether a value was longer than :data:`TABLE_BYTES`.
    :param kept: text or None, in the order of the columns that the campaign kept.
    """

    kind: str
    biz_id: str
    platform_task_id: str | None
    status: str | None
    output_params: str | None
    slots: Sequence[str | None]
    holds_slots: bool
    is_cut: bool
    kept: Sequence[str | None] = ()


def result_row(
    recipient: RecipientRow,
    result: TaskResult | None,
    criteria: CompletionCriteria,
    slots: Sequence[str],
) -> ResultRow | str:
    """Return the row of a recipient, or why there is none: ``unknown`` or ``foreign``.

    :param result: None: there is no result.
    :param slots: those that have a column.
    """
    _, biz_id, platform_task_id = recipient
    state = state_of(result, criteria, platform_task_id)
    if result is None or state == FOREIGN:
        return state
    values = result.output_params
    texts = [cut(as_text(values.get(slot)), TABLE_BYTES) or None for slot in slots]
    kept, is_cut = cut_slots(values, TABLE_BYTES)
    filled = all(texts) if slots else any(map(as_text, values.values()))
    return ResultRow(
        state if state == NOT_REACHED else FILLED if filled else EMPTY,
        biz_id,
        platform_task_id if result.task_id is None else cut(result.task_id, TABLE_BYTES),
        None if result.status is None else cut(result.status, TABLE_BYTES),
        json.dumps(kept, ensure_ascii=False) if result.readable else None,
        texts,
        bool(values),
        is_cut,
    )


class _RowRefusedError(PollError):
    """The table cannot hold at least one of the rows. None of them is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """The differences of one kind of database.

    :param quote: the quotation mark of names.
    :param folds: whether ``A`` and ``a`` are one column, even quoted.
    :param moment: the format of a moment of UTC as text; empty: a datetime without a time zone. The driver takes it
        without a warning, and no time zone shifts it.
    :param types: column → type, where it differs; ``slot`` is the type of all slot columns.
    :param options: of ``CREATE TABLE``.
    :param on_connect: statements to execute on each connection.
    """

    quote: str = '"'
    folds: bool = False
    moment: str = ""
    types: Mapping[str, str]
    options: str = ""
    on_connect: Sequence[str] = ()

    def bind(self, moment: datetime) -> str | datetime:
        """Return a moment of UTC, to be bound to a statement."""
        return f"{moment:{self.moment}}" if self.moment else moment.replace(tzinfo=None)

    def quoted(self, name: str) -> str:
        """Return a column's name, quoted for SQL."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote


# As text: a column without time zone then takes the time as written, and one with time zone the offset.
_POSTGRESQL = Dialect(moment=f"{_MOMENT}+00:00", types={"fetched_at": "TIMESTAMP WITH TIME ZONE"})
_MYSQL = Dialect(
    quote="`",
    folds=True,
    moment=_MOMENT,
    # Texts cannot be a key; 255 + 500 characters of 4 bytes are within the 3,072 bytes that one may have.
    types={
        "biz_id": "VARCHAR(255)",
        "campaign_key": "VARCHAR(500)",
        "output_params": "LONGTEXT",
        "slot": "LONGTEXT",
        "fetched_at": "DATETIME(6)",
    },
    # The server's defaults may lack transactions or Chinese, or take A1 and a1 for equal.
    options=" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    # A column of the user may be a TIMESTAMP, in the session's time zone; and no value may be cut silently.
    on_connect=(
        "SET SESSION time_zone='+00:00', "
        "sql_mode=CONCAT_WS(',', NULLIF(@@SESSION.sql_mode, ''), 'STRICT_ALL_TABLES')",
    ),
)
_DIALECTS = {
    # Python's sqlite3 warns about datetimes.
    "sqlite": Dialect(folds=True, moment=_MOMENT, types={"fetched_at": "TEXT"}),
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
    "redshift": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}
_OTHER = Dialect(types={"fetched_at": "TIMESTAMP"})


def dialect_of(hook: Any) -> Dialect:
    """Return the dialect of a hook's database."""
    if (found := _DIALECTS.get(str(getattr(hook, "conn_type", None)))) is not None:
        return found
    # JDBC and ODBC hooks have it in dialect_name; older providers and some hooks have neither.
    with suppress(Exception):
        return _DIALECTS[str(hook.dialect_name)]
    return _OTHER


class ResultsTable:
    """Writes results, one row per recipient.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors.
    :param table: its name, which goes into SQL as it is.
    :param columns: slot → column.
    :param campaign_key: of the rows.
    :param plan_id: of the rows.
    :param kept: columns that the campaign kept.
    """

    def __init__(
        self,
        hook: Any,
        conn_id: str,
        table: str,
        columns: Mapping[str, str],
        campaign_key: str,
        plan_id: int,
        *,
        kept: Sequence[str] = (),
    ) -> None:
        self._dialect = dialect_of(hook)
        self._database = Database(
            hook,
            conn_id,
            what="the database of the results",
            collision="the database refused a row because of its key or of another constraint",
            on_connect=self._dialect.on_connect,
        )
        self._conn_id = conn_id
        self.name = table
        self.refused: dict[str, None] = {}
        """The ``biz_id`` of rows that the table cannot hold: an ordered set, for a message names the first of them."""
        self.refusal = ""
        """The database's message for the first of them."""
        self._texts = [*columns.values(), *kept]
        """Columns for slots, then those that the campaign kept."""
        self._all_columns = [*TABLE_COLUMNS, *self._texts]
        self._this = (campaign_key, plan_id)
        quoted = [self._dialect.quoted(column) for column in self._texts]
        self._columns = ", ".join([*TABLE_COLUMNS, *quoted])
        where = f"WHERE {_THIS} AND biz_id=?"
        all_texts = "".join(f", {column}=?" for column in ("output_params", *quoted))
        kept_texts = "".join(f", {column}=?" for column in quoted[len(columns) :])
        self._update_whole = f"UPDATE {table} SET task_id=?, status=?, fetched_at=?{all_texts} {where}"
        self._update_status = f"UPDATE {table} SET task_id=?, status=?, fetched_at=?{kept_texts} {where}"

    def close(self) -> None:
        """Close the connection."""
        self._database.close()

    def prepare(self, *, create: bool) -> None:
        """Check that the table exists with all columns, or create it.

        :param create: whether to create it where it does not exist.
        :raises PollError: the database cannot be reached; or the table does not exist, or lacks columns.
        """
        try:
            found = self._database.columns(self.name)
            if not found and create:
                self._create()
                found = self._database.columns(self.name)
        except UnreachableError as error:
            raise PollError(str(error), retryable=True) from None
        if not found:
            raise PollError(
                f"there is no table {self.name} that can be read on connection {self._conn_id!r}. It needs the "
                f"columns {', '.join(self._all_columns)} and the key ({_KEY}); create_table=True makes it"
            )
        fold = str.lower if self._dialect.folds else str
        names = set(map(fold, found))
        # The table's own columns are not quoted, so their case does not matter.
        lower = {name.lower() for name in found}
        missing = [name for name in TABLE_COLUMNS if name not in lower]
        missing += [name for name in self._texts if fold(name) not in names]
        if missing:
            statements = "; ".join(
                f"ALTER TABLE {self.name} ADD {self._definition(name)}" for name in missing
            )
            raise PollError(
                f"table {self.name} on connection {self._conn_id!r} lacks the columns {', '.join(missing)}: add "
                f"them ({statements}), choose slots, or name a table that is not there yet, with create_table=True"
            )

    def write(self, rows: Sequence[ResultRow]) -> int:
        """Upsert rows (insert or update), all in one transaction.

        Where the table cannot hold a row, it is added to :attr:`refused`, and the others are written in smaller
        transactions.

        :return: the number of inserted rows.
        :raises PollError: the database failed. None of the rows is written then.
        """
        inserted = written = 0
        refused: dict[str, None] = {}
        todo = [rows]
        while todo:
            part = todo.pop()
            try:
                inserted += self._write_all(part)
                written += len(part)
            except _RowRefusedError as error:
                self.refusal = self.refusal or str(error)
                if half := len(part) // 2:
                    # Halve until each refused row stands alone.
                    todo += [part[half:], part[:half]]
                    continue
                refused[part[0].biz_id] = None
                if not written and len(refused) in (_ALL_ALIKE, len(rows)):
                    # It is the table, not the rows.
                    raise PollError(self.refusal, retryable=True) from None
        self.refused |= refused
        return inserted

    def _write_all(self, rows: Sequence[ResultRow]) -> int:
        fetched_at = self._dialect.bind(datetime.now(UTC))
        for attempt in range(1, _TRIES + 1):
            try:
                with self._database.transaction() as run:
                    return self._write(run, rows, fetched_at)
            except (UniqueViolationError, SerializationFailureError) as error:
                # Another writer was first, so read again which rows exist.
                if attempt < _TRIES:
                    continue
                hint = ""
                if isinstance(error, UniqueViolationError):
                    hint = (
                        f". Table {self.name} needs the key ({_KEY}), whose texts differ by case, and columns of "
                        "your own must allow NULL or have a default"
                    )
                raise PollError(f"{error}, {_TRIES} times{hint}", retryable=True) from None
            except LedgerError as error:
                kind = _RowRefusedError if _is_of_a_row(error) else PollError
                raise kind(str(error), retryable=True) from None
        raise AssertionError

    def _write(self, run: Transaction, rows: Sequence[ResultRow], fetched_at: Any) -> int:
        campaign_key, plan_id = self._this
        existing: dict[str, str | None] = {}
        for chunk in chunks(rows):
            found = run.rows(
                f"SELECT biz_id, task_id FROM {self.name} WHERE {_THIS} AND biz_id IN ({marks(chunk)})",
                [*self._this, *(row.biz_id for row in chunk)],
            )
            # The database may take A1 and a1 for equal, or hold numbers; compare as text in Python.
            existing |= {str(biz_id): None if task is None else str(task) for biz_id, task in found}
        whole: list[Sequence[Any]] = []
        status: list[Sequence[Any]] = []
        new: list[Sequence[Any]] = []
        for row in rows:
            changed = row.platform_task_id, row.status, fetched_at
            where = *self._this, row.biz_id
            if row.biz_id not in existing:
                own = row.biz_id, row.platform_task_id, plan_id, campaign_key, row.status, row.output_params
                new.append((*own, fetched_at, *row.slots, *row.kept))
            elif row.holds_slots or len({existing[row.biz_id], row.platform_task_id} - {None}) > 1:
                # A result of another task replaces all slots.
                whole.append((*changed, row.output_params, *row.slots, *row.kept, *where))
            else:
                status.append((*changed, *row.kept, *where))
        run.many(self._update_whole, whole)
        run.many(self._update_status, status)
        # Each must fit into one statement of MySQL.
        for portion in portions(new, _size, _STATEMENT_BYTES):
            run.insert(self.name, self._columns, portion)
        return len(new)

    def _definition(self, name: str) -> str:
        types = {"plan_id": "BIGINT", **self._dialect.types}
        if name in TABLE_COLUMNS:
            return f"{name} {types.get(name, 'TEXT')}"
        return f"{self._dialect.quoted(name)} {types.get('slot', 'TEXT')}"

    def _create(self) -> None:
        columns = [
            self._definition(name) + (" NOT NULL" if name in (*_KEY.split(", "), "fetched_at") else "")
            for name in TABLE_COLUMNS
        ]
        columns += map(self._definition, self._texts)
        sql = f"CREATE TABLE {self.name} ({', '.join(columns)}, PRIMARY KEY ({_KEY})){self._dialect.options}"
        try:
            with self._database.transaction() as run:
                run.execute(sql, [])
        except UnreachableError:
            raise
        except LedgerError as error:
            # Two tasks may create it at the same time.
            if not self._database.columns(self.name):
                raise PollError(
                    f"table {self.name} can be neither read nor created: {error}. Create it yourself, with the "
                    f"columns {', '.join(self._all_columns)} and the key ({_KEY})"
                ) from None


def _is_of_a_row(error: LedgerError) -> bool:
    """Whether the database refused a value, so that it may take other rows."""
    cause = error.__cause__
    if isinstance(cause, (ValueError, OverflowError)) or any(
        parent.__name__ == "DataError" for parent in type(cause).__mro__
    ):
        return True
    state = str(sqlstate(cause) or "")
    return state[:2] in ("22", "54") or (cause is not None and cause.args[:1] in _MYSQL_VALUES)


def _size(row: Sequence[Any]) -> int:
    """Return the bytes that a row's text may take in a statement."""
    return 4 * sum(len(value) for value in row if isinstance(value, str))
