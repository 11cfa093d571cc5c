"""Shared state of the sandbox: record, rules, settings and clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from airflow_provider_lingyang.sandbox.record import Record
from airflow_provider_lingyang.sandbox.rules import Rules


@dataclass
class SandboxState:
    """State and settings of one sandbox.

    :param record: requests and executed tasks; default in memory.
    :param dedupe: deduplicate by ``task_unique_code``: execute each code once. Default False: the platform documents
        no deduplication.
    :param answer_after: seconds after which the last recipient has a result.
    :param seed: decides the recipients' results.
    :param clock: returns epoch seconds.
    :param rules: the faults in force.
    """

    record: Record = field(default_factory=Record)
    dedupe: bool = False
    answer_after: float = 3.0
    seed: int = 0
    clock: Callable[[], float] = time.time
    rules: Rules = field(default_factory=Rules)

    def gateway_now(self) -> float:
        """Return the gateway's clock in epoch seconds: ``clock``, shifted by the switch of that name."""
        switch = self.rules.active_switch("clock")
        return self.clock() + (switch["seconds"] if switch else 0.0)
