"""How a try opens its campaign: which generation, and whether it may go on with the settings that it has. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_lingyang.errors import LedgerRefusedError
from airflow_provider_lingyang.ledger.base import Header, Opening, RecordedRequest
from airflow_provider_lingyang.ledger.task_try import TaskTry

_SHOWN = 200
PRUNED = "pruned"
"""The fact that holds when a campaign's recipients were removed from the ledger."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign as the ledger knows it.

    :param finished: the task instance and ``max_tries`` of the submission that finished it, or None.
    :param has_reached: tells whether any recipient is accepted or rejected.
    :param in_doubt: gives the requests with recipients in doubt, of whatever task instance.
    :param has_other_senders: tells whether another task instance has sent, or may have, or is about to.
    """

    generation: int
    header: Header
    finished: tuple[str, int | None] | None
    has_reached: Callable[[], bool]
    in_doubt: Callable[[], Sequence[RecordedRequest]]
    has_other_senders: Callable[[], bool] = lambda: False
    facts: Mapping[str, Any] = field(default_factory=dict)


def in_doubt(requests: Iterable[RecordedRequest]) -> list[RecordedRequest]:
    """Return those with recipients in doubt, as they stand last."""
    latest = {request.task_unique_code: request for request in requests}
    return [request for request in latest.values() if request.in_doubt]


def changed_settings(before: Header, now: Header) -> list[str]:
    """Name the settings of which requests and derived ids are made, and that are others now."""
    return [
        name
        for name, was, is_now in (
            (f"host ({before.host}; now {now.host})", before.host, now.host),
            ("App key", before.app_key, now.app_key),
            ("App secret", before.key_fingerprint, now.key_fingerprint),
        )
        if was != is_now
    ]


def opening_of(
    found: Opened | None,
    header: Header,
    task_try: TaskTry,
    *,
    resubmit: bool,
    not_executed: Collection[str] = frozenset(),
) -> Opening:
    """Decide which generation a try belongs to, and whether it may go on with the settings that it has.

    See :meth:`Ledger.open`, of which this is the decision.

    :param found: the latest generation in the ledger.
    """
    if found is None:
        return Opening(1, identity_version=header.identity_version)
    if PRUNED in found.facts:
        # Whatever on_clear says: which recipients other runs have reached is known no more, either.
        raise LedgerRefusedError(
            f"the recipients of this campaign were removed from the ledger on {found.facts[PRUNED]} (`prune`), so "
            "nothing knows which were contacted, and nothing is sent. Send under another campaign_key (without one, "
            "in a new run), from an audience without those already reached"
        )
    # A retry after a crash between the end of a submission and the task's success finds it finished, too. Only Clear
    # raises max_tries: without that all recipients would be contacted twice.
    task_instance, max_tries = found.finished or (None, None)
    cleared = (
        task_instance == task_try.task_instance_key
        and None not in (max_tries, task_try.max_tries)
        and max_tries != task_try.max_tries
    )
    if resubmit and cleared:
        # The next generation knows nothing of this one: the next tries of those tasks would repeat their recipients.
        if found.has_other_senders():
            raise LedgerRefusedError(
                "on_clear='resubmit' would start the campaign anew for all recipients, and other tasks or runs with "
                "this campaign_key have sent to recipients of their own: their next try would contact these again. "
                "Clear with on_clear='reuse', or send to these recipients again under another campaign_key"
            )
        return Opening(found.generation + 1, identity_version=header.identity_version)
    opening = Opening(
        found.generation,
        changed_settings(found.header, header),
        identity_version=found.header.identity_version,
        facts=found.facts,
    )
    # A secret with a typo, or a wrong host, reached no recipient: correcting it must not end the campaign.
    if not opening.changed:
        return opening
    reached = found.has_reached()
    doubts = [] if reached else [each.settle_key for each in found.in_doubt()]
    if not reached and set(doubts) <= set(not_executed):
        return replace(opening, settled=doubts)
    words = json.dumps(dict.fromkeys(doubts[:_SHOWN], "not_executed"))
    more = f" and {len(doubts) - _SHOWN} more" if len(doubts) > _SHOWN else ""
    raise LedgerRefusedError(
        f"the campaign was begun with another {' and '.join(opening.changed)} than the connection has now: its "
        "requests and derived ids would be others, and recipients would be contacted twice. Put the old one back "
        "until the campaign is finished. "
        + (
            ""
            if reached
            else "Nothing is accepted or rejected so far: if the old one was wrong, and you have found out that none "
            f"of the {len(doubts)} request(s) in doubt was executed there, say so of all of them with "
            f"settle={words}{more} and clear the task: it then goes on with the new one. "
        )
        + "Else it takes a new campaign (a new run, or another campaign_key), "
        "which knows no recipient: leave out of its audience the recipients that are accepted or in doubt here (where "
        "the ledger is in a database, `python -m airflow_provider_lingyang.ledger show --conn-id … --campaign-key … "
        "--output json --biz-ids` shows them)"
    )
