"""What Airflow's provider discovery reads. A pure dict: a wrong one breaks ``import airflow``."""

from __future__ import annotations

from typing import Any

from airflow_provider_lingyang.config.connection import CONN_TYPE, conn_fields, field_behaviour
from airflow_provider_lingyang.config.options import OPTIONS


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
    uris = [{"schemes": ["lingyang"], "handler": "airflow_provider_lingyang.assets.lingyang.sanitize_uri"}]
    return {
        "package-name": "airflow-provider-lingyang",
        "name": "Lingyang customer service cloud",
        "description": "Campaigns that phone, text and mail customers through 瓴羊客服云 (Lingyang).",
        "integrations": [
            {
                "integration-name": "Lingyang",
                "external-doc-url": "https://open.taobao.com/",
                "tags": ["service"],
            }
        ],
        **{
            kind: [
                {
                    "integration-name": "Lingyang",
                    "python-modules": [f"airflow_provider_lingyang.{kind}.lingyang"],
                }
            ]
            for kind in ("hooks", "operators", "sensors", "triggers")
        },
        "transfers": [
            {
                "source-integration-name": "Lingyang",
                # Of apache-airflow-providers-common-sql, which this package needs anyhow.
                "target-integration-name": "Common SQL",
                "python-module": "airflow_provider_lingyang.transfers.lingyang_to_sql",
            }
        ],
        "extra-links": ["airflow_provider_lingyang.links.lingyang.LingyangPlanLink"],
        "asset-uris": uris,
        # What Airflow 2 calls them.
        "dataset-uris": uris,
        "task-decorators": [
            {
                "name": "lingyang_submit_batch",
                "class-name": "airflow_provider_lingyang.decorators.lingyang.lingyang_submit_batch",
            }
        ],
        # From Airflow 3.2 on; before, `python -m airflow_provider_lingyang.ledger` has the same commands.
        "cli": ["airflow_provider_lingyang.cli.definition.get_lingyang_cli_commands"],
        "connection-types": [
            {
                "hook-class-name": "airflow_provider_lingyang.hooks.lingyang.LingyangHook",
                "connection-type": CONN_TYPE,
                "hook-name": "Lingyang customer service cloud",
                "conn-fields": conn_fields(),
                "ui-field-behaviour": {
                    key.replace("_", "-"): value for key, value in field_behaviour().items()
                },
            }
        ],
        "config": {
            "lingyang": {
                "description": "Settings of the machine for Lingyang campaigns.",
                "options": {
                    name: {
                        "description": option.description,
                        "version_added": "0.1.0",
                        "type": "integer" if isinstance(option.default, int) else "string",
                        "example": None,
                        "default": str(option.default),
                    }
                    for name, option in OPTIONS.items()
                },
            }
        },
    }
