"""What befalls the fleet, and whether it hit: each says what it met, or raises what it missed."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

from tests.fleet.processes import WORKERS, Fleet
from tests.fleet.servers import PLANS, SHARDS, Servers, audience
from tests.fleet.verdict import Request

POSTGRES_GONE, REDIS_GONE = 8.0, 7.0
"""Seconds."""


class Disturbances:
    """All of them, for a fleet and its servers; each prints what it met."""

    def __init__(self, fleet: Fleet, servers: Servers) -> None:
        self.fleet = fleet
        self.servers = servers
        self.missed: list[str] = []
        """Those that did not meet what they were meant for."""
        self._shards = {
            plan_id: {biz_id: shard for biz_id, (shard, *_) in audience(plan_id, servers.size).items()}
            for plan_id in PLANS.values()
        }

    def _report(self, text: str, *missed: tuple[bool, str]) -> None:
        """Print what a disturbance met, and keep what it missed."""
        print(f"  {text}", flush=True)
        self.missed += [what for has_missed, what in missed if has_missed]

    def _requests(self, plan_id: int, shards: Collection[int] = range(SHARDS)) -> list[Request]:
        return [
            request
            for request in self.servers.gateway.requests(plan_id)
            if self._shards[plan_id][request.biz_ids[0]] in shards
        ]

    def wait_for_share(self, dag_id: str, share: float) -> None:
        """Wait until so much of a campaign has been sent."""
        need = share * self.servers.size
        self.fleet.until(
            lambda: self.servers.gateway.contacted(PLANS[dag_id]) >= need, f"{share:.0%} of {dag_id}"
        )

    def kill_worker(self, dag_id: str) -> list[int]:
        """Kill a worker with all its descendants in the middle of sending; return the shards that it sent."""
        plan_id = PLANS[dag_id]

        def busiest() -> tuple[str, list[int]] | None:
            found = {name: self.fleet.running_on(name, dag_id) for name in WORKERS}
            name = max(found, key=lambda name: len(found[name]))
            return (name, found[name]) if found[name] else None

        name, shards = self.fleet.until(busiest, f"a worker that sends {dag_id}")
        before = time.time()
        self.fleet.kill(name)
        after = time.time()
        open_requests = [
            request
            for request in self._requests(plan_id, shards)
            if request.received_at < before and request.ended_at > before
        ]
        late = [request for request in self._requests(plan_id, shards) if request.received_at > after]
        self._report(
            f"{name} killed with all its processes: it sent shards {shards}, {len(open_requests)} requests under way",
            (not open_requests, f"{name} was killed while no request of its shards was under way"),
            (bool(late), f"{name} was killed, and {len(late)} requests of its shards arrived afterwards"),
        )
        return shards

    def wait_for_recovery(self, dag_id: str, shards: Collection[int]) -> None:
        """Wait until each of some shards, whose task was killed, is sent by its next try."""
        known = len(self._requests(PLANS[dag_id], shards))
        seen = {}

        def sending() -> bool:
            tries = {each["map_index"]: each["try_number"] for each in self.fleet.instances(dag_id, "submit")}
            if all(tries[shard] > 1 for shard in shards):
                seen["requests"] = len(self._requests(PLANS[dag_id], shards))
            return seen.get("requests", 0) > known

        self.fleet.until(sending, f"the next try of shards {shards}")

    def restart_postgres(self, dag_id: str) -> None:
        """Stop PostgreSQL in the middle of sending, and start it again after a while."""
        began = time.time()
        self.servers.postgres.stop("fast")
        gone_at = time.time()
        self.fleet.wait(POSTGRES_GONE)
        back_at = time.time()
        self.servers.start_postgres()
        requests = self._requests(PLANS[dag_id])
        answered = [
            request
            for request in requests
            if request.received_at < gone_at and gone_at < request.ended_at < back_at
        ]
        left = self.servers.size - self.servers.gateway.contacted(PLANS[dag_id])
        self._report(
            f"PostgreSQL stopped (in {gone_at - began:.1f} s) and gone for {back_at - gone_at:.1f} s: {len(answered)} "
            f"requests were answered meanwhile, {left} recipients were not sent yet",
            (not answered, f"no request of {dag_id} was answered while PostgreSQL was away"),
            (not left, f"{dag_id} was sent before PostgreSQL was stopped"),
        )

    def restart_redis(self, dag_id: str) -> None:
        """Stop Redis in the middle of sending, and start it again after a while."""
        self.servers.redis.stop()
        gone_at = time.time()
        self.fleet.wait(REDIS_GONE)
        answers = self.servers.redis.answers()
        back_at = time.time()
        self.servers.redis.start()
        sent = [
            request for request in self._requests(PLANS[dag_id]) if gone_at < request.received_at < back_at
        ]
        self._report(
            f"Redis gone for {back_at - gone_at:.1f} s: {len(sent)} requests were sent meanwhile",
            (answers, "Redis answered although it was stopped"),
            (not sent, f"no request of {dag_id} was sent while Redis was away"),
        )

    def restart_triggerer(self, dag_id: str) -> None:
        """Kill the triggerer while it waits for results, and have the keeper start it again."""

        def deferred() -> list[dict[str, Any]]:
            return [each for each in self.fleet.instances(dag_id, "wait") if each["state"] == "deferred"]

        def triggered() -> bool:
            return len([each for each in deferred() if each["triggerer_job"]]) == SHARDS

        self.fleet.until(triggered, f"the deferred waits of {dag_id}")
        self.fleet.kill("triggerer")
        # Nothing but another triggerer can end them.
        left = len(deferred())
        self._report(
            f"triggerer killed: {left} waits of {dag_id} were deferred",
            (not left, f"no wait of {dag_id} was deferred when the triggerer was killed"),
        )
        self.servers.consumer.is_held = False
