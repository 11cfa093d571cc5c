"""A gateway that costs next to nothing: every recipient is finished, every task is accepted.

    python benchmarks/sink.py SECONDS

Answers after so long. Prints its URL. Ends with its standard input. `GET` anything: how many requests came, and the
seconds from the first one to the last answer; it counts anew from then on. One protocol class instead of a web
framework, because it shares the machine with what is measured; it checks nothing. Answers that take long to make are
made in a process of their own during the wait, so that no request waits for another one's answer.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache

_LARGE = 8 * 1024
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_STRUCT = re.compile(rb"(?:^|&)(task_result_query|initiative_batch_task_request)=([^&]*)")
_FREQUENT = {b"%%%02X" % byte: bytes((byte,)) for byte in b'",:\\'}
_ESCAPES = {b"%02X" % byte: bytes((byte,)) for byte in range(256)}
# Some leave the colon and the comma as they are.
_CODE = re.compile(rb"%22task_unique_code%22(?:%3A|:)%22[^%]*%22(?:%2C|,)", re.IGNORECASE)


class Span:
    requests = 0
    begun = ended = 0.0


class Sink(asyncio.Protocol):
    def __init__(self, delay: float, span: Span, cook: ProcessPoolExecutor) -> None:
        self.delay = delay
        self.span = span
        self.cook = cook
        self.data = bytearray()
        self.needed = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.needed:
            head, end, _ = self.data.partition(b"\r\n\r\n")
            if end and head.startswith(b"GET"):
                self.data.clear()
                self.tell()
                return
            length = _LENGTH.search(head)
            if not end or not length:
                return
            self.needed = len(head) + 4 + int(length[1])
        if len(self.data) >= self.needed:
            body = bytes(self.data).partition(b"\r\n\r\n")[2]
            self.data.clear()
            self.needed = 0
            self.span.requests += 1
            self.span.begun = self.span.begun or time.perf_counter()
            loop = asyncio.get_running_loop()
            # The wait begins now: what it takes to make the answer is part of it.
            due = loop.time() + self.delay
            if self.delay and len(body) > _LARGE:
                made = loop.run_in_executor(self.cook, answer_to, body)
                made.add_done_callback(lambda made: loop.call_at(due, self.answer, made.result()))
            elif due > loop.time():
                loop.call_at(due, self.answer, answer_to(body))
            else:
                self.answer(answer_to(body))

    def answer(self, answer: bytes) -> None:
        self.write(answer)
        self.span.ended = time.perf_counter()

    def tell(self) -> None:
        span = self.span
        self.write(json.dumps({"requests": span.requests, "seconds": span.ended - span.begun}).encode())
        span.requests, span.begun = 0, 0.0

    def write(self, answer: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
        if not self.transport.is_closing():
            self.transport.write(head.encode() + answer)


def answer_to(body: bytes) -> bytes:
    found = _STRUCT.search(body)
    kind, struct = found.groups() if found else (b"", b"%7B%7D")
    return results(struct) if kind == b"task_result_query" else accepted(_CODE.sub(b"", struct, count=1))


def decoded(text: bytes) -> bytes:
    """Return what was form-encoded, in a third of the time of ``urllib``, which those that come next would wait for."""
    text = text.replace(b"+", b" ")
    for escaped, byte in _FREQUENT.items():
        text = text.replace(escaped, byte)
    first, *rest = text.split(b"%")
    return b"".join([first, *[_ESCAPES[piece[:2].upper()] + piece[2:] for piece in rest]])


def results(struct: bytes) -> bytes:
    ids = json.loads(decoded(struct)).get("biz_ids", [])
    items = [
        {"biz_id": biz_id, "task_id": 1, "status": "DONE", "output_params": '{"intention":"yes"}'}
        for biz_id in ([ids] if isinstance(ids, str) else ids)
    ]
    return document("sink_response", {"task_result": items})


@lru_cache(64)
def accepted(struct: bytes) -> bytes:
    """Repeat every task, as the platform does. Cached: who sends the same tasks again measures itself alone."""
    tasks = enumerate(json.loads(decoded(struct)).get("task_list", []), 1)
    data = [{"task_id": number, "task_request": task} for number, task in tasks]
    name = "alibaba_lingyang_utouch_submit_initiative_batch_task_response"
    return document(name, {"initiative_task_response": data})


def document(root: str, data: object) -> bytes:
    result = {"code": "200", "success": True, "data": data}
    answer = {root: {"result": result, "request_id": "15r3kx7dq2hm0"}}
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()


async def serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    span = Span()
    with ProcessPoolExecutor(1) as cook:
        cook.submit(answer_to, b"").result()
        server = await loop.create_server(lambda: Sink(delay, span, cook), "127.0.0.1", 0)
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/router/rest", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    # select() waits to the microsecond; epoll, which asyncio takes, to the next whole millisecond.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(serve(float(sys.argv[1])))
