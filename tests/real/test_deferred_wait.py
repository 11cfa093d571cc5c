"""Waits that are deferred to a real triggerer: answered, out of time, killed, cleared, and too large for a trigger."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet

from airflow_provider_lingyang.sandbox import LOOKUP
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from airflow_provider_lingyang.sandbox.simulated_people import CHOICES, is_reached
from tests.conftest import AirflowConnection
from tests.helpers.airflow_processes import AirflowProcesses

POKE_INTERVAL = 0.5
"""As in the DAG file."""
LONG = 3600.0
BACKSTOP = 2.0
ROOM = 32_000
"""Bytes of a trigger's arguments, as they are stored; MySQL's column has 64 KB."""
BLOCKED = "Triggerer's async thread was blocked for"
"""What Airflow 3.3 writes when its event loop stood still for 0.2 s."""
CANCELLED = "Trigger cancelled by user action"
STILL_WAITED_FOR = {**RESULT_QUERY, "failed_values": []}
"""With this look-up people who are not reached are never finished."""
JOURNAL = """
    CREATE TABLE journal (
        number SERIAL, at DOUBLE PRECISION DEFAULT extract(epoch FROM clock_timestamp()),
        run_id TEXT, task_id TEXT, state TEXT, trigger_id INTEGER, arguments TEXT, next_method TEXT, next_kwargs TEXT
    );
    CREATE FUNCTION note() RETURNS trigger AS $$ BEGIN
        INSERT INTO journal (run_id, task_id, state, trigger_id, arguments, next_method, next_kwargs)
        VALUES (NEW.run_id, NEW.task_id, NEW.state, NEW.trigger_id,
            (SELECT kwargs FROM trigger WHERE id = NEW.trigger_id), NEW.next_method, NEW.next_kwargs::text);
        RETURN NEW;
    END $$ LANGUAGE plpgsql;
    CREATE TRIGGER note AFTER UPDATE ON task_instance FOR EACH ROW
        WHEN (NEW.next_method IS NOT NULL AND NEW.state IN ('deferred', 'scheduled')) EXECUTE FUNCTION note();
"""
"""Airflow forgets a trigger when it has fired, and an event when the task goes on."""


class Journal:
    """What Airflow's database ever held of deferrals.

    :param url: of that database.
    :param key: Airflow's Fernet key.
    """

    def __init__(self, url: str, key: str) -> None:
        self._db = psycopg.connect(url, autocommit=True)
        self._fernet = Fernet(key)

    def close(self) -> None:
        self._db.close()

    def keep(self) -> None:
        self._db.execute(JOURNAL)

    def _plain(self, stored: str) -> str:
        # As in Airflow's model of a trigger; 3.3 encrypts none that comes from a worker.
        return stored if stored.startswith("{") else self._fernet.decrypt(stored).decode()

    def deferrals(self, run_id: str) -> list[dict[str, Any]]:
        """Return ``at``, ``trigger_id``, ``size`` (stored) and ``arguments`` of a run's deferrals."""
        found = self._db.execute(
            "SELECT at, trigger_id, arguments FROM journal WHERE run_id = %s AND state = 'deferred' ORDER BY number",
            (run_id,),
        )
        return [
            {
                "at": at,
                "trigger_id": trigger,
                "size": len(stored),
                "arguments": json.loads(self._plain(stored)),
            }
            for at, trigger, stored in found
        ]

    def resumes(self, run_id: str) -> list[dict[str, Any]]:
        """Return ``at``, ``next_method`` and ``next_kwargs`` of a run's resumed tasks."""
        found = self._db.execute(
            "SELECT at, next_method, next_kwargs FROM journal WHERE run_id = %s AND state = 'scheduled' ORDER BY number",
            (run_id,),
        )
        return [
            {"at": at, "next_method": method, "next_kwargs": json.loads(kwargs)}
            for at, method, kwargs in found
        ]

    def trigger(self, trigger_id: int) -> dict[str, Any] | None:
        """Return the arguments of a trigger as they are now; None: it is gone."""
        row = self._db.execute("SELECT kwargs FROM trigger WHERE id = %s", (trigger_id,)).fetchone()
        found: dict[str, Any] | None = json.loads(self._plain(row[0])) if row else None
        return found

    def everything(self) -> tuple[int, str]:
        """Return how much there is of all runs, and it, as one text."""
        rows = self._db.execute("SELECT arguments, next_kwargs FROM journal").fetchall()
        texts = [self._plain(text) for row in rows for text in row if text]
        return len(texts), "\n".join(json.dumps(json.loads(text), ensure_ascii=False) for text in texts)


class Wait:
    """A DAG run of ``waits``, and what the gateway saw of it."""

    def __init__(
        self,
        airflow: AirflowProcesses,
        journal: Journal,
        gateway: tuple[str, SandboxProcess],
        wave: str,
        people: Sequence[str],
        *,
        dag_id: str = "waits",
        held: bool = True,
        **conf: Any,
    ) -> None:
        self.airflow, self.journal, self.wave, self.people = airflow, journal, wave, people
        self.path = f"/api/v2/dags/{dag_id}/dagRuns/{wave}"
        self.dag_id = dag_id
        name, self.sandbox = gateway
        self.held_person, self.with_them = people[:2]
        if held:
            self.hold()
        conf = {"wave": wave, "gateway": name, "timeout": LONG} | conf
        body = {"dag_run_id": wave, "logical_date": None, "conf": conf}
        airflow.api("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def hold(self) -> None:
        """Let look-ups of one person, and of who is in the same call, fail until the gateway's faults are cleared."""
        match = {"biz_id": self.held_person}
        self.sandbox.add_fault(kind="http", status=503, times=None, method="lookup", match=match)

    def task(self, task_id: str = "wait") -> dict[str, Any]:
        found: dict[str, Any] = self.airflow.api("GET", f"{self.path}/taskInstances/{task_id}")
        return found

    def until_state(self, state: str, patience: float = 60, *, task_id: str = "wait") -> None:
        def reached() -> bool:
            task = self.task(task_id)
            ended = task["state"] in ("success", "failed", "skipped", "upstream_failed")
            assert task["state"] == state or not ended, f"{self.wave}: {task['state']}, not {state}"
            return bool(task["state"] == state)

        self.airflow.until(reached, f"{task_id} of {self.wave} in state {state}", patience)

    def deferral(self, number: int = 0) -> dict[str, Any]:
        """Wait until it is deferred; return what of it was stored."""
        self.airflow.until(
            lambda: len(self.journal.deferrals(self.wave)) > number, f"deferral {number} of {self.wave}", 60
        )
        return self.journal.deferrals(self.wave)[number]

    def look_ups(self, since: float = 0.0) -> list[dict[str, Any]]:
        """The look-ups that arrived since a moment (epoch seconds)."""
        people = set(self.people)
        return [
            request
            for request in self.sandbox.record(executions=False)["requests"]
            if request["method"] == LOOKUP
            and request["received_at"] > since
            and people & set(request["biz_ids"])
        ]

    def asked(self, since: float = 0.0) -> Counter[str]:
        """How often each person was asked for since a moment."""
        return Counter(biz_id for request in self.look_ups(since) for biz_id in request["biz_ids"])

    def until_looks(self, count: int, since: float, patience: float = 30) -> None:
        """Wait until the held person was asked for so often since a moment."""
        what = f"look {count} of {self.wave}"
        self.airflow.until(lambda: self.asked(since)[self.held_person] >= count, what, patience)

    def until_failed_looks(self, count: int) -> None:
        """Wait until the trigger itself has counted so many look-ups that failed."""

        def counted() -> bool:
            return any(
                int(found) >= count for found in re.findall(r"failed, (\d+) so far", self.trigger_log())
            )

        self.airflow.until(counted, f"failed look {count} of the trigger of {self.wave}", 60)

    def until_trigger_is_gone(self, trigger_id: int) -> None:
        self.airflow.until(
            lambda: self.journal.trigger(trigger_id) is None and CANCELLED in self.trigger_log(),
            f"the end of the trigger of {self.wave}",
            20,
        )

    def value(self, task_id: str = "wait") -> dict[str, Any]:
        entry = self.airflow.api("GET", f"{self.path}/taskInstances/{task_id}/xcomEntries/return_value")
        value = entry["value"]
        found: dict[str, Any] = json.loads(value) if isinstance(value, str) else value
        return found

    def _log(self, task_id: str, names: str) -> str:
        folder = f"dag_id={self.dag_id}/run_id={self.wave}/task_id={task_id}"
        files = (self.airflow.home / "logs" / folder).glob(names)
        return "".join(path.read_text(errors="replace") for path in files)

    def trigger_log(self) -> str:
        return self._log("wait", "attempt=*.trigger.*")

    def message(self, task_id: str = "wait") -> str:
        """What the log of the first try says of a wait that was out of time."""
        log = self._log(task_id, "attempt=1.log")
        found = re.search(r"timed out after [^\"\\]*Waited for: [-\w]+", log)
        assert found is not None, log[-3000:]
        return found[0]

    def clear(self) -> None:
        body = {"dry_run": False, "dag_run_id": self.wave, "task_ids": ["wait"], "only_failed": False}
        path = f"/api/v2/dags/{self.dag_id}/clearTaskInstances"
        self.airflow.api("POST", path, body | {"reset_dag_runs": True})

    def is_complete(self) -> bool:
        """Whether the value is that of a wait that ended well."""
        counts, total = self.value()["counts"], len(self.people)
        reached = sum(is_reached(0, biz_id) for biz_id in self.people)
        assert counts["recipients"] == counts["finished"] == total, counts
        assert (counts["answered"], counts["not_reached"]) == (reached, total - reached)
        return True


def few(wave: str) -> list[str]:
    """Four people who are reached, and then one who is not."""
    people = [f"{wave}-{number}" for number in range(100)]
    reached = [biz_id for biz_id in people if is_reached(0, biz_id)]
    return [*reached[:4], next(biz_id for biz_id in people if biz_id not in reached)]


def many(wave: str, count: int, length: int) -> list[str]:
    return [f"{wave}-{number:04}-".ljust(length, "x") for number in range(count)]


def phone(wave: int, number: int) -> str:
    return f"139{wave:02}{number:06}"


LARGE = {
    "ledger": many("ledger", 1500, 40),
    "query": many("query", 1500, 40),
    "xcom": many("xcom", 1000, 60),
    "ids": many("ids", 1000, 60),
}
"""Where the ids come from → the people: more than XCom carries (1,000) or than a trigger does (30 KB)."""
OUT_OF_TIME: dict[str, tuple[dict[str, Any], str]] = {
    "fail": ({"on_incomplete": "fail"}, "failed"),
    "soft": ({"on_incomplete": "fail", "soft_fail": True}, "skipped"),
    "succeed": ({"on_incomplete": "succeed"}, "success"),
}
"""Name → how a wait ends that is out of time, and the task's state then."""
WAVES = {name: few(name) for name in ("answered", "killed", "late", "failed", "cleared")}
WAVES |= {f"{kind}-{name}": few(f"{kind}-{name}") for kind in ("alone", "timeout") for name in OUT_OF_TIME}
WAVES |= LARGE
PHONES = {phone(wave, number) for wave, people in enumerate(WAVES.values()) for number in range(len(people))}
CUSTOMER = "小明"


@pytest.fixture(scope="module")
def gates(
    airflow: AirflowProcesses, postgres_server: AirflowConnection
) -> Iterator[dict[str, tuple[str, SandboxProcess]]]:
    """Gateways for waits that go on at different times, and their connections: stored, not of the environment."""
    with ExitStack() as stack:
        found = {}
        for name in ("answered", "killed", "withheld", "many"):
            sandbox = stack.enter_context(SandboxProcess("--answer-after", "0"))
            query = RESULT_QUERY if name == "many" else {**RESULT_QUERY, "max_biz_ids": 2}
            store(airflow, f"gate_{name}", sandbox.connection(timeout=5, result_query=query))
            found[name] = (f"gate_{name}", sandbox)
        waves_db = airflow.home / "waves.db"
        with sqlite3.connect(waves_db) as db:
            db.execute("CREATE TABLE audience (wave TEXT, biz_id TEXT, phone_number TEXT, customer TEXT)")
            for wave, (name, people) in enumerate(WAVES.items()):
                rows = [(name, biz_id, phone(wave, n), f"{CUSTOMER}{n}") for n, biz_id in enumerate(people)]
                db.executemany("INSERT INTO audience VALUES (?, ?, ?, ?)", rows)
        db.close()
        store(airflow, "waves_db", {"conn_type": "sqlite", "host": str(waves_db)})
        store(airflow, "ledger_db", postgres_server)
        airflow.api("POST", "/api/v2/pools", {"name": "waits", "slots": 1})
        yield found


def store(airflow: AirflowProcesses, name: str, connection: dict[str, Any]) -> None:
    body = {"connection_id": name} | connection
    if "extra" in body:
        body["extra"] = json.dumps(body["extra"])
    airflow.api("POST", "/api/v2/connections", body)


def set_slots(airflow: AirflowProcesses, count: int) -> None:
    body = {"pool": "waits", "slots": count, "include_deferred": False}
    airflow.api("PATCH", "/api/v2/pools/waits?update_mask=slots", body)


@pytest.fixture(scope="module")
def journal(airflow: AirflowProcesses, database: str) -> Iterator[Journal]:
    found = Journal(
        database.replace("postgresql+psycopg2", "postgresql"), airflow.env["AIRFLOW__CORE__FERNET_KEY"]
    )
    found.keep()
    try:
        yield found
    finally:
        found.close()


@pytest.fixture(scope="module")
def start(
    airflow: AirflowProcesses, journal: Journal, gates: dict[str, tuple[str, SandboxProcess]]
) -> Callable[..., Wait]:
    airflow.until(lambda: airflow.has("/api/v2/dags/waits_twice"), "the DAGs", 60)

    def start(wave: str, gate: str, **how: Any) -> Wait:
        return Wait(airflow, journal, gates[gate], wave, WAVES[wave], **how)

    return start


@pytest.fixture(scope="module")
def alone(start: Callable[..., Wait]) -> dict[str, Wait]:
    """Waits that end while there is no triggerer."""
    return {
        name: start(
            f"alone-{name}",
            "answered",
            held=False,
            timeout=15.0,
            backstop=BACKSTOP,
            result_query=STILL_WAITED_FOR,
            **how,
        )
        for name, (how, _) in OUT_OF_TIME.items()
    }


@pytest.fixture(scope="module")
def waits(alone: dict[str, Wait], start: Callable[..., Wait]) -> dict[str, Wait]:
    """Waits that go on until their gateway's faults are cleared: begun together, because starting takes the time."""
    found = {
        "answered": start("answered", "answered", dag_id="waits_twice"),
        "failed": start("failed", "withheld"),
        "cleared": start("cleared", "withheld", dag_id="waits_in_a_pool"),
    }
    for name in LARGE:
        dag_id = {"ids": "waits_for_ids", "ledger": "waits_with_a_ledger"}.get(name, "waits")
        found[name] = start(name, "many", dag_id=dag_id)
    return found | {"killed": start("killed", "killed")}


@pytest.fixture(scope="module")
def triggerer(airflow: AirflowProcesses, waits: dict[str, Wait]) -> Iterator[None]:
    airflow.start_triggerer()
    waits["killed"].until_looks(1, since=waits["killed"].deferral()["at"], patience=60)
    yield
    airflow.kill_triggerer()


@pytest.fixture(scope="module")
def large_waits(
    waits: dict[str, Wait],
    triggerer: None,
    airflow: AirflowProcesses,
    gates: dict[str, tuple[str, SandboxProcess]],
) -> dict[str, Wait]:
    """Waits with many ids, after their triggers have asked for everybody."""
    found = {name: waits[name] for name in LARGE}
    for wait in found.values():
        deferred_at = wait.deferral()["at"]
        airflow.until(
            partial(lambda wait, at: set(wait.people) == set(wait.asked(at)), wait, deferred_at),
            f"a look at all of {wait.wave}",
            30,
        )
        assert wait.task()["state"] == "deferred"
    gates["many"][1].clear_faults()
    return found


@pytest.fixture(scope="module")
def out_of_time(triggerer: None, start: Callable[..., Wait]) -> dict[str, Wait]:
    return {
        name: start(
            f"timeout-{name}",
            "answered",
            held=False,
            dag_id="waits_twice",
            timeout=8.0,
            result_query=STILL_WAITED_FOR,
            **how,
        )
        for name, (how, _) in OUT_OF_TIME.items()
    }


def check_partial(value: dict[str, Any], people: Sequence[str]) -> None:
    assert value["counts"] == {
        "recipients": 5,
        "finished": 4,
        "answered": 4,
        "not_reached": 0,
        "waiting": 1,
        "unknown": 0,
        "foreign": 0,
    }
    assert value["results"].keys() == set(people[:4])
    assert sum(value["slots"]["intention"].values()) == 4


def expected_message(seconds: float, people: Sequence[str]) -> str:
    return (
        f"timed out after {seconds:g} s: 4 of 5 finished: 4 answered, 0 not reached; 1 waiting, 0 unknown to the "
        "gateway; not filled yet: intention 1; status in neither done_values nor failed_values: 'NOT_REACHED' 1; "
        f"5 had to be finished. Waited for: {people[4]}"
    )


def test_wait_without_a_triggerer_ends_as_at_the_deadline(
    alone: dict[str, Wait], waits: dict[str, Wait], journal: Journal
) -> None:
    for name, (_, state) in OUT_OF_TIME.items():
        wait = alone[name]
        wait.until_state(state)
        (deferral,), (resume,) = journal.deferrals(wait.wave), journal.resumes(wait.wave)
        assert (resume["next_method"], resume["next_kwargs"]) == ("__fail__", {"error": "Trigger timeout"})
        assert resume["at"] >= deferral["arguments"]["deadline"] + BACKSTOP
        assert wait.message() == expected_message(15, wait.people)
    check_partial(alone["succeed"].value(), alone["succeed"].people)


def test_a_wait_is_deferred_until_the_answers_are_there(
    waits: dict[str, Wait],
    out_of_time: dict[str, Wait],
    journal: Journal,
    gates: dict[str, tuple[str, SandboxProcess]],
) -> None:
    wait = waits["answered"]
    deferral = wait.deferral()
    wait.until_looks(6, since=deferral["at"])
    # The other task of the run asks for the same recipients, so the gateway cannot tell whose look failed.
    wait.until_failed_looks(2)
    assert wait.task()["state"] == "deferred"
    gates["answered"][1].clear_faults()
    wait.until_state("success")
    wait.until_state("success", task_id="poked")

    assert wait.is_complete()
    value = wait.value()
    assert value == wait.value("poked")
    assert value["results"].keys() == set(wait.people)
    assert {found["slots"]["intention"] for found in value["results"].values()} <= {*CHOICES, ""}
    assert deferral["size"] < 2000
    (resume,) = journal.resumes(wait.wave)
    event = resume["next_kwargs"]["event"]
    assert (event["status"], event["counts"]) == ("complete", value["counts"])
    assert event["failed_look_ups"] >= 2


@pytest.mark.parametrize("name", LARGE)
def test_more_ids_than_a_trigger_carries_are_found_there(large_waits: dict[str, Wait], name: str) -> None:
    wait = large_waits[name]
    (deferral,) = wait.journal.deferrals(wait.wave)
    assert len(json.dumps(wait.people)) > ROOM > deferral["size"]
    wait.until_state("success")
    assert wait.is_complete()
    assert (wait.value()["results"] is None) == (len(wait.people) > 1000)


def test_a_wait_that_is_out_of_time_ends_as_a_poke_does(
    out_of_time: dict[str, Wait], journal: Journal
) -> None:
    for name, (_, state) in OUT_OF_TIME.items():
        wait = out_of_time[name]
        wait.until_state(state)
        wait.until_state(state, task_id="poked")
        (deferral,), (resume,) = journal.deferrals(wait.wave), journal.resumes(wait.wave)
        assert resume["next_kwargs"]["event"]["status"] == "timeout"
        assert 0 <= resume["at"] - deferral["arguments"]["deadline"] < 5
        assert wait.message() == wait.message("poked") == expected_message(8, wait.people)
    wait = out_of_time["succeed"]
    assert wait.value() == wait.value("poked")
    check_partial(wait.value(), wait.people)


def test_ended_wait_polls_no_more_and_restarts_when_cleared(
    waits: dict[str, Wait],
    triggerer: None,
    airflow: AirflowProcesses,
    journal: Journal,
    gates: dict[str, tuple[str, SandboxProcess]],
) -> None:
    ended = failed, cleared = waits["failed"], waits["cleared"]
    first = [wait.deferral() for wait in ended]
    for wait, deferral in zip(ended, first, strict=True):
        wait.until_looks(2, since=deferral["at"])
    airflow.api("PATCH", f"{failed.path}/taskInstances/wait", {"new_state": "failed"})
    # Without a slot the task cannot begin anew before anybody could see that the wait has ended.
    set_slots(airflow, 0)
    cleared.clear()
    for wait, deferral in zip(ended, first, strict=True):
        wait.until_trigger_is_gone(deferral["trigger_id"])
    gone = time.time()
    # Another wait's looks are the clock; they are as far apart as these were.
    waits["killed"].until_looks(5, since=gone)
    assert [wait.look_ups(since=gone) for wait in ended] == [[], []]
    assert [wait.task()["state"] for wait in ended] == ["failed", "scheduled"]

    failed.clear()
    set_slots(airflow, 1)
    for wait, deferral in zip(ended, first, strict=True):
        second = wait.deferral(1)
        assert second["trigger_id"] != deferral["trigger_id"]
        # The time-out begins anew, too.
        assert second["arguments"]["deadline"] > gone + LONG
        assert second["arguments"]["started"] > gone
        wait.until_looks(2, since=second["at"])
    gates["withheld"][1].clear_faults()
    for wait in ended:
        wait.until_state("success")
        assert wait.is_complete()
        assert wait.task()["try_number"] == 2


def test_a_killed_triggerer_s_waits_go_on_in_the_next_one_until_the_same_deadline(
    waits: dict[str, Wait],
    triggerer: None,
    start: Callable[..., Wait],
    airflow: AirflowProcesses,
    journal: Journal,
    gates: dict[str, tuple[str, SandboxProcess]],
    summary: Callable[[str], None],
) -> None:
    wait = waits["killed"]
    late = start(
        "late",
        "killed",
        held=False,
        timeout=30.0,
        result_query=STILL_WAITED_FOR,
        on_incomplete="succeed",
    )
    before, late_before = wait.deferral(), late.deferral()
    wait.until_looks(2, since=late_before["at"])
    # Who is finished was asked for by the task, and by the trigger once.
    others = set(wait.people) - {wait.held_person, wait.with_them}
    assert wait.asked(before["at"]).keys() == set(wait.people)
    assert {wait.asked(before["at"])[biz_id] for biz_id in others} == {1}

    airflow.kill_triggerer()
    killed_at = time.time()
    airflow.start_triggerer()
    wait.until_looks(4, since=killed_at, patience=60)
    went_on = wait.look_ups(killed_at)[0]["received_at"]
    assert wait.task()["state"] == "deferred"
    assert journal.trigger(before["trigger_id"]) == before["arguments"]
    # What a trigger knew ends with it: who is finished is asked for once more, and not again and again.
    asked = wait.asked(killed_at)
    assert asked.keys() == set(wait.people)
    assert {asked[biz_id] for biz_id in others} == {1}

    late.until_state("success")
    (resume,) = journal.resumes(late.wave)
    deadline = late_before["arguments"]["deadline"]
    assert resume["next_kwargs"]["event"]["status"] == "timeout"
    assert resume["next_kwargs"]["event"]["deadline"] == deadline
    # At once where the next triggerer came only after it.
    assert 0 <= resume["at"] - max(deadline, went_on) < 5
    # One that began anew would come later than this; a machine that needs as long to start a triggerer cannot tell.
    if went_on < killed_at + 25:
        assert resume["at"] < killed_at + 30
    check_partial(late.value(), late.people)
    met_after = resume["at"] - late_before["arguments"]["started"]

    gates["killed"][1].clear_faults()
    wait.until_state("success")
    assert wait.is_complete()
    (deferral,), (resume,) = journal.deferrals(wait.wave), journal.resumes(wait.wave)
    assert resume["next_kwargs"]["event"]["deadline"] == deferral["arguments"]["deadline"]
    summary(
        f"Deferred waits: the triggerer killed with kill -9, the next one looked {went_on - killed_at:.0f} s later; "
        f"a deadline 30 s after the wait began was met {met_after:.1f} s after it began"
    )


def test_airflow_s_database_never_held_an_answer_or_a_contact(
    waits: dict[str, Wait], journal: Journal
) -> None:
    count, text = journal.everything()
    assert count >= 3 * len(waits)
    assert '"status": "complete"' in text
    assert not PHONES & set(re.findall(r"\d{11}", text))
    for word in (*CHOICES, CUSTOMER):
        assert word not in text


def test_blocking_of_the_triggerer_is_reported(
    airflow: AirflowProcesses, waits: dict[str, Wait], triggerer: None, summary: Callable[[str], None]
) -> None:
    spec = find_spec("airflow.jobs.triggerer_job_runner")
    assert spec is not None and spec.origin is not None
    assert BLOCKED in Path(spec.origin).read_text(), "Airflow says it in other words now"
    found = [
        float(seconds) for seconds in re.findall(rf"{BLOCKED} ([\d.]+) seconds", airflow.output("triggerer"))
    ]
    summary(
        f"Deferred waits: the triggerer's loop stood still {len(found)} times, {max(found, default=0):.2f} s at most"
    )
