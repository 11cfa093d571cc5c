"""A table of answers in any database behind a ``DbApiHook``: checked, created, and written page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow_provider_lingyang.ledger.base import LedgerError
from airflow_provider_lingyang.results.rows import OWN_COLUMNS, AnswerRow
from airflow_provider_lingyang.storage.database import (
    CollisionError,
    Database,
    GaveWayError,
    Statements,
    UnreachableError,
    chunks,
    marks,
)

_TRIES = 5
_KEY = "campaign_key, plan_id, biz_id"
_THIS = "campaign_key=? AND plan_id=?"


class TableError(Exception):
    """The database did not do it; another try may do better. The text holds no values of rows."""


class TableWrongError(Exception):
    """The table cannot take the rows, whatever is tried again; says why."""


def _with_offset(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}+00:00"


def _without_offset(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}"


def _naive(moment: datetime) -> datetime:
    return moment.replace(tzinfo=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How a kind of database differs from others.

    :param quote: around a name of any letters.
    :param folds: whether ``A`` and ``a`` are one column, quoted too.
    :param bind: returns a moment of UTC as what its driver takes without a warning, and no time zone shifts.
    :param types: column → type, where it differs.
    :param options: of a table.
    :param on_connect: statements for each connection.
    """

    quote: str = '"'
    folds: bool = False
    bind: Callable[[datetime], Any] = _naive
    types: Mapping[str, str]
    options: str = ""
    on_connect: Sequence[str] = ()

    def quoted(self, name: str) -> str:
        """Return a column's name as SQL."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote


_DIALECTS = {
    # Python's own driver warns about datetimes.
    "sqlite": Dialect(folds=True, bind=_without_offset, types={"fetched_at": "TEXT"}),
    # As text, because a column without time zone then takes the time as it stands there, and one with it knows UTC.
    "postgresql": Dialect(bind=_with_offset, types={"fetched_at": "TIMESTAMP WITH TIME ZONE"}),
    "mysql": Dialect(
        quote="`",
        folds=True,
        bind=_without_offset,
        # Texts cannot be a key; 255 + 500 characters of 4 bytes are within the 3,072 bytes that one may have.
        types={
            "biz_id": "VARCHAR(255)",
            "campaign_key": "VARCHAR(500)",
            "output_params": "MEDIUMTEXT",
            "fetched_at": "DATETIME(6)",
        },
        # The server's defaults may lack transactions, Chinese, or the difference between A1 and a1.
        options=" ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        # A user's column may be a TIMESTAMP, which is in the session's time zone; and nothing may be cut silently.
        on_connect=(
            "SET SESSION time_zone='+00:00', "
            "sql_mode=CONCAT_WS(',', NULLIF(@@SESSION.sql_mode, ''), 'STRICT_ALL_TABLES')",
        ),
    ),
}
_OTHER = Dialect(types={"fetched_at": "TIMESTAMP"})
_SAME = {"postgres": "postgresql", "redshift": "postgresql", "mariadb": "mysql"}


def dialect_of(hook: Any) -> Dialect:
    """Return how a hook's database differs from others."""
    name = _dialect_name(getattr(hook, "conn_type", None))
    if name not in _DIALECTS:
        # JDBC and ODBC connections say it elsewhere; older providers and some hooks cannot.
        with suppress(Exception):
            name = _dialect_name(hook.dialect_name)
    return _DIALECTS.get(name, _OTHER)


def _dialect_name(name: object) -> str:
    return _SAME.get(str(name), str(name))


class AnswerTable:
    """Writes people's answers, each person's into one row.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors.
    :param table: its name, which goes into SQL as it is.
    :param columns: slot → column.
    :param campaign_key: of the rows.
    :param plan_id: of the rows.
    """

    def __init__(
        self, hook: Any, conn_id: str, table: str, columns: Mapping[str, str], campaign_key: str, plan_id: int
    ) -> None:
        self._dialect = dialect_of(hook)
        self._database = Database(
            hook,
            conn_id,
            what="the database of the answers",
            collision="the database refused a row because of its key or of another constraint",
            on_connect=self._dialect.on_connect,
        )
        self._conn_id = conn_id
        self._table = table
        self._slots = list(columns.values())
        self._this = (campaign_key, plan_id)
        quoted = [self._dialect.quoted(column) for column in self._slots]
        self._columns = ", ".join([*OWN_COLUMNS, *quoted])
        about = f"WHERE {_THIS} AND biz_id=?"
        answer = "".join(f", {column}=?" for column in ("output_params", *quoted))
        self._update_whole = f"UPDATE {table} SET task_id=?, status=?, fetched_at=?{answer} {about}"
        self._update_status = f"UPDATE {table} SET task_id=?, status=?, fetched_at=? {about}"

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    def prepare(self, *, create: bool) -> None:
        """See that the table is there, with all columns.

        :param create: make it where it is not there.
        :raises TableError: the database cannot be reached.
        :raises TableWrongError: the table is not there, or lacks columns.
        """
        try:
            found = self._found()
            if found is None and create:
                found = self._created()
        except UnreachableError as error:
            raise TableError(str(error)) from None
        if found is None:
            raise TableWrongError(
                f"there is no table {self._table} that can be read on connection {self._conn_id!r}. It needs the "
                f"columns {', '.join(self._wanted)} and the key ({_KEY}); create_table=True makes it"
            )
        names = {self._folded(name) for name in found}
        # The table's own columns are not quoted, so whatever case the database gives them is right.
        lower = {name.lower() for name in found}
        missing = [name for name in OWN_COLUMNS if name not in lower]
        missing += [name for name in self._slots if self._folded(name) not in names]
        if missing:
            raise TableWrongError(
                f"table {self._table} on connection {self._conn_id!r} lacks the columns {', '.join(missing)}: add "
                "them (slots as text), choose slots, or name a table that is not there yet, with create_table=True"
            )

    def write(self, rows: Sequence[AnswerRow]) -> set[int]:
        """Insert or update rows, all in one transaction.

        :return: the numbers of those that were not there.
        :raises TableError: the database did not take them. None of them is written then.
        """
        fetched_at = self._dialect.bind(datetime.now(UTC))
        for attempt in range(1, _TRIES + 1):
            try:
                with self._database.transaction() as run:
                    return self._write(run, rows, fetched_at)
            except (CollisionError, GaveWayError) as error:
                # Another writer was there first: what is there now is not what it was.
                if attempt < _TRIES:
                    continue
                hint = ""
                if isinstance(error, CollisionError):
                    hint = (
                        f". Table {self._table} needs the key ({_KEY}), whose texts differ by case, and columns of "
                        "your own must allow NULL or have a default"
                    )
                raise TableError(f"{error}, {_TRIES} times{hint}") from None
            except LedgerError as error:
                raise TableError(str(error)) from None
        raise AssertionError

    def _write(self, run: Statements, rows: Sequence[AnswerRow], fetched_at: Any) -> set[int]:
        there: dict[str, str | None] = {}
        for some in chunks(rows):
            found = run.rows(
                f"SELECT biz_id, task_id FROM {self._table} WHERE {_THIS} AND biz_id IN ({marks(some)})",
                [*self._this, *(row.biz_id for row in some)],
            )
            # The database may take A1 for a1, or keep numbers: only Python's "equal" counts.
            there |= {str(biz_id): None if task is None else str(task) for biz_id, task in found}
        whole: list[Sequence[Any]] = []
        status: list[Sequence[Any]] = []
        new: list[Sequence[Any]] = []
        for row in rows:
            told = row.task_id, row.status, fetched_at
            where = *self._this, row.biz_id
            if row.biz_id not in there:
                new.append(self._inserted(row, fetched_at))
            elif row.holds_slots or _differ(there[row.biz_id], row.task_id):
                whole.append((*told, row.output_params, *row.slots, *where))
            else:
                status.append((*told, *where))
        run.many(self._update_whole, whole)
        run.many(self._update_status, status)
        run.insert(self._table, self._columns, new)
        return {row.number for row in rows if row.biz_id not in there}

    def _inserted(self, row: AnswerRow, fetched_at: Any) -> Sequence[Any]:
        campaign_key, plan_id = self._this
        own = (row.biz_id, row.task_id, plan_id, campaign_key, row.status, row.output_params, fetched_at)
        return *own, *row.slots

    @property
    def _wanted(self) -> list[str]:
        return [*OWN_COLUMNS, *self._slots]

    def _folded(self, name: str) -> str:
        return name.lower() if self._dialect.folds else name

    def _found(self) -> list[str] | None:
        """Return the table's columns, or None where it cannot be read."""
        try:
            with self._database.transaction() as run:
                return run.columns(self._table)
        except UnreachableError:
            raise
        except LedgerError:
            return None

    def _created(self) -> list[str]:
        types = {"plan_id": "BIGINT", **self._dialect.types}
        columns = [
            f"{name} {types.get(name, 'TEXT')}"
            + (" NOT NULL" if name in (*_KEY.split(", "), "fetched_at") else "")
            for name in OWN_COLUMNS
        ]
        columns += [f"{self._dialect.quoted(name)} TEXT" for name in self._slots]
        sql = (
            f"CREATE TABLE {self._table} ({', '.join(columns)}, PRIMARY KEY ({_KEY})){self._dialect.options}"
        )
        try:
            with self._database.transaction() as run:
                run.count(sql, [])
        except UnreachableError:
            raise
        except LedgerError as error:
            # Two tasks may create it at the same time.
            found = self._found()
            if found is None:
                raise TableWrongError(
                    f"table {self._table} can be neither read nor created: {error}. Create it yourself, with the "
                    f"columns {', '.join(self._wanted)} and the key ({_KEY})"
                ) from None
            return found
        return self._wanted


def _differ(task_id: str | None, other: str | None) -> bool:
    return task_id is not None and other is not None and task_id != other
