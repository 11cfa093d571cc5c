"""The methods of the gateway: submit a batch, look results up, read the clock."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from airflow_provider_lingyang.sandbox import LOOKUP, SUBMIT, TIME, simulated_people
from airflow_provider_lingyang.sandbox.answers import (
    Answer,
    Items,
    Refused,
    error_answer,
    java_date,
    result_answer,
    root_of,
)
from airflow_provider_lingyang.sandbox.checks import check_arguments, gateway_time
from airflow_provider_lingyang.sandbox.exchange import Exchange
from airflow_provider_lingyang.sandbox.schema import (
    BATCH,
    LOOKUP_QUERY,
    MAX_LOOKUP_IDS,
    check_struct,
    invalid,
    missing,
    parse_date,
)

AcceptsTask = Callable[[int], bool]
"""Position of a task in its request → whether the platform takes it."""


def work(
    exchange: Exchange, *, accepts: AcceptsTask = lambda position: True, visible_after: float = 0.0
) -> Answer:
    """Do the work of a request and return its answer. The record is written before this returns.

    :param exchange: a request that passed the protocol's checks.
    :param accepts: which tasks of a submit the platform takes, by position.
    :param visible_after: seconds until look-ups find what is executed now.
    """
    try:
        check_arguments(exchange.params)
        if exchange.method == SUBMIT:
            return submit(exchange, accepts, visible_after)
        return query_task_result(exchange) if exchange.method == LOOKUP else time_get(exchange)
    except Refused as refused:
        exchange.entry.outcome = "refused"
        return error_answer(refused, exchange.request_id)


def submit(exchange: Exchange, accepts: AcceptsTask, visible_after: float) -> Answer:
    """Execute a batch of tasks: ``alibaba.lingyang.utouch.submit.initiative.batch.task``.

    The API page does not document deduplication by ``task_unique_code``, so ``--dedupe`` decides: with it, a known
    code returns its first answer and executes nothing; without it, all tasks are executed again.

    :raises Refused: code 15, for a struct that differs from the API page.
    """
    struct = _struct(exchange, "initiative_batch_task_request")
    check_struct(struct, BATCH)
    tasks = struct["task_list"]
    for index, task in enumerate(tasks):
        # The plan, which is not in the request, decides the channel. Each channel needs one of these three.
        if not (task.get("phone_number") or task.get("email") or task.get("outer_user_id")):
            text = f"参数错误: task_list[{index}] 缺少 phone_number, email 或 outer_user_id"
            exchange.entry.outcome = "refused"
            return result_answer(
                exchange.method, {"code": "400", "success": False, "message": text}, exchange.request_id
            )
    canonical = json.dumps(struct, sort_keys=True, ensure_ascii=False).encode()
    exchange.entry.digest = hashlib.sha256(canonical).hexdigest()
    known = (
        exchange.state.record.first_execution(struct["task_unique_code"]) if exchange.state.dedupe else None
    )
    if known is None:
        ids = _execute(exchange, tasks, accepts, visible_after)
        exchange.entry.outcome = "executed"
    else:
        digest, ids = known
        if digest != exchange.entry.digest:
            raise invalid("task_unique_code", "task_unique_code 已被另一请求使用")
        exchange.entry.accepted = len(ids)
        exchange.entry.outcome = "deduplicated"
    echoes = [{"task_id": ids[index], "task_request": _echo(tasks[index])} for index in sorted(ids)]
    result = {"code": "200", "success": True, "data": Items("initiative_task_response", echoes)}
    return result_answer(exchange.method, result, exchange.request_id)


def query_task_result(exchange: Exchange) -> Answer:
    """Look up the recipients' results: ``sandbox.lingyang.utouch.query.task.result``.

    **Invented for the sandbox.** The platform has no public look-up method; a connection's ``result_query`` describes
    a private one as data. Takes ``task_result_query`` = ``{"biz_ids": [up to 50]}``. Unknown ids are left out. An id
    that was executed more than once appears once per task, the oldest first.

    :raises Refused: code 15, for another struct or more than 50 ids.
    """
    struct = _struct(exchange, "task_result_query")
    check_struct(struct, LOOKUP_QUERY)
    biz_ids = struct["biz_ids"]
    if not biz_ids:
        raise missing("biz_ids", "参数 biz_ids 不能为空")
    if len(biz_ids) > MAX_LOOKUP_IDS:
        raise invalid("biz_ids", f"参数 biz_ids 最多 {MAX_LOOKUP_IDS} 个")
    state, now = exchange.state, exchange.state.clock()
    found = []
    for row in state.record.find(biz_ids, now):
        slots = json.loads(row["output_params"])
        waited = now - row["executed_at"]
        status, slots = simulated_people.result(
            state.seed, row["biz_id"], slots, waited=waited, answer_after=state.answer_after
        )
        output = json.dumps(slots, ensure_ascii=False, separators=(",", ":"))
        found.append(
            {
                "biz_id": row["biz_id"],
                "task_id": row["task_id"],
                "status": status,
                "output_params": output,
                "created_at": row["created_at"],
            }
        )
    exchange.entry.outcome = "answered"
    result = {"code": "200", "success": True, "data": Items("task_result", found)}
    return result_answer(exchange.method, result, exchange.request_id)


def time_get(exchange: Exchange) -> Answer:
    """Return the time of the gateway's clock, in GMT+8: ``taobao.time.get``."""
    exchange.entry.outcome = "answered"
    now = f"{gateway_time(exchange.state.gateway_now()):%Y-%m-%d %H:%M:%S}"
    return Answer(root_of(TIME), {"time": now, "request_id": exchange.request_id})


def _struct(exchange: Exchange, name: str) -> dict[str, Any]:
    if exchange.struct is None:
        raise Refused(41, f"Invalid arguments:{name}")
    return exchange.struct


def _execute(
    exchange: Exchange, tasks: Sequence[dict[str, Any]], accepts: AcceptsTask, visible_after: float
) -> dict[int, int]:
    state, now = exchange.state, exchange.state.clock()
    kept = [(index, task) for index, task in enumerate(tasks) if accepts(index)]
    created = f"{gateway_time(state.gateway_now()):%Y-%m-%d %H:%M:%S}"
    ids = state.record.execute(exchange.entry, kept, now, now + visible_after, created)
    return dict(zip((index for index, _ in kept), ids, strict=True))


def _echo(task: dict[str, Any]) -> dict[str, Any]:
    moment = parse_date(task.get("plan_execute_start_time"))
    return task if moment is None else {**task, "plan_execute_start_time": java_date(moment)}
