"""The look-up as data: what calls it makes, how it reads answers, and when it must not say "nobody"."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.answer_values import as_list
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    LingyangConfigError,
    Replay,
    RequestInvalidError,
    RequestRefusedError,
)
from airflow_provider_lingyang.gateway.protocol import Answer, read_answer
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.lookup.page import read_page
from airflow_provider_lingyang.lookup.query import ResultQuery, StatusMeaning, TaskResult
from airflow_provider_lingyang.results.completion import CompletionCriteria, state_of

NOW = datetime(2026, 1, 31, 17, 30, tzinfo=UTC)
LEAST: dict[str, Any] = {"method": "a.b.get", "biz_ids_field": "biz_ids", "items_path": "result.data"}


def query(**fields: Any) -> ResultQuery:
    return ResultQuery.parse(LEAST | fields, where="here")


NO_VALUES = Scrubber({}, {})


def read_results(
    described: ResultQuery,
    payload: dict[str, Any],
    scrub: Scrubber = NO_VALUES,
    request_id: str | None = None,
    *,
    task_ids: dict[str, str | None] | None = None,
) -> dict[str, TaskResult]:
    """One result for each ``biz_id`` in an answer, with its slots read where they can be."""
    found = described.preferred(read_page(described, Answer(payload, request_id, scrub)).results, task_ids)
    return {
        biz_id: replace(result, raw_output_params=result.output_params) if result.readable else result
        for biz_id, result in found.items()
    }


# --- described by the user ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [dict, json.dumps])
@pytest.mark.parametrize("rest", [{}, {**LEAST, "status_field": "s"}])
def test_done_and_failed_values_may_be_given_alone(form: Any, rest: dict[str, Any]) -> None:
    statuses = {"done_values": ["OK"], "failed_values": ["HUNG_UP"]}
    found = StatusMeaning.parse(form(rest | statuses), where="here")
    assert (found.done_values, found.failed_values) == (("OK",), ("HUNG_UP",))


@pytest.mark.parametrize("form", [dict, json.dumps, lambda value: ResultQuery.parse(value, where="x")])
def test_result_query_may_be_a_dict_text_or_an_object(form: Any) -> None:
    found = ResultQuery.parse(form(LEAST | {"done_values": ["D", 7], "status_field": "s"}), where="here")
    assert (found.max_biz_ids, found.biz_id_field, found.output_params_field) == (
        1,
        "biz_id",
        "output_params",
    )
    assert found.done_values == ("D", "7")


def test_result_query_survives_json() -> None:
    found = query(request_param="q", max_biz_ids=50, status_field="s", failed_values=["F"])
    assert ResultQuery.parse(found.model_dump_json(), where="here") == found


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    ({"success_field": "result.code"}, "belong together"),
    ({"success_values": ["1"]}, "belong together"),
    ({"success_field": "result.code", "success_values": []}, "belong together"),
    ({"success_field": "result.code", "success_values": ["1", " "]}, "blank"),
    ({"success_field": "result.code", "success_values": ["*", "1"]}, "stands alone"),
    ({"created_at_zone": "Asia/Shanghai"}, "needs a created_at_field"),
    ({"page_size_field": "size"}, "needs a page_size"),
    ({"page_field": "biz_ids"}, "'biz_ids' is twice"),
    ({"page_field": "p", "page_size_field": "p", "page_size": 5}, "'p' is twice"),
    ({"fixed_params": {"biz_ids": 1}}, "'biz_ids' is twice"),
    ({"page_field": "page.no", "fixed_params": {"page": {"size": 5}}}, "'page' is twice"),
    ({"fixed_params": {"a": "{yesterday:%Y}"}}, "{yesterday:%Y} is unknown"),
    ({"fixed_params": {"a": ["{today}"]}}, "{today} is unknown"),
    ({"fixed_params": {"a": {"b": "{{ ds }}"}}}, "{ ds } is unknown"),
    ({"fixed_params": {"a": "{today:now}"}}, "directives of strftime"),
    ({"fixed_params": {"a": "{today:%Q}"}}, "directives of strftime"),
    ({"fixed_params": {"a": "{today:%Y%}"}}, "directives of strftime"),
]

PATHS = ("../x", "/x", "a\0b")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (LEAST | {"item_path": "x"}, "'item_path' is no key of it .did you mean 'items_path'"),
        ({}, "method is missing.*biz_ids_field is missing.*items_path is missing"),
        (LEAST | {"max_biz_ids": 0}, "max_biz_ids is wrong .Input should be greater than or equal to 1"),
        (LEAST | {"max_biz_ids": "many"}, "max_biz_ids"),
        (LEAST | {"method": " "}, "method is blank: fill it in, or leave it out$"),
        (LEAST | {"done_values": None}, "done_values is blank: fill it in, or leave it out$"),
        (LEAST | {"done_values": "D", "status_field": "s"}, "done_values must be a list$"),
        (LEAST | {"STATUS_FIELD": "s"}, "'STATUS_FIELD' is no key of it .did you mean 'status_field'"),
        (LEAST | {"items_path": ["result"]}, "items_path"),
        (LEAST | {"done_values": ["D"]}, "need a status_field"),
        (LEAST | {"failed_values": ["F"]}, "need a status_field"),
        *((LEAST | fields, why) for fields, why in CONTRADICTIONS),
        (LEAST | {"created_at_field": "at", "created_at_zone": "Asia/Nowhere"}, "neither an IANA name"),
        (LEAST | {"created_at_field": "at", "created_at_zone": "+8.5"}, "neither an IANA name"),
        (LEAST | {"created_at_field": "at", "created_at_zone": "+15:00"}, "neither an IANA name"),
        *(
            (
                LEAST | {"created_at_field": "at", "created_at_zone": zone},
                "created_at_zone is neither an IANA name",
            )
            for zone in PATHS
        ),
        (LEAST | {"page_size": 0}, "page_size"),
        (LEAST | {"fixed_params": ["x"]}, "fixed_params"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "must be a dict, or the JSON of one"),
        (7, "must be a dict, or the JSON of one"),
        (None, "must be a dict, or the JSON of one"),
    ],
    ids=range(21 + len(CONTRADICTIONS) + len(PATHS)),
)
def test_a_wrong_description_is_an_error_that_says_where_and_what(value: Any, why: str) -> None:
    with pytest.raises(LingyangConfigError, match=f"(?s)^here: result_query.*{why}"):
        ResultQuery.parse(value, where="here")


def test_the_keys_are_listed_once() -> None:
    with pytest.raises(
        LingyangConfigError, match="'x' is no key of it; 'y' is no key of it; it takes "
    ) as caught:
        query(x=1, y=2)
    assert str(caught.value).count("items_path") == 1


def test_a_place_that_names_the_query_does_not_repeat_its_name() -> None:
    with pytest.raises(LingyangConfigError, match=r"^result_query: it must"):
        ResultQuery.parse(7, where="result_query")


def test_what_a_status_means_is_no_look_up() -> None:
    with pytest.raises(LingyangConfigError, match="must be a dict"):
        ResultQuery.parse(StatusMeaning.parse({"done_values": ["D"]}, where="here"), where="here")


def test_a_changed_copy_keeps_nothing_of_the_original() -> None:
    original = query(fixed_params={"day": "old"}, created_at_field="at", created_at_zone="+08:00")
    assert (original.zone, original.result_paths) == (timezone(timedelta(hours=8)), ())
    changed = {"fixed_params": {"day": "new"}, "created_at_zone": "Z", "created_at_field": "task.at"}
    copy = original.model_copy(update=changed)
    assert copy.parameters(["a"], NOW)["day"] == "new"
    assert copy.zone == UTC
    assert "task.at" in copy.result_paths


_THREADS = """
import sys, threading
from airflow_provider_lingyang.lookup.query import ResultQuery

sys.setswitchinterval(1e-5)
together, parsed = threading.Barrier(16), []


def parse():
    together.wait()
    parsed.append(ResultQuery.parse({"method": "m", "biz_ids_field": "i", "items_path": "p"}, where="here"))


threads = [threading.Thread(target=parse) for _ in range(16)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(parsed) == 16
"""


def test_several_threads_may_parse_the_first_query_of_a_process() -> None:
    # Its model is built on first use, which pydantic's own way does not do safely in every version.
    done = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- calls ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "biz_ids", "calls"),
    [
        ({}, [], []),
        ({}, ["a", "b"], [{"biz_ids": "a"}, {"biz_ids": "b"}]),
        ({}, ["a,b"], [{"biz_ids": "a,b"}]),
        ({"max_biz_ids": 2}, ["a", "b", "c"], [{"biz_ids": "a,b"}, {"biz_ids": "c"}]),
        ({"request_param": "q"}, ["a"], [{"q": '{"biz_ids":"a"}'}]),
        (
            {"request_param": "q", "max_biz_ids": 2},
            ["张", "b", "c"],
            [{"q": '{"biz_ids":["张","b"]}'}, {"q": '{"biz_ids":["c"]}'}],
        ),
    ],
)
def test_ids_are_asked_for_in_as_many_calls_as_the_limit_needs(
    fields: dict[str, Any], biz_ids: list[str], calls: list[dict[str, str]]
) -> None:
    described = query(**fields)
    chunks = list(described.chunks(biz_ids))
    assert [described.parameters(chunk, NOW) for chunk in chunks] == calls
    assert [biz_id for chunk in chunks for biz_id in chunk] == biz_ids


def test_an_id_with_a_comma_cannot_be_in_a_flat_list() -> None:
    with pytest.raises(LingyangConfigError, match="max_biz_ids to 1"):
        query(max_biz_ids=2).parameters(["a", "b,c"], NOW)


def test_an_id_that_is_not_unicode_is_a_typed_error() -> None:
    with pytest.raises(RequestInvalidError, match="not Unicode"):
        query(request_param="q").parameters(["\ud800"], NOW)


# --- answers --------------------------------------------------------------------------------------------------

ITEM = {
    "biz_id": "b",
    "output_params": '{"意向":"有"}',
    "state": "DONE",
    "task": 2**53 + 1,
    "at": "2024-03-12 14:00:00",
}
FULL = TaskResult("b", {"意向": "有"}, "DONE", "9007199254740993", "2024-03-12 14:00:00")
NAMED = {"status_field": "state", "task_id_field": "task", "created_at_field": "at"}


@pytest.mark.parametrize(
    "data",
    [
        [ITEM],
        {"task_result": [ITEM]},
        {"task_result": ITEM},
        ITEM,
        [ITEM | {"output_params": {"意向": "有"}}],
    ],
)
def test_a_result_is_the_same_in_every_spelling_of_a_list(data: Any) -> None:
    assert read_results(query(**NAMED), {"result": {"success": True, "data": data}}) == {"b": FULL}


def test_a_result_is_the_same_in_xml() -> None:
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in ITEM.items())
    items = f"<data><task_result>{inner}</task_result><task_result><biz_id>c</biz_id></task_result></data>"
    body = (
        f"<x_response><result><success>true</success>{items}</result><request_id>r</request_id></x_response>"
    )
    answer = read_answer(status=200, content_type="", body=body.encode(), scrub=Scrubber({}, {}))
    found = read_results(query(**NAMED), answer.payload)
    assert found == {"b": FULL, "c": TaskResult("c", {})}
    one = body.replace("<task_result><biz_id>c</biz_id></task_result>", "")
    answer = read_answer(status=200, content_type="", body=one.encode(), scrub=Scrubber({}, {}))
    assert read_results(query(**NAMED), answer.payload) == read_results(
        query(**NAMED, items_path="result.data.task_result"), answer.payload
    )


EMPTY = [
    None,
    {},
    [],
    "",
    {"task_result": []},
    {"task_result": None},
    {"task_result": {}},
    {"task_result": ""},
]


@pytest.mark.parametrize("data", EMPTY, ids=str)
@pytest.mark.parametrize("path", ["result.data", "result.data.task_result"])
def test_empty_result_is_read_in_every_spelling(data: Any, path: str) -> None:
    if path.endswith("task_result") and data in ("", []):
        return
    assert (
        read_results(query(items_path=path), {"result": {"success": True, "data": data}, "request_id": "r"})
        == {}
    )


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("result.data", {"result": {"success": True}}),
        ("result.data", {"result": {"code": "200", "page": {"number": 1, "size": 50}}}),
        ("result.data.task_result", {"result": {"success": True, "code": "200"}}),
        ("result.data", {"result": {}}),
        ("result.data", {"result": None}),
        ("items", {"request_id": "r", "total": 0}),
        ("items", {}),
    ],
)
def test_an_empty_list_may_be_left_out(path: str, payload: dict[str, Any]) -> None:
    assert read_results(query(items_path=path), payload) == {}


@pytest.mark.parametrize(
    ("path", "payload", "why"),
    [
        (
            "reslt.data",
            {"result": {"data": [ITEM]}},
            "no 'reslt' in the answer's root element, which holds: result",
        ),
        (
            "result.dta",
            {"result": {"data": [ITEM], "success": True}},
            "no 'dta' in result, which holds: data, success",
        ),
        (
            "result.dta",
            {"result": {"data": {"task_result": [ITEM]}}},
            "no 'dta' in result, which holds: data",
        ),
        (
            "result.dta.x",
            {"result": {"data": {"task_result": [ITEM]}}},
            "no 'dta' in result, which holds: data",
        ),
        ("result.data.tsk", {"result": {"data": {"task_result": [ITEM]}}}, "no 'tsk' in result.data"),
        (
            "result.data",
            {"request_id": "r"},
            "no 'result' in the answer's root element, which holds: request_id",
        ),
        ("result.data", {"result": "text"}, "no 'data' in result, which holds: a str"),
        ("result.data", {"result": [ITEM]}, "no 'data' in result, which holds: a list"),
        ("items", {"list": [ITEM]}, "no 'items' in the answer's root element, which holds: list"),
        (
            "result.data",
            {"result": {"data": [{"id": "b"}]}},
            "no 'biz_id' in each item of result.data, which holds: id",
        ),
        (
            "result.data",
            {"result": {"data": ["b"]}},
            "no 'biz_id' in each item of result.data, which holds: a str",
        ),
        ("result.data", {"result": {"data": [{"biz_id": None, "x": 1}]}}, "no 'biz_id' in each item"),
        ("result.data", {"result": {"data": [{"biz_id": ["b"]}]}}, "no 'biz_id' in each item"),
        (
            "result.data",
            {"result": {"data": 7}},
            "no 'biz_id' in each item of result.data, which holds: a int",
        ),
    ],
)
def test_wrong_items_path_is_an_error_not_an_empty_result(
    path: str, payload: dict[str, Any], why: str
) -> None:
    """People who are not found are taken for not called, and called again."""
    with pytest.raises(AnswerUnreadableError, match=why) as caught:
        read_results(query(items_path=path), payload, request_id="r7")
    assert caught.value.replay is Replay.NEVER
    assert caught.value.request_id == "r7"
    assert "items_path" in str(caught.value)


@pytest.mark.parametrize("success", [False, "false", "False"])
@pytest.mark.parametrize("where", ["root", "result"])
def test_refused_look_up_is_an_error_not_an_empty_result(success: Any, where: str) -> None:
    refusal = {"success": success, "code": 400, "message": "参数错误 of 10000000001"}
    payload = refusal | {"request_id": "r"} if where == "root" else {"result": refusal, "request_id": "r"}
    scrub = Scrubber({"mobile": "10000000001"}, {})
    with pytest.raises(RequestRefusedError, match="参数错误 of <mobile>") as caught:
        read_results(query(), payload, scrub, "r")
    assert (caught.value.code, caught.value.request_id, caught.value.replay) == ("400", "r", Replay.NEVER)


def test_names_that_may_be_data_are_not_shown() -> None:
    keys = {
        "10000000001": 1,
        "张三": 1,
        "a@b.c": 1,
        "status": 1,
        "x" * 100: 1,
        **{f"k{n:02}": 1 for n in range(50)},
    }
    with pytest.raises(AnswerUnreadableError) as caught:
        read_results(query(), {"result": {"data": [keys]}})
    shown = str(caught.value)
    assert "status" in shown
    assert "…" in shown
    assert "10000000001" not in shown and "张三" not in shown and "a@b.c" not in shown
    assert len(shown) < 600


@pytest.mark.parametrize(
    ("slots", "read"),
    [
        ('{"a":"b"}', {"a": "b"}),
        ({"a": None}, {"a": None}),
        ('{"a":"raw\ncontrol"}', {"a": "raw\ncontrol"}),
        ("", {}),
        (" ", {}),
        ("[]", {}),
        (None, {}),
        # As the platform pushes them.
        ('[{"name":"a","action":"x","value":"b","required":true},{"name":"c"}]', {"a": "b", "c": None}),
        ({"slots": [{"name": "a", "value": "b"}], "intentions": [], "info": {"duration": 3}}, {"a": "b"}),
        ('{"slots":[{"name":7,"value":8}]}', {"7": 8}),
        # A slot may be called slots.
        ({"slots": "two"}, {"slots": "two"}),
        ({"slots": [{"size": "two"}]}, {"slots": [{"size": "two"}]}),
    ],
    ids=range(12),
)
def test_slots_are_an_object_or_a_list_of_slots_or_the_text_of_these(
    slots: Any, read: dict[str, Any]
) -> None:
    found = read_results(query(), {"result": {"data": [{"biz_id": 7, "output_params": slots}]}})
    assert found == {"7": TaskResult("7", read)}


@pytest.mark.parametrize("slots", ["{", "[" * 100_000, "7", 7, [1], [{"value": 1}]], ids=range(6))
def test_unreadable_slots_are_distinguished_from_empty_ones(slots: Any) -> None:
    found = read_results(query(), {"result": {"data": [{"biz_id": 7, "output_params": slots}]}})
    assert found["7"].output_params == {}
    assert not found["7"].readable


@pytest.mark.parametrize(
    ("task_ids", "number"), [(None, 3), ({"b": "20"}, 2), ({"b": None}, 3), ({"b": "99"}, 3), ({}, 3)]
)
def test_result_of_the_accepted_task_outranks_other_results(
    task_ids: dict[str, str | None] | None, number: int
) -> None:
    items = [{"biz_id": "b", "task_id": 10 * n, "output_params": {"n": n}} for n in (1, 2, 3)]
    found = read_results(query(task_id_field="task_id"), {"result": {"data": items}}, task_ids=task_ids)
    assert found["b"].output_params == {"n": number}


NEWEST = {"created_at_field": "at", "status_field": "s", "done_values": ["D", True], "failed_values": ["F"]}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("items", "task", "number"),
    [
        # Our own task first, though it is older, and failed.
        (
            [
                {"task": 1, "at": "2026-01-01 10:00:00", "s": "F"},
                {"task": 2, "at": "2026-01-02 10:00:00", "s": "D"},
            ],
            "1",
            0,
        ),
        # One that names no task before one that names another.
        ([{"at": "2026-01-01 10:00:00"}, {"task": 2, "at": "2026-01-02 10:00:00", "s": "D"}], "1", 0),
        # The newest, in whatever form its time stands there.
        ([{"at": "2026-01-02 10:00:00", "s": "F"}, {"at": "2026-01-01 10:00:00", "s": "D"}], None, 0),
        ([{"at": "Fri Jan 02 10:00:00 CST 2026"}, {"at": "2026-01-02T01:00:00Z", "s": "D"}], None, 0),
        ([{"at": 1767319200000}, {"at": "2026-01-02 09:00:00", "s": "D"}], None, 0),
        ([{"at": "2026-01-01 10:00:00"}, {"at": "0001-01-01 00:00:00", "s": "D"}], None, 0),
        ([{"at": "2026-01-01 10:00:00"}, {"s": "D"}], None, 0),
        # Done over failed over waiting.
        ([{"s": "D"}, {"s": "F"}], None, 0),
        ([{"s": True}, {"s": "F"}], None, 0),
        ([{"s": "F"}, {"s": "WAITING"}], None, 0),
        ([{"s": "D", "at": "2026-01-01 10:00:00"}, {"s": "F", "at": "2026-01-01 10:00:00"}], None, 0),
        # Without any of these, the one that says more.
        ([{"output_params": {"a": "x"}}, {"output_params": {"a": ""}}], None, 0),
    ],
)
def test_result_order_does_not_change_which_result_counts(
    items: list[dict[str, Any]], task: str | None, number: int, order: int
) -> None:
    came = [{"biz_id": "b", "output_params": {"a": "y"}, "number": n} | each for n, each in enumerate(items)]
    described = query(**NEWEST, task_id_field="task")
    task_ids = None if task is None else {"b": task}
    (found,) = read_results(described, {"result": {"data": came[::order]}}, task_ids=task_ids).values()
    expected = read_results(described, {"result": {"data": [came[number]]}})["b"]
    assert found == expected


@pytest.mark.parametrize("status", [True, "true", "True", "TRUE"])
@pytest.mark.parametrize("written", [True, "true", "True"])
def test_a_boolean_status_is_the_same_in_every_spelling(status: Any, written: Any) -> None:
    described = query(status_field="s", done_values=[written], failed_values=[False])
    rules = CompletionCriteria((), described.done_values, described.failed_values)
    found = read_results(
        described, {"result": {"data": [{"biz_id": "b", "s": status}, {"biz_id": "c", "s": False}]}}
    )
    assert [state_of(found[biz_id], rules) for biz_id in "bc"] == ["answered", "not_reached"]


def test_every_field_of_a_result_may_be_a_path() -> None:
    fields = {
        "biz_id_field": "key.biz_id",
        "output_params_field": "ext.output",
        "task_id_field": "key.task",
        "status_field": "state.code",
        "created_at_field": "a.b.c",
    }
    item = {
        "key": {"biz_id": "b", "task": 5},
        "ext": '{"output": {"slots": [{"name": "x", "value": "y"}]}}',
        "state": {"code": "D"},
        "a": {"b": {"c": "2026-01-01 10:00:00"}},
    }
    expected = TaskResult("b", {"x": "y"}, "D", "5", "2026-01-01 10:00:00")
    assert read_results(query(**fields), {"result": {"data": [item]}}) == {"b": expected}
    # A name may hold dots itself.
    assert read_results(query(**fields), {"result": {"data": [item | {"key.biz_id": "c"}]}}).keys() == {"c"}
    assert read_results(
        query(**fields), {"result": {"data": [{"key": {"biz_id": "b"}, "ext": "x", "a": 1}]}}
    ).keys() == {"b"}


def test_of_two_results_of_one_recipient_the_last_counts() -> None:
    items = [{"biz_id": "b", "output_params": {"n": 1}}, {"biz_id": "b", "output_params": {"n": 2}}]
    assert read_results(query(), {"result": {"data": items}})["b"].output_params == {"n": 2}


@pytest.mark.parametrize("value", [None, [], {}, {"a": 1}])
def test_a_status_that_is_no_text_is_none(value: Any) -> None:
    found = read_results(query(status_field="state"), {"result": {"data": [{"biz_id": "b", "state": value}]}})
    assert found["b"].status is None


def test_repr_of_a_result_holds_no_slot_value() -> None:
    assert "canary" not in repr(TaskResult("b", {"slot": "canary"}))


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (None, []),
        ("", []),
        ({}, []),
        ([], []),
        ([1], [1]),
        ({"x": [1, 2]}, [1, 2]),
        ({"x": []}, []),
        ({"x": None}, []),
        ({"x": {}}, []),
        ({"x": {"y": 1}}, [{"y": 1}]),
        ({"x": 1}, [{"x": 1}]),
        ({"x": 0}, [{"x": 0}]),
        ({"x": False}, [{"x": False}]),
        ({"x": 1, "y": [2]}, [{"x": 1, "y": [2]}]),
        ("text", ["text"]),
    ],
)
def test_a_list_of_the_platform_is_a_list(value: Any, items: list[Any]) -> None:
    assert as_list(value) == items
