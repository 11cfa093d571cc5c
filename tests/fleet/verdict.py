"""Compares what the gateway, the ledger and the warehouse hold of a campaign, recipient by recipient."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

FINAL = {"ANSWERED", "NOT_REACHED"}
"""Statuses of a recipient in the warehouse."""


@dataclass(frozen=True)
class Request:
    """A request as the gateway recorded it.

    :param received_at: epoch seconds.
    :param ended_at: when it was answered, or its connection was lost; infinity: it is under way.
    """

    biz_ids: Sequence[str]
    batch_num: int
    received_at: float
    ended_at: float


@dataclass(frozen=True)
class CampaignFacts:
    """What is known of a finished campaign.

    :param shards: biz_id → its shard: the audience.
    :param executed: biz_id and phone number of each contact, in order.
    :param requests: those that submit, in order of arrival.
    :param ledger: biz_id and state of each row.
    :param warehouse: biz_id and status of each row.
    :param manifests: the counts of each shard.
    :param states: task instance → its last state.
    :param tries: task instance → how many.
    """

    name: str
    shards: Mapping[str, int]
    executed: Sequence[tuple[str, str]]
    requests: Sequence[Request]
    ledger: Sequence[tuple[str, str]]
    warehouse: Sequence[tuple[str, str]]
    manifests: Sequence[Mapping[str, int]]
    states: Mapping[str, str]
    tries: Mapping[str, int]


@dataclass(frozen=True)
class Verdict:
    """The figures of a campaign, and what is wrong with it.

    :param rate: recipients a second, from the first request to the last.
    :param by_hand: what a person has to do.
    """

    duplicates: int
    lost: int
    in_doubt: int
    disorder: int
    rate: float
    retried: Mapping[str, int]
    by_hand: Sequence[str]
    problems: Sequence[str]


def judge(facts: CampaignFacts) -> Verdict:
    """Compare everything."""
    audience = set(facts.shards)
    executed = [biz_id for biz_id, _ in facts.executed]
    accepted = [biz_id for biz_id, state in facts.ledger if state == "accepted"]
    landed = [biz_id for biz_id, status in facts.warehouse if status in FINAL]
    duplicates = max(repeated(executed), repeated(phone for _, phone in facts.executed))
    in_doubt = max(
        sum(state == "in_doubt" for _, state in facts.ledger),
        sum(counts["in_doubt"] for counts in facts.manifests),
    )
    by_hand = [f"clear {instance}" for instance, state in facts.states.items() if state == "failed"]
    by_hand += [f"settle what is in doubt of {in_doubt} recipients"] if in_doubt else []
    unfinished = {instance: state for instance, state in facts.states.items() if state != "success"}
    disorder = sum(1 for _ in out_of_order(facts))
    reached = sum(counts["accepted"] + counts["already_accepted"] for counts in facts.manifests)
    others = Counter(state for _, state in facts.ledger if state not in ("accepted", "in_doubt"))
    checks = [
        (duplicates, f"{duplicates} contacts were repetitions"),
        (in_doubt, f"{in_doubt} recipients are in doubt"),
        (disorder, f"{disorder} requests came before those of an earlier batch_num were answered"),
        (others, f"recipients of the ledger are neither accepted nor in doubt: {dict(others)}"),
        (by_hand, f"a person has to do something: {'; '.join(by_hand)}"),
        (unfinished, f"task instances did not succeed: {unfinished}"),
        (
            reached != len(audience),
            f"the manifests count {reached} accepted recipients of {len(audience)}",
        ),
    ]
    for where, found in (("gateway", executed), ("ledger", accepted), ("warehouse", landed)):
        missing, strangers = audience.difference(found), set(found) - audience
        checks += [
            (missing, f"the {where} lacks {len(missing)} recipients, such as {sorted(missing)[:3]}"),
            (strangers, f"the {where} holds {len(strangers)} strangers, such as {sorted(strangers)[:3]}"),
        ]
        if where != "gateway":
            checks.append((repeated(found), f"the {where} holds {repeated(found)} recipients again"))
    ends = [request.ended_at for request in facts.requests if request.ended_at < math.inf]
    sent_for = max(ends) - facts.requests[0].received_at if ends else 0.0
    return Verdict(
        duplicates=duplicates,
        lost=len(audience.difference(executed)),
        in_doubt=in_doubt,
        disorder=disorder,
        rate=len(executed) / sent_for if sent_for else 0.0,
        retried={instance: tries for instance, tries in facts.tries.items() if tries > 1},
        by_hand=by_hand,
        problems=[f"{facts.name}: {problem}" for wrong, problem in checks if wrong],
    )


def repeated(values: Iterable[str]) -> int:
    """Return how many values were there before."""
    return sum(times - 1 for times in Counter(values).values())


def out_of_order(facts: CampaignFacts) -> Iterator[Request]:
    """Yield each request that came before all of its shard's earlier ``batch_num`` had ended, or after a later one."""
    before: dict[int, list[Request]] = {}
    for request in sorted(facts.requests, key=lambda request: request.received_at):
        for shard in {facts.shards.get(biz_id, -1) for biz_id in request.biz_ids}:
            earlier = before.setdefault(shard, [])
            if any(
                other.batch_num > request.batch_num
                or (other.batch_num < request.batch_num and other.ended_at > request.received_at)
                for other in earlier
            ):
                yield request
            earlier.append(request)
