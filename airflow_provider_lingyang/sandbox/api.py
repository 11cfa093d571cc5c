"""The methods that can be called: submit a batch, look results up, ask the time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_lingyang.sandbox import LOOKUP, SUBMIT, TIME
from airflow_provider_lingyang.sandbox import simulated_people as people
from airflow_provider_lingyang.sandbox.answers import (
    Answer,
    Items,
    Refused,
    java_date,
    result_answer,
    root_of,
)
from airflow_provider_lingyang.sandbox.checks import gateway_time
from airflow_provider_lingyang.sandbox.schema import (
    BATCH,
    LOOKUP_QUERY,
    MAX_LOOKUP_IDS,
    check_struct,
    invalid,
    missing,
    parse_date,
)

if TYPE_CHECKING:
    from airflow_provider_lingyang.sandbox.exchange import Call

Keep = Callable[[int], bool]
"""Position of a task in its request → whether the platform takes it."""


def perform(call: Call, keep: Keep, visible_after: float) -> Answer:
    """Do what a request asks for and return the answer it earns.

    :param call: a request that passed the protocol's checks.
    :param keep: which tasks of a submit are taken.
    :param visible_after: seconds until look-ups find what is executed now.
    :raises Refused: when the business parameters are not as they must be.
    """
    if call.method == SUBMIT:
        return submit(call, keep, visible_after)
    return query_task_result(call) if call.method == LOOKUP else time_get(call)


def submit(call: Call, keep: Keep, visible_after: float) -> Answer:
    """Execute a batch of tasks: ``alibaba.lingyang.utouch.submit.initiative.batch.task``.

    The API page does not say whether ``task_unique_code`` de-duplicates, so both are there: with ``--dedupe`` a
    known code gets its first answer again and nobody is contacted; without, everybody is contacted again.

    :raises Refused: code 15 where the struct is not what the API page says.
    """
    struct = _struct(call, "initiative_batch_task_request")
    check_struct(struct, BATCH)
    tasks = struct["task_list"]
    for index, task in enumerate(tasks):
        # The channel belongs to the plan, which is not in the request; one of the three is needed for any.
        if not (task.get("phone_number") or task.get("email") or task.get("outer_user_id")):
            text = f"参数错误: task_list[{index}] 缺少 phone_number, email 或 outer_user_id"
            call.entry.outcome = "refused"
            return result_answer(
                call.method, {"code": "400", "success": False, "message": text}, call.request_id
            )
    canonical = json.dumps(struct, sort_keys=True, ensure_ascii=False).encode()
    call.entry.digest = hashlib.sha256(canonical).hexdigest()
    known = call.sandbox.record.first_execution(struct["task_unique_code"]) if call.sandbox.dedupe else None
    if known is None:
        ids = _execute(call, tasks, keep, visible_after)
        call.entry.outcome = "executed"
    else:
        digest, ids = known
        if digest != call.entry.digest:
            raise invalid("task_unique_code", "task_unique_code 已被另一请求使用")
        call.entry.accepted = len(ids)
        call.entry.outcome = "deduplicated"
    echoes = [{"task_id": ids[index], "task_request": _echo(tasks[index])} for index in sorted(ids)]
    result = {"code": "200", "success": True, "data": Items("initiative_task_response", echoes)}
    return result_answer(call.method, result, call.request_id)


def query_task_result(call: Call) -> Answer:
    """Look up what people answered: ``sandbox.lingyang.utouch.query.task.result``.

    **Invented for the sandbox.** The platform has no public method that looks results up; customers who have one
    describe it to this package as data. Takes ``task_result_query`` = ``{"biz_ids": [up to 50]}``. Ids that are not
    known are left out; an id that was executed more than once is there once per task, the oldest first.

    :raises Refused: code 15 for another struct, or more than 50 ids.
    """
    struct = _struct(call, "task_result_query")
    check_struct(struct, LOOKUP_QUERY)
    biz_ids = struct["biz_ids"]
    if not biz_ids:
        raise missing("biz_ids", "参数 biz_ids 不能为空")
    if len(biz_ids) > MAX_LOOKUP_IDS:
        raise invalid("biz_ids", f"参数 biz_ids 最多 {MAX_LOOKUP_IDS} 个")
    sandbox, now = call.sandbox, call.sandbox.clock()
    found = []
    for row in sandbox.record.find(biz_ids, now):
        slots = json.loads(row["output_params"])
        waited = now - row["executed_at"]
        status, slots = people.state(
            sandbox.seed, row["biz_id"], slots, waited=waited, answer_after=sandbox.answer_after
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
    call.entry.outcome = "answered"
    result = {"code": "200", "success": True, "data": Items("task_result", found)}
    return result_answer(call.method, result, call.request_id)


def time_get(call: Call) -> Answer:
    """Tell the gateway's time (GMT+8, its own clock): ``taobao.time.get``."""
    call.entry.outcome = "answered"
    now = f"{gateway_time(call.sandbox.gateway_now()):%Y-%m-%d %H:%M:%S}"
    return Answer(root_of(TIME), {"time": now, "request_id": call.request_id})


def _struct(call: Call, name: str) -> dict[str, Any]:
    if call.struct is None:
        raise Refused(41, f"Invalid arguments:{name}")
    return call.struct


def _execute(call: Call, tasks: Sequence[dict[str, Any]], keep: Keep, visible_after: float) -> dict[int, int]:
    sandbox, now = call.sandbox, call.sandbox.clock()
    kept = [(index, task) for index, task in enumerate(tasks) if keep(index)]
    created = f"{gateway_time(sandbox.gateway_now()):%Y-%m-%d %H:%M:%S}"
    ids = sandbox.record.execute(call.entry, kept, now, now + visible_after, created)
    return dict(zip((index for index, _ in kept), ids, strict=True))


def _echo(task: dict[str, Any]) -> dict[str, Any]:
    moment = parse_date(task.get("plan_execute_start_time"))
    return task if moment is None else {**task, "plan_execute_start_time": java_date(moment)}
