"""What a call's parameters become on the wire, and what is refused."""

from __future__ import annotations

import enum
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import RequestInvalidError
from airflow_provider_lingyang.gateway.parameters import parameter_texts


class Colour(enum.Enum):
    RED = "red"
    WHEN = datetime(2024, 3, 12, 14, 5, 56)


class Word(str, enum.Enum):  # noqa: UP042  # as code before Python 3.11 has them
    YES = "yes"


class Number(enum.IntEnum):
    ONE = 1


UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
NOON = datetime(2024, 3, 12, 14, 5, 56)
WRITTEN: list[tuple[Any, str, str]] = [
    ("text", "text", '"text"'),
    ("", "", '""'),
    ("张三", "张三", '"张三"'),
    (5, "5", "5"),
    (2**70, str(2**70), str(2**70)),
    (True, "true", "true"),
    (1.5, "1.5", "1.5"),
    (Decimal("1.50"), "1.50", '"1.50"'),
    (Decimal("1E+3"), "1000", '"1000"'),
    (NOON, "2024-03-12 14:05:56", '"2024-03-12 14:05:56"'),
    (NOON.replace(microsecond=9), "2024-03-12 14:05:56", '"2024-03-12 14:05:56"'),
    (datetime(2024, 3, 12, 6, 5, 56, tzinfo=UTC), "2024-03-12 14:05:56", '"2024-03-12 14:05:56"'),
    (
        datetime(2024, 3, 11, 23, 5, 56, tzinfo=timezone(timedelta(hours=-7))),
        "2024-03-12 14:05:56",
        '"2024-03-12 14:05:56"',
    ),
    (date(2024, 3, 12), "2024-03-12", '"2024-03-12"'),
    (time(14, 5), "14:05:00", '"14:05:00"'),
    (UUID, str(UUID), f'"{UUID}"'),
    (Word.YES, "yes", '"yes"'),
    (Number.ONE, "1", "1"),
    (Colour.RED, "red", '"red"'),
    (Colour.WHEN, "2024-03-12 14:05:56", '"2024-03-12 14:05:56"'),
    ({"a": [1, (2, None)], 3: {}}, '{"a":[1,[2,null]],"3":{}}', '{"a":[1,[2,null]],"3":{}}'),
    ((), "[]", "[]"),
]


@pytest.mark.parametrize(("value", "text", "inside"), WRITTEN, ids=repr)
def test_parameter_value_is_written_as_text(value: Any, text: str, inside: str) -> None:
    assert parameter_texts("a.method", {"x": value, "y": None}) == {"x": text}
    assert parameter_texts("a.method", {"x": {"k": [value]}}) == {"x": f'{{"k":[{inside}]}}'}
    assert parameter_texts("a.method", {"x": (value,)}) == {"x": f"[{inside}]"}


LOOP: list[Any] = []
LOOP.append(LOOP)
DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


class Span(timedelta):
    """As those of pandas and pendulum."""


REFUSED: list[tuple[Any, str]] = [
    (b"CANARY", "bytes"),
    (bytearray(b"CANARY"), "bytearray"),
    (memoryview(b"CANARY"), "memoryview"),
    (float("nan"), "NaN"),
    (float("inf"), "infinite"),
    (float("-inf"), "infinite"),
    (Decimal("NaN"), "NaN"),
    (Decimal("sNaN"), "NaN"),
    (Decimal("Infinity"), "infinite"),
    (Decimal("1E+99999"), "too large"),
    ({"CANARY"}, "set"),
    (frozenset("C"), "frozenset"),
    (range(3), "range"),
    ((part for part in "CANARY"), "generator"),
    (object(), "object"),
    (timedelta(1), "timedelta"),
    (timedelta(hours=1), "timedelta"),
    (Span(hours=1), "Span"),
    (1j, "complex"),
    ({(1, 2): "CANARY"}, "a key"),
    ({None: "CANARY"}, "a key"),
    ({1: "CANARY", "1": "CANARY"}, "a name twice"),
    ("half \ud800", ""),
    ({"half \ud800": 1}, ""),
    (LOOP, ""),
    (DEEP, ""),
    (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), ""),
]


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"k": [value]}, lambda value: (value,)])
def test_unsupported_parameter_value_is_refused_by_name(value: Any, kind: str, wrap: Any) -> None:
    with pytest.raises(
        RequestInvalidError, match=rf"the parameter 'x' of a\.method .*{kind}.*nothing was sent"
    ) as caught:
        parameter_texts("a.method", {"w": "1", "x": wrap(value)})
    assert "CANARY" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_numpy_and_pandas() -> None:
    numpy = pytest.importorskip("numpy")
    pandas = pytest.importorskip("pandas")
    for value, text in (
        (numpy.int64(5), "5"),
        (numpy.float64(1.5), "1.5"),
        (numpy.float32(1.5), "1.5"),
        (numpy.bool_(True), "true"),
        (numpy.str_("x"), "x"),
        (numpy.datetime64("2024-03-12T14:05:56"), "2024-03-12 14:05:56"),
        (numpy.datetime64("2024-03-12T14:05:56", "ns"), "2024-03-12 14:05:56"),
        (pandas.Timestamp(2024, 3, 12, 14, 5, 56), "2024-03-12 14:05:56"),
    ):
        assert parameter_texts("a.method", {"x": value}) == {"x": text}
    for value in (pandas.NaT, numpy.datetime64("NaT")):
        assert parameter_texts("a.method", {"x": value}) == {}
        assert parameter_texts("a.method", {"x": [value]}) == {"x": "[null]"}
    for value in (numpy.array([1]), numpy.float64("nan"), numpy.timedelta64(1, "s"), numpy.bytes_(b"x")):
        with pytest.raises(RequestInvalidError, match="'x'"):
            parameter_texts("a.method", {"x": value})
