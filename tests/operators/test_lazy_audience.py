"""Rows that another task left, and that are fetched one by one: Airflow's lazy sequences."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import all_reached_once, row


class Fetched(dict[str, Any]):
    """A row that can be watched."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Lazy(Sequence[Any]):
    """As Airflow's: each access is a round trip, and so is the length."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.fetched: list[int] = []
        self.held: weakref.WeakSet[Any] = weakref.WeakSet()
        self.most_held = 0

    def __len__(self) -> int:
        raise AssertionError("nobody needs the length")

    def __getitem__(self, index: Any) -> Any:
        if index >= self.count:
            raise IndexError(index)
        self.fetched.append(index)
        fetched = Fetched(row(index + 1))
        self.held.add(fetched)
        self.most_held = max(self.most_held, len(self.held))
        return fetched


def test_a_lazy_audience_is_fetched_once_in_order_and_no_row_is_kept(
    sandbox: SandboxProcess, run: Run
) -> None:
    audience = Lazy(300)
    run.execute(LingyangSubmitBatchOperator(task_id="submit", plan_id=1, audience=audience))
    assert audience.fetched == list(range(300))
    assert audience.most_held <= 2
    assert all_reached_once(sandbox, 300)
