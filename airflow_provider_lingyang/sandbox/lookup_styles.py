"""Other forms of a look-up's answer, one small function each: as in other APIs of the platform, or of a failed look-up.

They are kinds of faults, so rules decide when they fire; ``"times": null`` makes one the look-up's style. They change
the answer only, not the record.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Literal

from airflow_provider_lingyang.sandbox import api
from airflow_provider_lingyang.sandbox.answers import Answer, Items
from airflow_provider_lingyang.sandbox.checks import gateway_time
from airflow_provider_lingyang.sandbox.exchange import Exchange
from airflow_provider_lingyang.sandbox.fault_registry import fault_kind

_EARLIER_BY = timedelta(days=2)
_FIRST_EARLIER_TASK_ID = 77_000_000_000

Failure = Literal[
    "code_alone",
    "is_success_false",
    "succeed_false",
    "success_0",
    "success_null",
    "success_empty",
    "success_false_text",
    "success_false_blank",
    "result_ok_beside",
    "result_ok_above",
    "error_code_beside",
    "result_null",
    "error_for_list",
    "no_flag",
]
_FAILED: dict[str, dict[str, Any]] = {
    "code_alone": {"result": {"code": "500", "message": "系统繁忙"}},
    "is_success_false": {"result": {"is_success": False, "data": []}},
    "succeed_false": {"result": {"succeed": False, "data": {}}},
    "success_0": {"result": {"success": 0, "data": []}},
    "success_null": {"result": {"success": None, "data": []}},
    "success_empty": {"result": {"success": "", "data": []}},
    "success_false_text": {"result": {"success": "false", "data": []}},
    "success_false_blank": {"result": {"success": "false ", "data": []}},
    "result_ok_beside": {"result": {"success": True, "result_ok": False, "data": []}},
    "result_ok_above": {"result_ok": False, "result": {"success": True, "data": []}},
    "error_code_beside": {"result": {"success": True, "error_code": "SYSTEM_BUSY", "data": []}},
    "result_null": {"result": None},
    "error_for_list": {"result": {"success": True, "data": {"error": ""}}},
    "no_flag": {"result": {"data": []}},
}


@fault_kind(lookups_only=True)
async def lookup_failed(exchange: Exchange, *, style: Failure = "code_alone") -> Answer:
    """Answered: a failed look-up, without results."""
    answer = api.work(exchange)
    return (
        answer
        if answer.error
        else replace(answer, payload={**_FAILED[style], "request_id": exchange.request_id})
    )


@fault_kind(lookups_only=True)
async def lookup_without_flag(exchange: Exchange) -> Answer:
    """Answered: the results with a code and a text, and no flag of success."""
    return _changed(exchange, lambda items: items, success=None)


@fault_kind(lookups_only=True)
async def lookup_ids(
    exchange: Exchange,
    *,
    style: Literal["other_case", "numbers", "strangers_only", "stranger_beside"] = "strangers_only",
) -> Answer:
    """Answered: the ids in another spelling, or results of other recipients.

    ``numbers``: ids of digits as JSON numbers, without their zeros.
    """
    stranger = {"biz_id": "of-another-campaign", "task_id": 1, "status": "ANSWERED", "output_params": "{}"}

    def changed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if style == "strangers_only":
            return [stranger]
        if style == "stranger_beside":
            return [*items, stranger]
        if style == "numbers":
            return [
                each | {"biz_id": int(each["biz_id"]) if each["biz_id"].isdigit() else each["biz_id"]}
                for each in items
            ]
        return [each | {"biz_id": each["biz_id"].swapcase()} for each in items]

    return _changed(exchange, changed)


@fault_kind(lookups_only=True)
async def lookup_dates(
    exchange: Exchange,
    *,
    style: Literal["utc", "utc_with_zone", "milliseconds", "year_1", "epoch", "none", "far_future"] = "utc",
) -> Answer:
    """Answered: ``created_at`` in another form, or a placeholder; ``utc`` names no zone."""
    fixed = {
        "year_1": "0001-01-01 00:00:00",
        "epoch": "1970-01-01 00:00:00",
        "none": None,
        "far_future": "9999-12-31 23:59:59",
    }

    def created(text: str) -> Any:
        if style in fixed:
            return fixed[style]
        moment = datetime.fromisoformat(f"{text}+08:00")
        if style == "milliseconds":
            return int(moment.timestamp() * 1000)
        utc = f"{moment - timedelta(hours=8):%Y-%m-%d %H:%M:%S}"
        return utc if style == "utc" else f"{utc}+00:00"

    return _changed(
        exchange, lambda items: [each | {"created_at": created(each["created_at"])} for each in items]
    )


@fault_kind(lookups_only=True)
async def lookup_pages(
    exchange: Exchange,
    *,
    style: Literal["total", "has_next", "cursor", "page_size", "unsaid", "shifting"] = "total",
    size: int = 2,
) -> Answer:
    """Answered: one page of the results: page ``page_no``, default the first.

    ``unsaid``: no sign of pages · ``shifting``: a total, and each page begins one result too late.
    """
    size = max(1, size)
    number = (exchange.struct or {}).get("page_no", 1)
    start = (number - 1) * size + (number - 1 if style == "shifting" else 0)

    def beside(items: list[dict[str, Any]]) -> dict[str, Any]:
        more = start + size < len(items)
        signs: dict[str, dict[str, Any]] = {
            "has_next": {"has_next": more},
            "cursor": {"next_cursor": f"c{start + size}" if more else ""},
            "page_size": {"page_size": size, "page_no": number},
            "unsaid": {},
        }
        return signs.get(style, {"total_count": len(items)})

    return _changed(exchange, lambda items: items[start : start + size], beside)


@fault_kind(lookups_only=True)
async def lookup_several(
    exchange: Exchange,
    *,
    style: Literal["older_first", "older_last", "older_of_all"] = "older_last",
    status: str = "NOT_REACHED",
) -> Answer:
    """Answered: two results per recipient, one of them of an earlier campaign, two days older.

    ``older_of_all``: the older one also for recipients without an executed task.
    """

    def changed(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        ids = (
            (exchange.struct or {}).get("biz_ids", [])
            if style == "older_of_all"
            else [each["biz_id"] for each in items]
        )
        created = f"{gateway_time(exchange.state.gateway_now()) - _EARLIER_BY:%Y-%m-%d %H:%M:%S}"
        older = [
            {
                "biz_id": biz_id,
                "task_id": _FIRST_EARLIER_TASK_ID + number,
                "status": status,
                "output_params": '{"earlier":"yes"}',
                "created_at": created,
            }
            for number, biz_id in enumerate(ids)
        ]
        return [*older, *items] if style == "older_first" else [*items, *older]

    return _changed(exchange, changed)


@fault_kind(lookups_only=True)
async def lookup_slots(
    exchange: Exchange,
    *,
    style: Literal[
        "list", "wrapped", "text_twice", "slots", "output", "data", "call_result", "message_text", "without"
    ] = "call_result",
) -> Answer:
    """Answered: the slots as the platform's lists, as some level of a pushed message, or a message without slots."""

    def message(slots: dict[str, Any]) -> Any:
        named = [{"name": name, "action": "collect", "value": value} for name, value in slots.items()]
        wrapped = {"call_result_slot": named}
        output = {"slots": wrapped, "intentions": []}
        whole = {
            "call_result_key_info": {"task_id": 1},
            "call_result": {"data": {"output": output, "info": {}}},
        }
        forms: dict[str, Any] = {
            "list": named,
            "wrapped": wrapped,
            "text_twice": json.dumps(json.dumps(slots, ensure_ascii=False), ensure_ascii=False),
            "slots": {"slots": wrapped},
            "output": {"output": output},
            "data": {"data": {"output": json.dumps(output, ensure_ascii=False)}},
            "call_result": whole,
            "message_text": json.dumps(whole, ensure_ascii=False),
            "without": {"call_result": {"data": {"info": {"code": "106"}}}},
        }
        return forms[style]

    return _changed(
        exchange,
        lambda items: [
            each | {"output_params": message(json.loads(each["output_params"]))} for each in items
        ],
    )


@fault_kind(lookups_only=True)
async def lookup_status(
    exchange: Exchange, *, style: Literal["boolean", "text", "nested"] = "boolean"
) -> Answer:
    """Answered: the status as a Boolean (true: answered, false: not reached), as its text, or in a struct ``state``."""
    flags = {"ANSWERED": True, "NOT_REACHED": False}

    def changed(each: dict[str, Any]) -> dict[str, Any]:
        status = each["status"]
        if style == "nested":
            return {name: value for name, value in each.items() if name != "status"} | {
                "state": {"code": status}
            }
        flag = flags.get(status)
        return each | {"status": str(flag) if style == "text" and flag is not None else flag}

    return _changed(exchange, lambda items: list(map(changed, items)))


def _changed(
    exchange: Exchange,
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
    beside: Callable[[list[dict[str, Any]]], dict[str, Any]] = lambda items: {},
    **result: Any,
) -> Answer:
    """Return the right answer with its list changed.

    :param change: returns the new list.
    :param beside: returns fields to set beside the list, from the original one.
    :param result: fields to set beside the list; None removes one.
    """
    answer = api.work(exchange)
    found = answer.payload.get("result")
    data = found.get("data") if isinstance(found, dict) else None
    if answer.error or not isinstance(found, dict) or not isinstance(data, Items):
        return answer
    fields = found | result | beside(data.values) | {"data": Items(data.name, change(data.values))}
    fields = {name: value for name, value in fields.items() if value is not None}
    return replace(answer, payload=answer.payload | {"result": fields})
