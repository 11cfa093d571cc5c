"""Requests and their idempotency keys, made of the recipients of a queue."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import Recipient
from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.audience.validation import Validation
from airflow_provider_lingyang.delivery.requests import Identity, RequestBuilder
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.gateway.models import InitiativeBatchTaskRequest, UseBookInfo
from airflow_provider_lingyang.identity import recipient_hash
from airflow_provider_lingyang.ledger.base import RecordedRequest
from tests.helpers.audience import person

IDENTITY = Identity("https://gateway/router/rest", "key", "dag/run/task", 123)


def requests(audience: AudienceStore, **changes: Any) -> list[Any]:
    arguments: dict[str, Any] = {"identity": IDENTITY, "batch_size": 2, "use_book_info": None}
    return list(RequestBuilder(SendQueue(audience), **(arguments | changes)).requests("1"))


def test_requests_hold_at_most_batch_size_tasks_and_are_what_the_models_would_write(
    tmp_path: Path,
) -> None:
    book = UseBookInfo(use_platform="P", book_code="账本", book_owner_id=5)
    with AudienceStore(str(tmp_path)) as audience:
        Validation(audience).read(person(row, "1") for row in range(1, 6))
        found = requests(audience, use_book_info=book)
    assert [request.biz_ids for request in found] == [("1", "2"), ("3", "4"), ("5",)]
    for request in found:
        model = InitiativeBatchTaskRequest.model_validate_json(request.struct)
        assert model.to_json() == request.struct
        assert (model.task_unique_code, model.batch_num, model.plan_id) == (
            request.task_unique_code,
            "1",
            123,
        )
        assert model.use_book_info == book


def test_request_keeps_its_idempotency_key_unless_its_content_changes(tmp_path: Path) -> None:
    """The idempotency key of a request."""

    def codes(people: list[Recipient], **changes: Any) -> list[str]:
        with AudienceStore(str(tmp_path)) as one:
            Validation(one).read(people)
            return [request.task_unique_code for request in requests(one, **changes)]

    people = [person(row, "1") for row in range(1, 4)]
    first = codes(people)
    assert codes(people) == first
    assert len(set(first)) == 2
    assert codes([*people[:2], person(3, "1", biz_id="other")])[0] == first[0]
    different = [
        codes(people, identity=Identity("https://other/", "key", "dag/run/task", 123)),
        codes(people, identity=Identity("https://gateway/router/rest", "other", "dag/run/task", 123)),
        codes(people, identity=Identity("https://gateway/router/rest", "key", "dag/run2/task", 123)),
        codes(people, identity=Identity("https://gateway/router/rest", "key", "dag/run/task", 124)),
        codes(
            people, identity=Identity("https://gateway/router/rest", "key", "dag/run/task", 123, generation=2)
        ),
        codes(people, use_book_info=UseBookInfo(use_platform="P", book_code="B", book_owner_id=5)),
    ]
    assert len({first[0], *(found[0] for found in different)}) == 7


class TimedOut(BaseException):
    """As Airflow's, which its signal handler raises."""


def test_timeout_while_history_is_merged_is_not_swallowed() -> None:
    def time_out(*_: Any) -> None:
        raise TimedOut

    before = signal.signal(signal.SIGALRM, time_out)
    with AudienceStore() as audience:
        for number in range(50_000):
            audience.add(Recipient(number, f"B{number}", False, None, f"phone {number}", "{}"))
        assert len(audience) == 50_000
        past = RecordedRequest(
            "code", None, "", 0.0, accepted=[recipient_hash(f"B{number}") for number in range(50_000)]
        )
        try:
            with pytest.raises(TimedOut):
                SendQueue(audience).load_history(armed(past))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def armed(past: RecordedRequest) -> Iterator[RecordedRequest]:
    """Give the past, and let the time run out soon after it was taken."""
    yield past
    signal.setitimer(signal.ITIMER_REAL, 0.02)
