"""Which try of which task instance a context stands for, in every version of Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_lingyang.ledger.task_try import TaskTry

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context


def task_try_of(task: BaseOperator, context: Context, *, resumed: bool) -> TaskTry:
    """Return the try that a context stands for.

    :param task: as it runs.
    :param resumed: whether it goes on after a deferral.
    """
    ti = context["ti"]
    map_index = -1 if ti.map_index is None else ti.map_index
    loop_node, loop_index = _iteration(task, context, map_index)
    return TaskTry(
        dag_id=ti.dag_id,
        run_id=ti.run_id,
        task_id=ti.task_id,
        map_index=map_index,
        try_number=ti.try_number,
        max_tries=getattr(ti, "max_tries", None),
        resumed=resumed,
        loop_node=loop_node,
        loop_index=loop_index,
    )


def _iteration(task: BaseOperator, context: Context, map_index: int) -> tuple[str | None, int | None]:
    """Return the loop around a task (Airflow 3.4) and its iteration, or twice None.

    The iteration comes from Airflow's context, the loop from the DAG. One of them is enough to be in a loop: other
    task instances of this task exist then, and may have sent.
    """
    node = _loop_around(task)
    loop: Any = context.get("loop")
    if loop is not None:
        return node or "", loop.index
    ti: Any = context["ti"]
    region = getattr(ti, "region_id", None)
    # Mapped instances outside loops have regions, too; their map_index distinguishes them.
    in_region = region is not None and region.int != 0 and map_index < 0
    if node is not None or in_region:
        return node or "", getattr(ti, "region_index", None)
    return None, None


def _loop_around(task: Any) -> str | None:
    group = getattr(task, "task_group", None)
    while group is not None:
        # Airflow's class is private. Nothing but a loop has a gate.
        if hasattr(group, "gate_task_id"):
            return str(group.node_id)
        group = group.parent_group
    return None
