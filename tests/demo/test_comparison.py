"""The demo's comparison of the manifest with the gateway's record."""

from __future__ import annotations

from typing import Any

import pytest

from demo.comparison import SUBMIT, compare


def manifest(**changes: object) -> dict[str, Any]:
    batches = [
        {"batch_num": number, "tasks": 1, "accepted": 1, "rejected": 0, "requests": 1}
        for number in ("2", "10")
    ]
    return {"batches": batches, "counts": {"audience": 2, "accepted": 2, **changes}}


def record(**changes: object) -> dict[str, Any]:
    requests = [
        {
            "method": SUBMIT,
            "seq": seq,
            "batch_num": batch_num,
            "biz_ids": [f"B{seq}"],
            "accepted": 1,
            "received_at": float(seq),
            "answered_at": seq + 0.5,
        }
        for seq, batch_num in ((1, "2"), (2, "10"))
    ]
    executions = {"by_biz_id": {"B1": 1, "B2": 1}}
    return {"requests": requests, "executions": executions, "order_violations": [], **changes}


def test_agreement_has_no_problems() -> None:
    found = compare(manifest(), record(), {"B1", "B2"})
    assert (found.problems, found.received, found.duplicates, found.order_kept) == ([], 2, 0, True)


@pytest.mark.parametrize(
    ("in_manifest", "in_record", "problem"),
    [
        ({"audience": 3}, {}, "the manifest counts 3 recipients"),
        ({"accepted": 1}, {}, "1 of 2 recipients were accepted"),
        ({}, {"executions": {"by_biz_id": {"B1": 1, "B2": 2}}}, "1 executions were repetitions"),
        ({}, {"executions": {"by_biz_id": {"B1": 1}}}, "the gateway's recipients are not the table's"),
        ({}, {"order_violations": [{}]}, "a batch arrived before the earlier ones were answered"),
        ({}, {"requests": []}, "the gateway received other batches"),
    ],
)
def test_a_difference_is_a_problem(
    in_manifest: dict[str, int], in_record: dict[str, Any], problem: str
) -> None:
    problems = compare(manifest(**in_manifest), record(**in_record), {"B1", "B2"}).problems
    assert any(text.startswith(problem) for text in problems)


def test_overlapping_batches_are_out_of_order() -> None:
    overlapping = record()
    overlapping["requests"][1]["received_at"] = 1.2
    assert not compare(manifest(), overlapping, {"B1", "B2"}).order_kept
