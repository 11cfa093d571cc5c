"""Ways to go wrong, one small function each. Its keyword arguments are the arguments of the rule.

``executed`` says whether the work was done although the client is not told so; kinds without that argument state
it in their first line. When a fault fires (times, rate, match ...) is ``rules.py``'s business.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any, Literal

from airflow_provider_lingyang.sandbox.answers import Answer, Items, result_answer
from airflow_provider_lingyang.sandbox.exchange import Call, Raw
from airflow_provider_lingyang.sandbox.fault_registry import kind

PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>tengine</center></body></html>"


# --- refused by the gateway: never executed unless the rule says so -------------------------------------------


@kind()
async def throttle(
    call: Call,
    *,
    seconds: float = 1.0,
    code: int = 7,
    sub_code: str = "accesscontrol.limited-by-api-access-count",
) -> Answer:
    """Not executed: a ban. Every request (of the rule's method) is throttled until ``seconds`` are over."""
    call.entry.outcome = "throttled"
    return call.error(code, "", sub_code, f"This ban will last for {math.ceil(seconds)} more seconds")


@kind()
async def error(
    call: Call,
    *,
    code: int | str = 15,
    msg: str = "",
    sub_code: str | None = "isp.remote-service-error",
    sub_msg: str | None = "远程服务出错",
    executed: bool = False,
) -> Answer:
    """Executed only with ``executed``: any ``error_response``; ``sub_code: null`` leaves it out."""
    if executed:
        _work(call)
    return call.error(code, msg, sub_code, sub_msg)


@kind()
async def refuse(call: Call, *, code: str = "400", message: str = "参数错误") -> Answer:
    """Not executed: the envelope is fine, ``result.success`` is false."""
    return result_answer(call.method, {"code": code, "success": False, "message": message}, call.request_id)


@kind()
async def permission(call: Call) -> Answer:
    """Not executed: the app lacks the permission package (11)."""
    return call.error(11, "", "isv.permission-api-package-limit", "应用没有权限调用此接口")


@kind()
async def ip(call: Call) -> Answer:
    """Not executed: the caller's address is not in the app's white list (11)."""
    return call.error(11, "", "isv.permission-ip-whitelist-limit", "IP 不在白名单内")


@kind(submits_only=True)
async def echo_values(call: Call) -> Answer:
    """Not executed: an error whose ``sub_msg`` repeats the first task's values, phone number and all."""
    tasks = (call.struct or {}).get("task_list")
    first = tasks[0] if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else {}
    text = ", ".join(f"{name}={value}" for name, value in first.items())
    return call.error(15, "", "isv.invalid-parameter", f"非法参数: {text}")


# --- lost on the way ------------------------------------------------------------------------------------------


@kind()
async def http(call: Call, *, status: int = 502, executed: bool = False) -> Raw:
    """Executed only with ``executed``: an HTTP status with a page of HTML, from a proxy in between."""
    if executed:
        _work(call)
    return Raw(PAGE, status=status)


@kind()
async def no_answer(call: Call, *, executed: bool = True) -> Answer:
    """Executed unless ``executed`` is false: never answers and holds the connection."""
    if executed:
        _work(call)
    await call.hold()


@kind()
async def slow(call: Call, *, seconds: float) -> Answer:
    """Executed at once, answered after ``seconds``."""
    answer = _work(call)
    call.sandbox.record.update(call.entry)
    await asyncio.sleep(seconds)
    return answer


@kind()
async def reset_before(call: Call) -> Answer:
    """Not executed: the connection is reset before any work."""
    call.abort()


@kind()
async def reset_during(call: Call) -> Raw:
    """Executed: the connection is reset after the headers and half of the body."""
    return replace(call.raw(_work(call)), cut=True)


@kind()
async def reset_after(call: Call) -> Answer:
    """Executed: the connection is reset before a byte of the answer."""
    _work(call)
    call.abort()


# --- executed, and the answer is unreadable -------------------------------------------------------------------


@kind()
async def truncated(call: Call) -> Raw:
    """Executed: half of the answer, as if it were all of it."""
    raw = call.raw(_work(call))
    return replace(raw, body=raw.body[: len(raw.body) // 2])


@kind()
async def empty(call: Call, *, executed: bool = True) -> Raw:
    """Executed unless ``executed`` is false: HTTP 200 with an empty body."""
    if executed:
        _work(call)
    return Raw(b"", "text/javascript;charset=UTF-8")


@kind()
async def html(call: Call, *, executed: bool = True) -> Raw:
    """Executed unless ``executed`` is false: HTTP 200 with a page of HTML."""
    if executed:
        _work(call)
    return Raw(PAGE)


@kind()
async def xml(call: Call) -> Raw:
    """Executed: the answer is XML, whatever was asked for."""
    return call.raw(_work(call), "xml")


@kind()
async def wrong_root(call: Call) -> Answer:
    """Executed: the right answer under another root name, which official parsers do not mind."""
    answer = _work(call)
    return answer if answer.error else replace(answer, root="something_else_response")


@kind()
async def control_characters(call: Call) -> Raw:
    """Executed: the right answer, with raw control characters inside ``result.message``."""
    answer = _work(call)
    mark = "CONTROL-CHARACTERS"
    if "result" in answer.payload:
        answer = _with_result(answer, message=f"操作成功{mark}")
    raw = call.raw(answer)
    return replace(raw, body=raw.body.replace(mark.encode(), b"\x01\t\n\x1f"))


# --- executed, and the answer is readable but not what was expected -------------------------------------------


@kind(submits_only=True)
async def partial(call: Call, *, first: int | None = None, every_kth: int | None = None) -> Answer:
    """Only the ``first`` N tasks, or every k-th (default: 2nd), are executed and echoed; the rest is not accepted."""
    if first is None and every_kth is None:
        every_kth = 2

    def keep(position: int) -> bool:
        return (first is None or position < first) and (not every_kth or (position + 1) % every_kth == 0)

    return _work(call, keep=keep)


@kind(submits_only=True)
async def echo(
    call: Call, *, mode: Literal["unknown_biz_id", "twice", "positions_shuffled", "missing_biz_id"]
) -> Answer:
    """Executed, all of it; the first echo is changed, or their order is.

    ``unknown_biz_id``: it names somebody else · ``twice``: it is there twice · ``missing_biz_id``: it names nobody ·
    ``positions_shuffled``: all are there, the last one first.
    """
    answer = _work(call)
    data = answer.payload.get("result", {}).get("data")
    if not isinstance(data, Items) or not data.values:
        return answer
    echoes = list(data.values)
    request = echoes[0]["task_request"]
    if mode == "twice":
        echoes.append(echoes[0])
    elif mode == "positions_shuffled":
        echoes.reverse()
    elif mode == "unknown_biz_id":
        echoes[0] = {**echoes[0], "task_request": {**request, "biz_id": "nobody-by-that-id"}}
    else:
        without = {name: value for name, value in request.items() if name != "biz_id"}
        echoes[0] = {**echoes[0], "task_request": without}
    return _with_result(answer, data=Items(data.name, echoes))


@kind(submits_only=True)
async def late_index(call: Call, *, seconds: float) -> Answer:
    """Executed: look-ups find it only after ``seconds``."""
    return _work(call, visible_after=seconds)


# --- switches -------------------------------------------------------------------------------------------------


@kind(switch=True)
async def clock(call: Call, *, seconds: float) -> Answer:
    """Switch: the gateway's clock is ``seconds`` ahead (negative: behind) of the machine's."""
    raise NotImplementedError("a switch does not fire")


@kind(switch=True)
async def session_required(call: Call) -> Answer:
    """Switch: a request without a session is refused (26)."""
    raise NotImplementedError("a switch does not fire")


def _work(call: Call, **how: Any) -> Answer:
    """Do the work and note its codes, which the record shows even when the client never reads them."""
    outcome = call.entry.outcome
    answer = call.work(**how)
    call.entry.outcome = outcome
    call.entry.code, call.entry.sub_code = answer.code, answer.sub_code
    return answer


def _with_result(answer: Answer, **fields: Any) -> Answer:
    return replace(answer, payload={**answer.payload, "result": {**answer.payload["result"], **fields}})
