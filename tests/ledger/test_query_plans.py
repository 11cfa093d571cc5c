"""No statement of the ledger reads more rows than it needs, whatever PostgreSQL knows of its tables.

Rows that a plan reads are counted, not seconds: they are the same on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.identity import digest, recipient_hash
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_tables import accepted_recipients, campaign_id
from airflow_provider_lingyang.storage.database import Transaction
from tests.ledger.conftest import SqlLedgers

pytestmark = pytest.mark.proof

IN_REQUEST, OTHERS, OWN = 100, 1000, 20
"""Recipients of a request; requests of other task instances of the campaign; requests of one."""
OWN_IDS = [f"own-{number}" for number in range(OWN * IN_REQUEST)]
THIS = campaign_id(digest("campaign", 1), 1)
# As the ledger writes them, with random hashes.
FILL = f"""
INSERT INTO lingyang_ledger_request (request, campaign, task_unique_code, batch_num, struct_digest, written_at, worker,
    owner, writes, intents, in_doubt, reached)
SELECT n, {THIS}, 'bulk-' || n, '1', '', n, md5((n % 40)::text), '', 1, 1, 0, {IN_REQUEST}
FROM generate_series({{first}}, {{last}}) n;
INSERT INTO lingyang_ledger_recipient (campaign, hash_high, hash_low, request, place, state, biz_id, task_id)
SELECT {THIS}, ('x' || left(md5(n || '-' || place), 16))::bit(64)::bigint, place, n, place, 1, md5(n || '-' || place), n
FROM generate_series({{first}}, {{last}}) n, generate_series(1, {IN_REQUEST}) place;
"""


def forget_statistics(database: SqlLedgers) -> None:
    database.sql(
        "DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relname LIKE 'lingyang_%')"
    )
    database.sql("UPDATE pg_class SET reltuples=-1, relpages=0 WHERE relname LIKE 'lingyang_%'")


@pytest.fixture(scope="module", params=["none", "stale", "fresh"])
def statistics(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
def large(make_sql: Callable[[str], SqlLedgers], statistics: str) -> SqlLedgers:
    """A campaign of which most is other task instances'."""
    database = make_sql("psycopg2")
    own = database.start(map_index=1)
    for table in ("request", "recipient", "campaign", "worker"):
        database.sql(f"ALTER TABLE lingyang_ledger_{table} SET (autovacuum_enabled=off)")
    database.sql(FILL.format(first=1, last=5))
    if statistics == "stale":
        database.sql("ANALYZE")
    database.sql(FILL.format(first=6, last=OTHERS))
    groups = [OWN_IDS[first : first + IN_REQUEST] for first in range(0, len(OWN_IDS), IN_REQUEST)]
    own.write([], [database.intent(f"own-{number}", group) for number, group in enumerate(groups)])
    own.write(
        [Outcome(f"own-{number}", dict.fromkeys(group, number)) for number, group in enumerate(groups)], []
    )
    own.release()
    if statistics == "none":
        forget_statistics(database)
    elif statistics == "fresh":
        database.sql("ANALYZE")
    return database


def rows_read(plan: dict[str, Any]) -> float:
    """Return how many rows a plan's scans looked at."""
    removed = sum(plan.get(f"Rows Removed by {name}", 0) for name in ("Filter", "Index Recheck"))
    own = (plan["Actual Rows"] + removed) * plan["Actual Loops"] if "Relation Name" in plan else 0
    return float(own + sum(rows_read(inner) for inner in plan.get("Plans", ())))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """Statements of ledgers, each with the rows that it reads."""
    found: list[tuple[str, float]] = []
    rows, execute = Transaction.rows, Transaction.execute

    def explain(run: Transaction, sql: str, parameters: Sequence[Any]) -> None:
        if sql.split()[0] in ("SELECT", "UPDATE", "DELETE"):
            run._cursor.execute("SAVEPOINT before")
            ((plan,),) = rows(run, f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", parameters)
            run._cursor.execute("ROLLBACK TO SAVEPOINT before")
            parsed = json.loads(plan) if isinstance(plan, str) else plan
            found.append((sql, rows_read(parsed[0]["Plan"])))

    def explained_rows(run: Transaction, sql: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        explain(run, sql, parameters)
        return rows(run, sql, parameters)

    def explained_execute(run: Transaction, sql: str, parameters: Sequence[Any]) -> int:
        explain(run, sql, parameters)
        return execute(run, sql, parameters)

    monkeypatch.setattr(Transaction, "rows", explained_rows)
    monkeypatch.setattr(Transaction, "execute", explained_execute)
    return found


def worst(read: list[tuple[str, float]]) -> tuple[float, str]:
    return max(((rows, sql) for sql, rows in read), default=(0.0, ""))


def test_whose_answers(large: SqlLedgers, read: list[tuple[str, float]]) -> None:
    ledger = large.start(map_index=1, try_number=2)
    read.clear()
    sql, parameters = accepted_recipients(ledger.handle, "?", of_task_instance=True)
    with ledger._database.transaction() as run:
        assert len(run.rows(sql, parameters)) == len(OWN_IDS)
    # It may read a whole campaign of such a size, no row of it twice.
    assert worst(read) <= (OTHERS * IN_REQUEST + 2 * len(OWN_IDS), "~")


def test_a_try_reads_only_what_concerns_its_audience(
    large: SqlLedgers, read: list[tuple[str, float]]
) -> None:
    ledger = large.start(map_index=2)
    read.clear()
    keys = [recipient_hash(biz_id) for biz_id in OWN_IDS[::100]]
    found = [request.task_unique_code for request in ledger.history(lambda: iter(keys))]
    assert sorted(found) == sorted(f"own-{number}" for number in range(OWN))
    assert worst(read) <= (2 * len(OWN_IDS) + 500, "~")


def test_a_submission(large: SqlLedgers, read: list[tuple[str, float]]) -> None:
    ledger = large.start(map_index=3)
    read.clear()
    ids = [f"new-{number}" for number in range(IN_REQUEST)]
    ledger.write([], [large.intent("new", ids)])
    ledger.write([Outcome("new", dict.fromkeys(ids[:50], 1), ids[50:80], ids[80:90], ids[90:])], [])
    ledger.write([], [large.intent("again", ids[80:90], again=True)])
    ledger.renew([large.intent("again", ids[80:90])])
    ledger.take_over(["new", "again"])
    ledger.end_others(["new"])
    assert {each.task_unique_code for each in ledger.requests(["new", "again"])} == {"new", "again"}
    ledger.finish()
    ledger.release()
    assert worst(read) <= (5 * IN_REQUEST, "~")


@pytest.mark.parametrize("app_secret", ["secret", "other"])
def test_opening(large: SqlLedgers, read: list[tuple[str, float]], app_secret: str) -> None:
    ledger = large.new(map_index=1, try_number=3, max_tries=1)
    ledger.claim()
    assert ledger.has_begun(1)
    with nullcontext() if app_secret == "secret" else pytest.raises(LedgerRefusedError, match="App secret"):
        ledger.open(large.header(app_secret=app_secret))
    assert worst(read) <= (OTHERS + 500, "~")


def test_what_left_out_of_order(large: SqlLedgers, read: list[tuple[str, float]]) -> None:
    ledger = large.start(map_index=1, try_number=2)
    read.clear()
    assert (len(ledger.sent_since(0)), ledger.sent_by_others()) == (OWN, {"1": 1.0})
    assert worst(read) <= (OTHERS + 500, "~")
