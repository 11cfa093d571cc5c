"""Compare the manifest with the gateway's record. Both are plain JSON; nothing is changed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"


@dataclass(frozen=True)
class Batch:
    """One `batch_num` in the manifest and, as `recorded_*`, in the gateway's record."""

    batch_num: str
    sent: int
    accepted: int
    rejected: int
    requests: int
    recorded_requests: int
    recorded_tasks: int
    recorded_accepted: int


@dataclass(frozen=True)
class Comparison:
    batches: list[Batch]
    audience: int
    accepted: int
    received: int
    duplicates: int
    order_kept: bool
    problems: list[str]


def compare(manifest: dict[str, Any], record: dict[str, Any], expected: Collection[str]) -> Comparison:
    """Compare the two batch by batch, and with the audience.

    :param manifest: of the operator.
    :param record: of a sandbox that received this campaign only.
    :param expected: the biz_ids of the audience.
    :returns: their counts, and in `problems` one message per difference.
    """
    submits = [request for request in record["requests"] if request["method"] == SUBMIT]
    batches = [_batch(batch, submits) for batch in manifest["batches"]]
    executions: dict[str, int] = record["executions"]["by_biz_id"]
    counts = manifest["counts"]
    order = [batch.batch_num for batch in batches]
    comparison = Comparison(
        batches=batches,
        audience=counts["audience"],
        accepted=counts["accepted"],
        received=sum(times > 0 for times in executions.values()),
        duplicates=sum(times - 1 for times in executions.values() if times > 1),
        order_kept=not record["order_violations"] and _in_order(submits),
        problems=[],
    )
    size = len(expected)
    checks = [
        (
            counts["audience"] == size,
            f"the manifest counts {counts['audience']} recipients, the table has {size}",
        ),
        (counts["accepted"] == size, f"{counts['accepted']} of {size} recipients were accepted: {counts}"),
        (set(executions) == set(expected), "the gateway's recipients are not the table's"),
        (not comparison.duplicates, f"{comparison.duplicates} executions were repetitions"),
        (order == sorted(order, key=int), f"the manifest's batches are not in order: {order}"),
        ({request["batch_num"] for request in submits} == set(order), "the gateway received other batches"),
        (comparison.order_kept, "a batch arrived before the earlier ones were answered"),
    ]
    for batch in batches:
        in_manifest = (batch.requests, batch.sent, batch.accepted)
        in_record = (batch.recorded_requests, batch.recorded_tasks, batch.recorded_accepted)
        checks.append(
            (
                in_manifest == in_record,
                f"batch {batch.batch_num}: manifest {in_manifest}, gateway {in_record} (requests, tasks, accepted)",
            )
        )
    comparison.problems.extend(text for passed, text in checks if not passed)
    return comparison


def _batch(batch: dict[str, Any], submits: Iterable[dict[str, Any]]) -> Batch:
    recorded = [request for request in submits if request["batch_num"] == batch["batch_num"]]
    return Batch(
        batch_num=batch["batch_num"],
        sent=batch["tasks"],
        accepted=batch["accepted"],
        rejected=batch["rejected"],
        requests=batch["requests"],
        recorded_requests=len(recorded),
        recorded_tasks=sum(len(request["biz_ids"]) for request in recorded),
        recorded_accepted=sum(request["accepted"] for request in recorded),
    )


def _in_order(submits: Iterable[dict[str, Any]]) -> bool:
    """Whether each request arrived after all requests of smaller batches were answered.

    Computed from the raw times, apart from the violations in the record.
    """
    batch_num, answered, earlier_answered = 0, 0.0, 0.0
    for request in sorted(submits, key=lambda request: request["seq"]):
        number = int(request["batch_num"])
        if number < batch_num or request["answered_at"] is None:
            return False
        if number > batch_num:
            batch_num, earlier_answered = number, answered
        if request["received_at"] < earlier_answered:
            return False
        answered = max(answered, request["answered_at"])
    return True
