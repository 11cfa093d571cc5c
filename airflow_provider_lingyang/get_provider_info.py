"""What Airflow's provider discovery reads. A pure dict: a wrong one breaks ``import airflow``."""

from __future__ import annotations

from typing import Any

from airflow_provider_lingyang.config.connection import CONN_TYPE
from airflow_provider_lingyang.config.connection_form import conn_fields, field_behaviour


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata."""
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
        "hooks": [
            {"integration-name": "Lingyang", "python-modules": ["airflow_provider_lingyang.hooks.lingyang"]}
        ],
        "operators": [
            {
                "integration-name": "Lingyang",
                "python-modules": ["airflow_provider_lingyang.operators.lingyang"],
            }
        ],
        "sensors": [
            {"integration-name": "Lingyang", "python-modules": ["airflow_provider_lingyang.sensors.lingyang"]}
        ],
        "triggers": [
            {
                "integration-name": "Lingyang",
                "python-modules": ["airflow_provider_lingyang.triggers.lingyang"],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "Lingyang",
                # Of apache-airflow-providers-common-sql, which this package needs anyhow.
                "target-integration-name": "Common SQL",
                "python-module": "airflow_provider_lingyang.transfers.lingyang_to_sql",
            }
        ],
        "extra-links": ["airflow_provider_lingyang.links.lingyang.LingyangPlanLink"],
        "asset-uris": [
            {"schemes": ["lingyang"], "handler": "airflow_provider_lingyang.assets.lingyang.sanitize_uri"}
        ],
        # What Airflow 2 calls them.
        "dataset-uris": [
            {"schemes": ["lingyang"], "handler": "airflow_provider_lingyang.assets.lingyang.sanitize_uri"}
        ],
        "task-decorators": [
            {
                "name": "lingyang_submit_batch",
                "class-name": "airflow_provider_lingyang.decorators.lingyang.lingyang_submit_batch",
            }
        ],
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
                    "spool_dir": {
                        "description": (
                            "Folder for the private copy of an audience while it is validated and sent "
                            "(about 370 MB per million rows). Default: the system's folder for temporary files."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": None,
                        "default": "",
                    },
                    "xcom_ids_limit": {
                        "description": (
                            "Up to this many accepted biz_ids are pushed as XCom by the submit operator, and this "
                            "many single results are returned by the sensor."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "1000",
                    },
                    "lookups_at_a_time": {
                        "description": (
                            "So many look-ups of one wait for results are under way at a time, at most. How fast they "
                            "follow each other is held back by the connection's max_requests_per_second."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "10",
                    },
                    "ledger_patience": {
                        "description": (
                            "For so many seconds, from the first failure on, a submission waits for a ledger that "
                            "cannot be read or written. It sends nothing meanwhile, keeps the outcomes of requests "
                            "under way, and goes on when the ledger is back. 0: it ends at once. Once the task was "
                            "asked to stop, 4 seconds are all there is."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "60",
                    },
                    "receiver_limit_patience": {
                        "description": (
                            "For so many seconds, from its first refusal for a limit of one receiver "
                            "(isv.BUSINESS_LIMIT_CONTROL) on, a campaign waits and sends the refused request again: "
                            "once a campaign, whatever becomes of its tries. "
                            "Then it sends the request's recipients one by one, where a look-up shows that none of "
                            "them was contacted."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "1800",
                    },
                },
            }
        },
    }
