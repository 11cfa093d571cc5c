"""Reserve turns as one process of several does, and write their moments on the database's clock: PATH make | COUNT."""

from __future__ import annotations

import sqlite3
import sys

from airflow_provider_lingyang.ledger.pace import SharedPace
from airflow_provider_lingyang.ledger.sql_migrations import migrate
from airflow_provider_lingyang.storage.database import Database
from airflow_provider_lingyang.turns import Ask


class Hook:
    """What the ledger uses of a ``DbApiHook``."""

    conn_type, placeholder, supports_autocommit = "sqlite", "?", False

    def __init__(self, path: str) -> None:
        self.path = path

    def get_conn(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=300)


def main() -> None:
    path, what = sys.argv[1:]
    hook = Hook(path)
    database, pace = Database(hook, "ledger"), SharedPace(hook, "ledger", "https://gateway.test", "app", 60.0)
    if what == "make":
        migrate(database)
        pace.exchange(Ask(0, 0.0))
        return
    for _ in range(int(what)):
        with database.transaction() as run:
            pace.exchange_in(run, Ask(2, 0.2))
            ((free_at,),) = run.rows("SELECT next_at FROM lingyang_ledger_pace", [])
        sys.stdout.write(f"{free_at / 1e6 - 0.4} {free_at / 1e6 - 0.2}\n")


if __name__ == "__main__":
    main()
