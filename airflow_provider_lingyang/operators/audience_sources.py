"""The sources of an audience: rows or a query; and how a result sensor finds the ids."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from airflow_provider_lingyang.config import arguments

if TYPE_CHECKING:
    from airflow_provider_lingyang.audience.store import AudienceStore
    from airflow_provider_lingyang.delivery.manifest import Manifest

log = logging.getLogger(__name__)


class Hidden:
    """An argument that may hold personal data. The UI and logs show its type, never its value."""

    name = ""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"<{self.name}{type(self.value).__name__}, not shown>"


class Rows(Hidden):
    """Rows given as an argument."""

    name = "audience: "

    def __iter__(self) -> Iterator[Any]:
        arguments.check_no_frame("audience", self.value)
        if not arguments.is_listing(self.value):
            raise arguments.ArgumentError(
                f"audience must be a list of rows (mappings of names to values); it is a {type(self.value).__name__}"
            )
        return iter(self.value)


def ids_query(task: Any, audience: AudienceStore, manifest: Manifest) -> dict[str, Any] | None:
    """Return the query from which a result sensor can read the ids that XCom does not carry; None: there is none.

    Warn, before anything is sent, where the sensor has no other way to them.
    """
    if len(audience) <= manifest.ids_limit:
        return None
    left_out = manifest.audience - len(audience)
    derived = audience.derived()
    if task.sql is not None and not derived and not (left_out and manifest.ledger is None):
        return {
            "sql": task.sql,
            "conn_id": task.sql_conn_id,
            "parameters": task.parameters,
            "column": task.columns.get("biz_id", "biz_id"),
        }
    if manifest.ledger is not None:
        return None
    if task.sql is None:
        why = "the audience came without a query"
    elif derived:
        why = "its query selects no biz_id"
    else:
        why = f"its query gives {left_out} more recipients, left out here"
    log.warning(
        "%d recipients are more than XCom carries ([lingyang] xcom_ids_limit=%d), and %s: a LingyangResultSensor "
        "with campaign=… cannot find them. Give this task a ledger_conn_id, the sensor an ids_sql, or raise the "
        "limit",
        len(audience),
        manifest.ids_limit,
        why,
    )
    return None
