"""The same campaign with each ledger, one after the other; each has a gateway of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, chain

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

if TYPE_CHECKING:
    from airflow.sdk import Context


class WithoutLedger(LingyangSubmitBatchOperator):
    """Writes nothing down."""

    def execute(self, context: Context) -> dict[str, Any]:
        assert "task_state_store" in context
        return super().execute({**context, "task_state_store": None})  # type: ignore[typeddict-item]  # as Airflow 3.2


with DAG("campaign", schedule=None, max_active_runs=1):
    chain(
        *(
            operator(
                task_id=name,
                plan_id=123,
                channel="sms",
                sql="SELECT * FROM audience",
                sql_conn_id="audience",
                input_params_columns=["order_no"],
                output_slots=["answer"],
                batch_size=20,
                max_in_flight=8,
                lingyang_conn_id=f"gateway_{name}",
                **arguments,
            )
            for name, operator, arguments in (
                ("nothing", WithoutLedger, {}),
                ("task_state", LingyangSubmitBatchOperator, {}),
                ("sql", LingyangSubmitBatchOperator, {"ledger_conn_id": "ledger"}),
            )
        )
    )
