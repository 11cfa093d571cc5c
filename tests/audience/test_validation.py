"""One reading: private, ordered, counted, checked as a whole."""

from __future__ import annotations

import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.audience.store import AudienceError, AudienceStore
from airflow_provider_lingyang.audience.validation import Validation
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.storage.private_sqlite import SpoolError
from tests.helpers.audience import person


@pytest.fixture
def audience(tmp_path: Path) -> Iterator[AudienceStore]:
    with AudienceStore(str(tmp_path)) as opened:
        yield opened


def check(reading: Validation, **changes: Any) -> None:
    reading.check(
        **({"on_invalid": "fail", "on_duplicate_contact": "warn", "max_recipients": None} | changes)
    )


def test_batches_come_in_the_order_of_their_numbers_and_rows_in_the_order_of_reading(
    audience: AudienceStore,
) -> None:
    numbers = ["10", "2", "1", "0", "33333333333333333333333", "9"] * 500
    random.Random(1).shuffle(numbers)
    Validation(audience).read(person(row, number) for row, number in enumerate(numbers, 1))
    assert [number for number, _ in SendQueue(audience).batches()] == [
        "0",
        "1",
        "2",
        "9",
        "10",
        "33333333333333333333333",
    ]
    for number, count in SendQueue(audience).batches():
        rows = [int(biz_id) for biz_id, _ in SendQueue(audience).new_recipients(number)]
        assert rows == sorted(rows)
        assert len(rows) == count == 500


def test_without_any_batch_num_there_is_one_batch(audience: AudienceStore) -> None:
    Validation(audience).read(person(row) for row in range(1, 4))
    assert SendQueue(audience).batches() == [(None, 3)]


@pytest.mark.parametrize("column", ["batch_num", "biz_id"])
def test_rows_that_lack_what_others_have_are_invalid(audience: AudienceStore, column: str) -> None:
    reading = Validation(audience)
    if column == "batch_num":
        reading.read([person(1, "1"), person(2), person(3, "1"), person(4)])
    else:
        reading.read([person(1), person(2, derived=True), person(3), person(4, derived=True)])
    assert (reading.invalid.rows, len(audience)) == (2, 2)
    with pytest.raises(AudienceError, match=rf"2 of 4 row\(s\) .*rows 2 and 4: {column} is missing"):
        check(reading)


def test_the_file_is_private_and_gone_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    unlink = Path.unlink

    def look(path: Path) -> None:
        seen.append(stat.S_IMODE(path.stat().st_mode))
        unlink(path)

    monkeypatch.setattr(Path, "unlink", look)
    with AudienceStore(str(tmp_path)) as audience:
        Validation(audience).read(person(row) for row in range(1, 5000))
        audience.repeated_biz_ids()
        assert seen == [0o600]
        assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match=r"cannot be made .*spool_dir"):
        AudienceStore(str(tmp_path / "missing"))


def test_a_full_disk_is_an_error_before_anything_is_sent(audience: AudienceStore) -> None:
    audience._db.execute("PRAGMA max_page_count=20")
    with pytest.raises(SpoolError, match=r"full.*make room"):
        Validation(audience).read(person(row) for row in range(1, 100_000))


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (1, "1 of 1 row(s) are not valid: row 1: email is bad."),
        (2, "2 of 2 row(s) are not valid: rows 1 and 2: email is bad."),
        (5, "5 of 5 row(s) are not valid: rows 1, 2, 3, 4 and 5: email is bad."),
        (30, "30 of 30 row(s) are not valid: rows 1, 2, 3, 4, 5 and 25 more: email is bad."),
    ],
)
def test_invalid_rows_with_one_problem_are_reported_once_with_the_first_row(
    audience: AudienceStore, count: int, told: str
) -> None:
    reading = Validation(audience)
    reading.read([("email", "is bad")] for _ in range(count))
    with pytest.raises(AudienceError) as caught:
        check(reading)
    assert str(caught.value).startswith(told)
    check(reading, on_invalid="skip")


def test_rows_are_counted_not_their_problems(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read([(name, "is bad") for name in ("a", "b", "c")] for _ in range(30))
    with pytest.raises(AudienceError, match=r"^30 of 30 .* 25 more: a is bad; .* 25 more: c is bad\."):
        check(reading)


def test_invalid_rows_report_the_first_20_problems(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read([(f"input_params[{row}]", "is NULL")] for row in range(1, 301))
    with pytest.raises(AudienceError, match=r"^300 of 300 .*row 20: input_params\[20\] is NULL; …") as caught:
        check(reading)
    assert "row 21" not in str(caught.value)


def test_many_rows_with_one_biz_id_are_found_at_once(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read(person(row, biz_id="A", derived=True, contact="x") for row in range(1, 50_001))
    # One comparison a pair would take hours.
    with pytest.raises(AudienceError, match=r"49999 row\(s\) repeat a biz_id"):
        check(reading)


@pytest.mark.parametrize("numbers", [("1", "01"), ("0", "00"), ("007", "7")])
def test_one_number_in_two_spellings_is_an_error(audience: AudienceStore, numbers: tuple[str, str]) -> None:
    reading = Validation(audience)
    reading.read(person(row, number) for row, number in enumerate(numbers, 1))
    with pytest.raises(AudienceError, match="in several ways: " + ", ".join(sorted(numbers))):
        check(reading, on_invalid="skip")


def test_a_biz_id_twice_is_an_error_that_names_the_rows(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read([person(1, biz_id="A"), person(2, biz_id="B"), person(3, biz_id="A")])
    with pytest.raises(AudienceError, match=r"1 row\(s\) repeat a biz_id.*row 3 has the biz_id 'A' of row 1"):
        check(reading, on_invalid="skip")


def test_a_biz_id_twice_is_found_across_batches(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read([person(1, "2", biz_id="A"), person(2, "1", biz_id="A"), person(3, "1", biz_id="A")])
    with pytest.raises(AudienceError, match=r"2 row\(s\) repeat a biz_id"):
        check(reading)


def test_errors_name_ids_without_phone_number_or_address(
    audience: AudienceStore, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Validation(audience)
    reading.read(
        [
            person(1, biz_id="run/10000000001", contact="phone_number 10000000001"),
            person(2, biz_id="One@example.com", contact="email one@example.com"),
            person(3, biz_id="A3", contact="phone_number 10000000003"),
            person(4, biz_id="m-4", contact="outer_user_id m-4"),
        ]
    )
    check(reading)
    assert "2 row(s) have their phone number or email address in the biz_id" in caplog.text
    assert "10000000001" not in caplog.text
    assert "example.com" not in caplog.text


def test_contact_under_two_biz_ids_is_allowed(
    audience: AudienceStore, caplog: pytest.LogCaptureFixture
) -> None:
    reading = Validation(audience)
    reading.read(
        [person(1, contact="phone 9"), person(2, contact="phone 9"), person(3), person(4, contact="phone 9")]
    )
    check(reading)
    assert "2 row(s) repeat an earlier row's contact (row 2, 4)" in caplog.text
    assert "phone 9" not in caplog.text
    with pytest.raises(AudienceError, match=r"row 2, 4"):
        check(reading, on_duplicate_contact="fail")
    check(reading, on_duplicate_contact="keep_first")
    assert reading.repeated_contacts == 2
    assert [biz_id for biz_id, _ in SendQueue(audience).new_recipients(None)] == ["1", "3"]


def test_derived_ids_of_one_contact_are_an_error_unless_the_first_is_kept(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read([person(row, biz_id="X", derived=True, contact="phone 9") for row in (1, 2)])
    with pytest.raises(AudienceError, match=r"row 2 has the contact of row 1.*keep_first"):
        check(reading)
    check(reading, on_duplicate_contact="keep_first")
    assert len(audience) == 1


def test_more_than_max_recipients_is_an_error(audience: AudienceStore) -> None:
    reading = Validation(audience)
    reading.read(person(row) for row in range(1, 4))
    check(reading, max_recipients=3)
    with pytest.raises(AudienceError, match="3 valid recipients are more than max_recipients=2"):
        check(reading, max_recipients=2)


def test_private_copy_and_its_sort_file_are_the_only_files(tmp_path: Path) -> None:
    folder = tmp_path / "it's here"
    folder.mkdir()
    setting = "PRAGMA temp_store_directory"
    said: list[str] = []
    with AudienceStore(str(folder)) as audience:
        audience._db.set_trace_callback(said.append)
        assert audience.repeated_contacts() == (0, [])
        made = [sql for sql in said if sql.startswith(("CREATE INDEX", setting))]
        assert made[0] == f"{setting}='{str(folder).replace(chr(39), chr(39) * 2)}'"
        assert made[-1] == f"{setting}=''"
        assert len(made) == 4
        assert audience._db.execute(setting).fetchone() in (None, ("",))
