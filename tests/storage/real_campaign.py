"""A campaign out of table ``audience`` of connection ``warehouse``, the same for every real database."""

from __future__ import annotations

from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator
from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.conftest import Run


def check_campaign(run: Run, sandbox: SandboxProcess, *, input_params_columns: list[str]) -> None:
    """Submit its 2,500 rows; everybody is reached once, in order."""
    manifest = run.execute(
        LingyangSubmitBatchOperator(
            task_id="submit",
            plan_id=123,
            channel="sms",
            sql="SELECT * FROM audience WHERE price > %(least)s",
            sql_conn_id="warehouse",
            parameters={"least": 1},
            columns={
                "biz_id": "order_no",
                "phone_number": "mobile",
                "batch_num": "wave",
                "plan_execute_start_time": "starts",
            },
            input_params_columns=input_params_columns,
            output_slots=["intention"],
            batch_size=500,
        )
    )
    assert [batch["batch_num"] for batch in manifest["batches"]] == [str(n) for n in range(1, 13)]
    record = sandbox.record()
    assert record["executions"]["by_biz_id"] == {f"{n:05}": 1 for n in range(1, 2501)}
    assert record["executions"]["by_contact"]["10000000001"] == 1
    assert record["order_violations"] == []
