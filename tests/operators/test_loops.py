"""Tasks in a loop of Airflow 3.4: iterations share everything that names a task instance, and are one campaign.

Airflow says so in the context of the running task and in its DAG; here both are in small, and `tests/real` has a loop
that Airflow runs. The gateway's record is the judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from airflow_provider_lingyang.identity import digest
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.operators.task_tries import task_try_of
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import LOST, NOT_DONE, all_reached_once, row, sent
from tests.helpers.task_state import TaskStateStore

REGION, OTHER_REGION, NO_REGION = uuid4(), uuid4(), UUID(int=0)


def group(node_id: str | None, parent: Any = None, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(node_id=node_id, parent_group=parent, **more)


ROOT = group(None)
LOOP = group("body", ROOT, gate_task_id="body.until")


class Iteration:
    """A task instance in an iteration of a loop.

    :param region: changes when a loop's gate is cleared.
    :param map_index: of a task that is mapped in the loop.
    """

    def __init__(
        self, index: int, *, region: UUID = REGION, map_index: int = -1, task_group: Any = LOOP
    ) -> None:
        self.run = Run()
        self.index = index
        self.try_number = 0
        self.max_tries = 0
        self.task_group = task_group
        make = self.run.context

        def context(task_id: str, **kwargs: Any) -> Mapping[str, Any]:
            made = dict(make(task_id, try_number=self.try_number, **kwargs))
            ti = made["ti"]
            ti.map_index, ti.max_tries = map_index, self.max_tries
            ti.region_id = region if map_index < 0 else uuid4()
            ti.region_index = index if map_index < 0 else map_index
            return {**made, "loop": SimpleNamespace(index=index), "task_state_store": TaskStateStore()}

        self.run.context = context  # type: ignore[method-assign]

    def next_try(self, how: str = "execute", numbers: range = range(1, 5), **arguments: Any) -> Any:
        self.try_number += 1
        given: dict[str, Any] = {"plan_id": 123, "batch_size": 2, "ledger_conn_id": "ledger"}
        operator = LingyangSubmitBatchOperator(
            task_id="submit",
            **given | {"audience": [row(number) for number in numbers]} | arguments,
        )
        operator.task_group = self.task_group
        return getattr(self.run, how)(operator)


@pytest.fixture(autouse=True)
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(connection))


UNREADABLE = {"audience": None, "sql": "SELECT 1", "sql_conn_id": "not_there"}
"""To read it would be another failure."""


@pytest.mark.parametrize("map_index", [-1, 0])
@pytest.mark.parametrize("index", [0, 1])
def test_the_state_of_the_task_is_refused_before_anything_is_read(
    sandbox: SandboxProcess, index: int, map_index: int
) -> None:
    iteration = Iteration(index, map_index=map_index)
    message = iteration.next_try("fails", **UNREADABLE, ledger_conn_id=None)
    assert "each iteration of a loop has a state of its own" in message
    assert "ledger_conn_id" in message
    assert "nothing was sent by this try" in message
    assert sent(sandbox) == []


@pytest.mark.parametrize("try_number", [1, 2])
def test_no_ledger_at_all_is_refused_too(sandbox: SandboxProcess, try_number: int) -> None:
    iteration = Iteration(1)
    make = iteration.run.context
    iteration.run.context = lambda *args, **kwargs: {  # type: ignore[method-assign]
        name: value for name, value in make(*args, **kwargs).items() if name != "task_state_store"
    }
    iteration.try_number = try_number - 1
    assert "ledger_conn_id" in iteration.next_try("fails", **UNREADABLE, ledger_conn_id=None)


def test_a_plan_may_be_shown_without_a_ledger(sandbox: SandboxProcess) -> None:
    assert Iteration(1).next_try(validate_only=True, ledger_conn_id=None)["plan"]


def test_resubmit_in_a_loop_is_refused(sandbox: SandboxProcess) -> None:
    Iteration(0).next_try()
    cleared = Iteration(0)
    cleared.try_number, cleared.max_tries = 1, 4
    assert "not for tasks in a loop" in cleared.next_try("fails", on_clear="resubmit")
    assert all_reached_once(sandbox, 4)


@pytest.mark.parametrize(
    "audiences",
    [
        [range(1, 13)] * 3,
        [range(1, 5), range(1, 9), range(1, 13)],
        [range(1, 13), range(5, 9), range(3, 7)],
        [range(1, 5), range(5, 9), range(9, 13)],
    ],
    ids=["the same", "growing", "shrinking", "others"],
)
def test_iterations_are_one_campaign(sandbox: SandboxProcess, audiences: list[range]) -> None:
    reached: set[int] = set()
    keys = set()
    for index, numbers in enumerate(audiences):
        manifest = Iteration(index).next_try(numbers=numbers)
        keys.add(manifest["campaign_key"])
        assert manifest["counts"]["accepted"] == len({*numbers} - reached)
        assert manifest["counts"]["already_accepted"] == len({*numbers} & reached)
        reached |= {*numbers}
    assert all_reached_once(sandbox, 12)
    assert keys == {"dag/run/submit"}


def test_derived_ids_do_not_depend_on_the_iteration(sandbox: SandboxProcess) -> None:
    recipients = [{key: value for key, value in row(n).items() if key != "biz_id"} for n in (1, 2, 3)]
    for index, region in ((0, REGION), (1, REGION), (1, OTHER_REGION)):
        Iteration(index, region=region).next_try(audience=recipients)
    assert sum(map(len, sent(sandbox))) == 3


@pytest.mark.parametrize("left", ["never sent", "executed", "not executed"])
@pytest.mark.parametrize("cleared", [False, True], ids=["next iteration", "gate cleared"])
def test_request_in_doubt_is_looked_up_by_later_iterations(
    with_lookup: SandboxProcess, left: str, cleared: bool
) -> None:
    fault = {
        "never sent": {"kind": "throttle", "seconds": 0, "times": 9},
        "executed": {**LOST, "times": 1},
        "not executed": {**NOT_DONE, "times": 1},
    }[left]
    with_lookup.add_fault(**fault, method="submit", after=1)
    with_lookup.add_fault(kind="http", status=500, method="lookup", times=None)
    first = Iteration(1 if cleared else 0)
    first.next_try("stops")
    assert first.run.counts().get("in_doubt", 0) == (0 if left == "never sent" else 2)
    with_lookup.clear_faults()

    # Whether it comes back as try 1 in another region, or another iteration comes: nothing was here before.
    second = Iteration(1, region=OTHER_REGION if cleared else REGION)
    counts = second.next_try(numbers=range(1, 7))["counts"]
    assert counts["accepted"] + counts["already_accepted"] == 6
    assert all_reached_once(with_lookup, 6)


def test_without_a_look_up_a_doubt_of_another_iteration_stops_the_next(
    without_lookup: SandboxProcess,
) -> None:
    without_lookup.add_fault(**LOST, method="submit", after=1, times=1)
    first = Iteration(0)
    first.next_try("fails")
    (doubt,) = first.run.manifest()["in_doubt"]
    second = Iteration(1)
    assert "in doubt" in second.next_try("fails", numbers=range(1, 7))
    assert second.run.counts() == {"audience": 6, "already_accepted": 2, "in_doubt": 2, "not_sent": 2}
    settle = {doubt["task_unique_code"]: "accepted"}
    third = Iteration(1)
    third.try_number, third.max_tries = 1, 1
    third.next_try(numbers=range(1, 7), settle=settle)
    assert all_reached_once(without_lookup, 6)


def test_cleared_gate_repeats_iterations_but_no_recipient(sandbox: SandboxProcess) -> None:
    for index in range(3):
        Iteration(index).next_try(numbers=range(1, 9))
    # Airflow keeps iteration 0, whose gate was cleared, and makes the later ones anew.
    for index in (1, 2):
        manifest = Iteration(index, region=OTHER_REGION).next_try(numbers=range(1, 9))
        assert manifest["counts"]["already_accepted"] == 8
    assert all_reached_once(sandbox, 8)


def test_instances_that_are_mapped_in_a_loop_are_one_campaign(sandbox: SandboxProcess) -> None:
    shards = [range(1, 5), range(3, 9)]
    for index in range(3):
        for map_index, numbers in enumerate(shards):
            Iteration(index, map_index=map_index).next_try(numbers=numbers)
    assert all_reached_once(sandbox, 8)


PLAIN = digest("dag", "run", "submit", -1)
MAPPED = digest("dag", "run", "submit", 3)


def of(task_group: Any, *, map_index: int | None = -1, **context: Any) -> TaskTry:
    ti = SimpleNamespace(dag_id="dag", run_id="run", task_id="submit", map_index=map_index, try_number=1)
    for name in ("region_id", "region_index"):
        if name in context:
            setattr(ti, name, context.pop(name))
    given: Any = {"ti": ti, **context}
    return task_try_of(SimpleNamespace(task_group=task_group), given, resumed=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("task_try", "worker"),
    [
        (of(None), PLAIN),
        (of(None, map_index=None), PLAIN),
        (of(group("group", ROOT), loop=None), PLAIN),
        (of(ROOT, region_id=NO_REGION, region_index=-1), PLAIN),
        (of(ROOT, region_id=None, region_index=None), PLAIN),
        # Mapped tasks have regions, too.
        (of(ROOT, map_index=3, region_id=REGION, region_index=3), MAPPED),
        (of(group("mapped", ROOT), map_index=3, region_id=REGION, region_index=3), MAPPED),
    ],
)
def test_task_instance_key_outside_loops_is_unchanged(task_try: TaskTry, worker: str) -> None:
    assert not task_try.in_loop
    assert task_try.task_instance_key == worker


ITERATION = SimpleNamespace(index=2)


@pytest.mark.parametrize(
    "task_try",
    [
        of(LOOP, loop=ITERATION, region_id=REGION, region_index=2),
        of(group("inner", LOOP), loop=ITERATION, region_id=REGION, region_index=2),
        # Airflow tells less than it does today.
        of(None, loop=ITERATION),
        of(LOOP, region_id=REGION, region_index=2),
        of(LOOP),
        of(None, region_id=REGION, region_index=2),
    ],
)
def test_task_instance_key_distinguishes_loop_iterations(task_try: TaskTry) -> None:
    assert task_try.in_loop
    assert task_try.task_instance_key != PLAIN


def test_task_instance_key_in_a_loop_is_node_index_and_map_index() -> None:
    def worker(node: str = "body", index: int = 0, region: UUID = REGION, map_index: int = -1) -> str:
        loop = group(node, ROOT, gate_task_id="until")
        where = {"region_id": region, "region_index": index if map_index < 0 else map_index}
        return of(loop, map_index=map_index, loop=SimpleNamespace(index=index), **where).task_instance_key

    assert worker() == worker(region=OTHER_REGION)
    others = [worker(), worker(node="other"), worker(index=1), worker(map_index=0), worker(map_index=1)]
    assert len({*others, PLAIN}) == 6
