"""The DAGs to be copied can be parsed, and warn about nothing."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "dags_examples").glob("*.py"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_can_be_parsed(file: Path) -> None:
    from airflow.providers.common.compat.sdk import BaseOperator

    (dag,) = {value.dag for value in runpy.run_path(str(file)).values() if isinstance(value, BaseOperator)}
    assert dag.dag_id == file.stem
    assert not dag.catchup
    assert dag.max_active_runs == 1


def test_there_are_examples() -> None:
    assert EXAMPLES
