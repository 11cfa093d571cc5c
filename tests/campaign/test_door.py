from __future__ import annotations

import threading

import pytest

from airflow_provider_lingyang.delivery.concurrency_limiter import Door, NotLeft


def leave(door: Door[int], number: int) -> None:
    with door.departure(number):
        pass


def try_to_leave(door: Door[int], number: int, found: list[str]) -> None:
    try:
        leave(door, number)
    except NotLeft:
        found.append("stayed")


def test_so_many_are_outside_at_a_time_and_the_next_leaves_when_one_is_back() -> None:
    door = Door[int](2, lambda _: True)
    third = threading.Thread(target=leave, args=(door, 3))
    with door.departure(1):
        with door.departure(2):
            third.start()
            third.join(0.05)
            assert third.is_alive()
        third.join(5)
        assert not third.is_alive()


def test_after_a_failure_nobody_leaves_until_it_was_heard_of() -> None:
    door = Door[int](3, lambda _: True)
    with pytest.raises(ZeroDivisionError), door.departure(1):
        raise ZeroDivisionError
    with pytest.raises(NotLeft):
        leave(door, 2)
    door.heard(2)
    with pytest.raises(NotLeft):
        leave(door, 2)
    door.heard(1)
    leave(door, 2)


def test_who_waits_for_a_place_learns_of_the_failure_that_frees_it() -> None:
    door = Door[int](1, lambda _: True)
    found: list[str] = []
    thread = threading.Thread(target=try_to_leave, args=(door, 2, found))
    with pytest.raises(ZeroDivisionError), door.departure(1):
        thread.start()
        raise ZeroDivisionError
    thread.join(5)
    assert found == ["stayed"]


def test_whether_a_request_may_leave_is_asked_when_there_is_a_place() -> None:
    may = [True]
    door = Door[int](1, lambda _: may[0])
    found: list[str] = []
    thread = threading.Thread(target=try_to_leave, args=(door, 2, found))
    with door.departure(1):
        thread.start()
        may[0] = False
    thread.join(5)
    assert found == ["stayed"]
    # It has given its place back.
    may[0] = True
    leave(door, 3)


def test_nothing_leaves_by_a_door_that_is_shut() -> None:
    door = Door[int](1, lambda _: True)
    door.shut()
    with pytest.raises(NotLeft):
        leave(door, 1)
