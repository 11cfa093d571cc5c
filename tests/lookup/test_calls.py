"""A look-up as evidence: which answers prove that an id was not executed, and which only look as if they did."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    AnswerUnreadableError,
    CallRefusedError,
    LingyangError,
    Replay,
    RequestRefusedError,
    ServiceError,
)
from airflow_provider_lingyang.gateway.protocol import Answer as GatewayAnswer
from airflow_provider_lingyang.gateway.protocol import read_answer
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.lookup import calls
from airflow_provider_lingyang.lookup.page import Page, read_page
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.lookup.result import LookupAnswer

NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)  # in China it is the next day already
LEAST: dict[str, Any] = {
    "method": "a.b.get",
    "request_param": "q",
    "biz_ids_field": "biz_ids",
    "max_biz_ids": 50,
    "items_path": "result.data",
}
Answer = dict[str, Any] | LingyangError
Gateway = Callable[[dict[str, Any]], Answer]


def item(biz_id: Any, **fields: Any) -> dict[str, Any]:
    return {"biz_id": biz_id, **fields}


def gateway_answer(payload: dict[str, Any]) -> GatewayAnswer:
    return GatewayAnswer(payload, None, Scrubber({}, {}))


def drive(
    query: ResultQuery, look_up: Callable[[calls.LookUp], Any], gateway: Gateway | Iterable[Answer]
) -> tuple[Any, list[Any]]:
    """Make the calls of a look-up; return what it has found, and what was asked."""
    asked: list[Any] = []
    answers = None if callable(gateway) else iter(gateway)

    def perform(call: Any) -> Page:
        struct = json.loads(call.params["q"])
        asked.append(struct)
        answer = gateway(struct) if answers is None else next(answers)  # type: ignore[operator]
        if isinstance(answer, LingyangError):
            raise answer
        return read_page(query, gateway_answer(answer))

    return calls.run_blocking(look_up(calls.LookUp(perform, query, lambda: NOW))), asked


def prove(
    answers: Gateway | Iterable[Answer], *biz_ids: str, **fields: Any
) -> tuple[LookupAnswer, list[Any]]:
    query = ResultQuery.parse(LEAST | fields, where="here")
    return drive(query, lambda look_up: look_up.prove(biz_ids or ("a",)), answers)


def absent(*answers: Answer, biz_ids: tuple[str, ...] = ("a",), **fields: Any) -> set[str]:
    """Return which ids are proven to be absent; of an answer that is an error, none is."""
    try:
        found, _ = prove(answers, *biz_ids, **fields)
    except LingyangError:
        return set()
    return set(found.absent)


# --- what proves an absence ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag", ["success", "is_success", "isSuccess", "succeed", "succeeded", "result_ok", "OK"]
)
@pytest.mark.parametrize("value", [True, 1, "true", "True", " TRUE ", "1", "yes", "success"])
def test_a_flag_in_any_spelling_proves_an_absence(flag: str, value: Any) -> None:
    assert absent({"result": {flag: value, "data": []}}) == {"a"}
    assert absent({flag: value, "result": {"data": []}}) == {"a"}


@pytest.mark.parametrize(
    "data",
    [[], {}, None, {"task_result": []}, {"task_result": None}, {"task_result": {}}],
    ids=str,
)
@pytest.mark.parametrize("code", [None, "", 0, "0", "00000", 200, "200", "SUCCESS", "ok"])
def test_an_empty_list_of_the_platform_beside_a_flag_proves_an_absence(data: Any, code: Any) -> None:
    result = {
        "success": True,
        "code": code,
        "message": "操作成功",
        "msg": "done",
        "error_msg": "",
        "data": data,
    }
    assert absent({"result": result, "request_id": "r"}) == {"a"}


def test_a_list_that_is_left_out_beside_a_flag_proves_an_absence() -> None:
    assert absent({"result": {"success": True, "code": "200"}}) == {"a"}
    assert absent({"result": {"success": True, "data": {}}}, items_path="result.data.task_result") == {"a"}


FLAGS = (
    "success",
    "is_success",
    "isSuccess",
    "Is-Success",
    "succeed",
    "succeeded",
    "result_ok",
    "result_success",
    "ok",
)
NOT_POSITIVE = (
    False,
    0,
    None,
    "",
    "false",
    "false ",
    "FALSE",
    "0",
    "no",
    "n",
    "fail",
    [],
    {},
    2,
    "2",
    "maybe",
    {"x": 1},
)
NO_PROOF: list[tuple[str, dict[str, Any]]] = [
    *(
        (f"{flag} {value!r}", {"result": {flag: value, "data": []}})
        for flag in FLAGS
        for value in NOT_POSITIVE
    ),
    *(
        (f"{flag} false above, true below", {flag: False, "result": {"success": True, "data": []}})
        for flag in FLAGS
    ),
    *(
        (f"{flag} false below, true above", {"success": True, "result": {flag: "false ", "data": []}})
        for flag in FLAGS
    ),
    ("two flags that differ", {"result": {"success": True, "isSuccess": False, "data": []}}),
    ("a flag beside the path", {"result": {"success": True, "head": {"success": False}, "data": []}}),
    ("a flag beside the root", {"base": {"result_ok": 0}, "result": {"success": True, "data": []}}),
    ("no flag", {"result": {"data": []}}),
    ("no flag, a code", {"result": {"code": "200", "message": "ok", "data": []}}),
    ("a code alone", {"result": {"code": "500", "message": "x"}}),
    ("a code alone, a list", {"result": {"code": "500", "message": "x", "data": []}}),
    ("nothing but a text", {"result": {"message": "系统繁忙"}}),
    *(
        (f"{name} {value!r} beside a flag", {"result": {"success": True, name: value, "data": []}})
        for name, value in (
            *(
                (name, value)
                for name in (
                    "code",
                    "result_code",
                    "error_code",
                    "errorCode",
                    "err_code",
                    "sub_code",
                    "ret_code",
                )
                for value in ("500", 400, "isv.x", "FAIL", -1, "1", True)
            ),
            ("error_status_code", 503),
            ("error_msg", "系统繁忙"),
            ("errMsg", "x"),
            ("error_message", "x"),
            ("sub_msg", "x"),
            ("error", "x"),
            ("error", True),
            ("error", {"code": 5}),
            ("errors", ["x"]),
            ("exception", "java.lang.NullPointerException"),
            ("failed", True),
            ("has_error", 1),
            ("status", "FAILED"),
            ("status", "PROCESSING"),
            ("truncated", True),
        )
    ),
    ("an error above", {"error_code": "X1", "result": {"success": True, "data": []}}),
    ("result null", {"result": None}),
    ("result null beside a flag", {"success": True, "result": None}),
    ("result missing beside a flag", {"success": True}),
    ("an error where the list should be", {"result": {"success": True, "data": {"error": ""}}}),
    ("an error where the list should be, no flag", {"result": {"data": {"error": ""}}}),
    ("an error list", {"result": {"success": True, "data": {"error": []}}}),
    ("a text where the list should be", {"result": {"success": True, "data": ""}}),
    ("a struct where the list should be", {"result": {"success": True, "data": {"total": 0, "page": 1}}}),
    ("false where the list should be", {"result": {"success": True, "data": False}}),
    ("the flag is not beside the missing list", {"success": True, "result": {"code": "0"}}),
    ("the flag is not beside the null list", {"success": True, "result": {"data": None}}),
    ("another list", {"result": {"success": True, "data": [], "rows": [item("a")]}}),
    ("another list, deeper", {"result": {"success": True, "page": {"rows": [item("a")], "n": 1}}}),
    ("another struct", {"result": {"success": True, "record": item("a", x=1)}}),
    ("another list as text", {"result": {"success": True, "data": None, "rows": '[{"biz_id":"a"}]'}}),
    ("a stranger", {"result": {"success": True, "data": [item("b")]}}),
    ("a stranger beside the total", {"result": {"success": True, "total": 1, "data": [item("b")]}}),
    ("another case", {"result": {"success": True, "data": [item("A")]}}),
    ("a blank", {"result": {"success": True, "data": [item("a ")]}}),
    ("an item without an id", {"result": {"success": True, "data": [item("a0"), {"x": 1}]}}),
    ("an item with a null id", {"result": {"success": True, "data": [item("a0"), item(None)]}}),
    ("an item that is none", {"result": {"success": True, "data": [item("a0"), "a"]}}),
    *(
        (f"{name} {value!r} beside the list", {"result": {"success": True, name: value, "data": []}})
        for name, value in (
            ("all_success", False),
            ("query_success", "N"),
            ("isSucess", False),
            ("是否成功", False),
            ("ｓｕｃｃｅｓｓ", False),
            ("unsuccessful", True),
            ("timed_out", True),
            ("degraded", True),
            ("throttled", True),
            ("partialFailure", True),
            ("unprocessed_keys", ["a"]),
            ("invalid_biz_ids", ["a"]),
            ("warnings", ["w"]),
            ("message", "系统繁忙，请稍后再试"),
            ("message", "request timed out"),
            ("head", [{"success": False}]),
            ("ext", '{"success": false}'),
            ("meta", {"status": "FAILED"}),
            ("numFound", 1),
            ("总数", 1),
            ("timeout", True),
            ("valid", False),
            ("isReady", "N"),
            ("data_available", False),
            ("retry", True),
            ("invalid", True),
            ("remaining", 3),
            ("remainCount", "1"),
            ("returnMsg", "查询失败"),
            ("成功", "否"),
            ("查询成功", False),
        )
    ),
    ("a message where the list should be", {"result": {"success": True, "data": {"message": []}}}),
]


@pytest.mark.parametrize(
    "beside",
    [{"success": False}, {"code": "500"}, {"ret": ["FAIL_SYS_BUSY"]}, {"total": 2}, {"rows": [item("a")]}],
    ids=str,
)
def test_data_beside_the_root_element_voids_an_absence(beside: dict[str, Any]) -> None:
    query = ResultQuery.parse(LEAST, where="here")
    payload = {"result": {"success": True, "data": [item("b")]}}
    for more, proven in (
        ({}, True),
        ({"request_id": "r", "code": "0", "message": "no error"}, True),
        (beside, False),
    ):
        body = json.dumps({"a_response": payload} | more).encode()
        answer = read_answer(status=200, content_type="", body=body, scrub=Scrubber({}, {}))
        page = read_page(query, answer)
        why = page.objection({"a", "b"}, 1) or calls._incomplete([page])
        assert (why is None) is proven


@pytest.mark.parametrize(("_", "payload"), NO_PROOF, ids=[name for name, _ in NO_PROOF])
def test_answers_that_prove_no_absence(_: str, payload: dict[str, Any]) -> None:
    """Each of these was, or could be, the answer about a recipient that had been contacted."""
    assert absent(payload) == set()


@pytest.mark.parametrize(
    ("asked", "came"),
    [("001", 1), ("1", True), ("1", 1.0), ("1.0", 1), ("A", "a"), ("true", True), ("a", " a")],
)
def test_ids_are_compared_byte_for_byte(asked: str, came: Any) -> None:
    try:
        found, _ = prove([{"result": {"success": True, "data": [item(came), item("x")]}}], asked, "x")
    except LingyangError:
        return
    assert asked not in found.results
    assert found.absent == set()


def test_numeric_id_equals_its_decimal_text() -> None:
    found, _ = prove([{"result": {"success": True, "total": 1, "data": [item(12)]}}], "12", "012")
    assert set(found.results) == {"12"}
    assert found.absent == {"12", "012"}


def test_foreign_ids_and_failures_void_absences_but_no_results() -> None:
    for result in (
        {"success": True, "total": 2, "data": [item("a"), item("stranger")]},
        {"success": False, "data": [item("a")]},
        {"code": "500", "data": [item("a")]},
        {"success": True, "data": [item("a"), {"no": "id"}]},
        {"data": item("a")},
    ):
        found, _ = prove([{"result": result}], "a", "b")
        assert (set(found.results), found.absent) == ({"a"}, set()), result
        assert found.why


# --- errors: for a wait, too -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("value", [False, 0, "false", " False ", "no", "fail"])
def test_an_answer_without_results_whose_flag_is_false_is_a_refusal(flag: str, value: Any) -> None:
    with pytest.raises(RequestRefusedError, match=f"{flag}=false.*code 400, msg why"):
        prove([{"result": {flag: value, "code": 400, "message": "why", "data": []}}])


@pytest.mark.parametrize(
    "payload",
    [
        {"result": {"code": "500", "message": "x"}},
        {"result": {"success": None}},
        {"result": {"success": ""}},
        {"error_code": "X", "error_msg": "x"},
        {"result": {"error": "x"}},
    ],
    ids=str,
)
def test_an_answer_without_a_list_that_does_not_say_success_is_an_error(payload: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="does not say success"):
        prove([payload])


def read(payload: dict[str, Any], beside: dict[str, Any], **fields: Any) -> Page:
    query = ResultQuery.parse(LEAST | fields, where="here")
    return read_page(query, GatewayAnswer(payload, None, Scrubber({}, {}), beside))


@pytest.mark.parametrize("path", ["reslt.data", "result.dta"])
def test_a_wrong_path_is_final_whatever_stands_beside_the_root_element(path: str) -> None:
    payload = {"result": OK | {"data": [item("a")]}}
    with pytest.raises(AnswerUnreadableError, match=r"which holds: .*Correct items_path") as caught:
        read(payload, {"message": "共1条，失败0条"}, items_path=path)
    assert caught.value.replay is Replay.NEVER


def test_a_refusal_beside_the_root_element_is_not_a_wrong_path() -> None:
    with pytest.raises(RequestRefusedError, match="success=false"):
        read({}, {"success": False})


def test_names_in_errors_hold_no_data() -> None:
    with pytest.raises(LingyangError) as caught:
        prove([{"result": {"error of 10000000001": "x"}}])
    assert "10000000001" not in str(caught.value)


# --- the author's word -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values", "result", "proven"),
    [
        ("result.code", ["1", "OK"], {"code": 1, "data": []}, True),
        ("result.code", ["1"], {"code": "1"}, True),
        ("result.code", [1], {"code": "1", "data": []}, True),
        ("result.code", ["1"], {"code": "10", "data": []}, False),
        ("result.code", ["1"], {"code": None, "data": []}, False),
        ("result.code", ["1"], {"data": []}, False),
        ("result.code", ["*"], {"code": "anything", "data": []}, True),
        ("result.code", ["*"], {"code": None, "data": []}, False),
        ("result.code", ["*"], {"data": []}, False),
        ("result.data", ["*"], {"data": []}, True),
        ("result.data", ["*"], {"data": None}, False),
        ("result.data", ["*"], {}, False),
        ("result.state", ["NOTHING"], {"state": "NOTHING", "data": []}, True),
        ("result.done", [True], {"done": True, "data": []}, True),
        ("result.done", ["true"], {"done": "True", "data": []}, True),
        ("result.head.rc", ["0"], {"head": {"rc": "0"}, "data": []}, True),
        ("result.head.rc", ["7"], {"head": {"rc": 7}, "data": []}, True),
        # It stands for the flag that is missing, and outweighs none that is there, and no error.
        ("result.code", ["1"], {"code": "1", "success": False, "data": []}, False),
        ("result.success", ["*"], {"success": False, "data": []}, False),
        ("result.code", ["1"], {"code": "1", "error_msg": "x", "data": []}, False),
        ("result.code", ["1"], {"code": "1", "data": [item("stranger")]}, False),
        ("result.code", ["2"], {"code": "1", "success": True, "data": []}, False),
    ],
)
def test_success_values_can_be_configured(
    field: str, values: list[Any], result: dict[str, Any], proven: bool
) -> None:
    assert absent({"result": result}, success_field=field, success_values=values) == (
        {"a"} if proven else set()
    )


# --- complete or not ----------------------------------------------------------------------------------------------------

OK = {"success": True}


@pytest.mark.parametrize(
    ("beside", "proven"),
    [
        *(({name: 1}, True) for name in ("total", "total_count", "totalCount", "total_results", "TotalNum")),
        *(({name: "1"}, True) for name in ("total", "total_count")),
        ({"page": {"total": 1, "size": 50}}, True),
        *(
            ({name: value}, False)
            for name in ("total", "total_results")
            for value in (0, 2, "many", -1, True, "")
        ),
        ({"total": 1, "total_count": 2}, False),
        *(({name: False}, True) for name in ("has_next", "hasNext", "has_more", "hasMore", "has_next_page")),
        *(({name: True}, False) for name in ("has_next", "hasNext", "has_more", "next", "is_truncated")),
        *(({name: True}, True) for name in ("is_last_page", "isEnd", "no_more")),
        *(({name: False}, False) for name in ("is_last_page", "isEnd")),
        *(
            ({name: "x9"}, False)
            for name in ("next_cursor", "nextToken", "cursor", "scroll_id", "next_page_token")
        ),
        ({"total": 1, "next_cursor": "x9"}, False),
        ({"total": 1, "has_next": True}, False),
        ({"total_pages": 2}, False),
        ({"page_size": 1}, False),
        ({"pageSize": "1"}, False),
        ({"page": {"size": 1}}, False),
        ({"page_size": 1, "has_next": False}, False),
        ({"page_size": 1, "count": 1}, False),
        ({"page_size": 1, "total": 1}, True),
        ({"count": 3}, False),
        ({"total": 1, "current_page": 2}, False),
        ({"total": 1, "page_no": 1}, True),
    ],
    ids=str,
)
def test_an_answer_about_several_ids_proves_an_absence_where_it_says_that_it_is_complete(
    beside: dict[str, Any], proven: bool
) -> None:
    found, asked = prove([{"result": OK | beside | {"data": [item("a")]}}], "a", "b")
    assert (found.absent, found.alone) == ({"a", "b"} if proven else set(), set())
    assert len(asked) == 1


@pytest.mark.parametrize(
    "beside", [{}, {"next_cursor": ""}, {"page_size": 50}, {"count": 1}, {"total": None}], ids=str
)
def test_without_a_sign_of_completeness_each_id_is_to_be_asked_for_alone(beside: dict[str, Any]) -> None:
    found, _ = prove([{"result": OK | beside | {"data": [item("a")]}}], "a", "b", "c")
    assert (found.absent, found.alone) == (set(), {"a", "b", "c"})
    assert absent({"result": OK | beside | {"count": 0, "data": []}}, biz_ids=("b",)) == {"b"}


def test_an_item_twice_is_no_complete_list() -> None:
    assert not absent(
        {"result": OK | {"total": 2, "data": [item("a", n=1), item("a", n=1)]}}, biz_ids=("a", "b")
    )
    two = [item("a", n=1), item("a", n=2)]
    assert absent({"result": OK | {"total": 2, "data": two}}, biz_ids=("a", "b")) == {"a", "b"}


class Pages:
    """A gateway that answers in pages, from a list that may change in between."""

    def __init__(self, size: int, *lists: list[dict[str, Any]], **beside: Any) -> None:
        self.size, self.lists, self.beside = size, list(lists), beside

    def __call__(self, struct: dict[str, Any]) -> dict[str, Any]:
        items = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        start = (struct["page_no"] - 1) * self.size
        end = start + self.size
        told = {name: value(items, end) if callable(value) else value for name, value in self.beside.items()}
        return {"result": OK | told | {"data": items[start:end]}}


def total(items: list[Any], _: int) -> int:
    return len(items)


def has_next(items: list[Any], end: int) -> bool:
    return end < len(items)


IDS = tuple(f"i{number}" for number in range(7))
PAGED = {"page_field": "page_no"}


@pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 50])
@pytest.mark.parametrize(
    ("beside", "fields", "proven"),
    [
        ({"total": total}, {}, True),
        ({"total": total, "has_next": has_next}, {}, True),
        ({"has_next": has_next}, {}, False),
        ({}, {}, False),
    ],
    ids=["total", "both", "has_next", "none"],
)
def test_pages_are_followed_and_count_where_their_total_is_reached(
    size: int, beside: Any, fields: Any, proven: bool
) -> None:
    items = [item(biz_id) for biz_id in IDS[:-1]]
    found, asked = prove(Pages(size, items, **beside), *IDS, **PAGED, **fields)
    assert list(found.results) == list(IDS[:-1])
    assert [struct["page_no"] for struct in asked] == list(range(1, len(asked) + 1))
    if proven:
        assert found.absent == set(IDS)
    else:
        assert (found.absent, found.alone) == (set(), set(IDS))


@pytest.mark.parametrize("beside", [{}, {"has_next": False}, {"total": 1}, {"page_size": 50}], ids=str)
@pytest.mark.parametrize("biz_ids", [("i0",), ("i0", "i1")])
def test_pages_that_count_from_0_prove_nothing(biz_ids: tuple[str, ...], beside: dict[str, Any]) -> None:
    def gateway(struct: dict[str, Any]) -> Answer:
        first = struct.get("page_no", 0) == 0
        return {"result": OK | beside | {"data": [item("i0")] if first else []}}

    found, _ = prove(gateway, *biz_ids, **PAGED)
    assert found.absent == set()


def test_an_empty_page_without_a_total_is_confirmed_without_a_page_number() -> None:
    found, asked = prove([{"result": OK | {"data": []}}] * 2, "a", **PAGED)
    assert found.absent == {"a"}
    assert [struct.get("page_no") for struct in asked] == [1, None]
    found, _ = prove([{"result": OK | {"data": []}}, CallRefusedError("page_no", code="40")], "a", **PAGED)
    assert (found.absent, "page_no" in found.why) == (set(), True)


@pytest.mark.parametrize(
    ("lists", "why"),
    [
        # One is executed in between, so that all shift by one: what was last of the first page comes again.
        ([IDS[:4], ("new", *IDS[:4])], "total"),
        ([("i0", "i1", "i2", "i3"), ("i6", "i0", "i1", "i2", "i3")], "total"),
        # One is gone, so that one is on no page that was read.
        ([("i0", "i1", "i2", "i3"), ("i1", "i2", "i3")], "total"),
    ],
)
def test_a_list_that_shifts_while_it_is_read_proves_nothing(lists: Any, why: str) -> None:
    gateway = Pages(2, *([item(biz_id) for biz_id in each] for each in lists), total=total)
    found, _ = prove(gateway, *IDS, **PAGED)
    assert found.absent == set()
    assert why in found.why


@pytest.mark.parametrize("beside", [{"total": 4}, {"has_next": True}, {"next_cursor": "x"}, {}], ids=str)
def test_a_gateway_that_takes_no_page_or_never_ends_is_asked_a_bounded_number_of_times(beside: Any) -> None:
    same, asked = prove(lambda _: {"result": OK | beside | {"data": [item("i0"), item("i1")]}}, *IDS, **PAGED)
    assert len(asked) == 2
    assert same.absent == set()

    def endless(struct: dict[str, Any]) -> Answer:
        return {"result": OK | {"has_next": True, "data": [item("i0", task=struct["page_no"])]}}

    found, asked = prove(endless, "i0", "i1", **PAGED, task_id_field="task")
    assert len(asked) == calls.MAX_PAGES
    assert found.absent == set()


@pytest.mark.parametrize("size", [20, 50])
def test_as_many_results_as_a_page_holds_are_no_proof_where_pages_are_not_followed(size: int) -> None:
    items = [item(f"i{number}") for number in range(20)]
    ids = tuple(f"i{number}" for number in range(21))
    found, _ = prove([{"result": OK | {"data": items}}], *ids, page_size=size)
    assert found.absent == set()
    assert ("as many results as a page can" in found.why) == (size == 20)


def test_the_parameters_of_a_call_are_put_together() -> None:
    _, asked = prove(
        [{"result": OK | {"total": 0}}],
        "a",
        biz_ids_field="query.ids",
        page_field="page.no",
        page_size_field="page.size",
        page_size=50,
        fixed_params={
            "query_date": "{today:%Y%m%d}",
            "n": 5,
            "deep": [{"d": "{today:%Y}-x"}],
            "none": None,
            "query.type": True,
            "json": '{"a":1}',
        },
    )
    assert asked == [
        {
            "query": {"ids": ["a"], "type": True},
            "query_date": "20260201",
            "n": 5,
            "deep": [{"d": "2026-x"}],
            "json": '{"a":1}',
            "page": {"no": 1, "size": 50},
        }
    ]


def test_flat_parameters_are_texts() -> None:
    query = ResultQuery.parse(
        LEAST
        | {"request_param": None, "page_field": "p", "fixed_params": {"a": 1, "b": True, "c": {"x": "客"}}},
        where="here",
    )
    assert query.parameters(["1", "2"], NOW, 3) == {
        "biz_ids": "1,2",
        "a": "1",
        "b": "true",
        "c": '{"x":"客"}',
        "p": "3",
    }


# --- several calls -----------------------------------------------------------------------------------------------------


def test_every_result_is_kept() -> None:
    items = [item("a", output_params={"n": number}) for number in range(3)]
    found, _ = prove([{"result": OK | {"total": 4, "data": [*items, item("b")]}}], "a", "b")
    assert [result.output_params["n"] for result in found.results["a"]] == [0, 1, 2]


def test_failed_call_keeps_the_results_of_earlier_calls() -> None:
    answers: list[Answer] = [
        {"result": OK | {"total": 1, "data": [item("a")]}},
        AnswerLostError("gone"),
        {"result": OK | {"total": 0}},
    ]
    found, asked = prove(answers, "a", "b", "c", "d", "e", max_biz_ids=2)
    assert (set(found.results), found.absent, found.why) == ({"a"}, {"a", "b"}, "gone")
    assert len(asked) == 2
    with pytest.raises(AnswerLostError):
        prove(answers[1:], "a", "b")


def test_a_path_that_does_not_fit_is_still_an_error() -> None:
    with pytest.raises(AnswerUnreadableError):
        prove([{"result": OK | {"list": [item("a")]}}])


def test_a_look_up_over_calls_that_block_awaits_nothing_else() -> None:
    with pytest.raises(AssertionError, match="awaits something else"):
        calls.run_blocking(asyncio.sleep(0))


# --- for a wait ---------------------------------------------------------------------------------------------------------


def test_a_wait_follows_pages_too(caplog: pytest.LogCaptureFixture) -> None:
    items = [item(biz_id) for biz_id in IDS]
    query = ResultQuery.parse(LEAST | PAGED, where="here")
    found, asked = drive(query, lambda look_up: look_up.fetch(IDS), Pages(3, items, total=total))
    assert list(found) == list(IDS)
    assert len(asked) == 3
    assert not caplog.messages


def test_a_wait_says_once_that_results_may_be_missing(caplog: pytest.LogCaptureFixture) -> None:
    query = ResultQuery.parse(LEAST | {"method": "said.once"}, where="here")
    answer: Answer = {"result": OK | {"total": 7, "data": [item("i0")]}}
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            found, _asked = drive(query, lambda look_up: look_up.fetch(IDS), [answer])
            assert list(found) == ["i0"]
    assert len(caplog.messages) == 1
    assert "page_field" in caplog.text


@pytest.mark.parametrize(
    ("error", "of_query"),
    [
        (CallRefusedError("x", code="40", hint="columns"), True),
        (CallRefusedError("x", code="41", hint="columns"), True),
        (RequestRefusedError("x", code="15", sub_code="isv.missing-parameter:biz_ids", hint="columns"), True),
        (RequestRefusedError("x", code="15", sub_code="isv.invalid-parameter", hint="columns"), True),
        (CallRefusedError("x", code="27", hint="renew"), False),
        (ServiceError("x", code="10", hint=calls.LOOK_UP), False),
    ],
)
def test_a_refused_parameter_of_a_look_up_points_at_the_result_query(
    error: LingyangError, of_query: bool
) -> None:
    hint = calls.with_lookup_hint(error).hint or ""
    assert ("result_query" in hint) == of_query
    assert "columns" not in hint
    assert "look the biz_ids up" not in hint
