"""The ledger in four tables of a database, behind any ``DbApiHook``.

For every Airflow, for mapped tasks, for campaigns that outlive a DAG run. The tables are created on first use; they
hold ids and codes, so they can be queried. One row of ``lingyang_ledger_recipient`` per recipient and generation, by
its primary key: of two workers that want to send to one person, the database refuses one.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from itertools import chain
from typing import Any, TypeVar, cast

from airflow_provider_lingyang.ledger.base import (
    Attempt,
    Header,
    Intent,
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    Opened,
    Outcome,
    PastRequest,
    digest,
    generation_of,
    key_of,
)
from airflow_provider_lingyang.storage.database import (
    CollisionError,
    Database,
    GaveWayError,
    Statements,
    chunks,
    marks,
)

_TABLES = {
    "lingyang_ledger_worker": """
        worker VARCHAR(32) NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        knows_past INTEGER NOT NULL,
        writes BIGINT NOT NULL,
        claimed_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (worker)""",
    "lingyang_ledger_campaign": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        campaign_key VARCHAR(2000) NOT NULL,
        plan_id BIGINT NOT NULL,
        host VARCHAR(2000) NOT NULL,
        app_key VARCHAR(200) NOT NULL,
        key_fingerprint VARCHAR(32) NOT NULL,
        finished_by VARCHAR(32),
        finished_max_tries INTEGER,
        opened_at DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (campaign, generation)""",
    "lingyang_ledger_request": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        batch_num VARCHAR(100),
        struct_digest VARCHAR(64) NOT NULL,
        written_at DOUBLE PRECISION NOT NULL,
        worker VARCHAR(32) NOT NULL,
        owner VARCHAR(32) NOT NULL,
        writes BIGINT NOT NULL,
        PRIMARY KEY (campaign, generation, task_unique_code)""",
    "lingyang_ledger_recipient": """
        campaign VARCHAR(32) NOT NULL,
        generation INTEGER NOT NULL,
        recipient VARCHAR(32) NOT NULL,
        biz_id TEXT NOT NULL,
        task_unique_code VARCHAR(36) NOT NULL,
        place INTEGER NOT NULL,
        state VARCHAR(12) NOT NULL,
        task_id VARCHAR(20),
        PRIMARY KEY (campaign, generation, recipient),
        UNIQUE (campaign, generation, task_unique_code, place)""",
}
# Its defaults are the server's: an engine without transactions, or a character set without Chinese.
_MYSQL_OPTIONS = " ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4"

STATES = _ACCEPTED, _REJECTED, _NOT_EXECUTED, _IN_DOUBT = "accepted", "rejected", "not_executed", "in_doubt"
"""Of a recipient."""
_ENFORCES_KEYS: set[str] = set()
"""Connections of which this process knows that."""
_THIS = "campaign=? AND generation=?"

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _repeated_after(*errors: type[LedgerError]) -> Callable[[_Method], _Method]:
    """Run a method again when nothing of it stayed because another worker's transaction was there first."""

    def decorate(method: _Method) -> _Method:
        @wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            for _ in range(4):
                with suppress(*errors):
                    return method(*args, **kwargs)
            return method(*args, **kwargs)

        return cast("_Method", run)

    return decorate


class SqlLedger:
    """Keeps campaigns in a database.

    :param hook: any ``DbApiHook``.
    :param conn_id: its connection's name, for errors and for others to read the ledger.
    :param campaign_key: whose campaign.
    :param attempt: which try this is.
    """

    remembers = True

    def __init__(self, hook: Any, conn_id: str, campaign_key: str, attempt: Attempt) -> None:
        self._database = Database(hook, conn_id)
        self._options = _MYSQL_OPTIONS if getattr(hook, "conn_type", None) == "mysql" else ""
        self._conn_id = conn_id
        self._campaign_key = campaign_key
        self._attempt = attempt
        self._worker = digest(campaign_key, attempt.worker)
        self._owner = uuid.uuid4().hex
        self._campaign = ""
        self._generation = 1
        self._plan_id = 0
        self._has_written = False

    @property
    def handle(self) -> dict[str, Any] | None:
        """How others can read it: the connection, which campaign of its tables, and who of its workers this is."""
        return {
            "ledger_conn_id": self._conn_id,
            "campaign_key": self._campaign_key,
            "plan_id": self._plan_id,
            "generation": self._generation,
            "worker": self._worker,
        }

    @_repeated_after(CollisionError, GaveWayError)
    def claim(self) -> bool:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        self._create_tables()
        self._check_keys()
        with self._database.transaction() as run:
            known = run.count(
                "UPDATE lingyang_ledger_worker SET owner=?, writes=writes+1, claimed_at=? WHERE worker=?",
                [self._owner, time.time(), self._worker],
            )
            if not known:
                run.insert(
                    "lingyang_ledger_worker",
                    "worker, campaign_key, owner, knows_past, writes, claimed_at",
                    [
                        (
                            self._worker,
                            self._campaign_key,
                            self._owner,
                            int(not self._attempt.has_past),
                            1,
                            time.time(),
                        )
                    ],
                )
            ((knows,),) = run.rows(
                "SELECT knows_past FROM lingyang_ledger_worker WHERE worker=?", [self._worker]
            )
        return bool(knows)

    def know_past(self) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        with self._database.transaction() as run:
            self._check_owner(run)
            run.count("UPDATE lingyang_ledger_worker SET knows_past=1 WHERE worker=?", [self._worker])

    @_repeated_after(CollisionError, GaveWayError)
    def open(self, header: Header, *, resubmit: bool = False) -> int:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        self._campaign = digest(self._campaign_key, header.plan_id)
        self._plan_id = header.plan_id
        with self._database.transaction() as run:
            self._check_owner(run)
            if resubmit:
                # Before the first SELECT: some databases show the whole transaction what was there at that time.
                self._hold(run)
            rows = run.rows(
                "SELECT generation, host, app_key, plan_id, key_fingerprint, finished_by, finished_max_tries "
                "FROM lingyang_ledger_campaign WHERE campaign=? ORDER BY generation",
                [self._campaign],
            )
            found = None
            if rows:
                generation, host, app_key, plan_id, fingerprint, *finished = rows[-1]
                found = Opened(
                    generation,
                    Header(host, app_key, plan_id, fingerprint),
                    (finished[0], finished[1]) if finished[0] else None,
                    lambda: self._begun(run, generation),
                    lambda: self._shared(run, generation),
                )
            self._generation = generation_of(found, header, self._attempt, resubmit=resubmit)
            if found is not None and found.generation == self._generation:
                self._set_finished(run, None, None)
                run.count(
                    f"UPDATE lingyang_ledger_campaign SET host=?, app_key=?, key_fingerprint=? WHERE {_THIS}",
                    [header.host, header.app_key, header.key_fingerprint, *self._this],
                )
            else:
                run.insert(
                    "lingyang_ledger_campaign",
                    "campaign, generation, campaign_key, plan_id, host, app_key, key_fingerprint, opened_at",
                    [
                        (
                            self._campaign,
                            self._generation,
                            self._campaign_key,
                            header.plan_id,
                            header.host,
                            header.app_key,
                            header.key_fingerprint,
                            time.time(),
                        )
                    ],
                )
        return self._generation

    def _begun(self, run: Statements, generation: int) -> bool:
        ((count,),) = run.rows(
            "SELECT count(*) FROM lingyang_ledger_recipient WHERE campaign=? AND generation=? AND state<>?",
            [self._campaign, generation, _NOT_EXECUTED],
        )
        return bool(count)

    def _shared(self, run: Statements, generation: int) -> bool:
        ((count,),) = run.rows(
            "SELECT count(*) FROM lingyang_ledger_request WHERE campaign=? AND generation=? AND worker<>?",
            [self._campaign, generation, self._worker],
        )
        return bool(count)

    def _hold(self, run: Statements) -> None:
        """Let no other worker begin with a generation, or end it, until the transaction ends."""
        run.count(
            "UPDATE lingyang_ledger_campaign SET opened_at=opened_at WHERE campaign=?", [self._campaign]
        )

    def past(self) -> Iterator[PastRequest]:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        with self._database.transaction() as run:
            requests = run.rows(
                "SELECT task_unique_code, batch_num, struct_digest, written_at, worker FROM lingyang_ledger_request "
                f"WHERE {_THIS} ORDER BY written_at, task_unique_code",
                self._this,
            )
        for some in chunks(requests):
            states: dict[str, dict[str, list[tuple[str, str]]]] = {}
            with self._database.transaction() as run:
                found = run.rows(
                    f"SELECT task_unique_code, state, recipient, biz_id FROM lingyang_ledger_recipient WHERE {_THIS} "
                    f"AND task_unique_code IN ({marks(some)}) ORDER BY task_unique_code, place",
                    [*self._this, *(code for code, *_ in some)],
                )
            for code, state, recipient, biz_id in found:
                states.setdefault(code, {}).setdefault(state, []).append((recipient, biz_id))
            for code, batch_num, struct_digest, written_at, worker in some:
                ids = states.get(code, {})
                yield PastRequest(
                    task_unique_code=code,
                    batch_num=batch_num,
                    struct_digest=struct_digest,
                    written_at=written_at,
                    accepted=_keys(ids.get(_ACCEPTED, ())),
                    rejected=_keys(ids.get(_REJECTED, ())),
                    not_executed=_keys(ids.get(_NOT_EXECUTED, ())),
                    in_doubt=[self._unchanged(*pair) for pair in ids.get(_IN_DOUBT, ())],
                    mine=worker == self._worker,
                )

    @_repeated_after(GaveWayError)
    def write(self, outcomes: Sequence[Outcome], intents: Sequence[Intent]) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        if not outcomes and not intents:
            return
        with self._database.transaction() as run:
            self._check_owner(run)
            if intents and not self._has_written:
                self._check_generation(run)
            for outcome in outcomes:
                self._write_outcome(run, outcome)
            self._write_intents(run, intents)
        self._has_written = self._has_written or bool(intents)

    @_repeated_after(GaveWayError)
    def renew(self, intents: Sequence[Intent]) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        with self._database.transaction() as run:
            self._check_owner(run)
            for intent in intents:
                if not self._owns(run, intent.task_unique_code):
                    raise self._taken_over(intent.task_unique_code)

    @_repeated_after(GaveWayError)
    def take_over(self, task_unique_codes: Sequence[str]) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        with self._database.transaction() as run:
            self._check_owner(run)
            for code in task_unique_codes:
                run.count(
                    # Not its worker, who sent it: the people are that one's, too.
                    f"UPDATE lingyang_ledger_request SET owner=? WHERE {_THIS} AND task_unique_code=?",
                    [self._owner, *self._this, code],
                )

    @_repeated_after(GaveWayError)
    def finish(self) -> None:
        """See :class:`~airflow_provider_lingyang.ledger.base.Ledger`."""
        with self._database.transaction() as run:
            self._check_owner(run)
            self._set_finished(run, self._attempt.worker, self._attempt.max_tries)

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    @property
    def _this(self) -> tuple[str, int]:
        return self._campaign, self._generation

    def _unchanged(self, recipient: str, biz_id: str) -> str:
        if key_of(biz_id).hex() != recipient:
            raise LedgerRefusedError(
                f"the ledger's database (connection {self._conn_id!r}) does not give a biz_id back as it was written "
                "(a character set without Chinese, or blanks cut off): nobody can tell who is in doubt"
            )
        return biz_id

    def _set_finished(self, run: Statements, worker: str | None, max_tries: int | None) -> None:
        run.count(
            f"UPDATE lingyang_ledger_campaign SET finished_by=?, finished_max_tries=? WHERE {_THIS}",
            [worker, max_tries, *self._this],
        )

    def _check_owner(self, run: Statements) -> None:
        # First in each transaction, and a write: it holds the row against a taker-over until the transaction ends.
        if not run.count(
            "UPDATE lingyang_ledger_worker SET writes=writes+1 WHERE worker=? AND owner=?",
            [self._worker, self._owner],
        ):
            raise LedgerFencedError(
                f"the ledger on connection {self._conn_id!r} was taken over by another try of this task, or emptied"
            )

    def _check_generation(self, run: Statements) -> None:
        self._hold(run)
        ((latest,),) = run.rows(
            "SELECT max(generation) FROM lingyang_ledger_campaign WHERE campaign=?", [self._campaign]
        )
        if latest != self._generation:
            raise LedgerFencedError(
                f"the campaign on connection {self._conn_id!r} was started anew meanwhile (on_clear='resubmit' of "
                "another task)"
            )

    def _owns(self, run: Statements, code: str) -> bool:
        return bool(
            run.count(
                f"UPDATE lingyang_ledger_request SET writes=writes+1 WHERE {_THIS} AND task_unique_code=? AND owner=?",
                [*self._this, code, self._owner],
            )
        )

    def _taken_over(self, code: str) -> LedgerFencedError:
        return LedgerFencedError(f"the request {code} was taken over by another task of the same campaign")

    def _write_outcome(self, run: Statements, outcome: Outcome) -> None:
        code = outcome.task_unique_code
        if not self._owns(run, code):
            if outcome.accepted or outcome.rejected or outcome.in_doubt:
                raise self._taken_over(code)
            # Its intent was never written, so there is nothing to take back; and who is another's stays as it is.
            return
        of_code = f"WHERE {_THIS} AND task_unique_code=? AND recipient IN "
        for pairs in chunks([(key_of(biz_id).hex(), number) for biz_id, number in outcome.accepted.items()]):
            keys = [key for key, _ in pairs]
            # Whatever the gateway says must not keep the outcome from being written.
            told = [(key, str(number)) for key, number in pairs if number and -(2**63) <= number < 2**63]
            task_id = f"CASE recipient {'WHEN ? THEN ? ' * len(told)}ELSE task_id END" if told else "task_id"
            run.count(
                # Whatever another task has made of them: who was accepted is never free again.
                f"UPDATE lingyang_ledger_recipient SET state=?, task_id={task_id} {of_code} ({marks(keys)})",
                [_ACCEPTED, *chain.from_iterable(told), *self._this, code, *keys],
            )
        for state, biz_ids in ((_REJECTED, outcome.rejected), (_NOT_EXECUTED, outcome.not_executed)):
            for some in chunks([key_of(biz_id).hex() for biz_id in biz_ids]):
                run.count(
                    f"UPDATE lingyang_ledger_recipient SET state=? {of_code} ({marks(some)}) AND state=?",
                    [state, *self._this, code, *some, _IN_DOUBT],
                )

    def _write_intents(self, run: Statements, intents: Sequence[Intent]) -> None:
        requests, recipients = [], []
        for intent in intents:
            code = intent.task_unique_code
            keys = [key_of(biz_id).hex() for biz_id in intent.biz_ids]
            worker = self._free(run, code, keys) if intent.again else self._worker
            requests.append(
                (
                    *self._this,
                    code,
                    intent.batch_num,
                    intent.struct_digest,
                    intent.written_at,
                    worker,
                    self._owner,
                    1,
                )
            )
            recipients += [
                (*self._this, key, biz_id, code, place, _IN_DOUBT)
                for place, (key, biz_id) in enumerate(zip(keys, intent.biz_ids, strict=True))
            ]
        run.insert(
            "lingyang_ledger_request",
            "campaign, generation, task_unique_code, batch_num, struct_digest, written_at, worker, owner, writes",
            requests,
        )
        run.insert(
            "lingyang_ledger_recipient",
            "campaign, generation, recipient, biz_id, task_unique_code, place, state",
            recipients,
        )

    def _free(self, run: Statements, code: str, keys: Sequence[str]) -> str:
        """Make room for recipients that are sent again: nobody was executed, or the gateway knows the code.

        :return: whose request it is.
        """
        for some in chunks(keys):
            run.count(
                f"DELETE FROM lingyang_ledger_recipient WHERE {_THIS} AND state=? AND recipient IN ({marks(some)})",
                [*self._this, _NOT_EXECUTED, *some],
            )
        mine = run.rows(
            f"SELECT worker FROM lingyang_ledger_request WHERE {_THIS} AND task_unique_code=? AND owner=?",
            [*self._this, code, self._owner],
        )
        if mine:
            run.count(
                f"DELETE FROM lingyang_ledger_recipient WHERE {_THIS} AND state=? AND task_unique_code=?",
                [*self._this, _IN_DOUBT, code],
            )
        left = run.rows(
            f"SELECT recipient FROM lingyang_ledger_recipient WHERE {_THIS} AND task_unique_code=?",
            [*self._this, code],
        )
        if not left:
            run.count(
                f"DELETE FROM lingyang_ledger_request WHERE {_THIS} AND task_unique_code=?",
                [*self._this, code],
            )
        return str(mine[0][0]) if mine else self._worker

    def _check_keys(self) -> None:
        """Find out, once in a process, whether the database refuses a key that is there already.

        :raises LedgerRefusedError: it takes keys and does not enforce them: two workers could have one recipient.
        """
        if self._conn_id in _ENFORCES_KEYS:
            return
        probe = uuid.uuid4().hex  # nobody else's, and rolled back
        with suppress(CollisionError), self._database.transaction() as run:
            for place in range(2):
                run.insert(
                    "lingyang_ledger_recipient",
                    "campaign, generation, recipient, biz_id, task_unique_code, place, state",
                    [(probe, 0, probe, "probe", probe, place, _NOT_EXECUTED)],
                )
            raise LedgerRefusedError(
                f"the ledger's database (connection {self._conn_id!r}) took one primary key twice: it does not "
                "enforce keys (Snowflake, Redshift and BigQuery do not), or its tables lost theirs, so it cannot "
                "decide between two workers. Keep the ledger in PostgreSQL, MySQL, MariaDB or another database "
                "that does"
            )
        _ENFORCES_KEYS.add(self._conn_id)

    def _create_tables(self) -> None:
        for table, columns in _TABLES.items():
            if self._database.has(table):
                continue
            try:
                with self._database.transaction() as run:
                    run.count(f"CREATE TABLE {table} ({columns}){self._options}", [])
            except LedgerError as error:
                # Two workers may create it at the same time.
                if not self._database.has(table):
                    raise LedgerError(
                        f"the ledger's table {table} cannot be read or created: {error}"
                    ) from error


def accepted_people(handle: Mapping[str, Any], placeholder: str, *, of_worker: bool) -> tuple[str, list[Any]]:
    """Return the query, with its parameters, for ``biz_id`` and ``task_id`` of those whom a campaign accepted.

    :param handle: see :attr:`SqlLedger.handle`.
    :param placeholder: the database driver's mark for a parameter.
    :param of_worker: only those whom the handle's worker sent to: one instance of a mapped task, for example.
    """
    sql = (
        "SELECT person.biz_id, person.task_id FROM lingyang_ledger_recipient person WHERE person.campaign=? AND "
        "person.generation=? AND person.state=?"
    )
    parameters = [
        digest(handle["campaign_key"], handle["plan_id"]),
        handle["generation"],
        _ACCEPTED,
    ]
    if of_worker:
        sql += (
            " AND EXISTS (SELECT 1 FROM lingyang_ledger_request sent WHERE sent.campaign=person.campaign AND "
            "sent.generation=person.generation AND sent.task_unique_code=person.task_unique_code AND sent.worker=?)"
        )
        parameters.append(handle["worker"])
    return sql.replace("?", placeholder), parameters


def _keys(pairs: Sequence[tuple[str, str]]) -> list[bytes]:
    return [bytes.fromhex(recipient) for recipient, _ in pairs]
