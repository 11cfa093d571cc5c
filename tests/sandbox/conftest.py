"""Sandboxes in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest
from aiohttp import web

from airflow_provider_lingyang.sandbox.app import create_runner
from airflow_provider_lingyang.sandbox.state import SandboxState
from tests.sandbox.client import TIMEOUT, Gateway


@contextmanager
def serve(dedupe: bool) -> Iterator[Gateway]:
    """Serve a sandbox in a thread; its clock is the ``moment`` of the gateway."""
    gateway = Gateway()
    gateway.now = lambda: gateway.moment
    state = SandboxState(dedupe=dedupe, clock=gateway.now)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> web.AppRunner:
        runner = create_runner(state)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        gateway.url = "http://{}:{}/router/rest".format(*runner.addresses[0][:2])
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(TIMEOUT)
    try:
        yield gateway
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT)
        loop.close()
        state.record.close()


@pytest.fixture
def start_gateway() -> Iterator[Callable[..., Gateway]]:
    """Start a sandbox: ``start_gateway(dedupe=True)``."""
    with ExitStack() as stack:

        def start(*, dedupe: bool = False) -> Gateway:
            return stack.enter_context(serve(dedupe))

        yield start


@pytest.fixture
def gateway(start_gateway: Callable[..., Gateway]) -> Gateway:
    """A sandbox with its defaults."""
    return start_gateway()
