"""Recipients as the parser gives them."""

from __future__ import annotations

from airflow_provider_lingyang.audience.parser import Recipient


def person(
    row: int,
    batch_num: str | None = None,
    *,
    biz_id: str | None = None,
    derived: bool = False,
    contact: str = "",
) -> Recipient:
    task = f'{{"biz_id":"{biz_id or row}","input_params":"{{}}","output_params":"{{}}"}}'
    return Recipient(row, biz_id or str(row), derived, batch_num, contact or f"phone {row}", task)
