"""Three ways to wait, driven to their end without Airflow's database."""

from __future__ import annotations

import asyncio
import importlib
import itertools
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from tests.conftest import Run
from tests.versions import AIRFLOW


def revived(trigger: Any) -> Any:
    """The trigger as the triggerer makes it: from what is stored of it."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(kwargs)))


async def fired(trigger: Any) -> Any:
    """The payload of the one event that a trigger must yield."""
    events = [event.payload async for event in trigger.run()]
    (payload,) = json.loads(json.dumps(events))
    return payload


class Waiting:
    """Waits as Airflow would, and returns what the task ends with: its value, or the exception that it raises.

    :param mode: ``poke``, ``reschedule`` or ``deferred``.
    """

    def __init__(self, run: Run, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run = run
        self.mode = mode
        self.deferrals: list[TaskDeferred] = []
        self.events: list[Any] = []
        self.first_poll: datetime | None = None
        if AIRFLOW < (3, 0):
            # There a sensor asks Airflow's database, which these tests have none of; later, its task instance.
            monkeypatch.setattr("airflow.sensors.base._orig_start_date", lambda **_: self.first_poll)

    def sensor(self, **arguments: Any) -> LingyangResultSensor:
        base: dict[str, Any] = {"task_id": "wait", "poke_interval": 0.05, "timeout": 0.6}
        how: dict[str, Any] = (
            {"deferrable": True} if self.mode == "deferred" else {"mode": self.mode, "deferrable": False}
        )
        return LingyangResultSensor(**(base | how | arguments))

    def __call__(self, meanwhile: Callable[[], object] | None = None, **arguments: Any) -> Any:
        """Wait to the end.

        :param meanwhile: happens after the first poll.
        """
        try:
            return self._wait(meanwhile, arguments)
        except Exception as error:
            return error

    def _wait(self, meanwhile: Callable[[], object] | None, arguments: dict[str, Any]) -> Any:
        started, give_up = datetime.now(UTC), time.monotonic() + 600
        again: tuple[str, dict[str, Any]] | None = None
        for attempt in itertools.takewhile(lambda _: time.monotonic() < give_up, itertools.count()):
            # Each time a worker begins anew, from the DAG file.
            sensor = self.sensor(**arguments)
            context = self.run.context("wait")
            context["ti"].first_poll = self.first_poll = started if attempt else None
            if attempt == 1 and meanwhile:
                meanwhile()
            if self.mode == "poke" and meanwhile:
                sensor.poke = _then(sensor.poke, meanwhile)  # type: ignore[method-assign]
            try:
                if again:
                    return sensor.resume_execution(*again, context)
                return sensor.execute(context)
            except AirflowRescheduleException:
                continue
            except TaskDeferred as deferred:
                if attempt == 0 and meanwhile:
                    meanwhile()
                    meanwhile = None
                self.deferrals.append(deferred)
                event = asyncio.run(fired(revived(deferred.trigger)))
                self.events.append(event)
                again = deferred.method_name, (deferred.kwargs or {}) | {"event": event}
        raise AssertionError("it never ends")


def _then(poke: Any, meanwhile: Callable[[], object]) -> Any:
    todo = [meanwhile]

    def wrapped(context: Any) -> Any:
        found = poke(context)
        if todo:
            todo.pop()()
        return found

    return wrapped


@pytest.fixture(params=["poke", "reschedule", "deferred"])
def waiting(request: pytest.FixtureRequest, run: Run, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(run, request.param, monkeypatch)


@pytest.fixture
def deferred(run: Run, monkeypatch: pytest.MonkeyPatch) -> Waiting:
    return Waiting(run, "deferred", monkeypatch)
