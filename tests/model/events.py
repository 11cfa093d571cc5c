"""Everything that may happen, beside what ordinarily does.

An event is offered only where it changes something. Events of one name are equal: only one of their spellings makes a
history of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.model.gateway import (
    ANSWERS_IN,
    SETTLE,
    TIMEOUT,
    Execution,
    Reply,
    accepted,
    echoes,
    encoded,
    error,
    found,
    in_china,
    item,
    submit_answer,
)

DAY = 86_400.0


@dataclass(frozen=True)
class Event:
    """Something that happens.

    :param name: what it is; equal events have equal names.
    :param spelling: how it comes about.
    """

    name: str
    spelling: str = ""

    def __str__(self) -> str:
        return self.name + (f" ({self.spelling})" if self.spelling else "")


@dataclass(frozen=True)
class Answered(Event):
    """What the gateway does with a request, and what it answers.

    :param executes: of its recipients: how many of them.
    :param delay: seconds until they are executed.
    :param lag: seconds from then until a look-up shows them.
    :param reply: makes the answer, from all recipients and the executed ones.
    :param refuses: whether the answer says that the recipients that are not executed were refused.
    :param process: what befalls the process meanwhile.
    :param looks: the name of what looks the same as long as no look-up tells them apart.
    """

    executes: Callable[[Sequence[str]], Sequence[str]] = lambda biz_ids: biz_ids
    delay: float = 0.0
    lag: float = 0.0
    reply: Callable[[Sequence[str], Sequence[str]], Reply] = lambda biz_ids, executed: Reply(None)
    refuses: bool = False
    process: str = ""
    looks: str = ""


def _all(biz_ids: Sequence[str]) -> Sequence[str]:
    return biz_ids


def _none(biz_ids: Sequence[str]) -> Sequence[str]:
    return []


def _first(biz_ids: Sequence[str]) -> Sequence[str]:
    return biz_ids[:1]


def _lost(biz_ids: Sequence[str], executed: Sequence[str]) -> Reply:
    return Reply(None)


def _broken(biz_ids: Sequence[str], executed: Sequence[str]) -> Reply:
    return Reply(None, broken=True)


def _says(body: bytes, status: int = 200) -> Callable[[Sequence[str], Sequence[str]], Reply]:
    return lambda biz_ids, executed: Reply(body, status)


def _echo(change: Callable[[str], Any]) -> Callable[[Sequence[str], Sequence[str]], Reply]:
    return lambda biz_ids, executed: Reply(accepted([change(biz_id) for biz_id in executed]))


def _result(**result: Any) -> Callable[[Sequence[str], Sequence[str]], Reply]:
    return lambda biz_ids, executed: Reply(encoded(submit_answer(result)))


def _with_echoes(**result: Any) -> Callable[[Sequence[str], Sequence[str]], Reply]:
    return lambda biz_ids, executed: Reply(encoded(submit_answer({**result, "data": echoes(executed)})))


def _twice_the_key(biz_ids: Sequence[str], executed: Sequence[str]) -> Reply:
    body = encoded(submit_answer({"success": True, "data": echoes(executed)}))
    return Reply(body.replace(b'"success": true', b'"success": true, "success": false', 1))


def _error_beside(biz_ids: Sequence[str], executed: Sequence[str]) -> Reply:
    document = submit_answer({"success": True, "data": echoes(executed)})
    return Reply(encoded({"error_response": {"code": 25, "msg": "m"}, **document}))


def as_number(biz_id: str) -> Any:
    return int(biz_id) if biz_id.isdigit() else biz_id


def _says_executed_is_not(spelling: str, reply: Any) -> Answered:
    return Answered("executed, and the answer denies or hides it", spelling, _all, reply=reply)


NORMAL = Answered("answered", executes=_all, reply=_echo(str))
NEARLY_TIMED_OUT = TIMEOUT - 0.1
SUBMITS: tuple[Answered, ...] = (
    Answered("answer lost, executed", executes=_all, reply=_lost),
    Answered("answer lost, not executed", executes=_none, reply=_lost),
    Answered(
        "answer lost, executed late and seen late",
        looks="answer lost, executed",
        executes=_all,
        delay=NEARLY_TIMED_OUT,
        lag=SETTLE - 0.1,
        reply=_lost,
    ),
    Answered("connection broken, executed", executes=_all, reply=_broken),
    Answered(
        "connection broken, executed late",
        looks="connection broken, executed",
        executes=_all,
        delay=NEARLY_TIMED_OUT,
        reply=_broken,
    ),
    Answered(
        "connection broken, executed, seen late",
        looks="connection broken, executed",
        executes=_all,
        lag=SETTLE - 0.1,
        reply=_broken,
    ),
    Answered("connection broken, not executed", executes=_none, reply=_broken),
    Answered("answer lost, part executed", executes=_first, reply=_lost),
    Answered("not connected", executes=_none, reply=lambda *_: Reply(None, connected=False)),
    Answered("throttled", executes=_none, reply=_says(error(7, "accesscontrol.limited-by-api-access-count"))),
    Answered(
        "throttled for an hour",
        executes=_none,
        reply=_says(
            error(7, "accesscontrol.limited-by-app-access-count", "This ban will last for 3600 more seconds")
        ),
    ),
    Answered("call refused", executes=_none, reply=_says(error(25))),
    Answered("refused", "isv", _none, reply=_says(error(15, "isv.invalid-parameter:plan_id")), refuses=True),
    Answered("refused", "success false", _none, reply=_result(success=False, code="400"), refuses=True),
    Answered("part accepted", executes=_first, reply=_echo(str), refuses=True),
    Answered("receiver limit", executes=_none, reply=_says(error(15, "isv.BUSINESS_LIMIT_CONTROL"))),
    Answered(
        "receiver limit, part executed", executes=_first, reply=_says(error(15, "isv.BUSINESS_LIMIT_CONTROL"))
    ),
    _says_executed_is_not("HTTP 502 with an error envelope", _says(error(25), 502)),
    _says_executed_is_not("HTTP 500", _says(b"<html>", 500)),
    _says_executed_is_not("damaged", _says(b'{"model_submit_resp')),
    _says_executed_is_not("code 44", _says(error(44))),
    _says_executed_is_not("isp under code 11", _says(error(11, "isp.remote-service-timeout"))),
    _says_executed_is_not("isp under code 7", _says(error(7, "isp.remote-service-error"))),
    _says_executed_is_not("ism under code 41", _says(error(41, "ism.call-failed"))),
    _says_executed_is_not("mz under code 40", _says(error(40, "mz.emptybody"))),
    _says_executed_is_not("isp under code 15", _says(error(15, "isp.remote-service-timeout"))),
    _says_executed_is_not("isv.SYSTEM_ERROR", _says(error(15, "isv.SYSTEM_ERROR"))),
    _says_executed_is_not("isv.system-error", _says(error(50, "isv.system-error"))),
    _says_executed_is_not("data duplicate", _says(error(15, "isv.data-duplicate-error"))),
    _says_executed_is_not("error_response beside a success", _error_beside),
    _says_executed_is_not("success false with echoes", _with_echoes(success=False)),
    _says_executed_is_not("success true without an echo", _result(success=True)),
    _says_executed_is_not("success twice", _twice_the_key),
    _says_executed_is_not("flat error of the system", _says(encoded({"code": "E1", "type": "SYSTEM"}))),
    _says_executed_is_not(
        "a refusal of the call, and then another answer", lambda *_: Reply(error(25), follows=True)
    ),
    _says_executed_is_not("a throttle, and then another answer", lambda *_: Reply(error(7), follows=True)),
    Answered("executed, echoed under other ids", "other case", _all, reply=_echo(str.swapcase)),
    Answered("executed, echoed under other ids", "as a number", _all, reply=_echo(as_number)),
    Answered("killed under way, executed", executes=_all, process="kill"),
    Answered("killed under way, not executed", executes=_none, process="kill"),
    Answered(
        "killed under way, executed late",
        looks="killed under way, executed",
        executes=_all,
        delay=NEARLY_TIMED_OUT,
        process="kill",
    ),
    Answered("SIGTERM under way, answered", executes=_all, process="SIGTERM", reply=_echo(str)),
    Answered("SIGTERM under way, answer lost", executes=_all, process="SIGTERM", reply=_lost),
    Answered("time-out under way, executed", executes=_all, process="time-out", reply=_lost),
    Answered("time-out under way, not executed", executes=_none, process="time-out", reply=_lost),
    Answered("paused under way, while others go on", executes=_all, process="pause", reply=_echo(str)),
)
"""What may become of a request."""


@dataclass(frozen=True)
class Asked:
    """A look-up, and what the gateway has to show.

    :param ids: whose results are asked for.
    :param visible: results of this page.
    :param dated: whether results tell when they were created.
    :param flags: whether answers say that they are good and complete.
    :param page: which page is asked for; None: there are none.
    :param total: results on all pages.
    :param before: results of the page before.
    """

    ids: Sequence[str]
    visible: Sequence[Execution]
    dated: bool
    flags: bool
    page: int | None
    total: int
    before: Sequence[Execution] = ()

    @property
    def items(self) -> list[dict[str, Any]]:
        return [item(each, dated=self.dated) for each in self.visible]

    def answer(self, items: Sequence[Any], **other: Any) -> Reply:
        return Reply(encoded(found(items, flags=self.flags, **{"total": self.total, **other})))


@dataclass(frozen=True)
class Found(Event):
    """What a look-up answers.

    :param reply: makes the answer.
    """

    reply: Callable[[Asked], Reply] = lambda asked: Reply(None)


def truth(asked: Asked) -> Reply:
    return asked.answer(asked.items)


def _failed(spelling: str, document: Any, status: int = 200) -> Found:
    body = document if isinstance(document, bytes) else encoded({"model_results_response": document})
    return Found("look-up failed", spelling, lambda asked: Reply(body, status))


def _flag(name: str, value: Any) -> Found:
    return _failed(f"{name}: {value!r}", {"result": {name: value, "data": {"items": []}}})


def _items(name: str, spelling: str, change: Callable[[Execution, bool], list[Any]]) -> Found:
    def reply(asked: Asked) -> Reply:
        items = [changed for each in asked.visible for changed in change(each, asked.dated)]
        return asked.answer(items, total=asked.total - len(asked.visible) + len(items))

    return Found(name, spelling, reply)


def _created(text: Any) -> Callable[[Execution, bool], list[Any]]:
    def change(each: Execution, dated: bool) -> list[Any]:
        value = text(each) if callable(text) else text
        made = item(each, dated=dated)
        return [made | {"created": value} if dated else made]

    return change


def _ago(seconds: float) -> Callable[[Execution], str]:
    return lambda each: in_china(each.at - seconds)


def _other_ids(change: Callable[[str], Any]) -> Callable[[Execution, bool], list[Any]]:
    return lambda each, dated: [item(each, dated=dated, biz_id=change(each.biz_id))]


def _strangers(asked: Asked) -> Reply:
    return asked.answer([item(Execution("Zz9", "", 0.0, 0.0), dated=asked.dated)], total=1)


def _only_the_first(asked: Asked) -> Reply:
    return asked.answer(asked.items[:1], total=max(asked.total, len(asked.ids)))


def _more_to_come(**sign: Any) -> Callable[[Asked], Reply]:
    return lambda asked: Reply(encoded(found([], flags=True, **sign)))


def _shifted(asked: Asked) -> Reply:
    """A new result has come first, so that a page repeats the last of the one before it."""
    return asked.answer([item(each, dated=asked.dated) for each in asked.before] or asked.items)


def _older_one(place: int) -> Callable[[Execution, bool], list[Any]]:
    def change(each: Execution, dated: bool) -> list[Any]:
        if not dated:
            return [item(each, dated=dated)]
        items = [item(each, dated=dated), item(each, dated=dated, created=_ago(3 * DAY)(each))]
        return items if place else items[::-1]

    return change


def _older_ones(asked: Asked) -> Reply:
    if not asked.dated:
        return truth(asked)
    shown = {each.biz_id for each in asked.visible}
    older = [
        item(Execution(biz_id, "", -3 * DAY, 0.0), dated=True) for biz_id in asked.ids if biz_id not in shown
    ]
    return asked.answer(asked.items + older, total=asked.total + len(older))


LOOK_UPS: tuple[Found, ...] = (
    *(_flag("success", value) for value in (False, 0, None, "", "false", "false ", "0")),
    *(_flag(name, False) for name in ("is_success", "succeed", "isSuccess", "result_success", "Success")),
    _failed("code 500 and a message", {"result": {"code": "500", "message": "x"}}),
    _failed("result_ok beside the list", {"result": {"data": {"items": [], "result_ok": False}}}),
    _failed(
        "result_ok above the path", {"result_ok": False, "result": {"success": True, "data": {"items": []}}}
    ),
    _failed(
        "an error code beside success",
        {"result": {"success": True, "error_code": "5", "data": {"items": []}}},
    ),
    _failed("result null", {"result": None, "request_id": "r2"}),
    _failed("an empty error", {"result": {"data": {"error": ""}}}),
    _failed("error_response", encoded({"error_response": {"code": 15, "sub_code": "isp.timeout"}})),
    _failed("HTTP 502", b"<html>", 502),
    Found("look-up failed", "no answer"),
    Found("look-up without any flag", "", lambda asked: Reply(encoded(found(asked.items, flags=False)))),
    Found("look-up without any flag", "empty", lambda asked: Reply(encoded(found([], flags=False)))),
    Found("look-up of strangers", "", _strangers),
    _items("look-up under other ids", "other case", _other_ids(str.swapcase)),
    _items("look-up under other ids", "as a number", _other_ids(as_number)),
    Found("look-up of a part", "total", _only_the_first),
    Found("look-up of a part", "has_next", _more_to_come(has_next=True)),
    Found("look-up of a part", "total of an empty page", _more_to_come(total_results=2)),
    Found("look-up of a part", "cursor", _more_to_come(next_cursor="c2")),
    Found("look-up of a part", "the list has shifted", _shifted),
    _items("result of an unplaceable date", "UTC", _created(_ago(8 * 3600.0))),
    _items("result of an unplaceable date", "year 1", _created("0001-01-01 00:00:00")),
    _items("result of an unplaceable date", "1970", _created("1970-01-01 08:00:00")),
    _items("result of an unplaceable date", "none", _created(None)),
    _items("result of an unplaceable date", "no date", _created("soon")),
    _items("an older result beside it", "after it", _older_one(1)),
    _items("an older result beside it", "before it", _older_one(0)),
    Found("an older campaign's result", "", _older_ones),
)
"""What a look-up may answer."""

BEFORE_WRITE = (Event("killed before the write"), Event("ledger away for seconds"), Event("ledger away"))
AFTER_WRITE = (
    Event("killed after the write"),
    Event("commit lost"),
    Event("SIGTERM after the write"),
    Event("time-out after the write"),
)
OTHERS = (
    Event("the other run begins"),
    Event("the other run begins, this one pauses until its intents are nearly stale"),
    Event("the other run begins, this one pauses for a while"),
    Event("the other run begins, this one pauses for long"),
)
REPLACED = (
    Event("Airflow replaces the try"),
    Event("Airflow replaces the try, which pauses until its intents are nearly stale"),
    Event("Airflow replaces the try, which pauses for a while"),
    Event("Airflow replaces the try, which pauses for long"),
)
PAUSES = (Event("pauses for long"),)
HASTY = Event("a hasty word, and look-ups that work")
BETWEEN = (
    Event("a true word"),
    HASTY,
    Event("a word about a settled request"),
    Event("a word with a wrong number"),
    Event("a stale word about a lost ledger"),
    Event("ledger emptied"),
    Event("hours pass"),
    Event("the task is cleared"),
)
LATE = Event("the run begins late")
__all__ = ["ANSWERS_IN", "NORMAL", "SUBMITS", "Answered", "Event", "Found"]
