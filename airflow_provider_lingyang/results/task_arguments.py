"""The base of all tasks that read the results of a campaign: their common arguments, checked and turned into a request.

Imported while DAG files are parsed, so nothing heavy is imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException, BaseOperator

from airflow_provider_lingyang.config import arguments, literals
from airflow_provider_lingyang.links.lingyang import LingyangPlanLink, push_plan_link
from airflow_provider_lingyang.spelling import did_you_mean

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.results.poller import ResultsRequest

log = logging.getLogger(__name__)

_SOURCES = ("campaign", "biz_ids", "ids_sql")
"""Arguments that list the recipients; one of them is given."""
_PARAMETERS = ("ids_parameters", "results_parameters")


class ResultsTask(BaseOperator):
    """A task that reads the results of a campaign: the base of the sensor and of the transfer.

    An operator of its own rather than a plain mixin: Airflow applies ``default_args``, and accepts arguments of
    ``partial`` and ``expand``, only for the ``__init__`` of operator classes.

    *Recipients*: one source

    :param campaign: the manifest of a ``LingyangSubmitBatchOperator`` of the same run: ``campaign=submit.output``.
        Templated.
    :param biz_ids: a list of ids. Templated.
    :param ids_sql: a SELECT whose only column is the ``biz_id``, or the path of a ``.sql`` file. Templated.
    :param ids_conn_id: connection of the database for ``ids_sql``. Templated.
    :param ids_parameters: bound to ``ids_sql``. Templated.

    *Results*

    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param result_query: how to look up; default: the connection's. Templated.
    :param results_sql: instead of a look-up, a SELECT of ``biz_id``, ``output_params`` and perhaps ``status``,
        ``task_id`` and ``created_at`` from your own table, or the path of a ``.sql`` file. Rows of other recipients are
        ignored. Of several rows of one recipient that of the accepted task counts, else the newest, else done over
        failed, in any order of the rows. ``result_query`` then needs ``done_values`` and ``failed_values`` only.
        Templated.
    :param results_conn_id: connection of the database for ``results_sql``. Templated.
    :param results_parameters: bound to ``results_sql``. Templated.
    :param required_slots: slots that must be filled; decisive only for results without a status. Default: the
        manifest's ``output_slots``.
    :param kwargs: Airflow's own.

    :raises ArgumentError: at parse time, for arguments that cannot be right whatever they render to.
    """

    template_fields: Sequence[str] = (
        *_SOURCES,
        "ids_conn_id",
        "ids_parameters",
        "results_sql",
        "results_conn_id",
        "results_parameters",
        "result_query",
        "lingyang_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "campaign": "json",
        "biz_ids": "json",
        "ids_sql": "sql",
        "ids_parameters": "json",
        "results_sql": "sql",
        "results_parameters": "json",
        "result_query": "json",
    }
    operator_extra_links = (LingyangPlanLink(),)
    pushed_plan_url = ""
    ui_color = "#d6f0ff"

    argument_checks: ClassVar[Mapping[str, arguments.Check]] = {
        "required_slots": literals.optional(arguments.check_names)
    }
    """Checks of arguments that are not templated."""

    def __init__(
        self,
        *,
        # Any: the output of another task stands for the value in the DAG file.
        campaign: Any = None,
        biz_ids: Any = None,
        ids_sql: str | None = None,
        ids_conn_id: str | None = None,
        ids_parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        lingyang_conn_id: str = "lingyang_default",
        result_query: Mapping[str, Any] | str | None = None,
        results_sql: str | None = None,
        results_conn_id: str | None = None,
        results_parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        required_slots: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign
        self.biz_ids = biz_ids
        self.ids_sql = ids_sql
        self.ids_conn_id = ids_conn_id
        self.ids_parameters = ids_parameters
        self.lingyang_conn_id = lingyang_conn_id
        self.result_query = result_query
        self.results_sql = results_sql
        self.results_conn_id = results_conn_id
        self.results_parameters = results_parameters
        self.required_slots = required_slots
        self._check_arguments()
        # Before rendering: a given argument may render to None. A source of ids may render to an empty list.
        self._source = next(name for name in _SOURCES if getattr(self, name) is not None)
        self._rendering = literals.Rendering(
            self, [name for name in ResultsTask.template_fields if name not in _SOURCES], _PARAMETERS
        )

    def _check_arguments(self) -> None:
        """Raise ArgumentError where the templated arguments cannot be right, whatever they render to."""
        if sum(getattr(self, source) is not None for source in _SOURCES) != 1:
            raise arguments.ArgumentError(
                "give one source of ids: campaign=submit.output, biz_ids, or ids_sql (with ids_conn_id)"
            )
        for prefix in ("ids", "results"):
            literals.check_query(self, f"{prefix}_sql", f"{prefix}_conn_id", f"{prefix}_parameters")
        check_result_query = partial(literals.check_result_query, of_table=self.results_sql is not None)
        literals.check_templated(
            self,
            {
                "campaign": literals.optional(literals.check_campaign),
                "biz_ids": literals.optional(literals.check_biz_ids),
                "result_query": literals.optional(check_result_query),
                "lingyang_conn_id": arguments.check_conn_id,
            },
        )

    def _results_request(self, context: Context) -> ResultsRequest:
        """Return the request for this task's rendered arguments.

        :raises ArgumentError: the campaign is none, of another run, or without an accepted recipient; or a given
            argument rendered to nothing. (A source of ids may render to an empty list.)
        :raises AirflowSkipException: the campaign was validated only.
        """
        from airflow_provider_lingyang.results.poller import ResultsRequest

        literals.check_rendered_task(self, self.argument_checks)
        self._rendering.check(self)
        source = self._rendered_source(context)
        slots = self.required_slots
        if slots is None and "campaign" in source:
            slots = source["campaign"]["output_slots"]
        return ResultsRequest(
            lingyang_conn_id=self.lingyang_conn_id,
            source=source,
            required_slots=list(slots or []),
            result_query=self.result_query,
            results=None
            if self.results_sql is None
            else _query(self.results_sql, self.results_conn_id, self.results_parameters),
        )

    def _rendered_source(self, context: Context) -> dict[str, Any]:
        from airflow_provider_lingyang.results.recipient_sources import NothingToWaitForError, slim_manifest

        if self._source == "campaign":
            try:
                campaign = slim_manifest(self.campaign)
            except NothingToWaitForError as error:
                raise AirflowSkipException(str(error)) from None
            if campaign["biz_ids"]["run_id"] != context["ti"].run_id:
                raise arguments.ArgumentError(
                    "the campaign is of another run, whose ids XCom cannot give: use ids_sql"
                )
            self._warn_of_unknown_slots(campaign["output_slots"])
            return {"campaign": campaign}
        if self._source == "ids_sql":
            assert self.ids_sql is not None
            return {"query": _query(self.ids_sql, self.ids_conn_id, self.ids_parameters)}
        arguments.check_one_column("biz_ids", self.biz_ids)
        # A mapped task's output is a lazy sequence.
        return {"biz_ids": list(self.biz_ids) if arguments.is_listing(self.biz_ids) else self.biz_ids}

    def _warn_of_unknown_slots(self, output_slots: Sequence[str]) -> None:
        """Warn of slots that the campaign has not: their values may never come."""
        named = (*(self.required_slots or ()), *(getattr(self, "slots", None) or ()))
        for slot in dict.fromkeys(named):
            if output_slots and slot not in output_slots:
                log.warning(
                    "%r is not one of the campaign's output_slots%s: its values may never come",
                    slot,
                    did_you_mean(slot, output_slots),
                )

    def _push_plan_link(self, context: Context) -> None:
        """Push the address of the plan, where the campaign's manifest has one."""
        if isinstance(self.campaign, Mapping):
            push_plan_link(self, context["ti"], self.campaign.get("plan_url"))


def _query(sql: str, conn_id: Any, parameters: Any) -> dict[str, Any]:
    if parameters is not None and not isinstance(parameters, Mapping):
        parameters = list(parameters)
    return {"sql": sql, "conn_id": str(conn_id), "parameters": parameters}
