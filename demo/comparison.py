"""Does what the manifest says agree with what the gateway received? Reads only; both sides are plain JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

SUBMIT = "alibaba.lingyang.utouch.submit.initiative.batch.task"


@dataclass(frozen=True)
class Batch:
    """One `batch_num`: what the manifest says, and what the gateway saw."""

    batch_num: str
    sent: int
    accepted: int
    rejected: int
    requests: int
    seen_requests: int
    seen: int
    seen_accepted: int


@dataclass(frozen=True)
class Verdict:
    batches: list[Batch]
    audience: int
    accepted: int
    received: int
    duplicates: int
    order_kept: bool
    problems: list[str]


def judge(manifest: dict[str, Any], record: dict[str, Any], expected: Collection[str]) -> Verdict:
    """Compare.

    :param manifest: the operator's.
    :param record: the sandbox's, of a sandbox that saw nothing but this campaign.
    :param expected: the biz_ids of the audience.
    """
    submits = [request for request in record["requests"] if request["method"] == SUBMIT]
    batches = [_batch(batch, submits) for batch in manifest["batches"]]
    executions: dict[str, int] = record["executions"]["by_biz_id"]
    counts = manifest["counts"]
    order = [batch.batch_num for batch in batches]
    verdict = Verdict(
        batches=batches,
        audience=counts["audience"],
        accepted=counts["accepted"],
        received=sum(times > 0 for times in executions.values()),
        duplicates=sum(times - 1 for times in executions.values() if times > 1),
        order_kept=not record["order_violations"] and _one_after_the_other(submits),
        problems=[],
    )
    size = len(expected)
    checks = [
        (
            counts["audience"] == size,
            f"the manifest counts {counts['audience']} people, the table has {size}",
        ),
        (counts["accepted"] == size, f"{counts['accepted']} of {size} people were accepted: {counts}"),
        (set(executions) == set(expected), "the gateway's people are not the table's"),
        (not verdict.duplicates, f"{verdict.duplicates} executions were repetitions"),
        (order == sorted(order, key=int), f"the manifest's batches are not in order: {order}"),
        ({request["batch_num"] for request in submits} == set(order), "the gateway saw other batches"),
        (verdict.order_kept, "a batch arrived before the earlier ones were answered"),
    ]
    for batch in batches:
        said = (batch.requests, batch.sent, batch.accepted)
        saw = (batch.seen_requests, batch.seen, batch.seen_accepted)
        checks.append(
            (
                said == saw,
                f"batch {batch.batch_num}: manifest {said}, gateway {saw} (requests, tasks, accepted)",
            )
        )
    verdict.problems.extend(text for fine, text in checks if not fine)
    return verdict


def _batch(said: dict[str, Any], submits: Iterable[dict[str, Any]]) -> Batch:
    saw = [request for request in submits if request["batch_num"] == said["batch_num"]]
    return Batch(
        batch_num=said["batch_num"],
        sent=said["tasks"],
        accepted=said["accepted"],
        rejected=said["rejected"],
        requests=said["requests"],
        seen_requests=len(saw),
        seen=sum(len(request["biz_ids"]) for request in saw),
        seen_accepted=sum(request["accepted"] for request in saw),
    )


def _one_after_the_other(submits: Iterable[dict[str, Any]]) -> bool:
    """Whether each request arrived after all of smaller batches had been answered.

    The sandbox reports violations too; this is worked out again from its raw times.
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
