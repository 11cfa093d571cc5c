"""docs/ledger.md: its queries run on every database, its tables are the views' columns, its commands can be read."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.cli.definition import LEDGER_COMMANDS
from airflow_provider_lingyang.ledger.__main__ import command_line
from airflow_provider_lingyang.ledger.base import Outcome
from airflow_provider_lingyang.ledger.sql_tables import campaign_id
from airflow_provider_lingyang.ledger.sql_views import EXCLUDED, INVALID
from airflow_provider_lingyang.storage.database import Database
from tests.ledger.conftest import SqlLedgers

PAGE = (Path(__file__).parents[2] / "docs" / "ledger.md").read_text(encoding="utf-8")
AT = 1767571200.0  # 2026-01-05 00:00 UTC
MONDAY, TUESDAY = "2026-01-05", "2026-01-06"
QUERIES = dict(re.findall(r"\n([^\n]+)\n\n```sql\n(.*?)```", PAGE, re.DOTALL))
EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    "Why were these rejected?": [("refused [isv.x]", 2, "A2"), ("refused [isv.y]", 1, "A4")],
    "Which recipients are in doubt, since when, and in which request?": [
        ("autumn", 9, "late", "7", "A1", f"{TUESDAY} 00:00:00", "dag", "tuesday")
    ],
    "The share that is rejected, by day and plan:": [
        (MONDAY, 123, 4, Decimal("75.0")),
        (TUESDAY, 9, 1, Decimal("0.0")),
    ],
    "What became of one recipient, in all campaigns?": [
        ("spring-sale-2026", 123, 1, "accepted", None, 501, "req-1", f"{MONDAY} 00:00:00"),
        ("autumn", 9, 1, "in_doubt", None, None, None, f"{TUESDAY} 00:00:00"),
    ],
    "Which rows of the audience are in no request, and why?": [
        (3, "A7", "invalid", "phone_number is missing"),
        (8, None, "excluded", "on a list"),
    ],
    "Which campaigns need a person?": [("autumn", 9, "dag", "tuesday", None, 0, 1)],
    "Which recipients are in several campaigns?": [("A1", 2)],
}


@pytest.fixture
def sent(database: SqlLedgers) -> SqlLedgers:
    spring = database.start(campaign_key="spring-sale-2026", plan_id=123, run_id="monday")
    spring.write([], [database.intent("one", ["A1", "A2", "A3", "A5"], written_at=AT)])
    spring.write(
        [Outcome("one", {"A1": 501}, ["A2", "A3"], ["A5"], reason="refused [isv.x]", request_id="req-1")], []
    )
    spring.write([], [database.intent("two", ["A4"], written_at=AT + 60)])
    spring.write([Outcome("two", {}, ["A4"], reason="refused [isv.y]")], [])
    spring.finish()
    autumn = database.start(campaign_key="autumn", plan_id=9, run_id="tuesday")
    autumn.write([], [database.intent("late", ["A1"], written_at=AT + 86400)])
    number = campaign_id(*spring._this)
    for row_no, state, biz_id, reason in (
        (3, INVALID, "'A7'", "phone_number is missing"),
        (8, EXCLUDED, "NULL", "on a list"),
    ):
        database.sql(
            "INSERT INTO lingyang_ledger_row (campaign, worker, row_no, state, biz_id, reason, written_at) "
            f"VALUES ({number}, 'w', {row_no}, {state}, {biz_id}, '{reason}', {AT})"
        )
    return database


def plain(value: Any) -> Any:
    """A value as every driver could give it."""
    if isinstance(value, float | Decimal):
        return Decimal(value).quantize(Decimal("0.1"))
    text = str(value)
    return text[:19] if re.match(r"\d{4}-\d\d-\d\d", text) else value


def test_each_query_of_the_page_gives_what_it_promises(sent: SqlLedgers) -> None:
    assert QUERIES.keys() == EXPECTED.keys()
    for title, sql in QUERIES.items():
        found = [tuple(map(plain, row)) for row in sent.sql(sql)]
        if title == "Which campaigns need a person?":
            found = [(*row[:4], None, *row[5:]) for row in found]  # it was started a moment ago
        assert found == EXPECTED[title], title


def columns(view: str) -> Iterator[str]:
    _, _, text = PAGE.partition(f"\n`{view}` has a line")
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table
    for line in table[0].splitlines()[2:]:
        yield from re.findall("`(.*?)`", line.split("|")[1])


@pytest.mark.parametrize("view", ["lingyang_recipients", "lingyang_campaigns"])
def test_the_page_has_each_column_of_a_view(sent: SqlLedgers, view: str) -> None:
    with closing(Database(sent.hook(), "ledger")) as database:
        assert list(columns(view)) == database.columns(view)


def test_each_command_of_the_page_can_be_read() -> None:
    (block,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    commands = []
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[:3] == ["airflow", "lingyang", "ledger"]
        commands.append(command_line().parse_args(words[3:]).command)
    assert commands == [command.name for command in LEDGER_COMMANDS]
    flags = {flag for command in LEDGER_COMMANDS for arg in command.args for flag in arg.flags}
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= flags
