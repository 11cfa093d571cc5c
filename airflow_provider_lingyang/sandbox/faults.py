"""Kinds of faults, one small function each. Its keyword arguments are the arguments of the rule.

``executed`` decides whether the work is done, whatever the answer; kinds without that argument state it in their
first line. ``rules.py`` decides when a fault fires.
"""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from typing import Any, Literal

from airflow_provider_lingyang.sandbox import api
from airflow_provider_lingyang.sandbox.answers import JSON_TYPE, Answer, Items, RawAnswer, result_answer
from airflow_provider_lingyang.sandbox.exchange import Exchange
from airflow_provider_lingyang.sandbox.fault_registry import fault_kind

PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><center>tengine</center></body></html>"


# --- refused by the gateway: never executed unless the rule says so -------------------------------------------


@fault_kind()
async def throttle(
    exchange: Exchange,
    *,
    seconds: float = 1.0,
    code: int = 7,
    sub_code: str = "accesscontrol.limited-by-api-access-count",
) -> Answer:
    """Not executed: a ban. Every request (of the rule's method) is throttled for ``seconds``."""
    exchange.entry.outcome = "throttled"
    return exchange.error(code, "", sub_code, f"This ban will last for {math.ceil(seconds)} more seconds")


@fault_kind()
async def error(
    exchange: Exchange,
    *,
    code: int | str = 15,
    msg: str = "",
    sub_code: str | None = "isp.remote-service-error",
    sub_msg: str | None = "远程服务出错",
    executed: bool = False,
    status: int = 200,
) -> Answer | RawAnswer:
    """Executed only with ``executed``: any ``error_response``; ``sub_code: null`` omits it."""
    if executed:
        _work(exchange)
    answer = exchange.error(code, msg, sub_code, sub_msg)
    if status == 200:
        return answer
    exchange.entry.code, exchange.entry.sub_code = answer.code, answer.sub_code
    return replace(exchange.render(answer), status=status)


@fault_kind()
async def flat_error(
    exchange: Exchange,
    *,
    code: str = "ApiCallLimit",
    type: Literal["ISV", "ISP", "SYSTEM"] = "ISV",  # noqa: A002  # the platform's name
    message: str = "调用频率超限",
    executed: bool = False,
) -> RawAnswer:
    """Executed only with ``executed``: an error in the format of the company's newer gateway."""
    if executed:
        _work(exchange)
    body = {"code": code, "type": type, "message": message, "request_id": exchange.request_id}
    exchange.entry.code = code
    return RawAnswer(json.dumps(body, ensure_ascii=False).encode(), JSON_TYPE)


@fault_kind()
async def refuse(exchange: Exchange, *, code: str = "400", message: str = "参数错误") -> Answer:
    """Not executed: a valid envelope whose ``result.success`` is false."""
    return result_answer(
        exchange.method, {"code": code, "success": False, "message": message}, exchange.request_id
    )


@fault_kind()
async def permission(exchange: Exchange) -> Answer:
    """Not executed: the app lacks the permission package (11)."""
    return exchange.error(11, "", "isv.permission-api-package-limit", "应用没有权限调用此接口")


@fault_kind()
async def ip(exchange: Exchange) -> Answer:
    """Not executed: the client's address is not on the app's allow list (11)."""
    return exchange.error(11, "", "isv.permission-ip-whitelist-limit", "IP 不在白名单内")


@fault_kind(submits_only=True)
async def echo_values(exchange: Exchange) -> Answer:
    """Not executed: an error whose ``sub_msg`` repeats the first task's values, phone number and all."""
    tasks = (exchange.struct or {}).get("task_list")
    first = tasks[0] if isinstance(tasks, list) and tasks and isinstance(tasks[0], dict) else {}
    text = ", ".join(f"{name}={value}" for name, value in first.items())
    return exchange.error(15, "", "isv.invalid-parameter", f"非法参数: {text}")


# --- lost on the way ------------------------------------------------------------------------------------------


@fault_kind()
async def http(exchange: Exchange, *, status: int = 502, executed: bool = False) -> RawAnswer:
    """Executed only with ``executed``: an HTTP status with a page of HTML, as from a proxy."""
    if executed:
        _work(exchange)
    return RawAnswer(PAGE, status=status)


@fault_kind()
async def no_answer(exchange: Exchange, *, executed: bool = True) -> Answer:
    """Executed unless ``executed`` is false: holds the connection without an answer."""
    if executed:
        _work(exchange)
    await exchange.hold()


@fault_kind()
async def slow(exchange: Exchange, *, seconds: float) -> Answer:
    """Executed at once, answered after ``seconds``."""
    answer = _work(exchange)
    exchange.state.record.update(exchange.entry)
    await asyncio.sleep(seconds)
    return answer


@fault_kind()
async def reset_before(exchange: Exchange) -> Answer:
    """Not executed: the connection is reset before any work."""
    exchange.abort()


@fault_kind()
async def reset_during(exchange: Exchange) -> RawAnswer:
    """Executed: the connection is reset after the headers and half of the body."""
    return replace(exchange.render(_work(exchange)), cut=True)


@fault_kind()
async def reset_after(exchange: Exchange) -> Answer:
    """Executed: the connection is reset before a byte of the answer."""
    _work(exchange)
    exchange.abort()


# --- executed, and the answer is unreadable -------------------------------------------------------------------


@fault_kind()
async def truncated(exchange: Exchange) -> RawAnswer:
    """Executed: half of the answer, announced as the whole."""
    raw = exchange.render(_work(exchange))
    return replace(raw, body=raw.body[: len(raw.body) // 2])


@fault_kind()
async def empty(exchange: Exchange, *, executed: bool = True) -> RawAnswer:
    """Executed unless ``executed`` is false: HTTP 200 with an empty body."""
    if executed:
        _work(exchange)
    return RawAnswer(b"", "text/javascript;charset=UTF-8")


@fault_kind()
async def html(exchange: Exchange, *, executed: bool = True) -> RawAnswer:
    """Executed unless ``executed`` is false: HTTP 200 with a page of HTML."""
    if executed:
        _work(exchange)
    return RawAnswer(PAGE)


@fault_kind()
async def xml(exchange: Exchange) -> RawAnswer:
    """Executed: the answer is XML, whatever ``format`` the request has."""
    return exchange.render(_work(exchange), "xml")


@fault_kind()
async def wrong_root(exchange: Exchange) -> Answer:
    """Executed: the right answer under another root name, which official parsers accept."""
    answer = _work(exchange)
    return answer if answer.error else replace(answer, root="something_else_response")


@fault_kind()
async def control_characters(exchange: Exchange) -> RawAnswer:
    """Executed: the right answer, with raw control characters inside ``result.message``."""
    answer = _work(exchange)
    mark = "CONTROL-CHARACTERS"
    if "result" in answer.payload:
        answer = _with_result(answer, message=f"操作成功{mark}")
    raw = exchange.render(answer)
    return replace(raw, body=raw.body.replace(mark.encode(), b"\x01\t\n\x1f"))


# --- executed, and the answer is readable but not what was expected -------------------------------------------


@fault_kind(submits_only=True)
async def partial(exchange: Exchange, *, first: int | None = None, every_kth: int | None = None) -> Answer:
    """Only the ``first`` N tasks, or every k-th (default: 2nd), are executed and echoed."""
    if first is None and every_kth is None:
        every_kth = 2

    def accepts(position: int) -> bool:
        return (first is None or position < first) and (not every_kth or (position + 1) % every_kth == 0)

    return _work(exchange, accepts=accepts)


@fault_kind(submits_only=True)
async def echo(
    exchange: Exchange,
    *,
    mode: Literal["unknown_biz_id", "twice", "positions_shuffled", "missing_biz_id", "other_case", "number"],
) -> Answer:
    """Executed: the first echo, or the order of all, is changed.

    ``unknown_biz_id``: an id that is not of the request · ``twice``: appears twice · ``missing_biz_id``: no id ·
    ``positions_shuffled``: all in reverse order · ``other_case``: the id in another case · ``number``: the id as a
    number, without leading zeros.
    """
    answer = _work(exchange)
    data = answer.payload.get("result", {}).get("data")
    if not isinstance(data, Items) or not data.values:
        return answer
    echoes = list(data.values)
    request = echoes[0]["task_request"]
    if mode == "twice":
        echoes.append(echoes[0])
    elif mode == "positions_shuffled":
        echoes.reverse()
    elif mode in ("other_case", "number"):
        biz_id = str(request["biz_id"])
        digits = biz_id.isascii() and biz_id.isdigit()
        changed = int(biz_id) if mode == "number" and digits else biz_id.swapcase()
        echoes[0] = {**echoes[0], "task_request": {**request, "biz_id": changed}}
    elif mode == "unknown_biz_id":
        echoes[0] = {**echoes[0], "task_request": {**request, "biz_id": "unknown-biz-id"}}
    else:
        request = {name: value for name, value in request.items() if name != "biz_id"}
        echoes[0] = {**echoes[0], "task_request": request}
    return _with_result(answer, data=Items(data.name, echoes))


@fault_kind(submits_only=True)
async def late_index(exchange: Exchange, *, seconds: float) -> Answer:
    """Executed: look-ups find the tasks only after ``seconds``."""
    return _work(exchange, visible_after=seconds)


@fault_kind(submits_only=True)
async def contradiction(
    exchange: Exchange,
    *,
    mode: Literal[
        "error_beside_success",
        "error_inside_success",
        "success_inside_error",
        "two_answers",
        "refused_with_echoes",
        "success_without_echo",
        "success_twice",
        "data_twice",
    ],
    executed: bool = True,
) -> Answer | RawAnswer:
    """Executed unless ``executed`` is false: an answer in JSON that contradicts itself."""
    answer = (
        _work(exchange) if executed else result_answer(exchange.method, _NOTHING_DONE, exchange.request_id)
    )
    error = {"code": 7, "msg": "App Exchange Limited", "request_id": exchange.request_id}
    if mode == "refused_with_echoes":
        return _with_result(answer, success=False, code="400", message="参数错误")
    if mode == "success_without_echo":
        return _with_result(answer, data=Items("initiative_task_response", []))
    body = exchange.render(answer, "json").body.decode()
    if mode == "error_beside_success":
        body = f'{body[:-1]},"error_response":{json.dumps(error)}}}'
    elif mode == "two_answers":
        body = f'{body[:-1]},"another_response":{{"result":{{"success":false}}}}}}'
    elif mode == "success_inside_error":
        body = json.dumps({"error_response": {**error, "result": json.loads(body)}}, ensure_ascii=False)
    elif mode == "error_inside_success":
        body = body.replace('{"result":', f'{{"error_response":{json.dumps(error)},"result":', 1)
    elif mode == "success_twice":
        body = body.replace('"success":true', '"success":true,"success":false', 1)
    else:
        body = body.replace('"data":', '"data":{"initiative_task_response":[{}]},"data":', 1)
    return RawAnswer(body.encode(), JSON_TYPE)


_NOTHING_DONE = {"code": "200", "success": True, "message": "操作成功", "data": Items("x", [])}


# --- switches -------------------------------------------------------------------------------------------------


@fault_kind(switch=True)
async def clock(exchange: Exchange, *, seconds: float) -> Answer:
    """Switch: the gateway's clock is ``seconds`` ahead (negative: behind) of the machine's."""
    raise NotImplementedError("a switch does not fire")


@fault_kind(switch=True)
async def session_required(exchange: Exchange) -> Answer:
    """Switch: a request without a session is refused (26)."""
    raise NotImplementedError("a switch does not fire")


def _work(exchange: Exchange, **options: Any) -> Answer:
    """Do the work and record its codes, which the client may never read."""
    outcome = exchange.entry.outcome
    answer = api.work(exchange, **options)
    exchange.entry.outcome = outcome
    exchange.entry.code, exchange.entry.sub_code = answer.code, answer.sub_code
    return answer


def _with_result(answer: Answer, **fields: Any) -> Answer:
    return replace(answer, payload={**answer.payload, "result": {**answer.payload["result"], **fields}})
