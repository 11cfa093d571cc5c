"""Make the calls of a look-up over a client of the gateway: one driver for tasks, one for event loops."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_lingyang.gateway.attempts import Call
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.lookup.page import Page

if TYPE_CHECKING:
    # Each has an HTTP library of its own, and a caller needs one of them.
    from airflow_provider_lingyang.gateway.async_client import AsyncGatewayClient
    from airflow_provider_lingyang.gateway.client import GatewayClient

T = TypeVar("T")


def drive(client: GatewayClient, steps: Generator[Call[Page], Page, T]) -> T:
    """Return the result of a look-up, one call at a time.

    :param steps: of ``lookup/calls.py``.
    :raises LingyangError: the typed reason, after the last attempt.
    """
    try:
        call = next(steps)
        while True:
            try:
                page = client.perform(call)
            except LingyangError as error:
                call = steps.throw(error)
            else:
                call = steps.send(page)
    except StopIteration as end:
        found: T = end.value
        return found


async def drive_async(client: AsyncGatewayClient, steps: Generator[Call[Page], Page, T]) -> T:
    """Return the result of a look-up; see :func:`drive`."""
    try:
        call = next(steps)
        while True:
            try:
                page = await client.perform(call)
            except LingyangError as error:
                call = steps.throw(error)
            else:
                call = steps.send(page)
    except StopIteration as end:
        found: T = end.value
        return found
