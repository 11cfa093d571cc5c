"""What a ledger of a million recipients in a database costs: its reads, its writes, its bytes.

    python benchmarks/ledger_size.py [--database mariadb] [--rounds 3] [--quick] [--check]

One campaign of 1,000,000 recipients (--quick: 100,000), written as the operator writes it: by one task instance with a
tenth of them, and by others with 20,000 (2,000) each, 100 in a request, 36 characters in a ``biz_id``. Reads are
measured with statistics that are fresh, that are of a fiftieth of the rows, and that are not there.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import common
from common import Target

ROOT = Path(__file__).parents[1]
IN_REQUEST, IN_WRITE = 100, 8
STATES = ("stale", "none", "fresh")
TARGETS = {
    "bytes a recipient": Target(400, asserted=True),
    "updates in the page of the row (HOT), %": Target(90, at_least=True, asserted=True),
    "100 recipients of another run, slowest (s)": Target(0.5),
    "whose answers, slowest / fresh: a small part": Target(2.0),
    "whose answers, slowest / fresh: a tenth": Target(2.0),
}
TABLES = ("recipient", "request", "campaign", "worker", "schema")


def biz_id(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))


class Ledgers:
    """Writes and reads one campaign.

    :param hook: gives a hook of the database.
    """

    def __init__(self, hook: Callable[[], Any]) -> None:
        self._hook = hook

    def open(self, map_index: int) -> Any:
        from airflow_provider_lingyang.ledger.base import Header
        from airflow_provider_lingyang.ledger.sql import SqlLedger
        from airflow_provider_lingyang.ledger.task_try import TaskTry

        this = TaskTry(dag_id="d", run_id="r", task_id="t", map_index=map_index, try_number=1, max_tries=0)
        ledger = SqlLedger(self._hook(), "ledger", "large", this)
        ledger.claim()
        ledger.open(Header.of(host="https://gateway.test", app_key="app", app_secret="secret", plan_id=1))
        return ledger

    def fill(self, map_index: int, first: int, count: int) -> float:
        """Send to recipients as one task instance; return the seconds of its writes."""
        from airflow_provider_lingyang.ledger.base import Intent, Outcome

        with closing(self.open(map_index)) as ledger:
            took, outcomes = 0.0, []
            for start in range(first, first + count, IN_REQUEST * IN_WRITE):
                groups = [
                    [biz_id(number) for number in range(begin, min(begin + IN_REQUEST, first + count))]
                    for begin in range(start, min(start + IN_REQUEST * IN_WRITE, first + count), IN_REQUEST)
                ]
                codes = [str(uuid.uuid4()) for _ in groups]
                began = time.perf_counter()
                ledger.write(
                    outcomes,
                    [
                        Intent(code, "1", group, "0" * 64, time.time())
                        for code, group in zip(codes, groups, strict=True)
                    ],
                )
                took += time.perf_counter() - began
                outcomes = [
                    Outcome(code, {each: 10**15 + place for place, each in enumerate(group)}, request_id=code)
                    for code, group in zip(codes, groups, strict=True)
                ]
            began = time.perf_counter()
            ledger.write(outcomes, [])
            ledger.release()
            return took + time.perf_counter() - began

    def handle(self, map_index: int) -> Any:
        with closing(self.open(map_index)) as ledger:
            return ledger.handle

    def whose_answers(self, map_index: int) -> tuple[float, int]:
        """Return the seconds in which a task instance's accepted recipients are read, and how many they are."""
        from airflow_provider_lingyang.results.recipient_sources import _of_ledger

        handle = self.handle(map_index)
        began = time.perf_counter()
        count = sum(1 for _ in _of_ledger(handle, of_task_instance=True))
        return time.perf_counter() - began, count

    def history(self, map_index: int, recipients: list[str]) -> tuple[float, int]:
        """Return the seconds in which a new task instance reads what concerns its recipients, and how many are sent."""
        from airflow_provider_lingyang.identity import recipient_hash

        keys = [recipient_hash(each) for each in recipients]
        with closing(self.open(map_index)) as ledger:
            began = time.perf_counter()
            accepted = {key for request in ledger.history(lambda: iter(keys)) for key in request.accepted}
            return time.perf_counter() - began, len(accepted & set(keys))


class Server:
    """A database, and what is asked of it alone.

    :param kind: ``postgres``, ``mariadb`` or ``sqlite``.
    """

    def __init__(self, kind: str, stack: ExitStack) -> None:
        from tests.helpers.servers import Postgres, mariadb

        self.kind = kind
        self._path = Path(stack.enter_context(TemporaryDirectory()), "ledger.db")
        connection: dict[str, Any] = {"conn_type": "sqlite", "host": str(self._path)}
        if kind == "postgres":
            connection = stack.enter_context(Postgres()).connection
        elif kind == "mariadb":
            connection = stack.enter_context(mariadb())
        os.environ["AIRFLOW_CONN_LEDGER"] = json.dumps(connection)

    def hook(self) -> Any:
        from airflow_provider_lingyang.storage.query import sql_hook

        return sql_hook("ledger")

    def sql(self, *statements: str) -> list[Any]:
        hook = self.hook()
        with closing(hook.get_conn()) as connection:
            if self.kind == "postgres":
                connection.autocommit = True
            with closing(connection.cursor()) as cursor:
                rows: list[Any] = []
                for statement in statements:
                    cursor.execute(statement)
                    rows = cursor.fetchall() if cursor.description else []
                connection.commit()
                return rows

    def keep_statistics_as_they_are(self) -> None:
        if self.kind == "postgres":
            self.sql(
                *(f"ALTER TABLE lingyang_ledger_{table} SET (autovacuum_enabled=off)" for table in TABLES)
            )
        elif self.kind == "mariadb":
            self.sql(*(f"ALTER TABLE lingyang_ledger_{table} STATS_AUTO_RECALC=0" for table in TABLES))

    def measure_statistics(self) -> None:
        if self.kind == "mariadb":
            self.sql(*(f"ANALYZE TABLE lingyang_ledger_{table}" for table in TABLES))
        else:
            self.sql("ANALYZE")

    def forget_statistics(self) -> None:
        named = {
            "postgres": (
                "DELETE FROM pg_statistic WHERE starelid IN "
                "(SELECT oid FROM pg_class WHERE relname LIKE 'lingyang%')",
                "UPDATE pg_class SET reltuples=-1, relpages=0 WHERE relname LIKE 'lingyang%'",
            ),
            "mariadb": (
                "DELETE FROM mysql.innodb_index_stats WHERE table_name LIKE 'lingyang%'",
                "DELETE FROM mysql.innodb_table_stats WHERE table_name LIKE 'lingyang%'",
                "FLUSH TABLES",
            ),
            "sqlite": ("DELETE FROM sqlite_stat1",),
        }
        self.sql(*named[self.kind])

    def size(self) -> int:
        """Return the bytes of the tables, with their keys."""
        if self.kind == "sqlite":
            return self._path.stat().st_size
        of_table = "pg_total_relation_size('lingyang_ledger_{}')"
        if self.kind == "postgres":
            ((size,),) = self.sql("SELECT " + "+".join(map(of_table.format, TABLES)))
        else:
            ((size,),) = self.sql(
                "SELECT sum(data_length + index_length) FROM information_schema.tables "
                "WHERE table_schema=database() AND table_name LIKE 'lingyang%'"
            )
        return int(size)


def main() -> int:
    parser = common.options(__doc__)
    parser.add_argument("--database", choices=("postgres", "mariadb", "sqlite"), default="postgres")
    options = parser.parse_args()
    rows = 100_000 if options.quick else 1_000_000
    small, rounds = rows // 50, options.rounds or 3
    sys.path.insert(0, str(ROOT))
    figures: dict[str, float] = {}
    with ExitStack() as stack:
        server = Server(options.database, stack)
        ledgers = Ledgers(server.hook)
        ledgers.handle(0)
        server.keep_statistics_as_they_are()
        took = ledgers.fill(1, 0, small)
        server.measure_statistics()
        for shard in range(2, 46):
            took += ledgers.fill(shard, (shard - 1) * small, small)
        took += ledgers.fill(100, 45 * small, rows // 10)
        print(f"{common.machine()}: {rows:,} recipients written into {options.database} in {took:.1f} s")
        figures["microseconds a recipient, written"] = took / rows * 1e6
        if server.kind == "postgres":
            ((updates, hot),) = server.sql(
                "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables "
                "WHERE relname='lingyang_ledger_recipient'"
            )
            figures["updates in the page of the row (HOT), %"] = 100 * hot / updates
        reached = [biz_id(number) for number in range(7, rows, rows // 100)]
        seconds: dict[str, dict[str, float]] = {"a small part": {}, "a tenth": {}, "100": {}}
        for state in STATES:
            if state == "none":
                server.forget_statistics()
            elif state == "fresh":
                server.measure_statistics()
            runs: dict[str, list[float]] = {name: [] for name in seconds}
            for number in range(rounds):
                for name, index, count in (("a small part", 3, small), ("a tenth", 100, rows // 10)):
                    wall, found = ledgers.whose_answers(index)
                    assert found == count
                    runs[name].append(wall)
                wall, found = ledgers.history(1000 + number, reached)
                assert found == 100
                runs["100"].append(wall)
            for name, values in runs.items():
                seconds[name][state] = statistics.median(values)
                print(f"  statistics {state:6} {name:14} {seconds[name][state]:7.3f} s")
        figures["bytes a recipient"] = server.size() / rows
        figures["100 recipients of another run, slowest (s)"] = max(seconds["100"].values())
        for name in ("a small part", "a tenth"):
            figures[f"whose answers, slowest / fresh: {name}"] = (
                max(seconds[name].values()) / seconds[name]["fresh"]
            )
    return common.report(TARGETS if options.database == "postgres" else {}, figures, options)


if __name__ == "__main__":
    sys.exit(main())
