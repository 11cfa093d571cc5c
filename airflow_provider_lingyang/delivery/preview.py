"""What would be sent: a table for a person to read before anybody is contacted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
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
class PlannedBatch:
    """One ``batch_num``.

    :param seconds: how long its requests take at least; None: nothing says it.
    :param first_ids: its first recipients.
    """

    batch_num: str | None
    tasks: int
    requests: int
    seconds: float | None
    first_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class SendPreview:
    """All of them, in the order of sending.

    :param first: the first batches.
    :param batches: how many there are.
    :param ends: when the last request will have left at the earliest; None: nothing says it.
    :param too_late: whether that is after ``send_until``.
    """

    first: Sequence[PlannedBatch]
    batches: int
    tasks: int
    requests: int
    seconds: float | None
    ends: datetime | None
    too_late: bool

    @classmethod
    def of(cls, queue: SendQueue, batch_size: int, schedule: SendSchedule) -> Self:
        """Return the plan for an audience."""
        counts = [(batch_num, tasks, -(-tasks // batch_size)) for batch_num, tasks in queue.batches()]
        requests = sum(count for _, _, count in counts)
        ends = schedule.ends(requests)
        return cls(
            first=[
                PlannedBatch(
                    batch_num, tasks, count, schedule.seconds(count), queue.first_ids(batch_num, _FIRST_IDS)
                )
                for batch_num, tasks, count in counts[:SHOWN]
            ],
            batches=len(counts),
            tasks=sum(tasks for _, tasks, _ in counts),
            requests=requests,
            seconds=schedule.seconds(requests),
            ends=ends,
            too_late=ends is not None and schedule.is_too_late(ends),
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON of a few KB."""
        return {
            "batch_nums": self.batches,
            "tasks": self.tasks,
            "requests": self.requests,
            "seconds": None if self.seconds is None else round(self.seconds),
            "ends_at": None if self.ends is None else in_china(self.ends).isoformat(timespec="seconds"),
            "batches": [
                {
                    "batch_num": batch.batch_num,
                    "tasks": batch.tasks,
                    "requests": batch.requests,
                    "seconds": None if batch.seconds is None else round(batch.seconds),
                    "first_biz_ids": list(batch.first_ids),
                }
                for batch in self.first
            ],
            "batches_left_out": self.batches - len(self.first),
        }

    def __str__(self) -> str:
        rows = [
            (
                "(none)" if batch.batch_num is None else batch.batch_num,
                str(batch.tasks),
                str(batch.requests),
                "unknown" if batch.seconds is None else duration(batch.seconds),
                ", ".join(map(_short, batch.first_ids))
                + (", …" if batch.tasks > len(batch.first_ids) else ""),
            )
            for batch in self.first
        ]
        lines = _table([("batch_num", "tasks", "requests", "at least", "first biz_ids"), *rows])
        if left_out := self.batches - len(self.first):
            tasks = self.tasks - sum(batch.tasks for batch in self.first)
            requests = self.requests - sum(batch.requests for batch in self.first)
            lines.append(f"… and {left_out} more with {tasks} tasks in {requests} requests")
        total = f"The plan: {self.tasks} tasks in {self.requests} requests. {self._how_long()}"
        return "\n  ".join([total, *lines])

    def _how_long(self) -> str:
        if self.seconds is None:
            return "How long that takes is unknown: the connection has no max_requests_per_second"
        takes = f"At the connection's max_requests_per_second that takes at least {duration(self.seconds)}"
        if self.ends is None:
            return takes
        return f"{takes}; begun now, it ends at {self.ends:%Y-%m-%d %H:%M} (Asia/Shanghai) at the earliest"


def _short(biz_id: str) -> str:
    # Its end: ids of one run mostly begin alike, with the run's id.
    short = biz_id if len(biz_id) <= _ID_LENGTH else f"…{biz_id[1 - _ID_LENGTH :]}"
    # The end of a line in an id would forge lines of the log.
    return short if short.isprintable() else repr(short)


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines with the columns below one another: text of the last to the left, what is counted to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _line(row: Sequence[str], widths: Iterable[int]) -> str:
    *cells, last = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
    return "  ".join([*cells, last.strip()])
