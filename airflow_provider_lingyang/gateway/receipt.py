"""The answer to a submitted request: which tasks were accepted, or why none was. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from airflow_provider_lingyang.gateway.answer_values import Sign, as_list, names_in, plain_text, sign_of
from airflow_provider_lingyang.gateway.error_classification import (
    is_fault_code,
    is_fault_text,
    refusal_of,
    shown_code,
)
from airflow_provider_lingyang.gateway.errors import AnswerUnreadableError, GatewayError, RequestRefusedError
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD, InitiativeTaskResponse
from airflow_provider_lingyang.gateway.protocol import CONTRADICTION, Answer


@with_config(ConfigDict(coerce_numbers_to_str=True, hide_input_in_errors=True))
class _EchoedTask(TypedDict, total=False):
    """The part of an echoed task that matches it with its recipient."""

    biz_id: str | None


@with_config(ConfigDict(hide_input_in_errors=True))
class _AcceptedTask(TypedDict, total=False):
    task_id: int | None
    task_request: _EchoedTask | None


_ACCEPTED_TASKS = TypeAdapter(list[_AcceptedTask])
_RESPONSES = TypeAdapter(list[InitiativeTaskResponse])


@dataclass(eq=False, repr=False)
class SubmitReceipt:
    """The accepted tasks of one submitted request.

    :param items: the accepted tasks as they came.
    :param accepted: of each, the ids only.
    :param answer: the answer that holds them.
    """

    items: list[Any]
    accepted: list[_AcceptedTask]
    answer: Answer

    def __repr__(self) -> str:
        # Without the echo, which is personal data.
        return f"SubmitReceipt({len(self.accepted)} accepted, request_id={self.request_id!r})"

    def serialize(self) -> dict[str, Any]:
        """Return what Airflow stores where a task returns a receipt: ids, and no contact of a recipient."""
        return {"task_ids": self.task_ids, "request_id": self.request_id}

    @property
    def request_id(self) -> str | None:
        """The gateway's id of the call."""
        return self.answer.request_id

    @cached_property
    def data(self) -> list[InitiativeTaskResponse]:
        """The accepted tasks, each with the gateway's whole echo. Parsed on first use."""
        return _RESPONSES.validate_python(self.items)

    @property
    def task_ids(self) -> dict[str, int | None]:
        """The accepted recipients, by ``biz_id``: matched through the echo, never by position."""
        found = {}
        for task in self.accepted:
            biz_id = (task.get("task_request") or {}).get("biz_id")
            if biz_id is not None:
                found[biz_id] = task.get("task_id")
        return found

    def count_unmatched(self, biz_ids: Collection[str]) -> int:
        """Return how many echoes match none of these: without a ``biz_id``, with another one, or a second time."""
        known = {biz_id for biz_id in self.task_ids if biz_id in biz_ids}
        return len(self.accepted) - len(known)


def read_receipt(answer: Answer) -> SubmitReceipt:
    """Return which tasks of a submitted request were accepted.

    :raises RequestRefusedError: ``success`` is false: no task was accepted.
    :raises AnswerUnreadableError: the answer has no ``result`` with a clear ``success``, contradicts itself, or says
        success and echoes no task.
    """
    result = answer.payload.get("result")
    success = str(plain_text(result.get("success"))).lower() if isinstance(result, dict) else ""
    if not isinstance(result, dict) or success not in ("true", "false"):
        raise _unreadable(
            answer,
            f"the answer to {SUBMIT_METHOD} has no result with success true or false "
            f"(it holds: {answer.scrub(names_in(answer.payload))})",
        )
    items = as_list(result.get("data"))
    if success == "false":
        raise _refusal(answer, result, items)
    if not items:
        raise _unreadable(answer, f"the answer to {SUBMIT_METHOD} says success and echoes no task")
    try:
        accepted = _ACCEPTED_TASKS.validate_python(items)
    except ValidationError:
        raise _unreadable(
            answer, f"the answer to {SUBMIT_METHOD} says success, but its data cannot be read"
        ) from None
    return SubmitReceipt(items, accepted, answer)


def _refusal(
    answer: Answer, result: dict[str, Any], items: list[Any]
) -> GatewayError | AnswerUnreadableError:
    """Return the error for ``success=false``: the refusal, or a contradiction where a task may have been accepted."""
    members = [
        (name, value)
        for node in (result, answer.payload, answer.beside)
        for name, value in node.items()
        if value is not result
    ]
    # Anything structured beside the flag may be echoes under another name.
    if items or any(value and isinstance(value, (dict, list)) for _, value in members):
        return _unreadable(answer, f"{CONTRADICTION}: success=false, and tasks that were accepted")
    known: GatewayError | None = None
    may_be_executed = False
    for name, value in members:
        if not (word := plain_text(value)):
            continue
        text, sign = word.strip(), sign_of(name)
        if sign is Sign.FLAG and text.lower() not in ("false", "0"):
            return _unreadable(answer, f"{CONTRADICTION}: success=false, and a flag that says otherwise")
        if _says_executed(name, sign, text):
            may_be_executed = True
        elif known is None and sign in (Sign.CODE, Sign.ERROR):
            known = refusal_of(
                text,
                msg=None,
                sub_msg=plain_text(result.get("message")),
                request_id=answer.raw_request_id,
                scrub=answer.scrub,
            )
    if may_be_executed:
        return _unreadable(
            answer,
            f"{CONTRADICTION}: success=false, and word of a fault after which the work may have been done",
        )
    return known or RequestRefusedError(
        "the platform refused the request (success=false)",
        code=shown_code(plain_text(result.get("code")), answer.scrub),
        msg=answer.scrub(plain_text(result.get("message"))),
        request_id=answer.request_id,
        hint="Check the plan_id, the plan's state and the fields that the message names.",
    )


def _says_executed(name: str, sign: Sign | None, text: str) -> bool:
    """Whether a member of a refusal says that the work may have been done."""
    if sign is Sign.MESSAGE:
        return is_fault_text(text)
    if sign is Sign.ERROR:
        # A code, a text, or a flag with a name that says it.
        return is_fault_text(name if text.lower() in ("true", "1", "yes") else text)
    return sign is Sign.CODE and is_fault_code(text)


def _unreadable(answer: Answer, what: str) -> AnswerUnreadableError:
    return AnswerUnreadableError(what, request_id=answer.request_id)
