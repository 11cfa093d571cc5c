"""What is the event loop's own: many calls at a time. All else holds for both clients, and is tested for both."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient
from airflow_provider_lingyang.gateway.errors import AnswerLostError, ServiceError, ThrottledError
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.transport import IDLE_LIMIT
from airflow_provider_lingyang.lookup import calls
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.gateway.conftest import fetch_results_async

QUERY = ResultQuery.parse(RESULT_QUERY, where="here")


class Clock:
    """Seconds that pass only when somebody sleeps; who sleeps shortest wakes first."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sleeping: list[tuple[float, int, asyncio.Event]] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        wake = asyncio.Event()
        self.sleeping.append((self.now + seconds, len(self.sleeping), wake))
        await wake.wait()

    async def run(self, work: Any) -> Any:
        """Do some work, and let time pass whenever everybody sleeps."""
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=0.1)
            if self.sleeping and not task.done():
                first = min(self.sleeping, key=lambda entry: entry[:2])
                self.sleeping.remove(first)
                self.now = max(self.now, first[0])
                first[2].set()
        return task.result()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def client(sandbox: SandboxProcess, clock: Clock, **options: Any) -> AsyncGatewayClient:
    settings = GatewaySettings(
        url=sandbox.url, app_key="sandbox", app_secret="sandbox-secret", timeout=5, max_attempts=3
    )
    return AsyncGatewayClient(settings, monotonic=clock, sleep=clock.sleep, rng=random.Random(1), **options)


def times(sandbox: SandboxProcess) -> int:
    return len(sandbox.record()["requests"])


def test_many_calls_at_a_time_share_one_session(gateway_sandbox: SandboxProcess, clock: Clock) -> None:
    gateway_sandbox.add_fault(kind="slow", seconds=0.2, method=LOOKUP, times=None)

    async def work() -> None:
        async with client(gateway_sandbox, clock) as gateway:
            await asyncio.gather(*(fetch_results_async(gateway, QUERY, [str(n)]) for n in range(30)))

    asyncio.run(work())
    requests = gateway_sandbox.record()["requests"]
    assert len(requests) == 30
    under_way = [
        sum(other["received_at"] <= each["received_at"] < other["answered_at"] for other in requests)
        for each in requests
    ]
    assert max(under_way) >= 3


def test_answers_that_come_together_leave_the_loop_to_others_in_between(
    gateway_sandbox: SandboxProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = calls.read_page
    since, most = 0, 0

    def slowly(*args: Any, **kwargs: Any) -> Any:
        nonlocal since, most
        # While the first is read, all others come.
        until = time.perf_counter() + (0.004 if most else 0.5)
        since, most = since + 1, max(most, since + 1)
        while time.perf_counter() < until:
            pass
        return read(*args, **kwargs)

    async def watch() -> None:
        nonlocal since
        while True:
            since = 0
            await asyncio.sleep(0)

    async def work() -> None:
        watching = asyncio.ensure_future(watch())
        async with client(gateway_sandbox, clock) as gateway:
            await asyncio.gather(*(fetch_results_async(gateway, QUERY, [str(n)]) for n in range(30)))
        watching.cancel()

    monkeypatch.setattr(calls, "read_page", slowly)
    asyncio.run(work())
    assert most <= 4


def test_connections_are_kept_as_long_as_the_client_for_tasks_keeps_them(
    gateway_sandbox: SandboxProcess, clock: Clock
) -> None:
    async def work() -> Any:
        async with client(gateway_sandbox, clock) as gateway:
            await gateway.call("taobao.time.get", {})
            assert gateway._session is not None
            return gateway._session.connector

    assert asyncio.run(work())._keepalive_timeout == IDLE_LIMIT


def test_throttle_pauses_all_calls_of_a_client(gateway_sandbox: SandboxProcess, clock: Clock) -> None:
    gateway_sandbox.add_fault(kind="throttle", seconds=20, method=LOOKUP, times=1)

    async def work() -> list[Any]:
        async with client(gateway_sandbox, clock) as gateway:
            # The sandbox's ban lasts, by its own clock; what counts here is when each of us asks again.
            calls = (fetch_results_async(gateway, QUERY, [str(n)]) for n in range(5))
            return await asyncio.gather(*calls, return_exceptions=True)

    ends = asyncio.run(clock.run(work()))
    assert any(isinstance(end, ThrottledError) for end in ends)
    assert clock.now >= 21
    assert times(gateway_sandbox) <= 15


def test_long_ban_is_raised_to_the_caller(gateway_sandbox: SandboxProcess, clock: Clock) -> None:
    gateway_sandbox.add_fault(kind="throttle", seconds=31_062, method=LOOKUP, times=1)

    async def work() -> float | None:
        async with client(gateway_sandbox, clock) as gateway:
            with pytest.raises(ThrottledError) as caught:
                await fetch_results_async(gateway, QUERY, ["1"])
            return caught.value.retry_after

    assert asyncio.run(clock.run(work())) == 31_062
    assert clock.now == 0
    assert times(gateway_sandbox) == 1


def test_rate_limit_of_the_connection_spaces_calls(gateway_sandbox: SandboxProcess, clock: Clock) -> None:
    async def work() -> None:
        async with client(gateway_sandbox, clock, limiter=RateLimiter(4, monotonic=clock)) as gateway:
            await asyncio.gather(*(fetch_results_async(gateway, QUERY, [str(n)]) for n in range(9)))

    asyncio.run(clock.run(work()))
    assert clock.now == pytest.approx(2.0)
    assert times(gateway_sandbox) == 9


def test_lost_answer_is_retried_for_look_ups_only(gateway_sandbox: SandboxProcess, clock: Clock) -> None:
    gateway_sandbox.add_fault(kind="reset_before", method=LOOKUP, times=2)
    gateway_sandbox.add_fault(kind="reset_before", method="taobao.time.get", times=2)

    async def work() -> None:
        async with client(gateway_sandbox, clock) as gateway:
            assert await fetch_results_async(gateway, QUERY, ["1"]) == {}
            with pytest.raises(AnswerLostError):
                await gateway.call("taobao.time.get", {})

    asyncio.run(clock.run(work()))
    assert times(gateway_sandbox) == 4


def test_values_of_a_call_and_credentials_stay_out_of_errors_and_logs(
    gateway_sandbox: SandboxProcess, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    gateway_sandbox.add_fault(
        kind="error", sub_msg="10000000001 张三 sandbox-secret", method=LOOKUP, times=None
    )
    query = QUERY.model_copy(update={"request_param": None, "biz_ids_field": "who"})

    async def work() -> None:
        async with client(gateway_sandbox, clock) as gateway:
            with pytest.raises(ServiceError) as caught:
                await fetch_results_async(gateway, query, ["10000000001 张三"])
            assert "10000000001" not in str(caught.value)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(clock.run(work()))
    assert "attempt 1" in caplog.text
    for canary in ("10000000001", "张三", "sandbox-secret"):
        assert canary not in caplog.text


def test_a_client_that_was_never_used_closes_like_any_other(
    gateway_sandbox: SandboxProcess, clock: Clock
) -> None:
    asyncio.run(client(gateway_sandbox, clock).close())
