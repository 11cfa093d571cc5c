"""Signing: known answers per stage, from the platform's pages and derived with independent tools."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS, sign, string_to_sign

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sign_vectors.json").read_text("utf-8"))
UNICODE = st.text(st.characters(exclude_categories=["Cs"]))


def bare(vector: dict[str, Any]) -> str:
    """The text between the secrets that md5 puts around it."""
    text: str = vector["string_to_sign"]
    if vector["digest"] != "md5":
        return text
    secret = vector["secret"]
    assert text.startswith(secret) and text.endswith(secret)
    return text[len(secret) : -len(secret)]


def name_of(vector: dict[str, Any]) -> str:
    return f"{vector['digest']}-{vector['params']['method']}-{vector['params']['timestamp'][:4]}"


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_text_that_is_signed_is_that_of_the_page(vector: dict[str, Any]) -> None:
    assert string_to_sign(vector["params"]) == bare(vector)


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_signature_is_that_of_the_page(vector: dict[str, Any]) -> None:
    assert sign(vector["params"], vector["secret"], vector["digest"]) == vector["sign"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_the_order_in_which_parameters_are_given_does_not_matter(vector: dict[str, Any]) -> None:
    backwards = dict(reversed(vector["params"].items()))
    assert sign(backwards, vector["secret"], vector["digest"]) == vector["sign"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_empty_names_and_values_and_sign_itself_are_not_signed(vector: dict[str, Any]) -> None:
    noise = {"": "nameless", "simplify": "", "partner_id": "", "sign": "0" * 32}
    assert sign(vector["params"] | noise, vector["secret"], vector["digest"]) == vector["sign"]


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({}, ""),
        ({"": ""}, ""),
        ({"": "x"}, ""),
        ({"a": ""}, ""),
        ({"sign": "x"}, ""),
        ({"b": "2", "a": "1"}, "a1b2"),
        ({"foo": "1", "bar": "2", "foo_bar": "3", "foobar": "4"}, "bar2foo1foo_bar3foobar4"),
        ({"a1": "x", "a": "1y"}, "a1ya1x"),
        ({"a": "x", "B": "y", "_": "z"}, "By_zax"),
        ({"a": " 1 + 1 = 2 & more% "}, "a 1 + 1 = 2 & more% "),
        ({"名": "张三", "b": "😀"}, "b😀名张三"),
        ({"a": "0", "b": "false"}, "a0bfalse"),
    ],
)
def test_names_are_sorted_by_code_and_joined_raw(params: dict[str, str], text: str) -> None:
    assert string_to_sign(params) == text


@pytest.mark.parametrize("sign_method", SIGN_METHODS)
@given(params=st.dictionaries(UNICODE, UNICODE, max_size=5), secret=UNICODE)
def test_each_method_is_the_digest_that_the_page_names_over_utf8(
    sign_method: str, params: dict[str, str], secret: str
) -> None:
    text = "".join(k + params[k] for k in sorted(params) if k and params[k] and k != "sign").encode()
    key = secret.encode()
    digest = {
        "md5": lambda: hashlib.md5(key + text + key).hexdigest(),
        "hmac": lambda: hmac.digest(key, text, "md5").hex(),
        "hmac-sha256": lambda: hmac.digest(key, text, "sha256").hex(),
    }[sign_method]()
    assert sign(params, secret, sign_method) == digest.upper()


def test_hmac_uses_the_secret_as_a_key_and_differs_from_the_plain_digest() -> None:
    params = {"a": "1"}
    assert sign(params, "s1", "hmac") != sign(params, "s2", "hmac")
    assert sign(params, "s1", "hmac") != hashlib.md5(b"a1").hexdigest().upper()


@pytest.mark.parametrize("value", ["张三", "😀", "é", "\u3000"])
def test_a_value_signed_in_another_encoding_would_be_another_signature(value: str) -> None:
    right = hmac.digest(b"s", f"a{value}".encode(), "sha256").hex().upper()
    assert sign({"a": value}, "s", "hmac-sha256") == right
    assert right != hmac.digest(b"s", f"a{value}".encode("utf-16-le"), "sha256").hex().upper()


@pytest.mark.parametrize("sign_method", ["sha256", "MD5", "HMAC", "hmac-md5", "", " md5"])
def test_an_unknown_method_is_an_error_that_names_the_known_ones(sign_method: str) -> None:
    with pytest.raises(LingyangConfigError, match="use one of hmac-sha256, hmac, md5"):
        sign({"a": "1"}, "secret", sign_method)


def test_the_default_is_the_strongest() -> None:
    assert SIGN_METHODS[0] == "hmac-sha256"
