"""What is sent as a form is what any parser of forms reads."""

from __future__ import annotations

from urllib.parse import parse_qs, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from airflow_provider_lingyang.gateway.form_encoding import KEPT, form_encoded

UNICODE = st.text(st.characters(exclude_categories=["Cs"]))
EVERYTHING = "".join(map(chr, range(0x250))) + "张三😀%41+"


@given(value=UNICODE)
def test_a_form_is_encoded_as_the_standard_library_encodes_it(value: str) -> None:
    assert form_encoded(value) == quote_plus(value, safe=KEPT).encode()


def test_every_byte_is_encoded_as_the_standard_library_encodes_it() -> None:
    assert form_encoded(EVERYTHING) == quote_plus(EVERYTHING, safe=KEPT).encode()


@pytest.mark.parametrize("value", [EVERYTHING, '{"a":["b,c","d/e@f"],"时间":"14:05"}', "a=b&c;d"])
def test_encoded_form_is_read_back_by_form_parsers(value: str) -> None:
    form = b"&".join(form_encoded(each) for each in ("x", "y")) + b"&v=" + form_encoded(value) + b"&z=1"
    assert parse_qs(form.decode("ascii"))["v"] == [value]
    assert URL(f"http://127.0.0.1/?{form.decode()}", encoded=True).query["v"] == value
