"""A request in doubt, and a look-up that answers in some way: no recipient is contacted twice, and none is lost."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from airflow_provider_lingyang.sandbox.lookup_styles import Failure
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.helpers.campaigns import LOST, NOT_DONE, Campaign, connect, executions, recipients

PAGED = {"page_field": "page_no", "page_size_field": "page_size", "page_size": 2}
BY_CODE = {"success_field": "result.code", "success_values": ["200"]}

# How the look-up answers, more of the result_query, and whether it settles a request that was executed, and one that
# was not.
STYLES: list[tuple[dict[str, Any], dict[str, Any], bool, bool]] = [
    *(({"kind": "lookup_failed", "style": style}, {}, False, False) for style in get_args(Failure)),
    ({"kind": "lookup_without_flag"}, {}, True, False),
    ({"kind": "lookup_without_flag"}, BY_CODE, True, True),
    ({"kind": "lookup_ids", "style": "other_case"}, {}, False, True),
    ({"kind": "lookup_ids", "style": "strangers_only"}, {}, False, False),
    ({"kind": "lookup_ids", "style": "stranger_beside"}, {}, True, False),
    ({"kind": "lookup_dates", "style": "utc"}, {}, False, True),
    ({"kind": "lookup_dates", "style": "utc"}, {"created_at_zone": "UTC"}, True, True),
    ({"kind": "lookup_dates", "style": "utc_with_zone"}, {}, True, True),
    ({"kind": "lookup_dates", "style": "milliseconds"}, {}, True, True),
    *(
        ({"kind": "lookup_dates", "style": style}, {}, False, True)
        for style in ("year_1", "epoch", "none", "far_future")
    ),
    # What the first page leaves out, the second look asks for.
    ({"kind": "lookup_pages", "style": "total"}, {}, True, True),
    *(({"kind": "lookup_pages", "style": style}, PAGED, True, True) for style in ("total", "has_next")),
    ({"kind": "lookup_pages", "style": "page_size"}, {}, True, True),
    ({"kind": "lookup_pages", "style": "unsaid"}, {}, True, True),
    ({"kind": "lookup_pages", "style": "shifting"}, PAGED, True, True),
    *(
        ({"kind": "lookup_several", "style": style}, {}, True, True)
        for style in ("older_first", "older_last")
    ),
    ({"kind": "lookup_several", "style": "older_of_all"}, {}, True, True),
]


@pytest.mark.parametrize("fault", [LOST, NOT_DONE], ids=["executed", "not executed"])
@pytest.mark.parametrize(
    ("style", "query", "found", "absent"), STYLES, ids=[f"{s[0]} {sorted(s[1])}" for s in STYLES]
)
def test_no_recipient_is_contacted_twice_in_any_look_up_style(
    sandbox: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    style: dict[str, Any],
    query: dict[str, Any],
    found: bool,
    absent: bool,
) -> None:
    connect(sandbox, monkeypatch, result_query=RESULT_QUERY | query)
    sandbox.add_fault(**fault)
    sandbox.add_fault(**style, times=None)
    audience = recipients(3)
    settled = found if fault is LOST else absent
    campaign.next_try(*(() if settled else ("stops",)), audience=audience, batch_size=3)
    assert max(executions(sandbox).values(), default=0) <= 1
    if not settled:
        assert campaign.run.counts() == {"audience": 3, "in_doubt": 3}
        sandbox.clear_faults()
        connect(sandbox, monkeypatch)
        campaign.next_try(audience=audience, batch_size=3)
    assert executions(sandbox) == {"B1": 1, "B2": 1, "B3": 1}


def test_the_plan_says_what_the_look_up_proves(
    sandbox: SandboxProcess,
    campaign: Campaign,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for extra, said in (
        ({}, "that it was not, only where the answer holds a flag that says success"),
        ({"result_query": RESULT_QUERY | BY_CODE}, "that it was not, where result.code is 200"),
        ({"result_query": None}, "no result_query describes a look-up"),
    ):
        connect(sandbox, monkeypatch, **extra)
        with caplog.at_level("INFO"):
            campaign.next_try(audience=recipients(1), validate_only=True)
        assert said in campaign.run.manifest()["plan"]["look_up"]
        assert said in caplog.text
