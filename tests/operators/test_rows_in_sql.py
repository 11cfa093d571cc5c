"""What became of every row, as the ledger's views show it: it adds up with the manifest, however a try ends."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.ledger.sql import SqlLedger
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import LOST, Campaign, row

INVALID = "phone_number is not a phone number (5 to 20 digits)"
SAME_AS_1: dict[str, Any] = {"phone_number": row(1)["phone_number"]}


class InSql(Campaign):
    """Tries of one task instance whose ledger is in SQLite, and what its views show."""

    path: Path

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as db:
            return db.execute(statement).fetchall()

    def lines(self) -> list[tuple[Any, ...]]:
        """Of each row or recipient: row number, biz_id, state, reason."""
        columns = "row_no, biz_id, state, reason"
        return self.sql(f"SELECT {columns} FROM lingyang_recipients ORDER BY row_no, biz_id")

    def check_counts(self) -> None:
        """The views show each row once, and as many of each kind as the manifest counts."""
        counts = self.run.manifest()["counts"]
        counts["accepted"] += counts["already_accepted"] + counts["vanished"]
        names = ("accepted", "rejected", "invalid", "excluded", "not_sent", "in_doubt")
        (of_campaign,) = self.sql(f"SELECT {', '.join(names)} FROM lingyang_campaigns")
        assert dict(zip(names, of_campaign, strict=True)) == {"excluded": 0} | {
            name: counts[name] for name in names if name != "excluded"
        }
        lines = dict(self.sql("SELECT state, count(*) FROM lingyang_recipients GROUP BY state"))
        assert lines == {name: count for name, count in zip(names, of_campaign, strict=True) if count}
        twice = "SELECT biz_id FROM lingyang_recipients WHERE state <> 'invalid' GROUP BY 1 HAVING count(biz_id) > 1"
        assert self.sql(twice) == []


@pytest.fixture
def in_sql(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InSql:
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "0")
    found = InSql(run, {"ledger_conn_id": "ledger"}, None)
    found.path = tmp_path / "ledger.db"
    connection = {"conn_type": "sqlite", "host": str(found.path)}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))
    return found


SENT = (None, "B1", "accepted", None)
REFUSED = {"kind": "refuse", "message": "no such thing", "match": {"batch_num": "1"}}


@pytest.mark.parametrize(
    ("ends", "rows", "arguments", "expected"),
    [
        pytest.param(
            "fails",
            [row(1), row(2, phone_number="x")],
            {},
            [(1, "B1", "not_sent", "not attempted"), (2, "B2", "invalid", INVALID)],
            id="on_invalid fail",
        ),
        pytest.param(
            "execute",
            [row(1), row(2, phone_number="x"), row(3, biz_id=None, phone_number=None)],
            {"on_invalid": "skip"},
            [
                SENT,
                (2, "B2", "invalid", INVALID),
                (3, None, "invalid", "biz_id is missing; phone_number or email or outer_user_id is missing (one is needed)"),
            ],
            id="on_invalid skip",
        ),
        pytest.param(
            "execute",
            [row(1), row(1, phone_number="x"), row(1, email="no address")],
            {"on_invalid": "skip"},
            [SENT, (2, None, "invalid", INVALID), (3, None, "invalid", "email is not an email address")],
            id="invalid rows of a recipient that is sent",
        ),
        pytest.param(
            "execute",
            [row(1, batch_num="7"), row(2)],
            {"on_invalid": "skip"},
            [SENT, (2, "B2", "invalid", "batch_num is missing, while other rows have one")],
            id="incomplete",
        ),
        pytest.param(
            "execute",
            [row(1), {name: value for name, value in row(2).items() if name != "biz_id"}],
            {"on_invalid": "skip"},
            [SENT, (2, None, "invalid", "biz_id is missing, while other rows have one")],
            id="without a biz_id",
        ),
        pytest.param(
            "execute",
            [row(1), row(2, **SAME_AS_1)],
            {"on_duplicate_contact": "keep_first"},
            [SENT, (2, "B2", "not_sent", "repeats an earlier row's contact")],
            id="on_duplicate_contact keep_first",
        ),
        pytest.param(
            "execute",
            [row(1), row(2, **SAME_AS_1)],
            {},
            [SENT, (None, "B2", "accepted", None)],
            id="on_duplicate_contact warn",
        ),
        pytest.param(
            "fails",
            [row(1), row(2, **SAME_AS_1)],
            {"on_duplicate_contact": "fail"},
            [(1, "B1", "not_sent", "not attempted"), (2, "B2", "not_sent", "not attempted")],
            id="on_duplicate_contact fail",
        ),
        pytest.param(
            "fails",
            [row(1), row(2)],
            {"send_until": "2020-01-01 00:00:00"},
            [(None, "B1", "not_sent", "send_until has passed"), (None, "B2", "not_sent", "send_until has passed")],
            id="send_until",
        ),
        pytest.param("fails", [row(1, phone_number="x")], {"on_invalid": "skip"}, [(1, "B1", "invalid", INVALID)]),
        pytest.param("execute", [], {"on_empty": "succeed"}, [], id="no rows"),
    ],
)  # fmt: skip
def test_rows_that_are_in_no_request_have_a_line_with_their_reason(
    sandbox: SandboxProcess,
    in_sql: InSql,
    ends: str,
    rows: list[dict[str, Any]],
    arguments: dict[str, Any],
    expected: list[tuple[Any, ...]],
) -> None:
    in_sql.next_try(ends, audience=rows, **arguments)
    assert in_sql.lines() == expected
    in_sql.check_counts()


@pytest.mark.parametrize(("on_rejected", "ends"), [("continue", "execute"), ("fail", "fails")])
def test_a_rejection_ends_the_try_or_does_not(
    sandbox: SandboxProcess, in_sql: InSql, on_rejected: str, ends: str
) -> None:
    sandbox.add_fault(**REFUSED)
    rows = [row(1, batch_num="1"), row(2, batch_num="2"), row(3, batch_num="2", phone_number="x")]
    in_sql.next_try(ends, audience=rows, on_invalid="skip", on_rejected=on_rejected)
    in_sql.check_counts()
    (rejected, *others) = in_sql.lines()
    assert rejected[1:3] == ("B1", "rejected")
    assert "no such thing" in rejected[3]
    second = (None, "B2", "accepted", None) if ends == "execute" else (2, "B2", "not_sent", "not attempted")
    assert others == [second, (3, "B3", "invalid", INVALID)]


def test_a_doubt_has_its_reason(without_lookup: SandboxProcess, in_sql: InSql) -> None:
    without_lookup.add_fault(**LOST)
    rows = [row(1), row(2), row(3, phone_number="x")]
    in_sql.next_try("fails", audience=rows, on_invalid="skip")
    in_sql.check_counts()
    (why,) = in_sql.run.manifest()["reasons"]["in_doubt"]
    doubts = [(None, f"B{number}", "in_doubt", why) for number in (1, 2)]
    assert in_sql.lines() == [*doubts, (3, "B3", "invalid", INVALID)]
    # A later try that finds out no more keeps the first reason.
    in_sql.next_try("fails", audience=[*rows[:2], row(4)])
    assert in_sql.lines() == [*doubts, (3, "B4", "not_sent", "not attempted")]
    in_sql.check_counts()


def test_a_later_try_has_the_rows_of_its_own_audience(without_lookup: SandboxProcess, in_sql: InSql) -> None:
    without_lookup.add_fault(kind="throttle", seconds=0, after=1, times=9)
    rows = [row(number) for number in range(1, 5)]
    in_sql.next_try("stops", audience=[*rows, row(5, phone_number="x")], on_invalid="skip", max_in_flight=1)
    in_sql.check_counts()
    assert in_sql.lines()[-1] == (5, "B5", "invalid", INVALID)
    without_lookup.clear_faults()
    in_sql.next_try(audience=[*rows, row(5)])
    in_sql.check_counts()
    assert [line[2] for line in in_sql.lines()] == ["accepted"] * 5
    assert in_sql.sql("SELECT count(*) FROM lingyang_ledger_row") == [(0,)]


def test_a_contact_reached_under_another_biz_id(sandbox: SandboxProcess, in_sql: InSql) -> None:
    rows = [row(1), row(2, **SAME_AS_1)]
    in_sql.next_try(audience=rows, on_duplicate_contact="keep_first")
    in_sql.clear()
    in_sql.next_try(audience=rows[::-1], on_duplicate_contact="keep_first")
    in_sql.check_counts()
    assert in_sql.lines() == [
        SENT,
        (1, "B2", "not_sent", "their contact was reached under another biz_id"),
        (2, None, "not_sent", "repeats an earlier row's contact"),
    ]


def test_an_unknown_history_is_in_doubt(without_lookup: SandboxProcess, in_sql: InSql) -> None:
    in_sql.try_number = 1
    in_sql.next_try("fails", audience=[row(1), row(2)])
    in_sql.check_counts()
    assert [line[2:] for line in in_sql.lines()] == [
        ("in_doubt", "the ledger knows nothing of earlier tries")
    ] * 2


def test_a_recipient_that_another_run_has_sent_to_is_one_line(
    without_lookup: SandboxProcess, in_sql: InSql, shared: Callable[[str], Campaign]
) -> None:
    """However the runs of a campaign share its recipients."""
    monday, tuesday, wednesday = map(shared, ("monday", "tuesday", "wednesday"))
    bad = row(3, phone_number="x")
    for run in (monday, tuesday):
        run.next_try("fails", audience=[row(1), row(2), bad])
    assert in_sql.lines() == [
        (1, "B1", "not_sent", "not attempted"),
        (2, "B2", "not_sent", "not attempted"),
        (3, "B3", "invalid", INVALID),
    ]
    wednesday.next_try(audience=[row(2), row(3)])
    assert in_sql.lines() == [
        (None, "B2", "accepted", None),
        (None, "B3", "accepted", None),
        (1, "B1", "not_sent", "not attempted"),
    ]
    columns = "accepted, invalid, not_sent"
    assert in_sql.sql(f"SELECT {columns} FROM lingyang_campaigns") == [(2, 0, 1)]


def test_rows_that_cannot_be_written_change_nothing_else(
    sandbox: SandboxProcess,
    in_sql: InSql,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("10000000002")

    monkeypatch.setattr(SqlLedger, "explain", broken)
    with caplog.at_level(logging.WARNING):
        in_sql.next_try(audience=[row(1), row(2, phone_number="x")], on_invalid="skip")
    assert in_sql.run.counts() == {"audience": 2, "accepted": 1, "invalid": 1}
    assert "does not show all rows that were not sent (ValueError)" in caplog.text
    assert "10000000002" not in caplog.text


def test_a_task_that_was_killed_or_is_deferred_writes_no_rows(sandbox: SandboxProcess, in_sql: InSql) -> None:
    rows = [row(1), row(2, phone_number="x")]
    sandbox.add_fault(kind="throttle", seconds=600)
    in_sql.next_try("waits", audience=rows, on_invalid="skip")
    assert in_sql.sql("SELECT count(*) FROM lingyang_ledger_row") == [(0,)]

    def killed() -> Any:
        for number, each in enumerate(rows):
            if number:
                operator.on_kill()
            yield each

    sandbox.clear_faults()
    in_sql.next_try("fails", audience=rows)
    before = in_sql.sql("SELECT row_no, written_at FROM lingyang_ledger_row")
    assert len(before) == 1
    operator = in_sql.operator(audience=killed(), on_invalid="skip")
    in_sql.next_try("stops", operator=operator)
    assert in_sql.sql("SELECT row_no, written_at FROM lingyang_ledger_row") == before


def test_thousands_of_rows_are_written_in_pages(sandbox: SandboxProcess, in_sql: InSql) -> None:
    rows = [
        row(number, phone_number="x" if number % 2 else row(number)["phone_number"]) for number in range(5001)
    ]
    in_sql.next_try("fails", audience=rows)
    in_sql.check_counts()
    numbers = in_sql.sql("SELECT row_no, biz_id FROM lingyang_recipients ORDER BY row_no")
    assert numbers == [(number + 1, f"B{number}") for number in range(5001)]


KEPT: dict[str, Any] = {"keep_columns": ["tier", "Points"], "on_invalid": "skip"}


def with_kept(number: int, **changes: Any) -> dict[str, Any]:
    return row(number, tier="gold", points=number) | changes


def test_columns_of_ones_own_travel_with_each_row(without_lookup: SandboxProcess, in_sql: InSql) -> None:
    without_lookup.add_fault(kind="throttle", seconds=0, after=1, times=9)
    rows = [
        *(with_kept(number) for number in range(1, 7)),
        with_kept(7, phone_number="x"),
        with_kept(8, tier="one@mail.invalid"),
    ]
    in_sql.next_try("stops", audience=rows, **KEPT)
    columns = "biz_id, state, kept"
    states = ["accepted"] * 2 + ["not_sent"] * 4 + ["invalid"]
    expected = [
        *(
            (f"B{number}", state, f'{{"tier":"gold","Points":{number}}}')
            for number, state in enumerate(states, 1)
        ),
        ("B8", "invalid", '{"tier":null,"Points":8}'),
    ]
    assert in_sql.sql(f"SELECT {columns} FROM lingyang_recipients ORDER BY biz_id") == expected
    in_sql.check_counts()
    assert in_sql.run.manifest()["ledger"]["keep_columns"] == ["tier", "Points"]
    without_lookup.clear_faults()
    in_sql.next_try(audience=rows, **KEPT)
    sent_again = "SELECT kept FROM lingyang_recipients WHERE state='accepted' ORDER BY biz_id"
    assert [kept for (kept,) in in_sql.sql(sent_again)] == [kept for _, _, kept in expected[:6]]


def test_a_row_left_out_keeps_its_columns(sandbox: SandboxProcess, in_sql: InSql) -> None:
    rows = [with_kept(1, batch_num="1"), with_kept(2, batch_num="1", **SAME_AS_1), with_kept(3)]
    in_sql.next_try(audience=rows, on_duplicate_contact="keep_first", **KEPT)
    assert in_sql.sql("SELECT row_no, kept FROM lingyang_recipients WHERE row_no > 0 ORDER BY row_no") == [
        (number, f'{{"tier":"gold","Points":{number}}}') for number in (2, 3)
    ]


def test_without_keep_columns_nothing_is_kept(sandbox: SandboxProcess, in_sql: InSql) -> None:
    in_sql.next_try(audience=[row(1), row(2, phone_number="x")], on_invalid="skip")
    assert in_sql.sql("SELECT kept FROM lingyang_recipients") == [(None,), (None,)]
    assert "keep_columns" not in in_sql.run.manifest()["ledger"]


def test_no_value_of_a_row_is_written_down(sandbox: SandboxProcess, in_sql: InSql) -> None:
    canary = {"phone_number": "CANARY", "email": "CANARY", "user_name": "CANARY", "cms_user_id": "CANARY"}
    rows = [
        row(1, user_name="CANARY", tier="silver"),
        row(2, tier="of 1000000-0002") | {"input_params": {"name": "CANARY"}},
        row(3, tier="CANARY@mail.invalid"),
        row(4, **canary, tier="gold"),
        row(5, phone_number=None, tier="gold") | {"input_params": "CANARY"},
        row(6, biz_id="CANARY@mail.invalid", phone_number="x", tier="gold"),
    ]
    in_sql.next_try(audience=rows, keep_columns=["tier"], on_invalid="skip")
    assert in_sql.run.counts() == {"audience": 6, "accepted": 1, "invalid": 5}
    in_sql.check_counts()
    written = in_sql.path.read_bytes()
    assert b"silver" in written
    assert written.count(b"gold") >= 3
    assert not [each for each in (b"CANARY", b"1000000-0002", b"10000000002") if each in written]


def test_what_a_word_has_freed_says_so(without_lookup: SandboxProcess, in_sql: InSql) -> None:
    without_lookup.add_fault(**LOST, times=2)
    rows = [row(number) for number in range(1, 5)]
    in_sql.next_try(audience=rows, on_in_doubt="continue")
    in_sql.check_counts()
    first, _ = in_sql.run.manifest()["in_doubt"]
    in_sql.next_try("fails", audience=rows, settle={first["task_unique_code"]: "not_executed"})
    in_sql.check_counts()
    assert ("not_sent", "a look-up proves the absence, or a person says not_executed") in [
        line[2:] for line in in_sql.lines()
    ]
    assert [line[2] for line in in_sql.lines()].count("in_doubt") == 2
