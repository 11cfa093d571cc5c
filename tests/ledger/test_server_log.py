"""What a ledger's work leaves in PostgreSQL's log, which people watch: no error."""

from __future__ import annotations

import json

import pytest
from airflow.providers.postgres.hooks.postgres import PostgresHook

from airflow_provider_lingyang.ledger import sql_migrations
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql import SqlLedger
from tests.helpers.servers import Postgres
from tests.ledger.conftest import Ledgers

pytestmark = pytest.mark.proof


def test_normal_work_logs_no_error(stoppable_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(stoppable_postgres.connection))
    ledgers = Ledgers(
        lambda task_try, campaign_key: SqlLedger(PostgresHook("ledger"), "ledger", campaign_key, task_try)
    )
    # From an empty database on, by several task instances, each in a process that has not tried the keys yet.
    for map_index in range(3):
        monkeypatch.setattr(sql_migrations, "_ENFORCES_KEYS", set())
        ids = [f"{map_index}-{number}" for number in range(4)]
        ledger = ledgers.start(map_index=map_index)
        ledger.write([], [ledgers.intent(f"one-{map_index}", ids)])
        outcome = Outcome(f"one-{map_index}", {ids[0]: 7}, ids[1:2], ids[2:3], ids[3:])
        ledger.write([outcome], [ledgers.intent(f"two-{map_index}", ids[2:3], again=True)])
        ledger.release()
        second = ledgers.next_try(map_index=map_index)
        second.take_over([f"one-{map_index}", f"two-{map_index}"])
        second.end_others([f"one-{map_index}"])
        second.set_fact("name", map_index)
        second.report_progress("~")
        second.finish()
        second.release()
    ledgers.close()
    lines = stoppable_postgres.log.read_text().splitlines()
    assert [line for line in lines if "ERROR" in line or "FATAL" in line] == []
