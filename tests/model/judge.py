"""What may never be so, whatever happened."""

from __future__ import annotations

from collections.abc import Iterator

from airflow_provider_lingyang.ledger.sql_tables import ACCEPTED, REJECTED
from tests.model.events import LATE
from tests.model.world import DATABASE, RECIPIENTS, World
from tests.versions import AIRFLOW

_STATES = ("accepted", "already_accepted", "rejected", "invalid", "not_sent", "in_doubt")
_WAITED_OUT = {"ledger away for seconds", "commit lost"}


def violations(world: World) -> list[str]:
    """Return which promises the history breaks."""
    return [
        *_twice(world),
        *_counts(world),
        *_lost(world),
        *_order(world),
        *_after_the_end(world),
        *_outcomes_kept(world),
        *_lateness(world),
    ]


def _twice(world: World) -> Iterator[str]:
    for biz_id in RECIPIENTS:
        if (count := world.gateway.count(biz_id)) > 1:
            yield f"{biz_id} was contacted {count} times"


def _counts(world: World) -> Iterator[str]:
    known_accepted: set[str] = set()
    for one in world.processes.values():
        ended = one.ended
        name = one.process.name
        if ended is None:
            yield f"{name} did not end"
            continue
        if ended.how == "crashed" or "unforeseen" in ended.message:
            yield f"{name} {ended.how}: {ended.message}"
        if ended.how == "killed":
            continue
        if ended.manifest is None:
            yield f"{name} ended without a manifest: {ended.how} {ended.message}"
            continue
        counts = ended.manifest["counts"]
        if counts["audience"] != sum(counts[state] for state in _STATES) or min(counts.values()) < 0:
            yield f"{name}: the counts do not add up: {counts}"
        if not counts["audience"] or world.emptied:
            continue
        executed = world.gateway.executed()
        if ended.how == "deferred" and AIRFLOW == (3, 0):
            # No ids are pushed there before the end: those XComs would stay.
            continue
        accepted = set(ended.accepted_ids or ())
        if wrong := accepted - executed - world.forgone:
            yield f"{name} calls {sorted(wrong)} accepted, whom nothing contacted"
        if len(accepted) != counts["accepted"] + counts["already_accepted"]:
            yield f"{name}: {len(accepted)} ids, {counts}"
        if one is one.run.tries[-1]:
            known_accepted |= accepted
    if lost := known_accepted - world.gateway.executed() - world.forgone:
        yield f"{sorted(lost)} are accepted, and were never contacted"


def _lost(world: World) -> Iterator[str]:
    executed = world.gateway.executed()
    for run in world.runs:
        last = run.last
        if last is None:
            continue
        if not world.is_done(run):
            yield f"run {run.number} never ends: {last.how} {last.message} {last.manifest and last.manifest['counts']}"
            continue
        if last.how != "success" or last.manifest is None:
            continue
        counts = last.manifest["counts"]
        if counts["not_sent"]:
            yield f"run {run.number} succeeded, and did not send to all: {counts} {last.manifest['reasons']}"
        accepted = set(last.accepted_ids or ())
        others = set(RECIPIENTS) - accepted
        # Whom a ledger has as rejected that is gone, another run may send to: they were not contacted.
        if wrong := others & (_executed_before(world) if run is not world.runs[-1] else executed):
            yield f"run {run.number} calls {sorted(wrong)} rejected, who were contacted"
        if wrong := others - executed - world.gateway.refused:
            yield f"run {run.number} calls {sorted(wrong)} rejected, whom the gateway never refused"
    if world.setting.ledger == "sql" and not world.emptied:
        rows = DATABASE.rows("SELECT biz_id, state FROM lingyang_ledger_recipient")
        for biz_id, state in rows:
            if state == REJECTED and biz_id in executed:
                yield f"the ledger has {biz_id} as rejected, who was contacted"
            if state == ACCEPTED and biz_id not in executed | world.forgone:
                yield f"the ledger has {biz_id} as accepted, whom nothing contacted"


def _executed_before(world: World) -> set[str]:
    """Return whom the gateway has executed before the ledger was emptied, if it was."""
    return {each.biz_id for each in world.gateway.executions if each.at < world.emptied_at}


def _order(world: World) -> Iterator[str]:
    submissions = world.gateway.submissions
    for place, later in enumerate(submissions):
        for earlier in submissions[:place]:
            if earlier.by != later.by or earlier.batch_num == later.batch_num:
                continue
            if int(earlier.batch_num or 0) > int(later.batch_num or 0):
                yield f"{later.by}: batch_num {later.batch_num} left after {earlier.batch_num}"
            elif later.left_at < earlier.answered_at:
                yield f"{later.by}: batch_num {later.batch_num} left before {earlier.batch_num} was answered"


def _after_the_end(world: World) -> Iterator[str]:
    told = {one.process.name: one.told_at for one in world.processes.values()}
    for each in world.gateway.submissions:
        if each.left_at > told[each.by]:
            yield f"{each.by} sent although it had been asked to stop"


def _outcomes_kept(world: World) -> Iterator[str]:
    """A ledger that is away for seconds ends no try."""
    if {each.event.name for each in world.happened} <= _WAITED_OUT:
        for one in world.processes.values():
            if one.ended and one.ended.how != "success" and one.requests:
                yield f"{one.process.name} was ended by a ledger that was away for seconds: {one.ended.message}"


def _lateness(world: World) -> Iterator[str]:
    """A run that begins late contacts no recipient."""
    if any(each.event is LATE for each in world.happened) and world.gateway.executions:
        yield "a run that began late contacted recipients"
