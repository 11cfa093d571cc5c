"""Which try of which task instance a process is."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_lingyang.identity import digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTry:
    """Which try of which task instance this is.

    :param max_tries: Airflow's own; grows with every Clear and with nothing else.
    :param resumed: whether it goes on after a deferral.
    :param loop_node: the loop around the task (Airflow 3.4), or None. Iterations share everything above.
    :param loop_index: the loop's iteration, from 0.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    max_tries: int | None = None
    resumed: bool = False
    loop_node: str | None = None
    loop_index: int | None = None

    @property
    def in_loop(self) -> bool:
        """Whether other iterations of a loop are task instances of the same campaign."""
        return self.loop_node is not None

    @property
    def task_instance_key(self) -> str:
        """The task instance, whatever its try: at most one process of it may send.

        The region of an iteration is no part of it: a Clear of a loop's gate brings an iteration back in another
        region, as try 1, and the process of the replaced one may still run.
        """
        iteration = (self.loop_node, self.loop_index) if self.in_loop else ()
        return digest(self.dag_id, self.run_id, self.task_id, self.map_index, *iteration)

    @property
    def run_key(self) -> str:
        """All task instances of this task in its DAG run, and in its iteration of a loop."""
        iteration = (self.loop_node, self.loop_index) if self.in_loop else ()
        return digest(self.dag_id, self.run_id, self.task_id, *iteration)

    @property
    def has_history(self) -> bool:
        """Whether this task instance must have been here before."""
        return self.resumed or self.try_number > 1
