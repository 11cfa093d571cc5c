"""What would be sent, for a person to read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import Recipient
from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.delivery.preview import SHOWN, SendPreview
from airflow_provider_lingyang.delivery.schedule import SendSchedule, SendWindow
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter

EVENING = datetime(2026, 1, 31, 20, 29, tzinfo=CHINA)


@pytest.fixture
def audience() -> Iterator[AudienceStore]:
    with AudienceStore() as audience:
        yield audience


def fill(audience: AudienceStore, sizes: dict[str | None, int], prefix: str = "A") -> None:
    row = 0
    for batch_num, size in sizes.items():
        for _ in range(size):
            row += 1
            audience.add(Recipient(row, f"{prefix}{row}", False, batch_num, f"contact{row}", "{}"))


def schedule(rate: float | None = None, **how: Any) -> SendSchedule:
    limiter = RateLimiter(rate, monotonic=lambda: 0.0)
    return SendSchedule(limiter=limiter, clock=lambda: EVENING, **how)


def test_the_plan_is_a_table_in_the_order_of_sending(audience: AudienceStore) -> None:
    fill(audience, {"10": 2, "2": 1205, "1": 50})
    window = SendWindow.parse("09:00-20:30")
    plan = SendPreview.of(SendQueue(audience), 100, schedule(rate=0.1, window=window))
    assert str(plan).splitlines() == [
        "The plan: 1257 tasks in 15 requests. At the connection's max_requests_per_second that takes at least 2 min; "
        "begun now, it ends at 2026-02-01 09:01 (Asia/Shanghai) at the earliest",
        "  batch_num  tasks  requests  at least  first biz_ids",
        "          1     50         1      10 s  A1208, A1209, A1210, …",
        "          2   1205        13     2 min  A3, A4, A5, …",
        "         10      2         1      10 s  A1, A2",
    ]
    assert plan.account == {
        "batch_nums": 3,
        "tasks": 1257,
        "requests": 15,
        "seconds": 150,
        "ends_at": "2026-02-01T09:01:30+08:00",
        "batches": [
            {"batch_num": "1", "tasks": 50, "requests": 1, "seconds": 10, "first_biz_ids": ["A1208", "A1209", "A1210"]},
            {"batch_num": "2", "tasks": 1205, "requests": 13, "seconds": 130, "first_biz_ids": ["A3", "A4", "A5"]},
            {"batch_num": "10", "tasks": 2, "requests": 1, "seconds": 10, "first_biz_ids": ["A1", "A2"]},
        ],
        "batches_left_out": 0,
    }  # fmt: skip


def test_preview_without_a_pace_has_no_duration(audience: AudienceStore) -> None:
    fill(audience, {None: 3})
    plan = SendPreview.of(SendQueue(audience), 2, schedule())
    assert str(plan).splitlines() == [
        "The plan: 3 tasks in 2 requests. How long that takes is unknown: the connection has no "
        "max_requests_per_second",
        "  batch_num  tasks  requests  at least  first biz_ids",
        "     (none)      3         2   unknown  A1, A2, A3",
    ]
    assert (plan.account["seconds"], plan.account["ends_at"]) == (None, None)


def test_a_plan_of_thousands_of_batches_and_long_ids_stays_readable(audience: AudienceStore) -> None:
    fill(audience, {str(number): 3 for number in range(1, 3001)}, prefix="x" * 60)
    plan = SendPreview.of(SendQueue(audience), 2, schedule(rate=1))
    lines = str(plan).splitlines()
    assert len(lines) == SHOWN + 3
    assert (
        lines[-1]
        == f"  … and {3000 - SHOWN} more with {3 * (3000 - SHOWN)} tasks in {2 * (3000 - SHOWN)} requests"
    )
    assert max(map(len, lines[1:])) < 150
    # The ids of one run begin alike, so it is the ends that are told.
    assert all(f" …{biz_id[-31:]}" in lines[2] for biz_id in plan.account["batches"][0]["first_biz_ids"])
    account = plan.account
    assert (len(account["batches"]), account["batches_left_out"]) == (SHOWN, 3000 - SHOWN)
    assert len(json.dumps(account)) < 10_000


def test_preview_keeps_an_id_with_a_newline_on_one_line(audience: AudienceStore) -> None:
    audience.add(Recipient(1, "A1\nERROR x\x1b[31m", False, None, "phone_number 1", "{}"))
    _, _, row = str(SendPreview.of(SendQueue(audience), 1, SendSchedule())).split("\n")
    assert row.endswith(r"'A1\nERROR x\x1b[31m'")


def test_preview_is_too_late_unless_sending_ends_before_send_until(audience: AudienceStore) -> None:
    fill(audience, {"1": 10})
    until = EVENING.replace(hour=20, minute=30)
    assert not SendPreview.of(SendQueue(audience), 1, schedule(rate=1, until=until)).too_late
    assert SendPreview.of(SendQueue(audience), 1, schedule(rate=0.1, until=until)).too_late
    assert not SendPreview.of(SendQueue(audience), 1, schedule(until=until)).too_late
