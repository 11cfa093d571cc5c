"""The way from a task in Airflow's UI to its plan in the Lingyang console."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)


class LingyangPlanLink(BaseOperatorLink):
    """Leads to the plan in the console, whose address is the connection's ``console_url``.

    The task leaves the address as XCom, so that nobody who shows it reads the connection.
    """

    name = "Lingyang plan"
    key = "plan_url"

    @property
    def xcom_key(self) -> str:
        """Where Airflow 3 itself finds the address, also while the task runs."""
        return self.key

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address that the task left, or nothing.

        Airflow 3 asks on the worker, once the task has ended, and Airflow 2 in its webserver.

        :param operator: the task, which on the worker knows what it left.
        :param ti_key: its instance.
        """
        if (left := getattr(operator, "plan_url_left", None)) is not None:
            # Where nothing was left, Airflow would write an error into the log of a task that succeeded.
            return str(left)
        try:
            return str(XCom.get_value(key=self.key, ti_key=ti_key) or "")
        except Exception as error:
            # A link is never worth a failure. Without its text: a backend may quote what it holds.
            log.warning("the link to the plan cannot be read: %s", type(error).__name__)
            return ""


def leave_link(task: Any, ti: Any, url: object) -> None:
    """Leave the address of a plan for the link, where there is one.

    :param task: the operator; its ``plan_url_left`` is blank until then.
    :param ti: the task's instance.
    :param url: the address, or nothing.
    """
    if not isinstance(url, str) or not url:
        return
    task.plan_url_left = url
    try:
        ti.xcom_push(key=LingyangPlanLink.key, value=url)
    except Exception as error:
        log.warning("the link to the plan cannot be kept: %s", type(error).__name__)
