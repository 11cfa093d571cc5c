"""The example with an approval, as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[3] / "dags_examples" / "campaign_with_approval.py"
# Airflow looks for DAGs among the names of a module.
globals().update(runpy.run_path(str(EXAMPLE)))
