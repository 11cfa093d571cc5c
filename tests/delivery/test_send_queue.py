"""What the queue counts."""

from __future__ import annotations

import pytest

from airflow_provider_lingyang.delivery.send_queue import count_overtaken


@pytest.mark.parametrize(
    ("sent", "others", "late"),
    [
        ([("1", 5.0, 3)], {}, 0),
        ([], {"2": 1.0}, 0),
        ([("1", 5.0, 3)], {"2": 4.0}, 3),
        ([("1", 5.0, 3)], {"2": 6.0}, 0),
        ([("2", 5.0, 3)], {"2": 4.0, "1": 3.0}, 0),
        ([("9", 5.0, 3)], {"10": 4.0}, 3),
        ([("1", 3.0, 1), ("1", 5.0, 2), ("2", 6.0, 4), ("3", 7.0, 8)], {"2": 4.0, "3": 5.5}, 6),
        ([(None, 5.0, 3)], {None: 4.0}, 0),
    ],
)
def test_recipients_of_a_batch_count_as_late_once_another_task_has_sent_a_later_one(
    sent: list[tuple[str | None, float, int]], others: dict[str | None, float], late: int
) -> None:
    assert count_overtaken(sent, others) == late
