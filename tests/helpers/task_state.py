"""Airflow's task state store in small."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


class StoreGone(Exception):
    """What Airflow's task state store raises is none of ours."""


class TaskStateStore:
    """As much of Airflow's as is used. One for all tries; each try has its own token."""

    values: dict[str, str]

    def __init__(self) -> None:
        self.values = {}
        self.fails: Callable[[str], bool] = lambda key: False

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.values[key]) if key in self.values else default

    def set(self, key: str, value: Any, *, retention: Any) -> None:
        if self.fails(key):
            raise StoreGone(key)
        self.values[key] = json.dumps(value)
