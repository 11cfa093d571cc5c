"""Runs one schedule against a sandbox, and says what was wrong about it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tries
from schedules import AMBIGUOUS, GATEWAY, IN_DOUBT_BY, LOOKUPS, SETTLE, SWITCHES, TIMEOUT, Schedule, row
from tries import Plan

from airflow_provider_lingyang.sandbox.process import SandboxProcess

_HANGS = 30.0
_LAST_TRIES = 10
_STATES = ("accepted", "already_accepted", "rejected", "invalid", "not_sent", "in_doubt")


class World:
    """The sandboxes of one process; each keeps its record over a restart, and its address.

    :param folder: where everything lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sandboxes: dict[bool, SandboxProcess] = {}

    def sandbox(self, *, dedupe: bool) -> SandboxProcess:
        if dedupe not in self._sandboxes:
            options = ["--answer-after", "0", "--store", str(self.folder / f"record-{dedupe}.db")]
            if dedupe:
                options.append("--dedupe")
            self._sandboxes[dedupe] = SandboxProcess(*options, port=_free_port()).start()
        return self._sandboxes[dedupe]

    def close(self) -> None:
        for sandbox in self._sandboxes.values():
            sandbox.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Report:
    """What came of a schedule."""

    seed: int
    violations: list[str] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    kills: int = 0
    settled: int = 0
    in_doubt: int = 0
    duplicates: int = 0
    lost: int = 0
    order_violations: int = 0
    seconds: float = 0.0

    @property
    def hard(self) -> bool:
        """Whether a kill in the middle of sending, or an ambiguous answer, was part of it."""
        return bool(self.kills or AMBIGUOUS & set(self.fired))


class Run:
    """One schedule, try after try."""

    def __init__(self, schedule: Schedule, world: World, patches: tuple[Any, ...] = ()) -> None:
        self.schedule = schedule
        self.report = Report(schedule.seed)
        self.folder = world.folder / f"schedule-{schedule.seed}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.sandbox = world.sandbox(dedupe=schedule.mode == "dedupe")
        self.patches = patches
        self.rng = random.Random(schedule.seed)
        self.rows = list(schedule.rows)
        self.arguments = dict(schedule.arguments)
        self.try_number, self.max_tries, self.token = 0, 3, 0
        self.generation = 1
        self.emptied = False
        self.executed_when_emptied: set[str] = set()
        self.settle: dict[str, str] = {}
        self.forgone: set[str] = set()
        self.rules: dict[int, str] = {}
        self.new_ids = 600

    # --- one try ------------------------------------------------------------------------------------------

    def plan(self, events: dict[str, int] | None = None, *, resumed: bool = False, **connection: Any) -> Plan:
        if not resumed:
            self.try_number += 1
        self.token += 1
        self.report.tries += 1
        extra = {"timeout": TIMEOUT, "lookup_settle": SETTLE}
        if self.schedule.mode != "look up":
            extra["result_query"] = None
        if self.schedule.mode == "dedupe":
            extra["dedupes_by_code"] = True
        arguments = dict(self.arguments)
        if self.settle and self.schedule.ledger != "none":
            arguments["settle"] = dict(self.settle)
        for name in ("manifest", "biz_ids"):
            (self.folder / f"xcom-{name}.json").unlink(missing_ok=True)
        return Plan(
            self.folder,
            self.schedule.ledger,
            list(self.rows),
            arguments,
            self.sandbox.connection(**extra) | connection,
            self.try_number,
            self.max_tries,
            self.token,
            resumed,
            events or {},
            self.schedule.seed * 100 + self.token,
            self.patches,
        )

    def start(self, plan: Plan) -> int:
        return tries.fork(plan)

    def end(self, pid: int, plan: Plan) -> str:
        """Wait for a try; return how it ended."""
        ended = tries.wait(pid, time.monotonic() + _HANGS)
        if ended == "hung":
            self.wrong(f"try {plan.try_number} hung")
        if ended == "killed":
            self.report.kills += 1
        if ended == "ended":
            return str(self.said(plan).get("how", "crashed"))
        return ended

    def said(self, plan: Plan) -> dict[str, Any]:
        path = self.folder / f"said-{plan.token}.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        if found.get("how", "crashed") == "crashed":
            self.wrong(f"try {plan.try_number} crashed: {found.get('message', 'see its log')}")
        if "unforeseen" in found.get("message", ""):
            self.wrong(f"try {plan.try_number}: {found['message']}")
        return found

    def manifest(self) -> dict[str, Any] | None:
        path = self.folder / "xcom-manifest.json"
        return json.loads(path.read_text()) if path.exists() else None

    def wrong(self, what: str) -> None:
        self.report.violations.append(what)

    # --- a try in which something goes wrong ----------------------------------------------------------------

    def faulty(self, faults: list[tuple[str, int]], events: dict[str, int]) -> str:
        for name, after in faults:
            rule = dict((GATEWAY | LOOKUPS)[name])
            if name in LOOKUPS:
                rule["times"] = None
            elif name not in SWITCHES:
                rule = {"after": after, "method": "submit", **rule}
            self.rules[self.sandbox.add_fault(**rule)["id"]] = name
        away = "gateway away" in events
        if away:
            self.sandbox.stop()
            self.report.fired["gateway away"] += 1
        inner = {name: when for name, when in events.items() if name in _INNER}
        plan = self.plan(inner)
        pid = self.start(plan)
        if "gateway restarted" in events and not away:
            time.sleep(self.rng.uniform(0.0, 0.15))
            self.count_fired()
            self.sandbox.kill()
            self.sandbox.start()
            self.report.fired["gateway restarted"] += 1
        how = self.end(pid, plan)
        if away:
            self.sandbox.start()
        if how == "stopped":
            # Its retry starts and ends while it sleeps; then it wakes up, and must find itself replaced.
            retry = self.plan()
            how = self.end(self.start(retry), retry)
            manifest = self.manifest()
            os.kill(pid, signal.SIGCONT)
            self.end(pid, plan)
            if manifest is not None:
                (self.folder / "xcom-manifest.json").write_text(json.dumps(manifest))
        self.count_fired()
        self.sandbox.clear_faults()
        return how

    def count_fired(self) -> None:
        for rule in self.sandbox.faults():
            if rule["id"] in self.rules and (rule["fired"] or rule["affected"]):
                self.report.fired[self.rules[rule["id"]]] += max(1, rule["fired"])
        self.rules.clear()

    def between(self, name: str) -> None:
        """Let happen what happens between two tries."""
        if name == "ledger emptied":
            self.executed_when_emptied = set(self.executions())
            self.emptied = True
            tries.empty(self.plan_without_try())
        elif name == "secret rotated":
            before = len(self.submits())
            plan = self.plan(password="CANARY-rotated-secret")
            self.end(self.start(plan), plan)
            if len(self.submits()) > before and self.executions():
                self.wrong("a request left after the secret had been changed under an open campaign")
        elif name == "audience changed":
            self.change_audience()
        elif name == "batch size changed":
            self.arguments["batch_size"] = self.rng.randint(1, 6)
        elif name in ("cleared", "resubmitted"):
            self.max_tries += 3
            if name == "resubmitted":
                self.arguments["on_clear"] = "resubmit"
        elif name == "two workers":
            first, second = self.plan(), self.plan()
            second.try_number = first.try_number
            self.try_number = first.try_number
            pids = [self.start(first), self.start(second)]
            for pid, plan in zip(pids, (first, second), strict=True):
                self.end(pid, plan)
        self.report.fired[name] += 1

    def plan_without_try(self) -> Plan:
        plan = self.plan()
        self.try_number -= 1
        self.report.tries -= 1
        return plan

    def change_audience(self) -> None:
        kept = [one for one in self.rows if self.rng.random() > 0.15]
        kept = [one | {"user_name": "CANARY edited"} if self.rng.random() < 0.2 else one for one in kept]
        for _ in range(self.rng.randint(0, 4)):
            self.new_ids += 1
            kept.append(row(self.new_ids, str(self.rng.randint(1, 6))))
        self.rng.shuffle(kept)
        self.rows = kept or self.rows

    # --- what the gateway saw ---------------------------------------------------------------------------

    def executions(self) -> dict[str, int]:
        found: dict[str, int] = self.sandbox.record(requests=False)["executions"]["by_biz_id"]
        return found

    def submits(self) -> list[dict[str, Any]]:
        return [
            r for r in self.sandbox.record(executions=False)["requests"] if r["method"].endswith("batch.task")
        ]

    def valid(self) -> set[str]:
        return {one["biz_id"] for one in self.rows if "CANARY" not in one["phone_number"]}

    # --- judging ------------------------------------------------------------------------------------------

    def judge_try(self, how: str) -> None:
        executions = self.executions()
        manifest = self.manifest()
        if manifest is None:
            if how not in ("killed", "stopped", "hung"):
                self.wrong("a try that was not killed left no manifest")
            return
        self.generation = max(self.generation, manifest["generation"])
        counts = manifest["counts"]
        if counts["audience"] != sum(counts[state] for state in _STATES) or min(counts.values()) < 0:
            self.wrong(f"the counts do not add up: {counts}")
        if not counts["audience"] or how in ("killed", "stopped"):
            return
        reached = len(self.valid() & (set(executions) | self.forgone))
        accepted = counts["accepted"] + counts["already_accepted"]
        if self.generation == 1 and not self.emptied:
            if accepted > reached:
                self.wrong(f"{accepted} are called accepted, {reached} were executed")
            if reached > accepted + counts["in_doubt"]:
                self.wrong(
                    f"{reached} were executed, only {accepted} + {counts['in_doubt']} in doubt are known: {counts}"
                )
        self.report.in_doubt = max(self.report.in_doubt, counts["in_doubt"])
        if self.schedule.mode == "blind" and not self.emptied:
            kills = sum(self.report.fired[name] for name in IN_DOUBT_BY)
            ambiguous = sum(self.report.fired[name] for name in AMBIGUOUS)
            in_flight = self.arguments["max_in_flight"]
            # A slow answer or a lost gateway meets every request that is under way.
            bound = 2 * in_flight * kills + in_flight * ambiguous
            if len(manifest["in_doubt"]) > bound:
                self.wrong(f"{len(manifest['in_doubt'])} requests are in doubt, more than {bound}")

    def learn_truth(self) -> None:
        """Settle requests in doubt as a person would who looks at the console: truthfully."""
        manifest = self.manifest() or {}
        submits = self.submits()
        for doubt in manifest.get("in_doubt", []):
            code = doubt["task_unique_code"]
            if code == "*":
                if not self.executed_when_emptied:
                    self.settle[doubt["settle"]] = "not_executed"
                continue
            asked = {biz_id for r in submits if r["task_unique_code"] == code for biz_id in r["biz_ids"]}
            reached = asked & set(self.executions())
            self.settle[doubt.get("settle", code)] = "accepted" if reached else "not_executed"
            if reached:
                # One word for a request of which the gateway took a part only: the author forgoes the others.
                self.forgone |= asked - reached
            self.report.settled += 1

    def run(self) -> Report:
        started = time.monotonic()
        self.sandbox.clear_faults()
        self.sandbox.reset()
        try:
            for one in self.schedule.tries:
                events = dict(one.events)
                between = [name for name in events if name not in (*_INNER, *_OUTER)]
                how = self.faulty(one.faults, {n: w for n, w in events.items() if n not in between})
                self.happened()
                self.judge_try(how)
                self.end_bans()
                if how == "deferred":
                    # The resume is no new try.
                    plan = self.plan(resumed=True)
                    self.judge_try(self.end(self.start(plan), plan))
                for name in between:
                    self.between(name)
            self.finish()
            self.judge_end()
        finally:
            self.report.seconds = time.monotonic() - started
        return self.report

    def end_bans(self) -> None:
        """Let the bans be over of which the ledger's database knows, as those of the gateway are."""
        if not (path := self.folder / "ledger.db").exists():
            return
        with closing(sqlite3.connect(path, timeout=20)) as db, suppress(sqlite3.Error):
            db.execute("UPDATE lingyang_ledger_pace SET banned_until = 0, submits_banned_until = 0")
            db.commit()

    def happened(self) -> None:
        path = self.folder / "happened"
        if path.exists():
            self.report.fired.update(path.read_text().split("\n")[:-1])
            path.unlink()

    def finish(self) -> None:
        """No fault any more: tries go on, and what nobody can look up is settled."""
        if self.schedule.ledger == "none":
            before = len(self.submits())
            if self.try_number:
                plan = self.plan()
                how = self.end(self.start(plan), plan)
                if how != "final" or len(self.submits()) > before:
                    self.wrong(
                        f"a later try without a ledger ended {how} and sent {len(self.submits()) - before}"
                    )
            return
        resumed = False
        for _ in range(_LAST_TRIES):
            plan = self.plan(resumed=resumed)
            how = self.end(self.start(plan), plan)
            self.judge_try(how)
            manifest = self.manifest() or {"counts": {"in_doubt": 1}, "in_doubt": []}
            if how == "success" and not manifest["counts"]["in_doubt"]:
                return
            resumed = how == "deferred"
            if (
                "the ledger knows nothing" in self.said(plan).get("message", "")
                and self.executed_when_emptied
            ):
                return  # Nobody can tell, and it says so: that is as far as it may go.
            # A second generation uses the ids of the first again, of which a look-up tells too little.
            if how != "deferred" and (self.schedule.mode != "look up" or self.generation > 1):
                self.learn_truth()
                self.max_tries += 3
        self.wrong(f"not finished after {_LAST_TRIES} tries without a fault: {how} {self.said(plan)}")

    def judge_end(self) -> None:
        executions = self.executions()
        record = self.sandbox.record(requests=False)
        twice = {biz_id: n for biz_id, n in executions.items() if n > self.generation}
        self.report.duplicates = len(twice)
        if twice:
            self.wrong(f"contacted too often (generation {self.generation}): {twice}")
        manifest = self.manifest()
        if self.schedule.ledger != "none" and manifest and not self.violated_by_design():
            counts = manifest["counts"]
            accepted = counts["accepted"] + counts["already_accepted"]
            valid = self.valid()
            self.report.lost = len(valid) - accepted - counts["rejected"]
            if self.report.lost or counts["not_sent"]:
                self.wrong(f"lost: {len(valid)} valid, {counts}")
            reached = len(valid & (set(executions) | self.forgone))
            if self.generation == 1 and reached != accepted:
                self.wrong(f"{accepted} are accepted, {reached} of them executed")
        overlaps = [v for v in record["order_violations"] if v["kind"] == "overlap"]
        late = (
            []
            if self.schedule.untidy or self.schedule.ledger == "none"
            else [v for v in record["order_violations"] if v["kind"] == "late"]
        )
        self.report.order_violations = len(overlaps) + len(late)
        if overlaps or late:
            self.wrong(f"out of order: {(overlaps + late)[:2]}")
        self.look_for_canaries()

    def violated_by_design(self) -> bool:
        return self.emptied and self.schedule.mode != "look up" and bool(self.executed_when_emptied)

    def look_for_canaries(self) -> None:
        for path in self.folder.iterdir():
            data = path.read_bytes()
            canaries = [b"CANARY", "客户".encode(), b"sandbox-secret", b"rotated-secret"]
            if path.name in ("log", "xcom-manifest.json", "state.db"):
                canaries += [b"10000009"]
            for canary in canaries:
                if canary in data:
                    where = data.index(canary)
                    self.wrong(f"{path.name} holds {data[max(0, where - 80) : where + 40]!r}")


_INNER = (
    "kill",
    "kill in flight",
    "pause",
    "ledger fails before",
    "ledger fails after",
    "outcome not written",
)
_OUTER = ("gateway restarted", "gateway away")


@contextmanager
def world(folder: Path) -> Iterator[World]:
    one = World(folder)
    try:
        yield one
    finally:
        one.close()
