"""One history: two runs of one campaign and what happens to them, through the package's own code."""

from __future__ import annotations

import copy
import importlib
import json
import pkgutil
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from tests.model import events
from tests.model.events import NORMAL, Answered, Event
from tests.model.gateway import (
    ANSWERS_IN,
    CONNECT,
    RESULTS,
    SETTLE,
    TIMEOUT,
    Dispatcher,
    Gateway,
    Reply,
    asked_of,
    struct_of,
)
from tests.model.ledgers import Away, Database, Hook, Points, Store, TaskState
from tests.model.simulated_time import CLOCK, EPOCH, KILLED_AFTER, Killed, Process, Scheduler

RECIPIENTS = ("Ab1", "002", "Cd3")
NEARLY_STALE = SETTLE / 2 - 0.5
"""Seconds: a little less than an intent lives with this ``lookup_settle``."""
A_WHILE = SETTLE / 2 + CONNECT + TIMEOUT + SETTLE - 3.0
"""Seconds: a little less than another task has to wait before it may count a look-up of this one's requests."""
LONG = 300.0
AWAY_FOR_SECONDS = 10.0
LAST_TRIES = 7
_SETTLE_LINE = re.compile(r"settle=\{([^{}]*)\}")
_WORD = re.compile(r"""["']([^"']+)["']: ["'](accepted|not_executed)["']""")


@dataclass(frozen=True)
class Setting:
    """What the author of the campaign has chosen, and what the platform is like.

    :param ledger: ``sql`` or ``task state``.
    :param look_up: ``flags``: its answers say that they are good and complete; ``dates``: also when each result was
        created; ``pages``: they come in pages of one result; ``bare``: they say nothing; ``none``: there is none.
    :param batches: the ``batch_num`` of each recipient.
    :param dedupes: the gateway executes a code once, and the connection says so.
    :param loop: the runs are iterations of a loop of Airflow 3.4.
    :param wrong_host: the first try has a host where nothing is ever executed; later it is put right.
    :param max_lateness: a task that begins later than an hour is skipped.
    """

    ledger: str = "sql"
    look_up: str = "flags"
    batches: str = "112"
    dedupes: bool = False
    on_in_doubt: str = "stop"
    loop: bool = False
    wrong_host: bool = False
    max_lateness: bool = False

    def __str__(self) -> str:
        more = [name for name in ("dedupes", "loop", "wrong_host", "max_lateness") if getattr(self, name)]
        more += ["on_in_doubt=continue"] if self.on_in_doubt == "continue" else []
        return ", ".join(
            [f"{self.ledger} ledger", f"look-up: {self.look_up}", f"batch_nums {self.batches}", *more]
        )


@dataclass
class Happened:
    """An event, where it happened."""

    where: str
    event: Event
    ids: Sequence[str] = ()

    def __str__(self) -> str:
        return f"{self.where}: {self.event}" + (f" {list(self.ids)}" if self.ids else "")


class Script:
    """Chooses among the events that are offered.

    :param choices: number of the question → number of the event; all others: nothing happens.
    """

    def __init__(self, choices: dict[int, int], only: Callable[[Event], bool] = lambda event: True) -> None:
        self._choices = choices
        self._only = only
        self.offered: list[Sequence[Event]] = []
        """The events of each question."""
        self.closed = False

    def choose(self, offered: Sequence[Event]) -> Event | None:
        if self.closed:
            return None
        offered = [event for event in offered if self._only(event)]
        if not offered:
            return None
        chosen = self._choices.get(len(self.offered), 0)
        self.offered.append(offered)
        return offered[chosen - 1] if chosen else None


@dataclass
class Ended:
    """How a try ended.

    :param how: success, deferred, skipped, final, failed, killed or crashed.
    """

    how: str
    message: str = ""
    manifest: dict[str, Any] | None = None
    accepted_ids: Sequence[str] | None = None


@dataclass
class Try:
    """A try of a run, and what came of it."""

    run: Run
    number: int
    process: Process
    commits: int = 0
    requests: int = 0
    look_ups: int = 0
    told_at: float = float("inf")
    ended: Ended | None = None
    pushed: dict[str, Any] = field(default_factory=dict)
    operator: Any = None
    resumed: bool = False


class Run:
    """A task instance."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.run_id = f"run{number}"
        self.state = TaskState()
        self.tries: list[Try] = []
        self.max_tries = 3

    @property
    def last(self) -> Ended | None:
        return self.tries[-1].ended if self.tries else None

    @property
    def succeeded(self) -> bool:
        return self.last is not None and self.last.how in ("success", "skipped")


REGION = UUID(int=1)
LOOP = SimpleNamespace(
    node_id="body", parent_group=SimpleNamespace(node_id=None, parent_group=None), gate_task_id="body.until"
)
HOUR = timedelta(hours=1)


class TaskInstance:
    """As much of Airflow's as is used."""

    dag_id, task_id, map_index = "dag", "submit", -1

    def __init__(self, one: Try, *, loop: bool) -> None:
        self.run_id = "run1" if loop else one.run.run_id
        if loop:
            self.region_id, self.region_index = REGION, one.run.number - 1
        self.try_number = one.number
        self.max_tries = one.run.max_tries
        self._one = one

    def xcom_push(self, key: str, value: Any) -> None:
        self._one.process.check()
        self._one.pushed[key] = json.loads(json.dumps(value))


DATABASE = Database()
_OPERATORS: dict[Setting, Any] = {}
CURRENT: list[World] = []


class World:
    """Plays one history.

    :param setting: how things are.
    :param script: what happens.
    """

    def __init__(self, setting: Setting, script: Script) -> None:
        from airflow_provider_lingyang.gateway.rate_limiter import forget_limiters

        forget_limiters()
        self.setting = setting
        self.script = script
        self.scheduler = CLOCK.scheduler = Scheduler()
        self.gateway = Gateway(dedupes=setting.dedupes)
        self.runs = [Run(1), Run(2)]
        self.happened: list[Happened] = []
        self.seen: list[tuple[Any, ...]] = []
        """What anybody could see of the history, in order: two histories of which it is the same are one."""
        self.words: dict[str, str] = {}
        self.forgone: set[str] = set()
        """Whom a person called accepted because others of their request were."""
        self.emptied = False
        self.emptied_at = float("inf")
        self.looks_work = False
        """Whether no look-up fails any more: a person has called not executed what may have been."""
        self.wrong_host = setting.wrong_host
        self.away = Away(lambda: self.scheduler.now)
        self.points = Points(self.before_write, self.after_write)
        self.processes: dict[Process, Try] = {}
        DATABASE.empty()
        CURRENT[:] = [self]

    @property
    def has_two_runs(self) -> bool:
        return self.setting.ledger == "sql" or self.setting.loop

    # --- what happens -------------------------------------------------------------------------------------

    def choose(self, where: str, offered: Sequence[Event], ids: Sequence[str] = ()) -> Event | None:
        event = self.script.choose(offered)
        if event is not None:
            self.happened.append(Happened(f"{where} at {self.scheduler.now:.1f} s", event, ids))
        return event

    def before_write(self, process: Process) -> None:
        one = self.processes[process]
        one.commits += 1
        event = self.choose(f"{process.name}, write {one.commits}", events.BEFORE_WRITE)
        self.seen.append((process.name, "writes", event and event.name))
        if event is None:
            return
        if event.name == "killed before the write":
            self.kill(process)
        else:
            away = AWAY_FOR_SECONDS if event.name.endswith("seconds") else LONG
            self.away.until = self.scheduler.now + away

    def after_write(self, process: Process) -> bool:
        one = self.processes[process]
        offered = [*events.AFTER_WRITE, *self.others(one, events.OTHERS, events.REPLACED), *events.PAUSES]
        event = self.choose(f"{process.name}, write {one.commits}", offered)
        if event is None:
            return False
        if event in events.AFTER_WRITE:
            self.seen.append((process.name, event.name))
        if event.name == "killed after the write":
            self.kill(process)
        elif event.name == "commit lost":
            return True
        elif event.name.startswith("SIGTERM"):
            self.terminate(one)
        elif event.name.startswith("time-out"):
            raise _time_out()
        else:
            self.disturb(one, event)
        return False

    def others(self, one: Try, begin: Sequence[Event], replace: Sequence[Event]) -> list[Event]:
        """Return what others may do while a try goes on."""
        offered: list[Event] = []
        if self.has_two_runs and not self.emptied and not self.runs[2 - one.run.number].tries:
            offered += begin
        if one.run.tries[-1] is one and one.number == 1:
            offered += replace
        return offered

    def disturb(self, one: Try, event: Event) -> None:
        run = self.runs[2 - one.run.number] if event.name.startswith("the other run") else one.run
        if not event.name.startswith("pauses"):
            self.start(run)
        lasts = {"for long": LONG, "for a while": A_WHILE, "nearly stale": NEARLY_STALE}
        one.process.freeze(next((lasts[end] for end in lasts if event.name.endswith(end)), 0.0))
        self.scheduler.wait(self.scheduler.now)

    def kill(self, process: Process) -> None:
        process.alive = False
        raise Killed

    def terminate(self, one: Try) -> None:
        one.told_at = self.scheduler.now
        one.process.kill_at = self.scheduler.now + KILLED_AFTER
        one.operator.on_kill()

    # --- the wire -----------------------------------------------------------------------------------------

    def arrive(self, process: Process, form: dict[str, str]) -> Reply:
        one = self.processes[process]
        struct = struct_of(form)
        if self.wrong_host:
            self.seen.append((process.name, "sends to the wrong host"))
            return Reply(b"<html>not here", 404)
        if struct is not None:
            return self.submitted(one, struct)
        assert form["method"] == RESULTS
        return self.looked_up(one, *asked_of(form))

    def submitted(self, one: Try, struct: dict[str, Any]) -> Reply:
        process, now = one.process, self.scheduler.now
        biz_ids = [task["biz_id"] for task in struct["task_list"]]
        one.requests += 1
        submission = Dispatcher(
            struct["task_unique_code"], biz_ids, struct.get("batch_num"), process.name, now
        )
        self.gateway.submissions.append(submission)
        offered: list[Event] = [
            event
            for event in events.SUBMITS
            if (event.executes is not events._first or len(biz_ids) > 1)
            and not (event.spelling == "as a number" and not any(biz_id.isdigit() for biz_id in biz_ids))
            and not (event.process == "pause" and not self.others(one, events.OTHERS, events.REPLACED))
        ]
        event = self.choose(f"{process.name}, request {one.requests}", offered, biz_ids)
        chosen = event if isinstance(event, Answered) else NORMAL
        executed = self.gateway.execute(submission, chosen.executes(biz_ids), now + chosen.delay, chosen.lag)
        self.seen.append((process.name, "sends", tuple(biz_ids), len(executed), chosen.looks or chosen.name))
        if chosen.refuses:
            self.gateway.refused |= set(biz_ids) - set(executed)
        if chosen.process == "kill":
            self.kill(process)
        elif chosen.process == "SIGTERM":
            self.terminate(one)
        elif chosen.process == "time-out":
            process.interrupt = _time_out()
            process.main.wake_at = now
        elif chosen.process == "pause":
            other = self.runs[2 - one.run.number]
            self.start(other if self.has_two_runs and not other.tries else one.run)
            process.freeze(LONG)
        reply = chosen.reply(biz_ids, executed)
        submission.answered_at = now + reply.lasts
        return reply

    def looked_up(self, one: Try, biz_ids: list[str], page: int | None) -> Reply:
        one.look_ups += 1
        visible = self.gateway.visible(biz_ids, self.scheduler.now)
        total, before = len(visible), visible[:0]
        if page is not None:
            visible, before = visible[page - 1 : page], visible[max(0, page - 2) : page - 1]
        dated, flags = self.setting.look_up == "dates", self.setting.look_up != "bare"
        how = events.Asked(biz_ids, visible, dated, flags, page, total, before)
        usual = events.truth(how)
        offered = [event for event in events.LOOK_UPS if event.reply(how) != usual and not self.looks_work]
        event = self.choose(f"{one.process.name}, look-up {one.look_ups}", offered, biz_ids)
        shown = tuple(each.biz_id for each in visible)
        self.seen.append((one.process.name, "looks up", tuple(biz_ids), page, shown, event and event.name))
        return event.reply(how) if isinstance(event, events.Found) else usual

    # --- Airflow ------------------------------------------------------------------------------------------

    def start(self, run: Run, *, resumed: bool = False) -> Try:
        number = len({each.number for each in run.tries}) + (not resumed)
        process = Process(self.scheduler, f"run {run.number} try {number}" + (" resumed" if resumed else ""))
        one = Try(run, number, process, resumed=resumed)
        run.tries.append(one)
        self.processes[process] = one
        process.start(lambda: self.execute(one))
        return one

    def execute(self, one: Try) -> None:
        from airflow.providers.common.compat.sdk import (
            AirflowException,
            AirflowFailException,
            AirflowSkipException,
            TaskDeferred,
        )

        one.operator = new_operator(self.setting, self.words)
        loop = self.setting.loop
        context: dict[str, Any] = {"ti": TaskInstance(one, loop=loop)}
        if loop:
            context["loop"] = SimpleNamespace(index=one.run.number - 1)
        if self.setting.max_lateness:
            due = datetime.fromtimestamp(EPOCH, UTC)
            context["dag_run"] = SimpleNamespace(run_type="scheduled", data_interval_end=due)
        if self.setting.ledger == "task state":
            context["task_state_store"] = Store(one.run.state, one.process, self.away, self.points)
        how, message = "success", ""
        try:
            (one.operator.resume if one.resumed else one.operator.execute)(context)
        except Killed:
            one.ended = Ended("killed")
            raise
        except TaskDeferred as deferred:
            how = "deferred"
            self.due = getattr(deferred.trigger, "moment", None)
        except AirflowSkipException as error:
            how, message = "skipped", str(error)
        except AirflowFailException as error:
            how, message = "final", str(error)
        except AirflowException as error:
            how, message = "failed", str(error)
        except BaseException as error:
            how = "timed out" if type(error).__name__ == "AirflowTaskTimeout" else "crashed"
            message = f"{type(error).__name__}: {error}"
        one.ended = Ended(how, message, one.pushed.get("manifest"), one.pushed.get("biz_ids"))
        counts = one.ended.manifest["counts"] if one.ended.manifest else {}
        self.seen.append((one.process.name, how, tuple(counts.values())))

    def attempt(self, run: Run, *, resumed: bool = False) -> None:
        self.start(run, resumed=resumed)
        self.run_all()

    def run_all(self) -> None:
        self.scheduler.run(lambda: False)

    def next_try(self, run: Run) -> None:
        """Let Airflow, or a person who clears the task, start the next try."""
        assert run.last is not None
        if run.last.how == "deferred":
            self.scheduler.now += 3700.0
            self.attempt(run, resumed=True)
            return
        if run.last.how in ("final", "success"):
            run.max_tries += 3
        self.scheduler.now += 1.0
        self.attempt(run)

    # --- between tries ------------------------------------------------------------------------------------

    def between(self, run: Run) -> bool:
        """Let happen what happens between tries; return whether the task is cleared although it has succeeded."""
        offered: list[Event] = []
        asked = self.asked(run)
        settled = self.settled_codes()
        for event in events.BETWEEN:
            applies = {
                "a true word": bool(asked) and self.setting.look_up != "none",
                events.HASTY.name: self.setting.look_up != "none"
                and any(not name.startswith("*") for name in asked),
                "a word about a settled request": bool(settled),
                "a word with a wrong number": any(
                    code.partition("#")[0] in settled | asked for code in asked
                ),
                "a stale word about a lost ledger": bool(self.gateway.executions),
                "ledger emptied": True,
                "hours pass": self.setting.max_lateness,
                "the task is cleared": run.succeeded,
            }
            if applies[event.name]:
                offered.append(event)
        event = self.choose(f"after {run.tries[-1].process.name}", offered)
        if event is not None:
            self.seen.append((event.name,))
            if event.name == "a true word":
                self.speak(run)
            elif event is events.HASTY:
                self.scheduler.now += LONG
                self.words |= {name: "not_executed" for name in asked if not name.startswith("*")}
                self.looks_work = True
            elif event.name == "a word about a settled request":
                self.words |= dict.fromkeys(sorted(settled), "not_executed")
            elif event.name == "a word with a wrong number":
                self.words |= {f"{code.partition('#')[0]}#7": "not_executed" for code in asked}
            elif event.name == "a stale word about a lost ledger":
                self.words["*"] = "not_executed"
            elif event.name == "hours pass":
                self.scheduler.now += 3 * HOUR.total_seconds()
            elif event.name == "ledger emptied":
                self.emptied, self.emptied_at = True, self.scheduler.now
                run.state.values.clear()
                if self.setting.ledger == "sql":
                    DATABASE.empty()
        elif asked and (self.setting.look_up == "none" or self.wrong_host):
            # The only way on, so it is what ordinarily happens.
            self.speak(run)
        self.wrong_host = False
        return event is not None and run.succeeded

    def asked(self, run: Run) -> set[str]:
        """Return what the last message asks a person about."""
        message = run.last.message if run.last else ""
        if run.last and run.last.how == "success" and run.last.manifest:
            # With on_in_doubt="continue" the line is in the log; the manifest has the same.
            return {doubt.get("settle", doubt["task_unique_code"]) for doubt in run.last.manifest["in_doubt"]}
        return {name for line in _SETTLE_LINE.findall(message) for name, _ in _WORD.findall(line)}

    def settled_codes(self) -> set[str]:
        """Return the codes of requests that are in doubt for no run."""
        lasts = [run.last for run in self.runs if run.last is not None]
        manifests = [last.manifest for last in lasts if last.manifest is not None]
        if len(manifests) < len(lasts):
            return set()
        in_doubt = {doubt["task_unique_code"] for manifest in manifests for doubt in manifest["in_doubt"]}
        return {each.code for each in self.gateway.submissions} - in_doubt

    def speak(self, run: Run) -> None:
        """Let a person look at the console, after a while, and say truthfully what was executed."""
        self.scheduler.now += LONG
        for name in sorted(self.asked(run)):
            code = name.partition("#")[0]
            if name.startswith("*"):
                if not self.gateway.executions:
                    self.words[name] = "not_executed"
                continue
            asked = {i for each in self.gateway.submissions if each.code == code for i in each.biz_ids}
            reached = {each.biz_id for each in self.gateway.executions if each.code == code}
            self.words[name] = "accepted" if reached else "not_executed"
            if reached:
                self.forgone |= asked - reached

    # --- the whole ----------------------------------------------------------------------------------------

    def play(self) -> None:
        first, second = self.runs
        if self.setting.max_lateness and (event := self.choose("before all", [events.LATE])):
            self.seen.append((event.name,))
            self.scheduler.now += 3 * HOUR.total_seconds()
        self.attempt(first)
        self.go_on(first)
        if self.has_two_runs:
            # A new run of a campaign of which nothing is left would know nothing of it: no promise covers that.
            if not second.tries and not self.emptied:
                self.attempt(second)
            if second.tries:
                self.go_on(second)
        self.script.closed = True
        self.finish()

    def go_on(self, run: Run) -> None:
        """Let the second try happen, and what happens before it and after it."""
        for _ in range(2):
            if not self.between(run) and run.succeeded:
                return
            if len(run.tries) >= 2 and not self.happened:
                return
            if len(run.tries) < 3:
                self.next_try(run)

    def finish(self) -> None:
        """Let tries go on without any further event until all runs are done, or can say only what to do."""
        for number in range(LAST_TRIES):
            waiting = [run for run in self.runs if run.tries and not self.is_done(run)]
            if not waiting:
                return
            for run in waiting:
                if number and run.last is not None and run.last.how != "deferred":
                    self.speak(run)
                self.next_try(run)

    def is_done(self, run: Run) -> bool:
        last = run.last
        if last is None or last.manifest is None:
            return False
        if last.how == "final" and self.setting.loop and self.setting.ledger != "sql":
            return "loop" in last.message
        if last.how == "final" and "in a new run" in last.message and self.gateway.executions:
            # Nothing can tell, and it says so: that is as far as it may go.
            return True
        return run.succeeded and not last.manifest["counts"]["in_doubt"]


def _time_out() -> BaseException:
    try:
        from airflow.sdk.exceptions import AirflowTaskTimeout
    except ImportError:  # before Airflow 3.1
        from airflow.exceptions import AirflowTaskTimeout

    return AirflowTaskTimeout("Timeout")


QUERY = {
    "method": RESULTS,
    "request_param": "query",
    "biz_ids_field": "ids",
    "max_biz_ids": 10,
    "items_path": "result.data.items",
    "output_params_field": "out",
    "task_id_field": "task_id",
}


def connection(setting: Setting, wrong_host: bool) -> Any:
    from airflow.providers.common.compat.sdk import Connection

    extra: dict[str, Any] = {"timeout": TIMEOUT, "lookup_settle": SETTLE}
    if setting.look_up != "none":
        extra["result_query"] = QUERY | (
            {
                "dates": {"created_at_field": "created"},
                "pages": {"page_field": "page", "page_size_field": "size", "page_size": 1},
            }.get(setting.look_up, {})
        )
    if setting.dedupes:
        extra["dedupes_by_code"] = True
    return Connection(
        conn_id="lingyang_default",
        conn_type="lingyang",
        host=f"https://{'elsewhere' if wrong_host else 'gateway'}.example/router/rest",
        login="key",
        password="secret",
        extra=json.dumps(extra),
    )


def new_operator(setting: Setting, words: dict[str, str]) -> Any:
    if (kept := _OPERATORS.get(setting)) is not None:
        # Not made anew: Airflow takes longer for that than the try does for sending.
        operator = copy.copy(kept)
        operator.settle = dict(words)
        return operator
    from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

    rows = [
        {
            "biz_id": biz_id,
            "phone_number": f"1000000900{number}",
            "batch_num": batch_num,
            "input_params": {},
            "output_params": {"intention": ""},
        }
        for number, (biz_id, batch_num) in enumerate(zip(RECIPIENTS, setting.batches, strict=True))
    ]
    more: dict[str, Any] = {"ledger_conn_id": "ledger"} if setting.ledger == "sql" else {}
    if setting.ledger == "sql" and not setting.loop:
        more["campaign_key"] = "spring"
    if setting.max_lateness:
        more["max_lateness"] = HOUR
    _OPERATORS[setting] = LingyangSubmitBatchOperator(
        task_id="submit",
        plan_id=1,
        channel="call",
        audience=rows,
        batch_size=2,
        on_in_doubt=setting.on_in_doubt,
        settle={},
        **more,
    )
    if setting.loop:
        _OPERATORS[setting].task_group = LOOP
    return new_operator(setting, words)


class _Fallbacks:
    """What stands for Airflow's configuration: nothing is set."""

    def get(self, section: str, option: str, fallback: Any = None) -> Any:
        return fallback


_TEMPLATES: dict[str, bytes] = {}


def _open_in_memory(folder: str, schema: str, what: str, **_: Any) -> sqlite3.Connection:
    """Return what stands for a private file, which is gone at once in any case."""
    db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if schema not in _TEMPLATES:
        db.executescript(schema)
        _TEMPLATES[schema] = db.serialize()
    else:
        db.deserialize(_TEMPLATES[schema])
    return db


def install() -> None:
    """Put the model below the package: logical time, the ledgers, the wire, the connection. For this process's life."""
    import logging

    import requests.adapters

    import airflow_provider_lingyang

    # What a task imports only when it needs it must have the logical time, too.
    for module in pkgutil.walk_packages(airflow_provider_lingyang.__path__, "airflow_provider_lingyang."):
        if not module.name.endswith("__main__") and ".sandbox" not in module.name:
            importlib.import_module(module.name)
    from airflow_provider_lingyang.audience import store as store
    from airflow_provider_lingyang.config import options as config
    from airflow_provider_lingyang.hooks import lingyang as hooks
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook
    from airflow_provider_lingyang.operators import ledgers as operator_ledgers
    from airflow_provider_lingyang.storage import query as rows
    from tests.model import simulated_time
    from tests.model.gateway import Transport

    logging.disable(logging.CRITICAL)
    simulated_time.install()

    def current() -> Process:
        thread = CLOCK.scheduler.current
        assert thread is not None
        return thread.process

    transport = Transport(lambda process, form: CURRENT[0].arrive(process, form), current)
    requests.adapters.HTTPAdapter.send = lambda self, request, **how: transport.send(  # type: ignore[method-assign,assignment]
        self, request, **how
    )
    rows.sql_hook = lambda conn_id: Hook(  # type: ignore[assignment]
        DATABASE, current(), CURRENT[0].away, CURRENT[0].points
    )
    connections = {}

    def get_connection(cls: Any, conn_id: str) -> Any:
        which = CURRENT[0].setting, CURRENT[0].wrong_host
        if which not in connections:
            connections[which] = connection(*which)
        return connections[which]

    LingyangHook.get_connection = classmethod(get_connection)  # type: ignore[method-assign,assignment]
    # Each of these takes a part of a millisecond, and there are a hundred thousand tries.
    store.open_private = _open_in_memory
    config.conf = operator_ledgers.conf = _Fallbacks()  # type: ignore[attr-defined,assignment]
    hooks.mask_secret = lambda *_, **__: None
    requests.sessions.get_environ_proxies = lambda *_, **__: {}  # type: ignore[attr-defined]


__all__ = ["ANSWERS_IN", "World", "install"]
