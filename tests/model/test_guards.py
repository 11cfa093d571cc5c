"""Without any of its safeguards the package breaks a promise, and the model finds it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.model import explore
from tests.model.guards import GUARDS
from tests.versions import AIRFLOW

pytestmark = [
    pytest.mark.at_length,
    pytest.mark.skipif(AIRFLOW < (3, 3), reason="some safeguards are those of the task state store"),
]

Found = dict[str, tuple[list[str], list[str]]]


@pytest.fixture(scope="module")
def found() -> Found:
    """Of each safeguard, what was found without it and with it."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.model.guards"],
        cwd=explore.ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    listed = json.loads(process.stdout[process.stdout.index("[\n") :])
    return {name: (without, whole) for name, without, whole in listed}


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_a_safeguard_that_is_taken_out_breaks_a_promise(found: Found, guard: Any) -> None:
    without, whole = found[guard.name]
    assert without, "the model does not need it"
    assert not whole, "it is broken with it, too"
