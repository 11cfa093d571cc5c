"""Values of drivers and data frames are the same text from whichever of them they come, and NULL is NULL."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any

import pytest

from airflow_provider_lingyang.audience.parser import Recipient, RowParser
from airflow_provider_lingyang.gateway.values import is_null, plain_value


class _Scalar:
    """Behaves as numpy's scalars do, which are no dependency: one value, found by ``item``."""

    __module__ = "numpy"
    ndim = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value

    def __str__(self) -> str:
        return str(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Scalar) and self.value == other.value

    __hash__ = None  # type: ignore[assignment]


class _Moment(_Scalar):
    """``numpy.datetime64``: of nanoseconds, ``item`` gives a number."""

    dtype = "datetime64[ns]"

    def item(self) -> Any:
        return 1

    def astype(self, unit: str) -> _Scalar:
        assert unit == "datetime64[us]"
        return _Scalar(self.value)

    def __ne__(self, other: object) -> bool:
        return self.value is None or self is not other


class _NotATime(dt.datetime):
    """``pandas.NaT``: says that it is a datetime, and writes itself as "NaT"."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "NaT"

    def __ne__(self, other: object) -> bool:
        return True


class _NotAvailable:
    """``pandas.NA``: cannot be asked whether it equals anything."""

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


_NotATime.__name__, _NotAvailable.__name__ = "NaTType", "NAType"
datetime64 = type("datetime64", (_Moment,), {"__module__": "numpy"})
float32 = type("float32", (_Scalar,), {"__module__": "numpy"})


class Level(IntEnum):
    GOLD = 3


class Name(StrEnum):
    GOLD = "gold"


class Kind(Enum):
    GOLD = "gold"


class Stamp(dt.datetime):
    """A driver's own kind of datetime, which writes itself differently."""

    def isoformat(self, *_: Any, **__: Any) -> str:
        return "2030"


NULLS: list[Any] = [
    None,
    float("nan"),
    Decimal("NaN"),
    Decimal("sNaN"),
    _NotATime(2030, 1, 1),
    _NotAvailable(),
    datetime64(None),
    _Scalar(float("nan")),
]
MOMENT = dt.datetime(2030, 1, 2, 3, 4, 5)
UTC_MOMENT = dt.datetime(2030, 1, 1, 19, 4, 5, tzinfo=dt.UTC)
ID = uuid.UUID(int=7)
# What is sent for a String field, and what stands in input_params as it is.
TEXTS: list[tuple[Any, str, Any]] = [
    ("7", "7", "7"),
    (7, "7", 7),
    (_Scalar(7), "7", 7),
    (Level.GOLD, "3", 3),
    (Decimal(7), "7", "7"),
    (Decimal("7.0"), "7", "7.0"),
    (Decimal("1E+2"), "100", "100"),
    (_Scalar("7"), "7", "7"),
    (Name.GOLD, "gold", "gold"),
    (Kind.GOLD, "gold", "gold"),
    (ID, str(ID), str(ID)),
    (str(ID), str(ID), str(ID)),
]
VARIABLES: list[tuple[Any, Any, str]] = [
    (1.5, 1.5, "1.5"),
    (_Scalar(1.5), 1.5, "1.5"),
    (float32("0.1"), 0.1, "0.1"),
    (True, True, "true"),
    (_Scalar(False), False, "false"),
    (Decimal("9.90"), "9.90", "9.90"),
    (MOMENT, "2030-01-02 03:04:05", "2030-01-02 03:04:05"),
    (UTC_MOMENT, "2030-01-02 03:04:05", "2030-01-02 03:04:05"),
    (Stamp(2030, 1, 2, 3, 4, 5, 6), "2030-01-02 03:04:05", "2030-01-02 03:04:05"),
    (datetime64(MOMENT), "2030-01-02 03:04:05", "2030-01-02 03:04:05"),
    (dt.date(2030, 1, 2), "2030-01-02", "2030-01-02"),
    (dt.time(3, 4, 5), "03:04:05", "03:04:05"),
    (dt.timedelta(hours=3, minutes=4, seconds=5), "03:04:05", "03:04:05"),
    ([1, _Scalar(2)], [1, 2], "[1,2]"),
    ({"a": Decimal("1.0")}, {"a": "1.0"}, '{"a":"1.0"}'),
    *((given, variable, str(variable)) for given, _, variable in TEXTS),
]
REFUSED: list[Any] = [
    float("inf"),
    Decimal("-Infinity"),
    _Scalar(float("inf")),
    b"7",
    bytearray(b"7"),
    memoryview(b"7"),
    dt.timedelta(days=2),
    dt.timedelta(seconds=-1),
    {7},
    object(),
]
BASE = {"biz_id": "B1", "phone_number": "10000000001", "output_params": "{}", "input_params": "{}"}


def read(row: dict[str, Any], *, as_tuple: bool, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "columns": {}, "task_defaults": {}, "input_params_columns": {}, "output_slots": [], "channel": None,
        "campaign": "campaign/1", "app_secret": "secret",
    }  # fmt: skip
    reader = RowParser(**(arguments | changes))
    return reader.for_columns(list(row))(1, list(row.values())) if as_tuple else reader.parse_mapping(1, row)


@pytest.fixture(params=[True, False], ids=["of a query", "of a mapping"])
def as_tuple(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def sent(row: dict[str, Any], *, as_tuple: bool, **changes: Any) -> dict[str, Any]:
    found = read(row, as_tuple=as_tuple, **changes)
    assert isinstance(found, Recipient), found
    task: dict[str, Any] = json.loads(found.task)
    return task


def test_null_values_are_recognized() -> None:
    assert [is_null(value) for value in NULLS] == [True] * len(NULLS)
    assert [plain_value(value) for value in NULLS] == [None] * len(NULLS)
    others = [value for value, *_ in [*TEXTS, *VARIABLES]] + REFUSED + ["", "NaN", "NaT", 0, False, [None]]
    assert not any(map(is_null, others))


@pytest.mark.parametrize(
    "name", ["user_name", "outer_user_id", "email", "source_id", "plan_execute_start_time"]
)
@pytest.mark.parametrize("value", NULLS, ids=range(len(NULLS)))
def test_a_null_field_is_not_sent_and_takes_the_default(name: str, value: Any, as_tuple: bool) -> None:
    assert name not in sent(BASE | {name: value}, as_tuple=as_tuple)
    if name == "user_name":
        default = {"task_defaults": {name: "客户"}}
        assert sent(BASE | {name: value}, as_tuple=as_tuple, **default)[name] == "客户"
        default = {"task_defaults": {name: value}}
        assert name not in sent(BASE, as_tuple=as_tuple, **default)


@pytest.mark.parametrize("value", NULLS, ids=range(len(NULLS)))
def test_a_null_is_missing_where_a_value_is_needed(value: Any, as_tuple: bool) -> None:
    for name in ("biz_id", "phone_number", "input_params"):
        (problem,) = read(BASE | {name: value}, as_tuple=as_tuple)
        assert "is missing" in problem[1]
    assert "batch_num" not in sent(BASE | {"batch_num": value}, as_tuple=as_tuple)


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("value", NULLS, ids=range(len(NULLS)))
def test_null_is_never_sent_as_text(value: Any, as_text: bool, as_tuple: bool) -> None:
    setting = {"plan_variables_as_text": as_text}
    columns = setting | {"input_params_columns": {"who": "v"}}
    (problem,) = read(BASE | {"input_params": None, "v": value}, as_tuple=as_tuple, **columns)
    assert problem == ("input_params['who'] (column 'v')", "is NULL")
    (problem,) = read(BASE | {"input_params": {"who": value}}, as_tuple=as_tuple, **setting)
    assert problem == ("input_params['who']", "is NULL")
    row = {name: text for name, text in BASE.items() if name != "input_params"}
    given = setting | {"task_defaults": {"input_params": {"who": value}}}
    (problem,) = read(row, as_tuple=as_tuple, **given)
    assert problem == ("input_params['who']", "is NULL")


@pytest.mark.parametrize("value", NULLS, ids=range(len(NULLS)))
def test_null_inside_a_plan_variable_is_json_null(value: Any, as_tuple: bool) -> None:
    params = {"tags": ["a", {"b": value}, (value,)]}
    expected = {"tags": ["a", {"b": None}, [None]]}
    assert json.loads(sent(BASE | {"input_params": params}, as_tuple=as_tuple)["input_params"]) == expected


@pytest.mark.parametrize(("value", "text", "_"), TEXTS, ids=range(len(TEXTS)))
@pytest.mark.parametrize("name", ["biz_id", "user_name", "outer_user_id", "cms_member_type"])
def test_a_string_field_has_one_text(name: str, value: Any, text: str, _: Any, as_tuple: bool) -> None:
    assert sent(BASE | {name: value}, as_tuple=as_tuple)[name] == text


@pytest.mark.parametrize(("value", "plain", "text"), VARIABLES, ids=range(len(VARIABLES)))
def test_plan_variable_is_kept_or_made_text(value: Any, plain: Any, text: str, as_tuple: bool) -> None:
    row = BASE | {"input_params": None, "v": value}
    for as_text, expected in ((False, plain), (True, text)):
        setting = {"plan_variables_as_text": as_text}
        found = sent(row, as_tuple=as_tuple, input_params_columns={"x": "v"}, **setting)
        assert json.loads(found["input_params"]) == {"x": expected}
        assert type(json.loads(found["input_params"])["x"]) is type(expected)
        own = sent(BASE | {"input_params": {"x": value}}, as_tuple=as_tuple, **setting)
        assert own["input_params"] == found["input_params"]
        rows = {name: kept for name, kept in BASE.items() if name != "input_params"}
        given = {"task_defaults": {"input_params": {"x": value}}}
        default = sent(rows, as_tuple=as_tuple, **given, **setting)
        assert default["input_params"] == found["input_params"]


@pytest.mark.parametrize("as_text", [True, False])
@pytest.mark.parametrize("value", REFUSED, ids=range(len(REFUSED)))
def test_value_without_a_unique_text_is_refused_by_row_and_field(
    value: Any, as_text: bool, as_tuple: bool
) -> None:
    (problem,) = read(BASE | {"user_name": value}, as_tuple=as_tuple)
    assert problem == ("user_name", "must be text")
    row = BASE | {"input_params": None, "v": value}
    columns = {"input_params_columns": {"x": "v"}, "plan_variables_as_text": as_text}
    (problem,) = read(row, as_tuple=as_tuple, **columns)
    assert problem == ("input_params['x'] (column 'v')", "holds a value that JSON cannot hold")


@pytest.mark.parametrize("params", [None, " ", "[1]", "{", '{"a":1,"a":2}', {1: 2, "1": 3}])
def test_invalid_input_params_are_reported_with_plan_variables_as_text(params: Any, as_tuple: bool) -> None:
    def told(as_text: bool) -> list[str]:
        found = read(BASE | {"input_params": params}, as_tuple=as_tuple, plan_variables_as_text=as_text)
        return [field for field, _ in found]

    assert told(True) == told(False) == ["input_params"]


@pytest.mark.parametrize(
    "value", [154_0000_0001, Decimal(154_0000_0001), _Scalar(154_0000_0001), "154 0000 0001"]
)
def test_the_derived_id_is_the_same_from_every_source(value: Any, as_tuple: bool) -> None:
    base = {name: text for name, text in BASE.items() if name != "biz_id"}
    found = [
        read(base | {"phone_number": phone, "cms_user_id": number}, as_tuple=as_tuple)
        for phone, number in ((value, _Scalar(5)), ("15400000001", 5))
    ]
    assert found[0] == found[1]


def test_numpy_and_pandas_values_where_installed(as_tuple: bool) -> None:
    np = pytest.importorskip("numpy")
    pd = pytest.importorskip("pandas")
    nulls = [
        np.nan,
        np.float32("nan"),
        np.datetime64("NaT"),
        np.timedelta64("NaT"),
        pd.NaT,
        pd.NA,
        np.ma.masked,
    ]
    assert [plain_value(value) for value in nulls] == [None] * len(nulls)
    moment = pd.Timestamp("2030-01-02 03:04:05.123456789")
    given = {
        "i": np.int64(7), "u": np.uint8(7), "f": np.float64(1.5), "g": np.float32(0.1), "b": np.bool_(True),
        "s": np.str_("客"), "t": moment, "z": moment.tz_localize("UTC"), "n": np.datetime64(moment, "ns"),
        "d": np.datetime64("2030-01-02"), "a": np.array([1.0, np.nan]), "h": pd.Timedelta(hours=3),
    }  # fmt: skip
    expected = {
        "i": 7, "u": 7, "f": 1.5, "g": 0.1, "b": True, "s": "客", "t": "2030-01-02 03:04:05",
        "z": "2030-01-02 11:04:05", "n": "2030-01-02 03:04:05", "d": "2030-01-02", "a": [1.0, None], "h": "03:00:00",
    }  # fmt: skip
    assert json.loads(sent(BASE | {"input_params": given}, as_tuple=as_tuple)["input_params"]) == expected
    columns = {"input_params_columns": {name: f"v{name}" for name in given}}
    row = BASE | {"input_params": None} | {f"v{name}": value for name, value in given.items()}
    assert json.loads(sent(row, as_tuple=as_tuple, **columns)["input_params"]) == expected
    start = sent(BASE | {"plan_execute_start_time": moment, "biz_id": np.int64(5)}, as_tuple=as_tuple)
    assert (start["plan_execute_start_time"], start["biz_id"]) == ("2030-01-02 03:04:05", "5")
