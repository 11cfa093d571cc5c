"""Connections of aiohttp on which an answer belongs to the request before it."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

import aiohttp
from urllib3.util.wait import wait_for_read

from airflow_provider_lingyang.gateway.transport import HeadCheck, not_connected

_POLL_INTERVAL = 0.01
_USED: WeakSet[Any] = WeakSet()
"""Connections that a request was sent on."""


class Connector(aiohttp.TCPConnector):
    """Reuses a connection only where no bytes wait on it, and never for a request with ``Connection: close``."""

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109  # aiohttp's signature
        """Return a connection, kept or new.

        :raises NotSentError: the gateway sent bytes before the request.
        """
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert protocol is not None
            if protocol not in _USED:
                if not protocol.should_close:
                    return connection
                connection.close()
                raise not_connected("it answered before it was asked")
            alone = req.headers.get("Connection") == "close"
            if not alone and not protocol.should_close and not _is_readable(connection.transport):
                return connection
            connection.close()


def _is_readable(connection: asyncio.Transport | None) -> bool:
    # Bytes that the loop has not read yet count, too. So does any TLS record: the tickets came with the first answer.
    sock: Any = connection and connection.get_extra_info("socket")
    return sock is None or bool(wait_for_read(sock, 0))


class Response(aiohttp.ClientResponse):
    """Holds its connection until the client closes or releases it, not only until the body is complete."""

    reused = False

    async def start(self, connection: Any) -> Any:
        """Read the head.

        :raises AnswerUnreadableError: it breaks the limits of ``transport.py``.
        """
        protocol, heads = connection.protocol, HeadCheck()
        self.reused = protocol in _USED
        _USED.add(protocol)
        read = protocol.read

        async def checked() -> Any:
            message, payload = await read()
            heads.is_final(message.code, message.reason, message.raw_headers)
            return message, payload

        protocol.read = checked
        try:
            return await super().start(connection)
        finally:
            del protocol.read

    def _response_eof(self) -> None:
        """Keep the connection until ``close`` or ``release``."""

    async def is_followed(self, wait: float) -> bool:
        """Return whether another answer comes after this one.

        :param wait: seconds to wait for that, unless the gateway closes the connection before; 0: look only.
        """
        protocol = self.connection and self.connection.protocol
        if protocol is None:
            return False
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        # No event announces bytes between answers.
        while not len(protocol) and protocol.is_connected() and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_INTERVAL)
        return len(protocol) > 0
