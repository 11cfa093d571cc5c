"""A store of recipients, and results for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from airflow_provider_lingyang.lookup.query import TaskResult
from airflow_provider_lingyang.results.completion import CompletionCriteria
from airflow_provider_lingyang.results.recipient_store import RecipientStore

CRITERIA = CompletionCriteria(["a"], ("DONE",), ("GONE",))


@pytest.fixture
def store() -> Iterator[RecipientStore]:
    store = RecipientStore(CRITERIA, max_results_kept=10)
    store.start_poll()
    yield store
    store.close()


def add(store: RecipientStore, count: int) -> None:
    store.add((str(number), None) for number in range(1, count + 1))
    store.start_poll()


def done(biz_id: str, slots: Mapping[str, Any] | None = None, **details: Any) -> TaskResult:
    return TaskResult(biz_id, slots or {"a": "yes"}, **({"status": "DONE"} | details))
