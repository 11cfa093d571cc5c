"""The ledger in four tables of a database, behind any ``DbApiHook``.

For every Airflow, for mapped tasks, for campaigns that outlive a DAG run. The tables are created on first use; they
hold ids and codes, so they can be queried. One row of ``lingyang_ledger_recipient`` per recipient and generation, by
its primary key: of two workers that want to send to one recipient, the database refuses one.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from typing import Any, TypeVar, cast

from typing_extensions import override

from airflow_provider_lingyang.errors import LedgerError, LedgerFencedError, LedgerRefusedError
from airflow_provider_lingyang.identity import digest, recipient_hash, settle_key
from airflow_provider_lingyang.ledger.base import (
    GIVEN_TOO_EARLY,
    OPEN_FOR,
    WRITTEN_WITHIN,
    Attempt,
    Header,
    Intent,
    Ledger,
    Opening,
    Outcome,
    RecordedRequest,
    skipped,
    with_fact,
)
from airflow_provider_lingyang.ledger.opening import Opened, opening_of
from airflow_provider_lingyang.ledger.sql_requests import RequestRows
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    MYSQL_OPTIONS,
    NOT_EXECUTED,
    REJECTED,
    SAME_REQUEST,
    THIS,
    check_keys,
    create_tables,
)
from airflow_provider_lingyang.storage.database import (
    Database,
    SerializationFailureError,
    Transaction,
    UniqueViolationError,
    chunks,
    marks,
)

_NUMBERS = "numbers"
"""The fact that holds the numbers which intents to come do not get."""

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _repeated_after(*errors: type[LedgerError]) -> Callable[[_Method], _Method]:
    """Run a method again when nothing of it stayed because another process's transaction was there first."""

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            for _ in range(4):
                with suppress(*errors):
                    return method(*args, **kwargs)
            return method(*args, **kwargs)

        return cast("_Method", run)

    return decorate


class SqlLedger(Ledger):
    """Keeps campaigns in a database.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors and for others to read the ledger.
    :param campaign_key: whose campaign.
    :param attempt: which try this is.
    """

    is_durable = True

    def __init__(self, hook: Any, conn_id: str, campaign_key: str, attempt: Attempt) -> None:
        self._database = Database(hook, conn_id)
        self._options = MYSQL_OPTIONS if getattr(hook, "conn_type", None) == "mysql" else ""
        self._conn_id = conn_id
        self._campaign_key = campaign_key
        self._attempt = attempt
        self._task_instance = digest(campaign_key, attempt.task_instance_key)
        self._fencing_token = uuid.uuid4().hex
        self._campaign = ""
        self._generation = 1
        self._plan_id = 0
        self._has_claimed = self._has_written = False
        self._header: Header | None = None
        self._numbers: dict[str, int] = {}
        """Of each code in doubt, and of each that has had several intents, the latest one's."""
        self._skipped: dict[str, int] = {}
        self._is_first = False
        """Whether no earlier process of this task instance has claimed it."""
        self.others_may_run = False
        self.found_lost_before = False

    @property
    @override
    def handle(self) -> dict[str, Any] | None:
        """How others can read it: the connection, which campaign of its tables, and which of its task instances."""
        return {
            "ledger_conn_id": self._conn_id,
            "campaign_key": self._campaign_key,
            "plan_id": self._plan_id,
            "generation": self._generation,
            "worker": self._task_instance,
        }

    @_repeated_after(UniqueViolationError, SerializationFailureError)
    @override
    def claim(self) -> bool:
        create_tables(self._database, self._conn_id, self._options)
        check_keys(self._database, self._conn_id)
        with self._database.transaction() as run:
            known = run.execute(
                "UPDATE lingyang_ledger_worker SET owner=?, writes=writes+1, claimed_at=? WHERE worker=?",
                [self._fencing_token, time.time(), self._task_instance],
            )
            if not known:
                # Noted before the commit, whose answer may be lost: the next attempt finds this very row.
                self._is_first = True
                run.insert(
                    "lingyang_ledger_worker",
                    "worker, campaign_key, owner, knows_past, writes, claimed_at",
                    [
                        (
                            self._task_instance,
                            self._campaign_key,
                            self._fencing_token,
                            int(not self._attempt.has_history),
                            1,
                            time.time(),
                        )
                    ],
                )
            ((knows, ended),) = run.rows(
                "SELECT knows_past, ended FROM lingyang_ledger_worker WHERE worker=?", [self._task_instance]
            )
            run.execute("UPDATE lingyang_ledger_worker SET ended=0 WHERE worker=?", [self._task_instance])
        self.others_may_run = not ended if known else self._attempt.has_history
        self.found_lost_before = not knows and not self._is_first
        self._has_claimed = True
        return bool(knows)

    @override
    def mark_history_known(self) -> None:
        with self._database.transaction() as run:
            self._check_fence(run)
            run.execute(
                "UPDATE lingyang_ledger_worker SET knows_past=1 WHERE worker=?", [self._task_instance]
            )

    @override
    def has_begun(self, plan_id: int) -> bool:
        with self._database.transaction() as run:
            # Of any generation: the next one goes on from a Clear of this one.
            ((count,),) = run.rows(
                "SELECT count(*) FROM lingyang_ledger_request WHERE campaign=? AND worker=?",
                [digest(self._campaign_key, plan_id), self._task_instance],
            )
        return bool(count)

    @override
    def open(
        self,
        header: Header,
        *,
        resubmit: bool = False,
        not_executed: Collection[str] = frozenset(),
        wait: Callable[[float], None] = time.sleep,
    ) -> Opening:
        self._campaign = digest(self._campaign_key, header.plan_id)
        self._plan_id = header.plan_id
        enter = partial(self._enter, header, resubmit=resubmit, not_executed=not_executed)
        opening = enter(others_ended=False)
        if opening is None:
            # What they were about to write is there after this, so that it is decided about, too.
            begun = self._fence_others(header, not_executed)
            if begun:
                wait(WRITTEN_WITHIN + max(seconds for _, _, seconds in begun))
                self._end_begun(begun)
            try:
                opening = enter(others_ended=True)
            except LedgerRefusedError as error:
                if not begun:
                    raise
                raise LedgerRefusedError(f"{GIVEN_TOO_EARLY}. {error}") from None
            assert opening is not None
        self._header = header
        return opening

    @_repeated_after(SerializationFailureError)
    def _end_begun(self, begun: Sequence[tuple[str, str, float]]) -> None:
        """Note that fenced processes can send no more; the words about their requests were given before that."""
        with self._database.transaction() as run:
            self._check_fence(run)
            for code, token, _ in begun:
                run.execute(
                    f"UPDATE lingyang_ledger_request SET open_for=0, intents=intents+1 WHERE {THIS} AND "
                    "task_unique_code=? AND owner=? AND (open_for IS NULL OR open_for>0)",
                    [*self._this, code, token],
                )

    @_repeated_after(UniqueViolationError, SerializationFailureError)
    def _enter(
        self, header: Header, *, resubmit: bool, not_executed: Collection[str], others_ended: bool
    ) -> Opening | None:
        """Decide on a generation, and begin with it; return None where others have to be ended first."""
        with self._database.transaction() as run:
            self._check_fence(run)
            if others_ended:
                # A process that is about to write has done so before this, or sees the new settings after it.
                run.execute(
                    "UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE campaign_key=?",
                    [self._campaign_key],
                )
            # Before the first SELECT: some databases show the whole transaction what was there at that time.
            self._hold(run)
            found, facts = self._latest(run)
            opening = opening_of(found, header, self._attempt, resubmit=resubmit, not_executed=not_executed)
            if opening.changed and not others_ended:
                return None
            self._generation = opening.generation
            self._numbers, self._skipped = {}, {}
            self.identity_version = header.identity_version
            if found is not None and found.generation == self._generation:
                self.identity_version = found.header.identity_version
                self._skipped = facts.get(_NUMBERS, {})
                for some in chunks([key.partition("#")[0] for key in opening.settled]):
                    run.execute(
                        f"UPDATE lingyang_ledger_recipient SET state=? WHERE {THIS} AND state=? AND "
                        f"task_unique_code IN ({marks(some)})",
                        [NOT_EXECUTED, *self._this, IN_DOUBT, *some],
                    )
                self._set_finished(run, None, None)
                run.execute(
                    f"UPDATE lingyang_ledger_campaign SET host=?, app_key=?, key_fingerprint=? WHERE {THIS}",
                    [header.host, header.app_key, header.key_fingerprint, *self._this],
                )
                return opening
            run.insert(
                "lingyang_ledger_campaign",
                "campaign, generation, campaign_key, plan_id, host, app_key, key_fingerprint, identity_version, "
                "opened_at",
                [
                    (
                        self._campaign,
                        self._generation,
                        self._campaign_key,
                        header.plan_id,
                        header.host,
                        header.app_key,
                        header.key_fingerprint,
                        header.identity_version,
                        time.time(),
                    )
                ],
            )
        return opening

    def _latest(self, run: Transaction) -> tuple[Opened | None, dict[str, Any]]:
        """Return the campaign's latest generation, and its facts."""
        rows = run.rows(
            "SELECT generation, host, app_key, plan_id, key_fingerprint, identity_version, facts, finished_by, "
            "finished_max_tries "
            "FROM lingyang_ledger_campaign WHERE campaign=? ORDER BY generation",
            [self._campaign],
        )
        if not rows:
            return None, {}
        generation, host, app_key, plan_id, fingerprint, identity_version, facts, *finished = rows[-1]
        found = Opened(
            generation,
            Header(host, app_key, plan_id, fingerprint, identity_version or 1),
            (finished[0], finished[1]) if finished[0] else None,
            lambda: self._reached(run, generation),
            lambda: self._in_doubt(run, generation),
            lambda: self._shared(run, generation),
        )
        return found, _facts(facts)

    def _reached(self, run: Transaction, generation: int) -> bool:
        ((count,),) = run.rows(
            "SELECT count(*) FROM lingyang_ledger_recipient WHERE campaign=? AND generation=? AND state IN (?, ?)",
            [self._campaign, generation, ACCEPTED, REJECTED],
        )
        return bool(count)

    def _in_doubt(self, run: Transaction, generation: int) -> list[str]:
        return [
            settle_key(code, number)
            for code, number in run.rows(
                "SELECT task_unique_code, intents FROM lingyang_ledger_request request "
                "WHERE campaign=? AND generation=? AND "
                f"EXISTS (SELECT 1 FROM lingyang_ledger_recipient recipient WHERE {SAME_REQUEST} AND "
                "recipient.state=?) ORDER BY written_at, task_unique_code",
                [self._campaign, generation, IN_DOUBT],
            )
        ]

    @_repeated_after(SerializationFailureError)
    def _fence_others(
        self, header: Header, not_executed: Collection[str]
    ) -> Sequence[tuple[str, str, float]]:
        """Fence the processes that have sent with the settings before: their next requests would go there, too.

        :return: requests in doubt that they may still send: the code, the fencing token, and for how many seconds.
        """
        with self._database.transaction() as run:
            self._check_fence(run)
            self._hold(run)
            found, _ = self._latest(run)
            opening = opening_of(found, header, self._attempt, resubmit=False, not_executed=not_executed)
            if not opening.changed:
                # Another task has come here first, and may send with the new ones already.
                return ()
            self._generation = opening.generation
            run.execute(
                "UPDATE lingyang_ledger_worker SET owner=? WHERE worker<>? AND owner IN "
                f"(SELECT owner FROM lingyang_ledger_request WHERE {THIS})",
                ["", self._task_instance, *self._this],
            )
        with self._database.transaction() as run:
            begun = run.rows(
                "SELECT task_unique_code, owner, open_for FROM lingyang_ledger_request request "
                f"WHERE {THIS} AND (worker<>? OR intents>?) AND (open_for IS NULL OR open_for>0) AND "
                f"EXISTS (SELECT 1 FROM lingyang_ledger_recipient recipient WHERE {SAME_REQUEST} AND "
                "recipient.state=?)",
                [*self._this, self._task_instance, 0 if self.others_may_run else 1, IN_DOUBT],
            )
        return [(code, token, OPEN_FOR if seconds is None else seconds) for code, token, seconds in begun]

    def _shared(self, run: Transaction, generation: int) -> bool:
        ((count,),) = run.rows(
            "SELECT count(*) FROM lingyang_ledger_request WHERE campaign=? AND generation=? AND worker<>?",
            [self._campaign, generation, self._task_instance],
        )
        return bool(count)

    def _hold(self, run: Transaction) -> None:
        """Let no other task instance begin with a generation, or end it, until the transaction ends."""
        run.execute(
            "UPDATE lingyang_ledger_campaign SET opened_at=opened_at WHERE campaign=?", [self._campaign]
        )

    @override
    def history(self) -> Iterator[RecordedRequest]:
        with self._database.transaction() as run:
            requests = run.rows(
                "SELECT task_unique_code, batch_num, struct_digest, written_at, worker, intents, open_for "
                f"FROM lingyang_ledger_request WHERE {THIS} ORDER BY written_at, task_unique_code",
                self._this,
            )
        for some in chunks(requests):
            states: dict[str, dict[str, list[tuple[str, str]]]] = {}
            with self._database.transaction() as run:
                found = run.rows(
                    f"SELECT task_unique_code, state, recipient, biz_id FROM lingyang_ledger_recipient WHERE {THIS} "
                    f"AND task_unique_code IN ({marks(some)}) ORDER BY task_unique_code, place",
                    [*self._this, *(code for code, *_ in some)],
                )
            for code, state, recipient, biz_id in found:
                states.setdefault(code, {}).setdefault(state, []).append((recipient, biz_id))
            for code, batch_num, struct_digest, written_at, sender, number, open_for in some:
                ids = states.get(code, {})
                if number > 1 or IN_DOUBT in ids:
                    self._numbers[code] = number
                yield RecordedRequest(
                    task_unique_code=code,
                    batch_num=batch_num,
                    struct_digest=struct_digest,
                    written_at=written_at,
                    accepted=_keys(ids.get(ACCEPTED, ())),
                    rejected=_keys(ids.get(REJECTED, ())),
                    not_executed=_keys(ids.get(NOT_EXECUTED, ())),
                    in_doubt=[self._unchanged(*pair) for pair in ids.get(IN_DOUBT, ())],
                    is_own=sender == self._task_instance,
                    # A task that sends another one's request again does not become its sender.
                    others_may_send=open_for != 0
                    and (self.others_may_run or sender != self._task_instance or number > 1),
                    number=number,
                    open_for=OPEN_FOR if open_for is None else open_for,
                )

    @_repeated_after(SerializationFailureError)
    @override
    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        if not outcomes and not intents:
            return
        with self._database.transaction() as run:
            has_token = self._has_token(run)
            if has_token and intents:
                self._check_generation(run)
            rows = self._rows(run)
            left = [rows.write_outcome(outcome, has_token=has_token) for outcome in outcomes]
            unwritten = [outcome for outcome in left if outcome is not None]
            if has_token and not unwritten:
                # Before the commit, whose answer may be lost.
                self._numbers |= rows.write_intents(intents)
        if not has_token:
            raise self._replaced(unwritten)
        if unwritten:
            raise self._taken_over(unwritten[0].task_unique_code, unwritten)
        self._has_written = self._has_written or bool(intents)

    @_repeated_after(SerializationFailureError)
    @override
    def holds(self, intents: Sequence[Intent]) -> set[str]:
        there: dict[str, int] = {}
        sql = (
            "SELECT request.task_unique_code, count(*) FROM lingyang_ledger_request request "
            "JOIN lingyang_ledger_recipient recipient ON recipient.campaign=request.campaign "
            "AND recipient.generation=request.generation AND recipient.task_unique_code=request.task_unique_code "
            "WHERE request.campaign=? AND request.generation=? AND request.owner=? AND recipient.state=? "
        )
        with self._database.transaction() as run:
            # Waits for a commit of this process that is still under way on a connection which broke.
            self._check_fence(run)
            for some in chunks([intent.task_unique_code for intent in intents]):
                found = run.rows(
                    f"{sql} AND request.task_unique_code IN ({marks(some)}) GROUP BY request.task_unique_code",
                    [*self._this, self._fencing_token, IN_DOUBT, *some],
                )
                there.update((code, count) for code, count in found)
        return {
            intent.task_unique_code
            for intent in intents
            if there.get(intent.task_unique_code) == len(intent.biz_ids)
        }

    @_repeated_after(SerializationFailureError)
    @override
    def renew(self, intents: Sequence[Intent]) -> None:
        with self._database.transaction() as run:
            self._check_fence(run)
            for intent in intents:
                if not self._rows(run).owns(intent.task_unique_code):
                    raise self._taken_over(intent.task_unique_code)

    @_repeated_after(SerializationFailureError)
    @override
    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        with self._database.transaction() as run:
            self._check_fence(run)
            for code in task_unique_codes:
                known = self._numbers.get(code)
                # Only the intent that this try has read of: a word or a look-up about it says nothing of a later one.
                same = "" if known is None else " AND intents=?"
                taken = run.execute(
                    # Not who sent it first: its recipients stay that task instance's.
                    "UPDATE lingyang_ledger_request SET owner=?, writes=writes+1 "
                    f"WHERE {THIS} AND task_unique_code=?{same}",
                    [self._fencing_token, *self._this, code, *([] if known is None else [known])],
                )
                if known is not None and not taken:
                    raise LedgerFencedError(
                        f"the request {code} was sent again by another task of the same campaign meanwhile"
                    )

    @_repeated_after(SerializationFailureError)
    @override
    def end_others(self, task_unique_codes: Collection[str], too_early: Collection[str] = ()) -> None:
        numbers = self._numbers.copy()
        with self._database.transaction() as run:
            self._check_fence(run)
            for code in task_unique_codes:
                number = self.number(code) + (code in too_early)
                # Not one that another task has taken over meanwhile: that one may send it again.
                if run.execute(
                    f"UPDATE lingyang_ledger_request SET open_for=0, intents=? WHERE {THIS} AND owner=? AND "
                    "task_unique_code=?",
                    [number, *self._this, self._fencing_token, code],
                ):
                    numbers[code] = number
        self._numbers = numbers
        self.others_may_run = False

    @override
    def number(self, task_unique_code: str) -> int:
        return self._numbers.get(task_unique_code, 1)

    @override
    def skip_numbers(self, numbers: Mapping[str, int]) -> None:
        if skipped(self._skipped, numbers) is None:
            return
        after = self._change_fact(_NUMBERS, lambda before: skipped(before or {}, numbers) or before)
        self._skipped = after or {}

    @override
    def fact(self, name: str) -> Any:
        with self._database.transaction() as run:
            return self._read_facts(run).get(name)

    @override
    def set_fact(self, name: str, value: Any) -> None:
        self._change_fact(name, lambda before: value)

    @_repeated_after(SerializationFailureError)
    def _change_fact(self, name: str, change: Callable[[Any], Any]) -> Any:
        with self._database.transaction() as run:
            self._check_fence(run)
            # Other task instances note facts of their own in the same row.
            self._hold(run)
            facts = self._read_facts(run)
            value = change(facts.get(name))
            text = json.dumps(with_fact(facts, name, value))
            run.execute(f"UPDATE lingyang_ledger_campaign SET facts=? WHERE {THIS}", [text, *self._this])
        return value

    def _read_facts(self, run: Transaction) -> dict[str, Any]:
        ((text,),) = run.rows(f"SELECT facts FROM lingyang_ledger_campaign WHERE {THIS}", self._this)
        return _facts(text)

    @_repeated_after(SerializationFailureError)
    @override
    def finish(self) -> None:
        with self._database.transaction() as run:
            self._check_fence(run)
            self._set_finished(run, self._attempt.task_instance_key, self._attempt.max_tries)

    @override
    def release(self) -> None:
        if self.others_may_run or not self._has_claimed:
            # What was before this process, nothing has ended.
            return
        with self._database.transaction() as run:
            run.execute(
                "UPDATE lingyang_ledger_worker SET ended=1 WHERE worker=? AND owner=?",
                [self._task_instance, self._fencing_token],
            )

    @override
    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    def _rows(self, run: Transaction) -> RequestRows:
        return RequestRows(run, self._this, self._task_instance, self._fencing_token, self._skipped)

    @property
    def _this(self) -> tuple[str, int]:
        return self._campaign, self._generation

    def _unchanged(self, recipient: str, biz_id: str) -> str:
        if recipient_hash(biz_id).hex() != recipient:
            raise LedgerRefusedError(
                f"the ledger's database (connection {self._conn_id!r}) does not give a biz_id back as it was written "
                "(a character set without Chinese, or blanks cut off), so the recipients in doubt are not known"
            )
        return biz_id

    def _set_finished(self, run: Transaction, task_instance: str | None, max_tries: int | None) -> None:
        run.execute(
            f"UPDATE lingyang_ledger_campaign SET finished_by=?, finished_max_tries=? WHERE {THIS}",
            [task_instance, max_tries, *self._this],
        )

    def _has_token(self, run: Transaction) -> bool:
        # First in each transaction, and a write: it holds the row against a taker-over until the transaction ends.
        return bool(
            run.execute(
                "UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE worker=? AND owner=?",
                [self._task_instance, self._fencing_token],
            )
        )

    def _check_fence(self, run: Transaction) -> None:
        if not self._has_token(run):
            raise self._replaced()

    def _replaced(self, unwritten: Sequence[Outcome] | None = None) -> LedgerFencedError:
        return LedgerFencedError(
            f"the ledger on connection {self._conn_id!r} was taken over by another try of this task, or emptied",
            unwritten,
        )

    def _check_generation(self, run: Transaction) -> None:
        if not self._has_written:
            # Against a generation that begins at the same moment. Settings change behind this task instance's own row.
            self._hold(run)
        rows = run.rows(
            "SELECT generation, host, app_key, key_fingerprint FROM lingyang_ledger_campaign WHERE campaign=? "
            "ORDER BY generation",
            [self._campaign],
        )
        if not rows:
            raise LedgerFencedError(f"the ledger on connection {self._conn_id!r} was emptied")
        latest, *settings = rows[-1]
        if latest != self._generation:
            raise LedgerFencedError(
                f"the campaign on connection {self._conn_id!r} was started anew meanwhile (on_clear='resubmit' of "
                "another task)"
            )
        header = self._header
        if header is not None and settings != [header.host, header.app_key, header.key_fingerprint]:
            raise LedgerFencedError(
                f"the campaign on connection {self._conn_id!r} is sent with another host, App key or secret meanwhile, "
                "by another task"
            )

    def _taken_over(self, code: str, unwritten: Sequence[Outcome] | None = None) -> LedgerFencedError:
        return LedgerFencedError(
            f"the request {code} was taken over by another task of the same campaign", unwritten
        )


def _facts(text: str | None) -> dict[str, Any]:
    return dict(json.loads(text)) if text else {}


def _keys(pairs: Sequence[tuple[str, str]]) -> list[bytes]:
    return [bytes.fromhex(recipient) for recipient, _ in pairs]
