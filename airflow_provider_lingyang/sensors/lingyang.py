"""Wait until the people of a campaign have answered."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
)

from airflow_provider_lingyang import config
from airflow_provider_lingyang.campaign import arguments

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_lingyang.campaign.results import Answers
    from airflow_provider_lingyang.gateway.result_query import ResultQuery
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook

log = logging.getLogger(__name__)


class LingyangResultSensor(BaseSensorOperator):
    """Wait until enough of a campaign's people are finished, and return what they answered.

    A recipient is finished when its status is in the ``result_query``'s ``done_values`` or
    ``failed_values`` or, where the look-up gives no status, when every required slot is filled. People
    who were not reached are finished: counted, not an error. The platform has no public look-up for these
    tasks, so yours is described as data, in ``result_query``.

    *Whose answers*: one source

    :param campaign: the manifest of a ``LingyangSubmitBatchOperator`` of the same run:
        ``campaign=submit.output``. Templated.
    :param biz_ids: a list of ids. Templated.
    :param ids_sql: a SELECT whose only column is the ``biz_id``, or the path of a ``.sql`` file. Templated.
    :param ids_conn_id: connection of the database that ``ids_sql`` runs on. Templated.
    :param ids_parameters: bound to ``ids_sql``. Templated.

    *What counts*

    :param required_slots: slots that must be filled where there is no status. Default: the manifest's
        ``output_slots``.
    :param complete_ratio: share of the recipients that must be finished, in (0, 1]; 1.0 by default.
    :param result_query: how to look up; default: the connection's. Templated.
    :param lingyang_conn_id: the gateway's connection, ``lingyang_default`` by default. Templated.
    :param kwargs: Airflow's own: ``poke_interval``, ``timeout``, ``mode``, ``soft_fail`` …

    :return: ``counts`` (recipients, finished, answered, not_reached, waiting, unknown), ``slots`` (slot →
        value → number of people), and ``results`` (biz_id → state, status, task_id, slots) while they are
        at most ``[lingyang] xcom_ids_limit``, else null.
    :raises ArgumentError: at parse time, for arguments that cannot be right.
    :raises AirflowSkipException: the campaign was only validated.
    :raises AirflowFailException: nobody to wait for, or a look-up that no repetition can cure.
    """

    template_fields: Sequence[str] = (
        "campaign",
        "biz_ids",
        "ids_sql",
        "ids_conn_id",
        "ids_parameters",
        "result_query",
        "lingyang_conn_id",
    )
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers = {"ids_sql": "sql", "result_query": "json", "campaign": "json"}  # noqa: RUF012
    ui_color = "#d6f0ff"

    def __init__(
        self,
        *,
        campaign: Any = None,
        biz_ids: Any = None,
        ids_sql: str | None = None,
        ids_conn_id: str | None = None,
        ids_parameters: Iterable[Any] | Mapping[str, Any] | None = None,
        required_slots: Sequence[str] | None = None,
        complete_ratio: float = 1.0,
        result_query: Mapping[str, Any] | str | None = None,
        lingyang_conn_id: str = "lingyang_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.campaign = campaign
        self.biz_ids = biz_ids
        self.ids_sql = ids_sql
        self.ids_conn_id = ids_conn_id
        self.ids_parameters = ids_parameters
        self.required_slots = required_slots
        self.complete_ratio = complete_ratio
        self.result_query = result_query
        self.lingyang_conn_id = lingyang_conn_id
        self._answers: Answers | None = None
        # What a source renders to may be nothing; which one it is was said here.
        self._has_campaign = campaign is not None
        self._check_arguments()

    def _check_arguments(self) -> None:
        if sum(source is not None for source in (self.campaign, self.biz_ids, self.ids_sql)) != 1:
            raise arguments.ArgumentError(
                "give one source of ids: campaign=submit.output, biz_ids, or ids_sql (with ids_conn_id)"
            )
        if (self.ids_sql is None) != (self.ids_conn_id is None):
            raise arguments.ArgumentError("ids_sql and ids_conn_id belong together")
        ratio = self.complete_ratio
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 < ratio <= 1:
            raise arguments.ArgumentError(f"complete_ratio must be in (0, 1]; it is {ratio!r}")
        if self.required_slots is not None:
            arguments.check_names("required_slots", self.required_slots)

    def poke(self, context: Context) -> PokeReturnValue | bool:
        """Look up everybody who is not finished, and say whether that is enough."""
        from airflow_provider_lingyang.gateway.errors import LingyangError, Replay
        from airflow_provider_lingyang.hooks.lingyang import LingyangHook

        hook = LingyangHook(self.lingyang_conn_id)
        try:
            if self._answers is None:
                self._answers = self._new_answers(context, self._query(hook))
            answers = self._answers
            answers.update(hook.fetch_results(answers.pending(), result_query=answers.query))
        except arguments.ArgumentError as error:
            raise AirflowFailException(str(error)) from None
        except LingyangError as error:
            if error.replay is Replay.NEVER:
                raise AirflowFailException(f"the look-up cannot work: {error}") from None
            # The campaign goes on whatever happens to a look-up: the next poke asks again.
            log.warning("this look-up failed, the next poke asks again: %s", error)
            return False
        finally:
            hook.close()
        verdict = answers.verdict(self.complete_ratio)
        log.info("%s", verdict)
        if not verdict.complete:
            return False
        few = len(answers.biz_ids) <= config.xcom_ids_limit()
        value = {
            "counts": verdict.counts,
            "slots": verdict.slots,
            "results": answers.results() if few else None,
        }
        return PokeReturnValue(is_done=True, xcom_value=value)

    def _query(self, hook: LingyangHook) -> ResultQuery:
        from airflow_provider_lingyang.gateway.result_query import ResultQuery

        if self.result_query is not None:
            return ResultQuery.parse(self.result_query, where=f"task {self.task_id!r}")
        query = hook.result_query
        if query is None:
            raise arguments.ArgumentError(
                f"no look-up is described: give the sensor or connection {self.lingyang_conn_id!r} a result_query "
                "(the platform has no public look-up for these tasks)"
            )
        return query

    def _new_answers(self, context: Context, query: ResultQuery) -> Answers:
        from airflow_provider_lingyang.campaign.results import Answers

        ids = self._ids(context)
        slots = self.required_slots
        if slots is None:
            slots = self.campaign["output_slots"] if self._has_campaign else []
        if query.status_field and not (query.done_values or query.failed_values):
            raise arguments.ArgumentError(
                "result_query: a status_field needs done_values or failed_values, or nobody ever finishes"
            )
        if not slots and not query.status_field:
            raise arguments.ArgumentError(
                "nothing can tell who is finished: give required_slots, or the result_query a status_field"
            )
        if len(set(ids)) < len(ids):
            raise arguments.ArgumentError(
                f"{len(ids) - len(set(ids))} of the {len(ids)} biz_ids are there twice"
            )
        return Answers(ids, query, slots)

    def _ids(self, context: Context) -> list[str]:
        from pydantic import TypeAdapter, ValidationError

        from airflow_provider_lingyang.gateway.field_types import Text

        try:
            # As the operator reads them: a NUMERIC 7.00 is the biz_id "7".
            return TypeAdapter(list[Text]).validate_python(list(self._raw_ids(context)))
        except ValidationError:
            raise arguments.ArgumentError(
                "a biz_id is missing, blank, or neither text nor a whole number"
            ) from None

    def _raw_ids(self, context: Context) -> Iterable[Any]:
        if self._has_campaign:
            return self._ids_of_campaign(context["ti"])
        if self.ids_sql is not None:
            ids = self._ids_by_sql(str(self.ids_conn_id), self.ids_sql, self.ids_parameters, None)
        elif isinstance(self.biz_ids, (str, bytes, Mapping)) or not isinstance(self.biz_ids, Iterable):
            raise arguments.ArgumentError(f"biz_ids must be a list; it is a {type(self.biz_ids).__name__}")
        else:
            ids = list(self.biz_ids)
        if not ids:
            raise arguments.ArgumentError("nothing to look up: the list of biz_ids is empty")
        return ids

    def _ids_of_campaign(self, ti: Any) -> Sequence[Any]:
        manifest = self.campaign
        if not _is_manifest(manifest):
            raise arguments.ArgumentError(
                "campaign must be the manifest of a LingyangSubmitBatchOperator: campaign=submit.output"
            )
        accepted = manifest["counts"]["accepted"] + manifest["counts"].get("already_accepted", 0)
        if not manifest["counts"]["audience"]:
            return []  # on_empty="succeed": nobody was asked, so everybody has answered
        if "validate_only" in manifest.get("reasons", {}).get("not_sent", {}):
            raise AirflowSkipException(
                f"campaign {manifest['campaign_key']!r} was validated only: nobody was asked"
            )
        if not accepted:
            raise arguments.ArgumentError(
                f"nothing to look up: campaign {manifest['campaign_key']!r} accepted nobody"
            )
        where = manifest["biz_ids"]
        if where["run_id"] != ti.run_id:
            raise arguments.ArgumentError(
                "the campaign is of another run, whose ids XCom cannot give: use ids_sql"
            )

        def pull(key: str) -> Any:
            return ti.xcom_pull(
                task_ids=where["task_id"], dag_id=where["dag_id"], key=key, map_indexes=where["map_index"]
            )

        ids = pull("biz_ids")
        if ids is None:
            query = pull("biz_ids_query")
            if query is None:
                raise arguments.ArgumentError(
                    f"{accepted} ids are more than XCom carries ([lingyang] xcom_ids_limit) and the submit task has "
                    "no query that gives them: use ids_sql, or raise the limit"
                )
            ids = self._ids_by_sql(query["conn_id"], query["sql"], query["parameters"], query["column"])
        if len(ids) != accepted:
            raise arguments.ArgumentError(
                f"the campaign accepted {accepted} people, but the submit task's query now gives {len(ids)} ids: "
                "use ids_sql with a query for those who were accepted, or raise [lingyang] xcom_ids_limit"
            )
        return list(ids)

    def _ids_by_sql(self, conn_id: str, sql: str, parameters: Any, column: str | None) -> list[Any]:
        from airflow_provider_lingyang.hooks.rows import stream_rows

        with stream_rows(conn_id, sql, parameters) as (names, rows):
            if column is None and len(names) != 1:
                raise arguments.ArgumentError(
                    f"ids_sql must select one column, the biz_id; it selects {', '.join(names)}"
                )
            position = 0 if column is None else [name.lower() for name in names].index(column.lower())
            return [row[position] for row in rows if row[position] is not None]


def _is_manifest(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and isinstance(value.get("counts"), Mapping)
        and all(isinstance(value["counts"].get(state), int) for state in ("audience", "accepted"))
        and isinstance(value.get("biz_ids"), Mapping)
        and {"dag_id", "run_id", "task_id", "map_index"} <= value["biz_ids"].keys()
        and isinstance(value.get("output_slots"), list)
    )
