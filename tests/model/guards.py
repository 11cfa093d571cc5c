"""The safeguards, one by one: without any of them the model finds a broken promise, and with it none.

``python -m tests.model.guards`` from the project's folder prints, as JSON, what was found without each and with it.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from tests.model import explore


@dataclass(frozen=True)
class Guard:
    """One safeguard.

    :param name: what it does.
    :param remove: takes it out of the package.
    :param events: names of what may happen, or patterns of them.
    :param depth: how many of them at most.
    :param setting: how things are.
    """

    name: str
    remove: Callable[[], None]
    events: tuple[str, ...]
    depth: int = 1
    setting: dict[str, Any] = field(default_factory=dict)


def _write_ahead() -> None:
    from airflow_provider_lingyang.ledger.sql import SqlLedger
    from airflow_provider_lingyang.ledger.task_state import TaskStateLedger

    for ledger in (SqlLedger, TaskStateLedger):
        write = ledger.write
        ledger.write = lambda self, outcomes, intents, write=write: write(self, [], [])  # type: ignore[assignment,method-assign,misc]


def _skip() -> None:
    from airflow_provider_lingyang.delivery.send_queue import History, SendQueue

    SendQueue.load_history = lambda self, requests: History()  # type: ignore[method-assign,assignment]


def _lookup_settle() -> None:
    from airflow_provider_lingyang.delivery.reconciler import Reconciler

    judge = Reconciler._judge
    Reconciler._judge = lambda self, question, found, asked_at: judge(self, question, found, 1e12)  # type: ignore[method-assign,assignment]


def _ambiguous_is_in_doubt() -> None:
    from airflow_provider_lingyang.delivery import answers

    answers.provably_not_executed = lambda error: True


def _ambiguity_stays() -> None:
    from airflow_provider_lingyang.delivery.request_state import TRANSITIONS, RequestState

    TRANSITIONS[RequestState.RETRIED] = TRANSITIONS[RequestState.DISPATCHED]


def _fence_of_the_database() -> None:
    from airflow_provider_lingyang.ledger.sql import SqlLedger
    from airflow_provider_lingyang.ledger.sql_requests import RequestRows

    SqlLedger._has_token = lambda self, run: True  # type: ignore[method-assign]
    RequestRows.update_own = lambda self, code, changes, *values: (  # type: ignore[method-assign]
        self._update(code, changes, values) or True
    )


def _fence_of_the_task_state() -> None:
    from tests.model.ledgers import Store

    Store.fenced = lambda self: False  # type: ignore[method-assign]


def _one_row_a_recipient() -> None:
    from airflow_provider_lingyang.ledger import sql
    from airflow_provider_lingyang.storage.database import Transaction

    def replacing(self: Any, table: str, columns: str, rows: Any) -> None:
        for row in rows:
            marks = ",".join("?" * len(row))
            self.execute(f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})", row)

    Transaction.insert = replacing  # type: ignore[method-assign]
    sql.check_keys = lambda *_: None  # type: ignore[assignment]


def _renewal() -> None:
    from airflow_provider_lingyang.ledger.sql import SqlLedger

    SqlLedger.renew = lambda self, intents: None  # type: ignore[method-assign]


def _intent_life() -> None:
    from airflow_provider_lingyang.delivery.policy import Policy

    Policy.intent_life = 1e9  # type: ignore[assignment,misc]


def _lost_ledger() -> None:
    from airflow_provider_lingyang.delivery.recovery import Recovery

    go_on = Recovery.run

    def unaware(self: Any, *args: Any, **how: Any) -> Any:
        return go_on(self, *args, **{**how, "lost": None})

    Recovery.run = unaware  # type: ignore[method-assign]


def _stop() -> None:
    from airflow_provider_lingyang.operators.lingyang import LingyangSubmitBatchOperator

    LingyangSubmitBatchOperator.on_kill = lambda self: None  # type: ignore[method-assign]


def _order() -> None:
    from airflow_provider_lingyang.delivery.send_queue import SendQueue

    batches = SendQueue.batches
    SendQueue.batches = lambda self: batches(self)[::-1]  # type: ignore[method-assign]


def _strangers_in_an_echo() -> None:
    from airflow_provider_lingyang.gateway.receipt import SubmitReceipt

    SubmitReceipt.count_unmatched = lambda self, biz_ids: 0  # type: ignore[method-assign]


def _last_moment_of_the_owner() -> None:
    from airflow_provider_lingyang.ledger.base import RecordedRequest

    RecordedRequest.open_for = property(lambda self: 0.0, lambda self, value: None)  # type: ignore[assignment]


def _word_of_one_intent() -> None:
    from airflow_provider_lingyang.delivery.recovery import Recovery
    from airflow_provider_lingyang.ledger.base import RecordedRequest

    RecordedRequest.settle_key = property(lambda self: self.task_unique_code)  # type: ignore[assignment,method-assign]
    Recovery._stale = lambda self, *_: []  # type: ignore[method-assign,assignment]


def _error_codes() -> None:
    from airflow_provider_lingyang.gateway import error_codes

    error_codes.CODES["44"] = error_codes.CODES["40"]


def _http_status() -> None:
    from airflow_provider_lingyang.gateway import protocol

    read = protocol.read_answer
    protocol.read_answer = lambda **how: read(**{**how, "status": 200})


def _one_answer() -> None:
    from tests.model.gateway import _Stream

    _Stream.is_followed = lambda self, patience: False  # type: ignore[method-assign]


def _patience() -> None:
    from airflow_provider_lingyang.config import options as config

    config.ledger_patience = lambda: 0


def _loops() -> None:
    from airflow_provider_lingyang.ledger.task_try import TaskTry

    TaskTry.in_loop = property(lambda self: False)  # type: ignore[assignment,method-assign]


def _lateness() -> None:
    from airflow_provider_lingyang.delivery import lateness

    lateness.too_late = lambda *_: None


def _without_objection(reason: str) -> None:
    from airflow_provider_lingyang.lookup.page import Page

    objection = Page.objection

    def unaware(self: Any, *args: Any) -> str | None:
        why = objection(self, *args)
        return None if why is not None and why.startswith(reason) else why

    Page.objection = unaware  # type: ignore[method-assign]


def _success_flag() -> None:
    _without_objection("it holds no flag that says success")


def _strangers_in_a_look_up() -> None:
    _without_objection("it holds results that are of none of the ids")


def _completeness() -> None:
    from airflow_provider_lingyang.lookup import calls as lookup

    lookup._incomplete = lambda *_: None
    lookup._is_complete = lambda *_: True


def _any_zone() -> None:
    from airflow_provider_lingyang.delivery import reconciler as doubts

    doubts._ANY_ZONE = doubts._CLOCKS


def _every_result() -> None:
    from airflow_provider_lingyang.delivery.reconciler import Reconciler

    judge = Reconciler._judge

    def last_only(self: Any, question: Any, resolution: Any, answer: Any, asked_at: float) -> None:
        last = {biz_id: results[-1:] for biz_id, results in answer.results.items()}
        judge(self, question, resolution, replace(answer, results=last), asked_at)

    Reconciler._judge = last_only  # type: ignore[method-assign]


def _read_back() -> None:
    from airflow_provider_lingyang.ledger.sql import SqlLedger

    SqlLedger.holds = lambda self, intents: set()  # type: ignore[method-assign]


def _found_outweighs_a_word() -> None:
    from airflow_provider_lingyang.delivery import recovery
    from airflow_provider_lingyang.delivery.reconciler import Resolution

    recovery.resolve = lambda _, requests: [Resolution(in_doubt=list(each.biz_ids)) for each in requests]


def _limit_is_looked_up() -> None:
    from airflow_provider_lingyang.delivery.answers import AnswerHandler

    AnswerHandler._handle_receiver_limit = (  # type: ignore[method-assign]
        lambda self, dispatch, error: self._send_again(dispatch)
    )


_OTHER_RUN = ("the other run begins*",)
_BLIND = {"look_up": "none"}
_TASK_STATE = {"ledger": "task state"}
_DATES = {"look_up": "dates"}
_LOST = "answer lost, executed"
_SEEN_LATE = "answer lost, executed late and seen late"

GUARDS = (
    Guard("intents are written before requests leave", _write_ahead, ("killed*",)),
    Guard("who is accepted is skipped", _skip, (), 0),
    Guard(
        "what is not found counts only after lookup_settle",
        _lookup_settle,
        ("connection broken, executed, seen late",),
    ),
    Guard("what may have been executed is in doubt", _ambiguous_is_in_doubt, ("answer lost, executed",)),
    Guard(
        "after an ambiguous attempt no refusal proves anything",
        _ambiguity_stays,
        ("answer lost, executed", "refused"),
        2,
        {**_BLIND, "dedupes": True},
    ),
    Guard(
        "a try that was replaced cannot write to the database",
        _fence_of_the_database,
        ("Airflow replaces*", "answer lost, executed"),
        2,
    ),
    Guard(
        "a try that was replaced cannot write the task state",
        _fence_of_the_task_state,
        ("Airflow replaces*",),
        1,
        _TASK_STATE,
    ),
    Guard("one row of a recipient in a campaign", _one_row_a_recipient, _OTHER_RUN),
    Guard("an old intent is renewed before its request leaves", _renewal, _OTHER_RUN),
    Guard("an intent does not live for ever", _intent_life, _OTHER_RUN),
    Guard(
        "a ledger that was lost is no empty one", _lost_ledger, ("answer lost, executed", "ledger emptied"), 2
    ),
    Guard(
        "absence counts only once an earlier owner can send no more",
        _last_moment_of_the_owner,
        (
            "the other run *",
            "connection broken, executed, seen late",
            "answer lost, executed late and seen late",
        ),
        2,
    ),
    Guard(
        "a word is about one intent",
        _word_of_one_intent,
        ("answer lost, executed", "answer lost, not executed"),
        2,
        {**_TASK_STATE, **_BLIND},
    ),
    Guard("code 44 may have been executed", _error_codes, ("executed, and the answer denies or hides it",)),
    Guard(
        "an error under HTTP 5xx proves nothing",
        _http_status,
        ("executed, and the answer denies or hides it",),
    ),
    Guard("a refusal counts alone", _one_answer, ("executed, and the answer denies or hides it",)),
    Guard("a ledger that is away for seconds is waited for", _patience, ("ledger away for seconds",)),
    Guard(
        "a run that comes too late sends nothing",
        _lateness,
        ("the run begins late",),
        1,
        {"max_lateness": True},
    ),
    Guard("the task's own state is no ledger in a loop", _loops, (), 0, {**_TASK_STATE, "loop": True}),
    Guard("nothing leaves after SIGTERM", _stop, ("SIGTERM*",)),
    Guard("batches leave in their order", _order, (), 0),
    Guard(
        "an echo that names no recipient of the request leaves it in doubt",
        _strangers_in_an_echo,
        ("executed, echoed under other ids",),
    ),
    Guard(
        "absence needs a flag that says success", _success_flag, (_SEEN_LATE, "look-up without any flag"), 2
    ),
    Guard(
        "results of strangers void absence", _strangers_in_a_look_up, (_SEEN_LATE, "look-up of strangers"), 2
    ),
    Guard("absence needs a complete answer", _completeness, (_SEEN_LATE, "look-up of a part"), 2),
    Guard("a date may be 26 hours off", _any_zone, (_SEEN_LATE, "result of an unplaceable date"), 2, _DATES),
    Guard(
        "every result of a recipient is evidence",
        _every_result,
        (_LOST, "an older result beside it"),
        3,
        _DATES,
    ),
    Guard(
        "what a look-up finds outweighs a person's word",
        _found_outweighs_a_word,
        ("SIGTERM under way, answer lost", "time-out under way, executed", "a hasty word*"),
        2,
    ),
    Guard(
        "a request that met a receiver's limit is looked up first",
        _limit_is_looked_up,
        ("receiver limit, part executed",),
    ),
    Guard("a lost commit is read back", _read_back, ("commit lost",)),
)
"""Every one of them is needed."""


def _only(guard: Guard) -> Callable[[Any], bool]:
    return lambda event: any(fnmatchcase(event.name, pattern) for pattern in guard.events)


def without(guard: Guard, *, whole: bool = False) -> list[str]:
    """Return the first broken promise that the model finds without a safeguard, or with it."""
    from tests.model.world import Setting

    if not whole:
        guard.remove()
    found = explore.explore(
        Setting(**guard.setting), guard.depth, only=_only(guard), until_broken=True, keep=1
    )
    return [f"{each['events']}: {each['violations'][0]}" for each in found.broken]


def _in_a_process_of_its_own(number_and_whole: tuple[int, bool]) -> list[str]:
    number, whole = number_and_whole
    return without(GUARDS[number], whole=whole)


def look(names: Callable[[str], bool] = lambda name: True) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield of each safeguard what was found without it, and with it."""
    from tests.model import world

    world.install()
    # Forked, each for one exploration only: a safeguard that was taken out cannot be put back.
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        chosen = [number for number, guard in enumerate(GUARDS) if names(guard.name)]
        broken = pool.imap(_in_a_process_of_its_own, [(number, False) for number in chosen], 1)
        whole = pool.imap(_in_a_process_of_its_own, [(number, True) for number in chosen], 1)
        for number, one, other in zip(chosen, broken, whole, strict=True):
            print(GUARDS[number].name, file=sys.stderr, flush=True)
            yield GUARDS[number].name, one, other


if __name__ == "__main__":
    explore.prepare()
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    print(json.dumps(list(look(lambda name: wanted in name)), indent=1))
