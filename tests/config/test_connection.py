"""The model of the connection: a field is checked when it is read, and no error or repr repeats a value."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_lingyang.config.connection import EXTRA_FIELDS, LingyangConnection, input_of
from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS

WRONG = [name for name in EXTRA_FIELDS if input_of(name).must_be]


def connection(extra: dict[str, Any]) -> Any:
    fields = {"host": "https://gateway.test", "login": "app-key", "password": "CANARY-secret"}
    return SimpleNamespace(conn_id="case", extra=json.dumps(extra), **fields)


def test_has_a_title_and_a_description_of_every_field() -> None:
    assert all(field.title and field.description for field in LingyangConnection.model_fields.values())


def test_first_sign_method_is_the_default() -> None:
    assert LingyangConnection.model_fields["sign_method"].default == SIGN_METHODS[0]


@pytest.mark.parametrize("name", WRONG)
def test_wrong_field_is_an_error_only_where_it_is_read(name: str) -> None:
    conn = connection({name: "CANARY"})
    others = [other for other in LingyangConnection.model_fields if other != name]
    assert LingyangConnection.read(conn, *others).host == "https://gateway.test"
    with pytest.raises(LingyangConfigError) as caught:
        LingyangConnection.read(conn, name)
    assert str(caught.value) == f"connection 'case': {name} must be {input_of(name).must_be}"
    assert caught.value.__cause__ is caught.value.__context__ is None


@pytest.mark.parametrize("name", EXTRA_FIELDS)
@pytest.mark.parametrize("empty", ["", None])
def test_empty_field_means_its_default(name: str, empty: Any) -> None:
    field = LingyangConnection.model_fields[name]
    assert getattr(LingyangConnection.read(connection({name: empty}), name), name) == field.default


def test_unknown_field_is_an_error_whatever_is_read() -> None:
    with pytest.raises(
        LingyangConfigError, match="'case': extra holds unknown time_out; it takes session_token, "
    ):
        LingyangConnection.read(connection({"time_out": 1}), "dedupes_by_code")


def test_repr_holds_no_credential() -> None:
    conn = connection({"session_token": "CANARY-session"})
    assert "CANARY" not in repr(LingyangConnection.read(conn, *LingyangConnection.model_fields))
