"""A link from a task in Airflow's UI to its plan in the Lingyang console."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator

log = logging.getLogger(__name__)


class LingyangPlanLink(BaseOperatorLink):
    """Links to the plan in the console, at the connection's ``console_url``.

    The task pushes the address as XCom, so that showing it does not read the connection.
    """

    name = "Lingyang plan"
    key = xcom_key = "plan_url"
    """The XCom where Airflow 3 finds the address, also while the task runs."""

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address that the task pushed, or blank text.

        Airflow 3 calls it on the worker, once the task has ended, and Airflow 2 in its webserver.

        :param operator: the task; on the worker it knows what it pushed.
        :param ti_key: its instance.
        """
        if (pushed := getattr(operator, "pushed_plan_url", None)) is not None:
            # Reading a missing XCom, Airflow would log an error in a task that succeeded.
            return str(pushed)
        try:
            return str(XCom.get_value(key=self.key, ti_key=ti_key) or "")
        except Exception as error:
            # A link is never worth a failure. Without the error's text, which may hold data of the backend.
            log.warning("the link to the plan cannot be read: %s", type(error).__name__)
            return ""


def push_plan_link(task: Any, ti: Any, url: object) -> None:
    """Push the address of a plan for the link, where there is one.

    :param task: the operator; its ``pushed_plan_url`` is blank until then.
    :param ti: the task's instance.
    :param url: the address; None or blank: there is none.
    """
    if not isinstance(url, str) or not url:
        return
    task.pushed_plan_url = url
    try:
        ti.xcom_push(key=LingyangPlanLink.key, value=url)
    except Exception as error:
        log.warning("the link to the plan cannot be pushed: %s", type(error).__name__)
