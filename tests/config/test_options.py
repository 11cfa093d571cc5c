"""The options of the section ``[lingyang]``: a number that cannot be right is named."""

from __future__ import annotations

import pytest

from airflow_provider_lingyang.config import options
from airflow_provider_lingyang.config.arguments import ArgumentError


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("xcom_ids_limit", "many", "xcom_ids_limit must be a whole number; it is 'many'"),
        ("ledger_patience", "-1", "ledger_patience must be a whole number; it is '-1'"),
        ("lookups_at_a_time", "0", "lookups_at_a_time must be a whole number of at least 1; it is '0'"),
        ("receiver_limit_patience", "1.5", "receiver_limit_patience must be a whole number; it is '1.5'"),
    ],
)
def test_refuses_what_is_no_whole_number(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(f"AIRFLOW__LINGYANG__{name.upper()}", value)
    with pytest.raises(ArgumentError, match=expected):
        getattr(options, name)()


def test_reads_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__LINGYANG__LEDGER_PATIENCE", " 0 ")
    monkeypatch.setenv("AIRFLOW__LINGYANG__SPOOL_DIR", "/somewhere")
    assert (options.ledger_patience(), options.spool_dir()) == (0, "/somewhere")
