"""Slots that no database or XCom takes as they come: through the sensor, and into real databases."""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException

from airflow_provider_lingyang.results.completion import TABLE_BYTES, XCOM_BYTES, cut, cut_slots
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from tests.conftest import Run
from tests.transfers.conftest import Counts, MakeTransfer, Pushed, Warehouse

HOSTILE: dict[str, dict[str, Any]] = {
    "long": {"x": "a" * 2**20},
    "wide": {"x": "客" * 30_000},
    "emoji": {"x": "😀" * 20_000},
    "nested": {"x": {"y": ["z" * 70_000]}},
    "nul": {"x": "a\0b", "n\0m": "c\0d", "deep": {"k\0": ["v\0"]}},
    "half": {"x": "a\ud800", "\udfff": "b"},
    "name": {"x": "ok", "n" * 100_000: "v"},
    "many": {"x": "ok"} | {f"slot{number}": "v" * 100 for number in range(2000)},
}
ORDINARY = {f"P{number}": {"x": "yes"} for number in range(200)}


def answers() -> list[tuple[str, str, str]]:
    return [(biz_id, json.dumps(slots), "OK") for biz_id, slots in (ORDINARY | HOSTILE).items()]


def test_long_slots_of_one_recipient_do_not_stop_others(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed, counts: Counts
) -> None:
    ids = {"biz_ids": [*ORDINARY, *HOSTILE], "slots": ["x"]}
    for key in ("inserted", "updated"):
        found = counts(run.execute(transfer(**ids, **pushed(answers()))))
        assert (found["rows"], found[key], found["cut"]) == (208, 208, 5)
    rows = warehouse.rows("x", "output_params")
    assert len(rows) == 208
    for biz_id in HOSTILE:
        value, slots = rows[biz_id]
        assert len(value.encode()) <= TABLE_BYTES
        assert all(len(str(text).encode()) <= TABLE_BYTES for text in json.loads(slots).values())
        assert "\0" not in value + "".join(json.loads(slots))
    assert rows["long"][0].endswith("… [cut, 1048576 bytes]")
    assert json.loads(rows["long"][1])["x"] == rows["long"][0]
    assert json.loads(rows["nul"][1]) == {
        "x": "a\ufffdb",
        "n\ufffdm": "c\ufffdd",
        "deep": {"k\ufffd": ["v\ufffd"]},
    }


def test_refused_rows_are_named_and_the_others_written(
    warehouse: Warehouse, run: Run, transfer: MakeTransfer, pushed: Pushed
) -> None:
    if warehouse.kind == "sqlite":
        return  # It holds anything anywhere.
    key = "VARCHAR(50)"
    options = " DEFAULT CHARACTER SET utf8mb4" if warehouse.kind == "mariadb" else ""
    warehouse.sql(
        f"CREATE TABLE answers (biz_id {key} NOT NULL, task_id {key}, plan_id BIGINT, campaign_key {key}, status {key}, "
        f"output_params VARCHAR(2000), fetched_at {key}, x VARCHAR(1000), PRIMARY KEY (campaign_key, plan_id, biz_id)){options}"
    )
    ids = {"biz_ids": [*ORDINARY, *HOSTILE], "slots": ["x"], "create_table": False}
    for _ in range(2):
        with pytest.raises(AirflowException) as caught:
            run.execute(transfer(**ids, **pushed(answers())))
        text = str(caught.value)
        assert "the table cannot hold 5 row(s), of biz_id 'long', 'wide', 'emoji', 'nested', 'many'" in text
        assert "Of 208 recipients 203 were written, 5 were refused by the table, 0 were not looked up" in text
        assert "aaa" not in text
        assert warehouse.rows("x") == dict.fromkeys(ORDINARY, "yes") | {
            "nul": "a\ufffdb",
            "half": "a\ufffd",
            "name": "ok",
        }


def test_xcom_values_are_cut(run: Run, pushed: Pushed) -> None:
    ids = [*ORDINARY, *HOSTILE]
    sensor = LingyangResultSensor(
        task_id="wait", biz_ids=ids, mode="poke", deferrable=False, **pushed(answers())
    )
    value = run.execute(sensor)
    text = json.dumps(value, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in json.dumps(value)
    found = {biz_id: value["results"][biz_id]["slots"] for biz_id in HOSTILE}
    for slots in [*found.values(), *value["slots"].values()]:
        assert all(len(name.encode()) <= XCOM_BYTES for name in slots)
        assert all(len(str(item).encode()) <= XCOM_BYTES for item in slots.values())
    assert value["slots"]["x"]["yes"] == 200
    assert found["nul"]["n\ufffdm"] == "c\ufffdd"


@pytest.mark.parametrize("limit", [TABLE_BYTES, XCOM_BYTES])
@pytest.mark.parametrize("letter", ["a", "客", "😀", "\0", "\ud800"])
def test_cut_values_end_with_their_length(letter: str, limit: int) -> None:
    for length in (1, limit // 4, limit // 3, limit // 3 + 1, limit, limit + 1, 10 * limit):
        kept = cut(letter * length, limit)
        assert len(kept.encode()) <= limit
        assert (len(kept) == length) is ("[cut, " not in kept)
        slots, was_cut = cut_slots({"x": letter * length}, limit)
        assert (slots["x"], was_cut) == (kept, "[cut, " in kept)
