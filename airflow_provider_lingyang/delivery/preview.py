"""What would be sent: a table for a person to read before any recipient is contacted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Self

from airflow_provider_lingyang.delivery.progress import duration
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.gateway.dates import in_china

SHOWN = 20
"""How many batches a plan shows."""
NO_LOOK_UP = (
    "no result_query describes a look-up, so its recipients stay in doubt until a person settles them"
)
_FIRST_IDS, _ID_LENGTH = 3, 32


@dataclass(frozen=True, slots=True)
class SendPreview:
    """The plan for an audience.

    :param account: the plan as plain JSON of a few KB, its batches in the order of sending.
    :param ends: when the last request will have left at the earliest; None: nothing says it.
    :param too_late: whether that is after ``send_until``.
    """

    account: dict[str, Any]
    ends: datetime | None
    too_late: bool

    @classmethod
    def of(cls, queue: SendQueue, batch_size: int, schedule: SendSchedule) -> Self:
        """Return the plan for an audience."""
        counts = [(batch_num, tasks, -(-tasks // batch_size)) for batch_num, tasks in queue.batches()]
        requests = sum(count for _, _, count in counts)
        ends = schedule.ends(requests)
        account = {
            "batch_nums": len(counts),
            "tasks": sum(tasks for _, tasks, _ in counts),
            "requests": requests,
            "seconds": _whole(schedule.seconds(requests)),
            "ends_at": None if ends is None else in_china(ends).isoformat(timespec="seconds"),
            "batches": [
                {
                    "batch_num": batch_num,
                    "tasks": tasks,
                    "requests": count,
                    "seconds": _whole(schedule.seconds(count)),
                    "first_biz_ids": [
                        biz_id for biz_id, _ in islice(queue.new_recipients(batch_num), _FIRST_IDS)
                    ],
                }
                for batch_num, tasks, count in counts[:SHOWN]
            ],
            "batches_left_out": max(0, len(counts) - SHOWN),
        }
        return cls(account, ends, ends is not None and schedule.is_too_late(ends))

    def __str__(self) -> str:
        plan, shown = self.account, self.account["batches"]
        rows = [
            (
                "(none)" if batch["batch_num"] is None else batch["batch_num"],
                str(batch["tasks"]),
                str(batch["requests"]),
                "unknown" if batch["seconds"] is None else duration(batch["seconds"]),
                ", ".join(map(_short, batch["first_biz_ids"]))
                + (", …" if batch["tasks"] > len(batch["first_biz_ids"]) else ""),
            )
            for batch in shown
        ]
        lines = _table([("batch_num", "tasks", "requests", "at least", "first biz_ids"), *rows])
        if left_out := plan["batches_left_out"]:
            tasks, requests = (
                plan[each] - sum(batch[each] for batch in shown) for each in ("tasks", "requests")
            )
            lines.append(f"… and {left_out} more with {tasks} tasks in {requests} requests")
        total = f"The plan: {plan['tasks']} tasks in {plan['requests']} requests. {self._how_long()}"
        return "\n  ".join([total, *lines])

    def _how_long(self) -> str:
        if self.account["seconds"] is None:
            return "How long that takes is unknown: the connection has no max_requests_per_second"
        takes = f"At the connection's max_requests_per_second that takes at least {duration(self.account['seconds'])}"
        if self.ends is None:
            return takes
        return f"{takes}; begun now, it ends at {self.ends:%Y-%m-%d %H:%M} (Asia/Shanghai) at the earliest"


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds)


def _short(biz_id: str) -> str:
    # Its end: ids of one run mostly begin alike, with the run's id.
    short = biz_id if len(biz_id) <= _ID_LENGTH else f"…{biz_id[1 - _ID_LENGTH :]}"
    # The end of a line in an id would forge lines of the log.
    return short if short.isprintable() else repr(short)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the columns below one another: text of the last to the left, what is counted to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([*map(str.rjust, cells, widths), last]) for *cells, last in rows]
