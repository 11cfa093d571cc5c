"""Every history of a campaign up to a depth, through the package's own code: none breaks a promise.

With LINGYANG_PROOF in the environment it is at least ten times as many.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest

from tests.model import explore
from tests.versions import AIRFLOW

HAS_TASK_STATE = AIRFLOW >= (3, 3)
PROOF = bool(os.environ.get("LINGYANG_PROOF"))
_SHOWN = 5


@pytest.mark.at_length
def test_no_history_breaks_a_promise(summary: Callable[[str], None]) -> None:
    report = explore.spread("at length" if PROOF else "short", workers=2, task_state=HAS_TASK_STATE)
    summary(str(report))
    assert not report.broken, json.dumps(report.broken[:_SHOWN], indent=1, ensure_ascii=False)
    if HAS_TASK_STATE:
        assert report.distinct >= (20_000 if PROOF else 2_000)
