"""What is the trigger's own: its arguments, its one event, its end."""

from __future__ import annotations

import asyncio
import json
import os
import pkgutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters
from airflow_provider_lingyang.ledger.pace import SharedPace
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.results.completion import PollError
from airflow_provider_lingyang.results.poller import ResultsPoller
from airflow_provider_lingyang.results.recipient_sources import slim_manifest
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor
from airflow_provider_lingyang.triggers.lingyang import LingyangResultTrigger, read_event
from airflow_provider_lingyang.turns import Ask, Grant
from tests.conftest import FillDb, Run
from tests.versions import AIRFLOW


def trigger(**changes: Any) -> LingyangResultTrigger:
    request = {
        "lingyang_conn_id": "lingyang_default",
        "source": {"biz_ids": ["B1", "B2"]},
        "required_slots": ["a"],
        "result_query": None,
        "results": None,
    }
    now = time.time()
    base: dict[str, Any] = {
        "request": request | changes.pop("request", {}),
        "complete_ratio": 1.0,
        "poke_interval": 0.02,
        "max_wait": None,
        "started": now,
        "deadline": now + 20,
    }
    return LingyangResultTrigger(**(base | changes))


async def event_of(one: LingyangResultTrigger) -> dict[str, Any]:
    (event,) = [event.payload async for event in one.run()]
    payload: dict[str, Any] = event
    return payload


def submit(run: Run, *numbers: int, **arguments: Any) -> Any:
    rows = [
        {"biz_id": f"B{n}", "phone_number": f"1000000{n:04}", "user_name": "张三", "input_params": {}}
        for n in numbers
    ]
    base = {"task_id": "submit", "plan_id": 1, "audience": rows, "output_slots": ["a"]}
    operator = LingyangSubmitBatchOperator(**base | arguments)
    return run.execute(operator)


def sensor(**arguments: Any) -> LingyangResultSensor:
    base: dict[str, Any] = {"task_id": "wait", "deferrable": True, "poke_interval": 1, "timeout": 60}
    return LingyangResultSensor(**(base | arguments))


def deferred(run: Run, **arguments: Any) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        run.execute(sensor(**arguments))
    return caught.value


# --- one event for every end -------------------------------------------------------------------------------------


def test_enough_are_finished(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1, 2)
    one = trigger()
    event = asyncio.run(event_of(one))
    assert event == {
        "started": one.started,
        "deadline": one.deadline,
        "version": 1,
        "status": "complete",
        "counts": {"recipients": 2, "finished": 2, "answered": 2, "not_reached": 0}
        | {"waiting": 0, "unknown": 0, "foreign": 0},
        "reason": None,
        "failed_look_ups": 0,
    }


def test_the_deadline_passes(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1)
    event = asyncio.run(event_of(trigger(deadline=time.time() + 0.1)))
    assert (event["status"], event["counts"]["unknown"]) == ("timeout", 1)


def test_after_a_restart_of_the_triggerer_the_deadline_is_the_same(sandbox: SandboxProcess) -> None:
    one = trigger(deadline=time.time() + 3600)
    path, kwargs = one.serialize()

    async def killed() -> None:
        running = asyncio.ensure_future(event_of(one))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(killed())
    assert path == "airflow_provider_lingyang.triggers.lingyang.LingyangResultTrigger"
    again = LingyangResultTrigger(**json.loads(json.dumps(kwargs)))
    assert again.serialize() == (path, kwargs)
    assert again.deadline == one.deadline


def test_failed_look_ups_are_retried_and_counted(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1, 2)
    sandbox.add_fault(kind="http", status=502, method=LOOKUP, times=4)
    event = asyncio.run(event_of(trigger()))
    assert (event["status"], event["failed_look_ups"]) == ("complete", 1)
    sandbox.add_fault(kind="http", status=502, method=LOOKUP, times=None)
    event = asyncio.run(event_of(trigger(deadline=time.time() + 0.1)))
    assert event["status"] == "timeout"
    assert "HTTP 502" in event["reason"]


@pytest.mark.parametrize(
    ("sub_code", "asked"),
    [
        # One poll before the ban was known; at the deadline it still lasts.
        ("accesscontrol.limited-by-app-access-count", 1),
        # Of one API: each wait finds out by itself, once more at the deadline.
        ("accesscontrol.limited-by-api-access-count", 2),
    ],
)
def test_rate_limit_is_waited_for(sandbox: SandboxProcess, run: Run, sub_code: str, asked: int) -> None:
    submit(run, 1, 2)
    sandbox.add_fault(kind="throttle", seconds=31_062, method=LOOKUP, sub_code=sub_code)
    event = asyncio.run(event_of(trigger(deadline=time.time() + 0.5)))
    assert event["status"] == "timeout"
    assert len([r for r in sandbox.record()["requests"] if r["method"] == LOOKUP]) == asked
    assert ("the App key is throttled for 31" in event["reason"]) == (asked == 1)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database for the ledger."""
    path = tmp_path / "ledger.db"
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    return path


def ledger_rows(path: Path, statement: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        rows = db.execute(statement).fetchall()
        db.commit()
    return rows


def test_look_ups_of_a_campaign_take_turns_of_its_ledger_off_the_event_loop(
    lingyang_sandbox: SandboxProcess,
    lingyang_connection: Callable[..., object],
    run: Run,
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_twos = RESULT_QUERY | {"max_biz_ids": 2}
    lingyang_connection(timeout=15, max_requests_per_second=20, result_query=by_twos)
    manifest = submit(run, *range(12), ledger_conn_id="ledger")
    asked: list[tuple[bool, Ask]] = []
    exchange = SharedPace.exchange

    def noting(own: SharedPace, ask: Ask) -> Grant:
        asked.append((threading.current_thread() is threading.main_thread(), ask))
        return exchange(own, ask)

    monkeypatch.setattr(SharedPace, "exchange", noting)
    event = asyncio.run(event_of(trigger(request={"source": {"campaign": slim_manifest(manifest)}})))
    assert event["status"] == "complete"
    assert asked
    assert not any(on_loop for on_loop, _ in asked)
    assert sum(ask.turns for _, ask in asked) >= 6
    ((free_at,),) = ledger_rows(ledger, "SELECT next_at FROM lingyang_ledger_pace")
    assert abs(free_at / 1e6 - time.time()) < 600


def test_waits_in_one_triggerer_keep_one_rate_limit(
    lingyang_sandbox: SandboxProcess, lingyang_connection: Callable[..., object], run: Run
) -> None:
    lingyang_connection(timeout=15, max_requests_per_second=10)
    submit(run, 1, 2)

    async def waits() -> list[dict[str, Any]]:
        return await asyncio.gather(*(event_of(trigger(poke_interval=0.001)) for _ in range(8)))

    assert [event["status"] for event in asyncio.run(waits())] == ["complete"] * 8
    moments = [r["received_at"] for r in lingyang_sandbox.record()["requests"] if r["method"] == LOOKUP]
    # What is late by half an interval may be followed by what is not.
    assert len(moments) == 8
    assert moments[-1] - moments[0] > 0.6


def test_a_wait_that_may_not_reserve_turns_goes_on_alone(
    lingyang_sandbox: SandboxProcess,
    lingyang_connection: Callable[..., object],
    run: Run,
    ledger: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    lingyang_connection(timeout=15, max_requests_per_second=20)
    manifest = submit(run, 1, 2, ledger_conn_id="ledger")
    ledger_rows(ledger, "DROP TABLE lingyang_ledger_pace")
    forget_limiters()
    event = asyncio.run(event_of(trigger(request={"source": {"campaign": slim_manifest(manifest)}})))
    assert event["status"] == "complete"
    (warning,) = (each for each in caplog.messages if "hold for this process alone" in each)
    assert "read and update the table lingyang_ledger_pace" in warning


def test_a_wait_whose_ledger_is_away_looks_nothing_up(
    lingyang_sandbox: SandboxProcess,
    lingyang_connection: Callable[..., object],
    run: Run,
    ledger: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lingyang_connection(timeout=15, max_requests_per_second=20)
    manifest = submit(run, 1, 2, ledger_conn_id="ledger")
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", "0")
    forget_limiters()

    def away(own: SharedPace, ask: Ask) -> Grant:
        raise LedgerError("away for a moment")

    monkeypatch.setattr(SharedPace, "exchange", away)
    one = trigger(request={"source": {"campaign": slim_manifest(manifest)}}, deadline=time.time() + 0.3)
    event = asyncio.run(event_of(one))
    assert event["status"] == "timeout"
    assert event["reason"].startswith("nothing was sent: the shared rate limit is unknown")
    assert not [r for r in lingyang_sandbox.record()["requests"] if r["method"] == LOOKUP]


@pytest.mark.parametrize(
    ("request_changes", "reason"),
    [
        ({"result_query": RESULT_QUERY | {"method": "no.such"}}, "the look-up cannot work"),
        ({"result_query": RESULT_QUERY | {"items_path": "result.x"}}, "no 'x' in result"),
        ({"result_query": "{"}, "is not JSON"),
        ({"source": {"biz_ids": []}}, "the list of biz_ids is empty"),
        ({"lingyang_conn_id": "nowhere"}, "'nowhere' is not defined"),
    ],
)
def test_final_failure_ends_the_trigger_with_the_reason(
    sandbox: SandboxProcess, run: Run, request_changes: dict[str, Any], reason: str
) -> None:
    submit(run, 1, 2)
    event = asyncio.run(event_of(trigger(request=request_changes)))
    assert event["status"] == "failed"
    assert reason in event["reason"]


def test_unforeseen_error_ends_the_trigger_with_an_event_without_data(
    sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        # Put together here, because a traceback shows the line.
        raise RuntimeError("".join(["CAN", "ARY"]))

    monkeypatch.setattr(ResultsPoller, "_open", broken)
    event = asyncio.run(event_of(trigger()))
    assert (event["status"], event["reason"]) == (
        "broken",
        "unforeseen RuntimeError, see the triggerer's log",
    )
    assert "CANARY" not in caplog.text + json.dumps(event)
    assert "_open" in caplog.text or "broken" in caplog.text


def test_full_disk_ends_the_trigger(sandbox: SandboxProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__SPOOL_DIR", "/nowhere")
    event = asyncio.run(event_of(trigger()))
    assert event["status"] == "broken"
    assert "[lingyang] spool_dir" in event["reason"]


def test_failed_database_is_retried(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb, caplog: pytest.LogCaptureFixture
) -> None:
    submit(run, 1, 2)
    audience_db(["x"], [])
    query = {"sql": "SELECT biz_id FROM later", "conn_id": "audience_db", "parameters": None}

    async def work() -> dict[str, Any]:
        running = asyncio.ensure_future(event_of(trigger(request={"source": {"query": query}})))
        while "no such table: later" not in caplog.text:  # noqa: ASYNC110  # the log is all there is
            await asyncio.sleep(0.01)
        audience_db(["biz_id"], [("B1",), ("B2",)], table="later")
        return await running

    event = asyncio.run(work())
    assert event["status"] == "complete"
    assert event["failed_look_ups"] >= 1


def test_cancel_leaves_no_thread(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1, 2)
    sandbox.add_fault(kind="slow", seconds=5, method=LOOKUP, times=None)

    async def work() -> None:
        running = asyncio.ensure_future(event_of(trigger()))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(work())
    for thread in threading.enumerate():
        if thread.name.startswith("lingyang-wait"):
            thread.join(5)
            assert not thread.is_alive()


# --- poll interval -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_wait", "expected"), [(None, [10, 15, 22.5, 33.75, 40, 40]), (20, [10, 15, 20, 20, 20, 20])]
)
def test_poll_interval_grows_while_nothing_changes(max_wait: float | None, expected: list[float]) -> None:
    one = trigger(poke_interval=10, max_wait=max_wait)
    intervals = [10.0]
    for _ in range(5):
        intervals.append(one._interval(intervals[-1], changed=False))
    assert intervals == expected
    assert one._interval(intervals[-1], changed=True) == 10


# --- versions of its arguments and its event ---------------------------------------------------------------------

FORMATS = Path(__file__).parents[1] / "ledger" / "formats"
UNVERSIONED: dict[str, Any] = json.loads(FORMATS.joinpath("trigger_unversioned.json").read_text())
SAME_VERSION = "worker and triggerer must have the same version of airflow-provider-lingyang"


def inflated(arguments: dict[str, Any]) -> LingyangResultTrigger:
    """The trigger of a wait, made as the triggerer makes it."""
    one = pkgutil.resolve_name(UNVERSIONED["classpath"])(**arguments)
    assert isinstance(one, LingyangResultTrigger)
    return one


def test_wait_deferred_by_the_previous_version_resumes(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1, 2)
    now = time.time()
    one = inflated(UNVERSIONED["arguments"] | {"poke_interval": 0.02, "started": now, "deadline": now + 20})
    assert one.serialize()[1]["version"] == 2
    assert asyncio.run(event_of(one))["status"] == "complete"


def test_event_of_the_previous_version_is_accepted(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1, 2)
    event = UNVERSIONED["event"] | {"started": time.time(), "deadline": time.time() + 60}
    value = sensor(biz_ids=["B1", "B2"], required_slots=["a"]).execute_complete(run.context("wait"), event)
    assert value["counts"]["finished"] == 2


def test_trigger_accepts_its_serialized_arguments() -> None:
    one = trigger()
    again = inflated(json.loads(json.dumps(one.serialize()[1])))
    assert again.serialize() == one.serialize()


@pytest.mark.parametrize("newer", [{"version": 3}, {"version": 3, "page": 7}])
def test_arguments_of_a_newer_version_end_the_wait_with_a_sentence(newer: dict[str, Any], run: Run) -> None:
    arguments = trigger().serialize()[1] | newer
    event = asyncio.run(event_of(inflated(arguments)))
    assert event["status"] == "broken"
    with pytest.raises(PollError, match=SAME_VERSION) as caught:
        sensor(biz_ids=["B1"]).execute_complete(run.context("wait"), event)
    assert caught.value.retryable


def test_event_of_a_newer_version_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=SAME_VERSION):
        read_event(UNVERSIONED["event"] | {"version": 2})


# --- its arguments -----------------------------------------------------------------------------------------------


def test_arguments_and_events_hold_no_results_and_no_contacts(sandbox: SandboxProcess, run: Run) -> None:
    sandbox.add_fault(kind="late_index", seconds=3600)
    manifest = submit(run, 1, 2)
    caught = deferred(run, campaign=manifest)
    event = asyncio.run(event_of(trigger(deadline=time.time() + 0.05)))
    stored = json.dumps([caught.trigger.serialize(), event], ensure_ascii=False)
    for canary in ("1000000", "张三", "sandbox-secret", "愿意", "再考虑"):
        assert canary not in stored
    assert "B1" not in stored.replace('"biz_ids": ["B1", "B2"]', "")


@pytest.mark.parametrize("count", [10, 20_000])
def test_arguments_are_small_for_any_number_of_ids(
    sandbox: SandboxProcess,
    run: Run,
    audience_db: FillDb,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [f"campaign-of-the-spring-sale-2026-{number:08}" for number in range(count)]
    audience_db(["biz_id"], [(name,) for name in names])
    sources: list[dict[str, Any]] = [
        {"biz_ids": names},
        {"ids_sql": "SELECT biz_id FROM audience", "ids_conn_id": "audience_db"},
        {"ids_sql": "SELECT biz_id FROM audience -- " + "x" * 40_000, "ids_conn_id": "audience_db"},
    ]
    for source in sources:
        caught = deferred(run, **source, required_slots=["a"])
        assert len(json.dumps(caught.trigger.serialize()[1])) < 32_000
        if count > 10 and "biz_ids" in source:
            pointer = caught.trigger.serialize()[1]["request"]["source"]["xcom"]
            assert pointer == {"dag_id": "dag", "run_id": "run", "task_id": "wait", "map_index": -1}
            assert run.xcom["wait", "biz_ids"] == names


def test_arguments_too_long_for_a_trigger_fail_before_the_wait(sandbox: SandboxProcess, run: Run) -> None:
    error = run.fails(
        sensor(
            biz_ids=["B1"],
            required_slots=["a"],
            result_query=RESULT_QUERY | {"done_values": [str(number) * 10 for number in range(9999)]},
        )
    )
    assert "a deferred wait's arguments may be 30000 bytes long" in error


@pytest.mark.parametrize("default", ["True", "False"])
def test_deferrable_defaults_to_airflows_setting(default: str) -> None:
    code = (
        "from airflow_provider_lingyang.sensors.lingyang import LingyangResultSensor as S;"
        "print(S(task_id='wait', biz_ids=['1']).deferrable)"
    )
    env = os.environ | {"AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": default}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.split()[-1] == default


# --- back in the worker ------------------------------------------------------------------------------------------

COMPLETE = {"version": 1, "status": "complete", "counts": {}, "reason": None, "failed_look_ups": 0} | {
    "started": 0.0,
    "deadline": 0.0,
}


@pytest.mark.parametrize(
    "event",
    [
        None,
        "complete",
        {},
        {"status": "complete"},
        COMPLETE | {"version": 2},
        COMPLETE | {"status": "success"},
        COMPLETE | {"status": ["complete"]},
        COMPLETE | {"reason": 7},
        COMPLETE | {"deadline": None},
        COMPLETE | {"more": 1},
        {name: value for name, value in COMPLETE.items() if name != "version"},
        {name: value for name, value in COMPLETE.items() if name != "reason"},
        [1],
    ],
)
def test_unknown_events_are_errors(event: Any, run: Run) -> None:
    with pytest.raises(ValueError, match="does not understand"):
        read_event(event)
    one = sensor(biz_ids=["B1"], soft_fail=True)
    with pytest.raises(PollError, match="does not understand"):
        one.resume_execution("execute_complete", {"event": event}, run.context("wait"))


def test_a_failed_trigger_fails_the_task_with_its_reason(run: Run) -> None:
    event = COMPLETE | {"status": "failed", "reason": "because"}
    with pytest.raises(AirflowFailException, match="because"):
        sensor(biz_ids=["B1"]).execute_complete(run.context("wait"), event)
    with pytest.raises(PollError, match="because"):
        sensor(biz_ids=["B1"]).execute_complete(run.context("wait"), event | {"status": "broken"})


TIMED_OUT = "Trigger timeout" if AIRFLOW >= (3, 0) else "Trigger/execution timeout"
"""What Airflow's scheduler says of a deferral that it ends."""


@pytest.mark.parametrize("on_incomplete", ["fail", "succeed"])
def test_deferral_timeout_of_airflow_ends_as_at_the_deadline(
    sandbox: SandboxProcess, run: Run, on_incomplete: str
) -> None:
    from airflow.providers.common.compat.sdk import AirflowSensorTimeout

    submit(run, 1)
    one = sensor(biz_ids=["B1", "B2"], required_slots=["a"], on_incomplete=on_incomplete, timeout=5)
    how = "__fail__", {"error": TIMED_OUT}
    if on_incomplete == "succeed":
        value = one.resume_execution(*how, run.context("wait"))
        assert value["counts"]["finished"] == 1
    else:
        with pytest.raises(AirflowSensorTimeout, match="timed out after 5 s: 1 of 2 finished"):
            one.resume_execution(*how, run.context("wait"))


@pytest.mark.parametrize("soft", [{}, {"soft_fail": True}, {"never_fail": True}])
def test_final_failure_after_a_deferral_timeout_is_softened(
    sandbox: SandboxProcess, run: Run, soft: dict[str, bool]
) -> None:
    from airflow.providers.common.compat.sdk import AirflowSkipException

    submit(run, 1)
    query = RESULT_QUERY | {"method": "no.such"}
    one = sensor(biz_ids=["B1"], required_slots=["a"], result_query=query, **soft)
    expected = AirflowSkipException if soft else AirflowFailException
    with pytest.raises(expected, match="the look-up cannot work"):
        one.resume_execution("__fail__", {"error": TIMED_OUT}, run.context("wait"))


def test_query_that_fails_after_the_trigger_fired_defers_again(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb
) -> None:
    audience_db(["x"], [])
    fired = COMPLETE | {"started": time.time(), "deadline": time.time() + 60}
    one = sensor(ids_sql="SELECT biz_id FROM gone", ids_conn_id="audience_db", required_slots=["a"])
    with pytest.raises(TaskDeferred):
        one.execute_complete(run.context("wait"), fired)


def test_ids_in_xcom_stay_when_their_query_fails_after_the_trigger_fired(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb
) -> None:
    audience_db(["biz_id"], [("B1",)])
    ids: dict[str, Any] = {"ids_conn_id": "audience_db", "required_slots": ["a"]}
    ids["ids_sql"] = "SELECT biz_id FROM audience -- " + "x" * 40_000
    first = deferred(run, **ids).trigger
    audience_db(["x"], [])
    fired = COMPLETE | {"started": time.time(), "deadline": time.time() + 60}
    with pytest.raises(TaskDeferred) as caught:
        sensor(**ids).execute_complete(run.context("wait"), fired)
    assert caught.value.trigger.request["source"] == first.request["source"]
    assert run.xcom["wait", "biz_ids"] == ["B1"]


def test_ids_that_no_xcom_holds_are_not_pointed_to(
    sandbox: SandboxProcess, run: Run, audience_db: FillDb
) -> None:
    audience_db(["x"], [])
    fired = COMPLETE | {"started": time.time(), "deadline": time.time() + 60}
    sql = "SELECT biz_id FROM audience -- " + "x" * 40_000
    one = sensor(ids_sql=sql, ids_conn_id="audience_db", required_slots=["a"])
    with pytest.raises(PollError, match="no XCom holds them") as caught:
        one.execute_complete(run.context("wait"), fired)
    assert caught.value.retryable


def test_result_that_vanishes_after_the_trigger_fired_defers_again(sandbox: SandboxProcess, run: Run) -> None:
    submit(run, 1)
    deadline = time.time() + 60
    complete = COMPLETE | {"started": time.time(), "deadline": deadline}
    sandbox.reset()
    with pytest.raises(TaskDeferred) as caught:
        sensor(biz_ids=["B1"], required_slots=["a"]).execute_complete(run.context("wait"), complete)
    assert caught.value.trigger.deadline == deadline
