"""A gateway that costs next to nothing: answers any look-up after a while, everybody finished.

    python benchmarks/sink.py SECONDS

Prints its URL. Ends with its standard input. One protocol class instead of a web framework, because it shares the
machine with what is measured.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from urllib.parse import unquote_plus

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_IDS = re.compile(r'"biz_ids":(\[.*?\]|".*?")')


class Sink(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(body) >= int(length[1]):
            self.data = b""
            asyncio.get_running_loop().call_later(self.delay, self.answer, body)

    def answer(self, body: bytes) -> None:
        found = _IDS.search(unquote_plus(body.decode()))
        ids = json.loads(found[1] if found else "[]")
        items = [
            {"biz_id": biz_id, "task_id": 1, "status": "DONE", "output_params": '{"intention":"yes"}'}
            for biz_id in ([ids] if isinstance(ids, str) else ids)
        ]
        result = {"code": "200", "success": True, "data": {"task_result": items}}
        answer = json.dumps({"sink_response": {"result": result, "request_id": "15r3kx7dq2hm0"}}).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head.encode() + answer)


async def serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Sink(delay), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/router/rest", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
