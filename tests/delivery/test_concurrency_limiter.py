from __future__ import annotations

import json
import threading

import pytest

from airflow_provider_lingyang.delivery.concurrency_limiter import ConcurrencyLimiter, NotDispatched
from airflow_provider_lingyang.gateway.client import GatewayClient
from airflow_provider_lingyang.gateway.urllib3_connections import before_send
from airflow_provider_lingyang.hooks.lingyang import LingyangHook
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.delivery.test_ledger_away import Memory, Sending


def leave(door: ConcurrencyLimiter[int], number: int) -> None:
    with door.acquire(number):
        pass


def try_to_leave(door: ConcurrencyLimiter[int], number: int, found: list[str]) -> None:
    try:
        leave(door, number)
    except NotDispatched:
        found.append("stayed")


def test_so_many_are_outside_at_a_time_and_the_next_leaves_when_one_is_back() -> None:
    door = ConcurrencyLimiter[int](2, lambda _: True)
    third = threading.Thread(target=leave, args=(door, 3))
    with door.acquire(1):
        with door.acquire(2):
            third.start()
            third.join(0.05)
            assert third.is_alive()
        third.join(5)
        assert not third.is_alive()


def test_after_a_failure_nobody_leaves_until_it_was_heard_of() -> None:
    door = ConcurrencyLimiter[int](3, lambda _: True)
    with pytest.raises(ZeroDivisionError), door.acquire(1):
        raise ZeroDivisionError
    with pytest.raises(NotDispatched):
        leave(door, 2)
    door.acknowledge_failure(2)
    with pytest.raises(NotDispatched):
        leave(door, 2)
    door.acknowledge_failure(1)
    leave(door, 2)


def test_who_waits_for_a_place_learns_of_the_failure_that_frees_it() -> None:
    door = ConcurrencyLimiter[int](1, lambda _: True)
    found: list[str] = []
    thread = threading.Thread(target=try_to_leave, args=(door, 2, found))
    with pytest.raises(ZeroDivisionError), door.acquire(1):
        thread.start()
        raise ZeroDivisionError
    thread.join(5)
    assert found == ["stayed"]


def test_whether_a_request_may_leave_is_asked_when_there_is_a_place() -> None:
    may = [True]
    door = ConcurrencyLimiter[int](1, lambda _: may[0])
    found: list[str] = []
    thread = threading.Thread(target=try_to_leave, args=(door, 2, found))
    with door.acquire(1):
        thread.start()
        may[0] = False
    thread.join(5)
    assert found == ["stayed"]
    # It has given its place back.
    may[0] = True
    leave(door, 3)


def test_nothing_leaves_by_a_door_that_is_shut() -> None:
    door = ConcurrencyLimiter[int](1, lambda _: True)
    door.close()
    with pytest.raises(NotDispatched):
        leave(door, 1)


@pytest.mark.parametrize("fresh", [False, True])
def test_looks_again_when_the_connection_is_made(sandbox: SandboxProcess, fresh: bool) -> None:
    """A name, a connection and TLS may take longer than an intent lives; a process may be paused meanwhile."""
    looks: list[str] = []

    def may_still_leave(request: str) -> bool:
        # The gateway has taken the connection by now, and has read nothing.
        looks.append(request)
        return fresh

    door = ConcurrencyLimiter(1, lambda _: True, may_still_leave)
    task = {"biz_id": "B1", "phone_number": "10000000001", "input_params": "{}", "output_params": "{}"}
    struct = json.dumps({"task_unique_code": "code", "plan_id": 123, "task_list": [task]})
    with GatewayClient(LingyangHook().settings) as client:
        if fresh:
            client.submit_struct(struct, departure=lambda: door.acquire("request"))
        else:
            with pytest.raises(NotDispatched):
                client.submit_struct(struct, departure=lambda: door.acquire("request"))
        client.call("taobao.time.get", {})
    assert looks == ["request"]
    assert sandbox.record()["executions"]["by_biz_id"] == ({"B1": 1} if fresh else {})


def test_a_request_that_did_not_leave_after_all_is_ready_again() -> None:
    ledger = Memory()
    sending = Sending(ledger, max_in_flight=1)
    connected: list[str] = []

    def slow_to_connect() -> None:
        connected.append("connected")
        if len(connected) == 1:
            sending.time.sleep(100)
        check = before_send.get()
        assert check is not None
        check()

    sending.answers = dict.fromkeys(range(9), slow_to_connect)
    assert sending.run(2) is None
    assert len(connected) == 3
    assert ledger.count("accepted") == sending.manifest.accepted == 4
