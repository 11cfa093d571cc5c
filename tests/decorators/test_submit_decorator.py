"""A campaign whose people a function gives is the operator's in everything but where its rows come from."""

from __future__ import annotations

import inspect
import logging
import traceback
import typing
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    task,
)

from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.decorators.lingyang import lingyang_submit_batch
from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run
from tests.helpers.campaigns import LOST, Campaign, all_reached_once, executions, recipients, row, sent

SOURCES = {"audience", "sql", "sql_conn_id", "parameters"}


def submit(function: Callable[..., Any], *args: Any, **arguments: Any) -> Any:
    """Return the operator of the decorated function, called with ``args``."""
    arguments = {"plan_id": 123, "task_id": "submit", "batch_size": 2} | arguments
    return lingyang_submit_batch(**arguments)(function)(*args).operator


def test_airflow_finds_the_decorator_under_its_name() -> None:
    assert task.lingyang_submit_batch is not None

    @task.lingyang_submit_batch(plan_id=123)
    def submit() -> list[dict[str, Any]]:
        return []

    assert submit().operator.custom_operator_name == "@task.lingyang_submit_batch"
    assert submit().operator.task_id == "submit"


def test_decorator_signature_is_the_operators_without_the_sources_of_rows() -> None:
    _, given = typing.get_overloads(lingyang_submit_batch)
    theirs = inspect.signature(LingyangSubmitBatchOperator.__init__).parameters
    expected = {
        name: (parameter.kind, parameter.default, parameter.annotation)
        for name, parameter in theirs.items()
        if name not in SOURCES | {"self"}
    }
    found = {
        name: (parameter.kind, parameter.default, parameter.annotation)
        for name, parameter in inspect.signature(given).parameters.items()
    }
    assert found == expected


@pytest.mark.parametrize("lazy", [True, False])
def test_decorator_rows_are_sent_as_by_the_operator(sandbox: SandboxProcess, lazy: bool) -> None:
    rows = recipients(3, 2)
    listed, given = Run(), Run()
    listed.execute(
        LingyangSubmitBatchOperator(task_id="submit", plan_id=123, batch_size=2, audience=rows),
    )
    by_operator = sent(sandbox)
    sandbox.reset()

    def function() -> Any:
        return iter(rows) if lazy else rows

    value = given.execute(submit(function))
    assert sent(sandbox) == by_operator
    assert value == given.manifest()
    untimed = [{**run.manifest(), "duration_s": 0} for run in (listed, given)]
    assert untimed[0] == untimed[1]
    assert given.xcom["submit", "biz_ids"] == listed.xcom["submit", "biz_ids"]
    assert given.xcom["submit", "task_ids"] != [None] * 5


def test_arguments_of_the_call_and_keys_of_the_context_reach_the_function(
    sandbox: SandboxProcess, run: Run
) -> None:
    def function(shard: str, *, more: int = 2, ti: Any = None, **rest: Any) -> Iterator[dict[str, Any]]:
        yield row(1, biz_id=f"{ti.run_id}/{shard}/{more}/{rest['extra']}")

    run.execute(submit(lambda shard, ti=None: function(shard, ti=ti, extra="x"), "north"))
    assert executions(sandbox) == {"run/north/2/x": 1}


def test_no_more_than_a_row_of_a_generator_is_in_memory(sandbox: SandboxProcess, run: Run) -> None:
    class Row(dict[str, Any]):
        pass

    alive: weakref.WeakSet[Row] = weakref.WeakSet()
    most = 0

    def function() -> Iterator[Row]:
        nonlocal most
        for number in range(1, 2501):
            made = Row(row(number))
            alive.add(made)
            most = max(most, len(alive))
            yield made

    Row.__hash__ = object.__hash__  # type: ignore[method-assign]
    run.execute(submit(function, batch_size=500))
    assert run.counts() == {"audience": 2500, "accepted": 2500}
    assert most <= 3


def test_nothing_is_called_before_the_task_runs() -> None:
    called = []
    with DAG("dag", schedule=None):
        submit(lambda: called.append(1))
    assert not called


@pytest.mark.parametrize("source", sorted(SOURCES))
def test_another_source_of_rows_is_refused_while_the_dag_is_parsed(source: str) -> None:
    with pytest.raises(ArgumentError, match=f"gets its rows from the function: leave out {source}$"):
        submit(recipients, **{source: "x"})
    with pytest.raises(ArgumentError, match="leave out"):
        lingyang_submit_batch(plan_id=1, **{source: "x"})
    with pytest.raises(ArgumentError, match="leave out"):
        lingyang_submit_batch(plan_id=1)(recipients).override(**{source: "x"})()


def test_default_args_for_other_tasks_of_the_dag_are_no_source_of_rows(
    sandbox: SandboxProcess, run: Run
) -> None:
    with DAG("dag", schedule=None, default_args={"sql_conn_id": "shop_db", "plan_id": 7}):

        @lingyang_submit_batch
        def submit() -> list[dict[str, Any]]:
            return recipients(1)

        operator = submit().operator
    run.execute(operator)
    assert run.manifest()["plan_id"] == 7


def test_invalid_arguments_are_refused_while_the_dag_is_parsed() -> None:
    async def coroutine() -> list[Any]:
        return []

    async def generator() -> Any:
        yield {}

    for function in (coroutine, generator):
        with pytest.raises(ArgumentError, match="is async"):
            submit(function)
    with pytest.raises(ArgumentError, match="leave out multiple_outputs"):
        submit(recipients, multiple_outputs=True)
    with pytest.raises(ArgumentError, match="batch_size"):
        submit(recipients, batch_size=0)


def test_an_annotation_of_the_rows_does_not_take_the_manifest_apart() -> None:
    def function() -> dict[str, Any]:
        return {}

    assert submit(function).multiple_outputs is False


@pytest.mark.parametrize("returned", [None, "B1", {"biz_id": "B1"}, 7])
def test_function_without_rows_is_an_error(sandbox: SandboxProcess, run: Run, returned: Any) -> None:
    message = run.fails(submit(lambda: returned))
    assert (
        f"must return or yield rows (mappings of names to values); it returned a {type(returned).__name__}"
        in (message)
    )
    assert sent(sandbox) == []


def test_an_empty_audience_is_what_on_empty_says(sandbox: SandboxProcess, run: Run) -> None:
    with pytest.raises(AirflowSkipException):
        run.execute(submit(recipients))
    assert run.execute(submit(lambda: iter(()), on_empty="succeed"))["counts"]["audience"] == 0


def test_error_of_the_function_is_shown_without_its_text_and_nothing_is_sent(
    without_lookup: SandboxProcess, campaign: Campaign, caplog: pytest.LogCaptureFixture
) -> None:
    def look_up(mobile: str) -> dict[str, Any]:
        raise KeyError(mobile)

    def function() -> Iterator[dict[str, Any]]:
        yield from recipients(3)
        try:
            look_up("CANARY")
        except KeyError as error:
            raise ValueError("no CANARY") from error

    caplog.set_level(logging.DEBUG)
    message = campaign.next_try("stops", operator=submit(function, **campaign.ledger))
    assert message.startswith("nothing was sent: function raised ValueError, see the traceback above")
    assert "audience 3 = " in message
    assert "not sent 3" in message
    assert sent(without_lookup) == []
    # What a person needs to find the line, of the cause, too.
    assert "in look_up\n    raise KeyError(mobile)\nKeyError\n\nwhich led to\n\n" in caplog.text
    assert 'raise ValueError("no CANARY") from error\nValueError' in caplog.text
    assert "CANARY" not in caplog.text.replace('"no CANARY"', "").replace('"CANARY"', "")
    assert "CANARY" not in message
    # The next try calls it again.
    campaign.next_try(operator=submit(lambda: recipients(3), **campaign.ledger))
    assert all_reached_once(without_lookup, 3)


def test_error_of_the_function_call_is_shown_without_its_text(
    sandbox: SandboxProcess, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    def function() -> list[dict[str, Any]]:
        raise StopIteration("CANARY")

    message = run.fails(submit(function))  # without a ledger nothing can go on
    assert "function raised StopIteration" in message
    assert "CANARY" not in message + caplog.text.replace('"CANARY"', "")


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("error", [AirflowSkipException, AirflowFailException, AirflowException])
def test_airflows_own_exceptions_keep_their_meaning_and_their_text(
    without_lookup: SandboxProcess, campaign: Campaign, error: type[AirflowException], lazy: bool
) -> None:
    def function() -> Iterator[dict[str, Any]]:
        yield from recipients(2)
        try:
            raise KeyError("CANARY")
        except KeyError:
            raise error("the orders of today are not there yet")  # noqa: B904  # its context must not be shown

    with pytest.raises(error, match="the orders of today are not there yet") as caught:
        campaign.next_try(operator=submit(function if lazy else lambda: list(function()), **campaign.ledger))
    assert type(caught.value) is error
    assert caught.value.__suppress_context__
    assert campaign.run.manifest()["counts"]["audience"] == (2 if lazy else 0)
    assert sent(without_lookup) == []


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("error", [SystemExit("no CANARY"), SystemExit(["CANARY"]), SystemExit("")])
def test_exit_with_a_text_is_a_failure_without_it(
    without_lookup: SandboxProcess,
    campaign: Campaign,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
    lazy: bool,
) -> None:
    def function() -> Iterator[dict[str, Any]]:
        yield from recipients(2)
        raise error

    caplog.set_level(logging.DEBUG)
    operator = submit(function if lazy else lambda: list(function()), **campaign.ledger)
    message = campaign.next_try("stops", operator=operator)
    assert "raised SystemExit, see the traceback above" in message
    assert "CANARY" not in message + caplog.text
    assert sent(without_lookup) == []


@pytest.mark.parametrize(
    "error", [SystemExit(3), SystemExit(), KeyboardInterrupt(), KeyboardInterrupt("CANARY")]
)
def test_exit_and_interrupt_keep_their_type_and_lose_their_text(
    without_lookup: SandboxProcess, campaign: Campaign, error: BaseException
) -> None:
    def function() -> Iterator[dict[str, Any]]:
        yield from recipients(2)
        try:
            raise KeyError("CANARY")
        except KeyError:
            raise error  # noqa: B904  # its context must not be shown

    with pytest.raises(type(error)) as caught:
        campaign.next_try(operator=submit(function, **campaign.ledger))
    assert caught.value.args in ((), (3,))
    shown = "".join(traceback.format_exception(caught.value))
    assert "CANARY" not in shown.replace('"CANARY"', "")
    assert sent(without_lookup) == []


def test_rows_generator_is_closed_when_rows_cannot_be_sent(sandbox: SandboxProcess, run: Run) -> None:
    class Cursor:
        closed = 0

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return self

        def __next__(self) -> dict[str, Any]:
            return row(1, phone="10000000001")

        def close(self) -> None:
            self.closed += 1

    cursor = Cursor()
    message = run.fails(submit(lambda: cursor))
    assert "column 'phone' is not a field of the API (row 1) and nothing uses it" in message
    assert cursor.closed == 1


def test_retry_calls_the_function_again_and_repeats_no_recipient(
    without_lookup: SandboxProcess, campaign: Campaign
) -> None:
    without_lookup.add_fault(**LOST, after=1, times=1)
    function = lambda: iter(recipients(6))  # noqa: E731
    campaign.next_try("fails", operator=submit(function, **campaign.ledger))
    (doubt,) = campaign.run.manifest()["in_doubt"]
    settle = {doubt["task_unique_code"]: "accepted"}
    campaign.next_try(operator=submit(function, settle=settle, **campaign.ledger))
    assert all_reached_once(without_lookup, 6)
    assert campaign.run.counts() == {"audience": 6, "accepted": 2, "already_accepted": 4}


def test_resumed_task_calls_the_function_again(without_lookup: SandboxProcess, campaign: Campaign) -> None:
    without_lookup.add_fault(kind="throttle", seconds=90, after=1, times=1)
    calls = []

    def function() -> Iterator[dict[str, Any]]:
        calls.append(1)
        yield from recipients(6)

    operator = submit(function, **campaign.ledger)
    campaign.next_try("waits", operator=operator)
    without_lookup.clear_faults()
    campaign.resume(operator)
    assert len(calls) == 2
    assert all_reached_once(without_lookup, 6)


def test_ids_beyond_the_xcom_limit_need_a_query_or_a_ledger(
    sandbox: SandboxProcess, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__XCOM_IDS_LIMIT", "2")
    run.execute(submit(lambda: recipients(3)))
    assert (
        "the audience came without a query: a LingyangResultSensor with campaign=… cannot find them"
        in caplog.text
    )


def test_rendered_arguments_hold_no_recipient() -> None:
    def function(day: str, found: Any, *, limit: int, kind: str, since: Any, table: Any) -> list[Any]:
        return [day, found, limit, kind, since, table]

    with DAG("dag", schedule=None):

        @task
        def upstream() -> str:
            return ""

        text = upstream()
        operator = lingyang_submit_batch(plan_id=123)(function)(
            "{{ day }}", [{"mobile": "CANARY"}], limit=3, kind="new", since=None, table=text
        ).operator
    # As Airflow sets them when it has rendered them.
    operator.op_args = ["2026-01-05", [{"mobile": "CANARY"}]]
    operator.op_kwargs = {"limit": 3, "kind": "new", "since": None, "table": "CANARY"}
    assert str(operator.op_args) == "['2026-01-05', <list, not shown>]"
    assert str(operator.op_kwargs) == (
        "{'limit': 3, 'kind': 'new', 'since': None, 'table': <str, not shown>}"
    )
    # Airflow 2 may render them once more.
    operator.op_args, operator.op_kwargs = operator.op_args, operator.op_kwargs
    assert list(operator._of_function({})) == [
        "2026-01-05", [{"mobile": "CANARY"}], 3, "new", None, "CANARY",
    ]  # fmt: skip


def test_rendered_arguments_hold_no_value_of_an_upstream_task() -> None:
    def function(**arguments: Any) -> list[Any]:
        return [arguments]

    with DAG("dag", schedule=None):

        @task
        def upstream() -> list[Any]:
            return []

        given = lingyang_submit_batch(plan_id=123, ledger_conn_id="ledger")(function)
        mapped = given.partial(
            day="{{ ds }}", pulled="{{ ti.xcom_pull('upstream') }}", known=10000000001
        ).expand(mobile=upstream(), number=upstream(), shard=[0, 1])
    # As Airflow makes the task of an instance, and sets what it has rendered.
    people = {"mobile": "CANARY {{ x }}", "number": 10000000002, "shard": 1}
    operator = mapped.operator.unmap({"op_kwargs": people})
    assert operator.op_kwargs["day"] == "{{ ds }}"
    # Airflow logs them when it cannot render one.
    assert "10000000002" not in str(operator.op_kwargs)
    values = people | {"day": "2026-01-05", "pulled": "CANARY", "known": 10000000001}
    operator.op_kwargs = operator.op_kwargs | {"day": "2026-01-05", "pulled": "CANARY"}
    shown = {name: str(value) for name, value in operator.op_kwargs.items()}
    assert shown == {
        "day": "2026-01-05",
        "pulled": "<str, not shown>",
        "known": "<int, not shown>",
        "mobile": "<str, not shown>",
        "number": "<int, not shown>",
        "shard": "1",
    }
    assert list(operator._of_function({})) == [values]
