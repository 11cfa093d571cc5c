"""One campaign from its rows to its account: read, decide, send. Knows neither Airflow nor HTTP."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import KW_ONLY, dataclass, field
from datetime import tzinfo
from functools import partial
from typing import Any

from pydantic import ValidationError

from airflow_provider_lingyang.audience.parser import Problems, Recipient, RowParser
from airflow_provider_lingyang.audience.store import AudienceError, AudienceStore
from airflow_provider_lingyang.audience.validation import REPEATED_CONTACT, Validation
from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.config.literals import Channel, OnDuplicateContact, OnInvalid
from airflow_provider_lingyang.delivery.dispatcher import Dispatcher
from airflow_provider_lingyang.delivery.lost_history import LostLedger
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.preview import NO_LOOK_UP, SendPreview
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.reconciler import LookUp, Reconciler
from airflow_provider_lingyang.delivery.recovery import NOT_EXECUTED, Recovery, count_history, load_history
from airflow_provider_lingyang.delivery.requests import Identity, RequestBuilder
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue, count_overtaken
from airflow_provider_lingyang.delivery.sender_pool import SenderPool, Wire
from airflow_provider_lingyang.delivery.shard_order import SENT_ALL, ShardOrder
from airflow_provider_lingyang.errors import LedgerError, SubmissionStopped
from airflow_provider_lingyang.gateway.attempts import RetryPolicy
from airflow_provider_lingyang.gateway.models import UseBookInfo, explain
from airflow_provider_lingyang.identity import IDENTITY_VERSION, settle_key
from airflow_provider_lingyang.ledger.base import Header, Ledger
from airflow_provider_lingyang.ledger.patience import impatient

log = logging.getLogger(__name__)

RowSource = Callable[[RowParser], AbstractContextManager[Iterator[Recipient | Problems]]]
"""Opens the audience and gives its rows, read."""


class EmptyAudience(Exception):
    """The audience is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """What is to be done, after rendering. The names are the operator's; see there."""

    plan_id: int
    channel: Channel | None
    use_book_info: UseBookInfo | None
    columns: Mapping[str, str]
    task_defaults: Mapping[str, Any]
    input_params_columns: Mapping[str, str]
    output_slots: Sequence[str]
    keep_columns: Sequence[str]
    batch_size: int
    max_recipients: int | None
    on_invalid: OnInvalid
    on_duplicate_contact: OnDuplicateContact
    plan_variables_as_text: bool = False
    international_numbers: bool = False


def parse_book(value: Mapping[str, Any] | None) -> UseBookInfo | None:
    """Return the payer of the plan.

    :raises AudienceError: a field is missing, unknown or wrong.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise AudienceError(f"use_book_info must be a dict; it is a {type(value).__name__}")
    try:
        return UseBookInfo.model_validate(dict(value))
    except ValidationError as error:
        problems = "; ".join(f"{name} {reason}" for name, reason in explain(error))
        raise AudienceError(f"use_book_info: {problems}") from None


@dataclass(slots=True)
class Campaign:
    """Reads an audience, then sends it.

    :param spec: what is to be done.
    :param manifest: the account; true at any moment.
    :param ledger: what earlier tries left, and what this one leaves.
    :param host: the gateway URL, part of every request's identity.
    :param app_key: likewise.
    :param key: keys derived ids: the App secret.
    """

    spec: CampaignSpec
    manifest: Manifest
    ledger: Ledger
    _: KW_ONLY
    host: str
    app_key: str
    key: str = field(repr=False)
    _identity_version: int = field(init=False, default=IDENTITY_VERSION)
    _spent_words: frozenset[str] = field(init=False, default=frozenset())
    """Words of ``settle`` that have been applied when the campaign was opened."""

    def __post_init__(self) -> None:
        self.manifest.plan_id = self.spec.plan_id

    def open(
        self,
        cancellation: Cancellation,
        *,
        resubmit: bool,
        settle: Mapping[str, str] | None = None,
    ) -> None:
        """Open the campaign in the ledger.

        :param cancellation: ends a wait for other tasks when the task is asked to stop.
        :param resubmit: a Clear of a finished submission sends to all recipients again.
        :param settle: a person's words, see :meth:`send`: they may let the campaign go on with other settings.
        :raises LedgerRefusedError: it belongs to another app, or was begun with another secret.
        :raises LedgerError: the ledger cannot be written.
        :raises SubmissionStopped: the task was asked to stop.
        """

        def wait(seconds: float) -> None:
            why = "other tasks may still send what they had begun with the settings before"
            if not cancellation.sleep_until(time.monotonic() + seconds, why):
                raise SubmissionStopped(
                    "the task was asked to stop while it waited for other tasks; nothing was sent by this try"
                )

        header = Header.of(
            host=self.host, app_key=self.app_key, app_secret=self.key, plan_id=self.spec.plan_id
        )
        not_executed = {key for key, said in (settle or {}).items() if said == NOT_EXECUTED}
        self.manifest.settle_key = lambda code: settle_key(code, self.ledger.number(code))
        opening = self.ledger.open(header, resubmit=resubmit, not_executed=not_executed, wait=wait)
        self.manifest.generation = opening.generation
        self._spent_words = frozenset(opening.settled)
        if opening.changed:
            log.warning(
                "the campaign goes on with another %s: %d request(s) in doubt are settled as not executed, because "
                "settle says so: %s",
                " and ".join(opening.changed),
                len(opening.settled),
                ", ".join(opening.settled) or "none",
            )
        self._identity_version = opening.identity_version
        self.manifest.ledger = self.ledger.handle
        if self.manifest.ledger is not None and self.spec.keep_columns:
            # Known to what reads the results.
            self.manifest.ledger["keep_columns"] = list(self.spec.keep_columns)

    def read(
        self,
        source: RowSource,
        audience: AudienceStore,
        cancellation: Cancellation,
        *,
        history_unknown: bool = False,
    ) -> None:
        """Read the whole audience and decide whether it may be sent.

        :param cancellation: ends the reading when the task is asked to stop.
        :param history_unknown: there were earlier tries, and the ledger knows nothing of them.
        :raises ArgumentError: a column is unknown, missing or twice there.
        :raises AudienceError: the audience may not be sent.
        :raises SpoolError: no room for its private copy.
        :raises EmptyAudience: it is empty.
        :raises SubmissionStopped: the task was asked to stop.
        """
        try:
            self._read(source, audience, cancellation)
        except Exception:
            if self.ledger.is_durable and not cancellation.requested():
                self._count_history(audience, history_unknown=history_unknown)
            raise

    def _count_history(self, audience: AudienceStore, *, history_unknown: bool) -> None:
        """Book what earlier tries did, as far as that is possible: this one ends without knowing."""
        try:
            queue = SendQueue(audience)
            load_history(queue, self.ledger, self.manifest)
            count_history(queue, self.manifest)
        except Exception as error:
            # What ended this try is the error to report.
            log.warning("what earlier tries did cannot be counted: %s", type(error).__name__)
        else:
            self.manifest.history_counted = not history_unknown

    def _read(self, source: RowSource, audience: AudienceStore, cancellation: Cancellation) -> None:
        spec = self.spec
        reader = RowParser(
            columns=spec.columns,
            task_defaults=spec.task_defaults,
            input_params_columns=spec.input_params_columns,
            output_slots=spec.output_slots,
            channel=spec.channel,
            campaign=f"{self.manifest.campaign_key}/{spec.plan_id}",
            app_secret=self.key,
            identity_version=self._identity_version,
            plan_variables_as_text=spec.plan_variables_as_text,
            international_numbers=spec.international_numbers,
            keep_columns=spec.keep_columns,
        )
        reading = Validation(audience)
        try:
            with source(reader) as rows:
                reading.read(rows, cancellation.requested)
            log.info(
                "read %d rows: %d valid, %d invalid", reading.audience, len(audience), reading.invalid.rows
            )
            reading.check(
                on_invalid=spec.on_invalid,
                on_duplicate_contact=spec.on_duplicate_contact,
                max_recipients=spec.max_recipients,
            )
        finally:
            self.manifest.audience = reading.audience
            self.manifest.invalid = reading.invalid.rows
            self.manifest.add_reason("not_sent", REPEATED_CONTACT, reading.repeated_contacts)
        if not reading.audience:
            raise EmptyAudience("no recipient to send to: the audience has no rows")
        if not len(audience):
            raise AudienceError(f"not one of {reading.audience} row(s) is valid: {reading.invalid}")

    def show_plan(self, audience: AudienceStore, schedule: SendSchedule, look_up: str | None = None) -> None:
        """Log what would be sent, and book all recipients as not sent.

        :param schedule: would hold requests back.
        :param look_up: what the look-up can prove, in words; None: none is described.
        """
        plan = SendPreview.of(SendQueue(audience), self.spec.batch_size, schedule)
        self.manifest.add_reason("not_sent", "validate_only", len(audience))
        evidence = look_up or NO_LOOK_UP
        self.manifest.plan = plan.account | {"look_up": evidence}
        log.info("validate_only, so nothing is sent. %s", plan)
        log.info("should a request be in doubt: %s", evidence)
        if plan.too_late:
            log.warning("the plan does not end before send_until: the rest would not be sent")

    def send(
        self,
        audience: AudienceStore,
        *,
        new_wire: Callable[[], Wire],
        look_up: LookUp | None,
        dated: bool,
        created_at_zone: tzinfo | None = None,
        schedule: SendSchedule,
        policy: Policy,
        cancellation: Cancellation,
        settle: Mapping[str, str],
        lost: LostLedger | None = None,
    ) -> None:
        """Send to all remaining recipients, in the order of ``batch_num``.

        :param new_wire: makes a connection to the gateway that sends each request once.
        :param look_up: see :class:`~airflow_provider_lingyang.delivery.reconciler.Reconciler`, also for the two after
            it; None: no look-up is configured.
        :param schedule: holds requests back.
        :param cancellation: whether the task was asked to stop: then no further request leaves.
        :param settle: what the author knows of requests in doubt, as
            :func:`~airflow_provider_lingyang.config.arguments.parse_settle` returns it.
        :param lost: there were earlier tries, and the ledger knows nothing of them: every recipient is in doubt.
        :raises SubmissionStopped: the rest was not sent.
        :raises DeferSending: the rest cannot be sent now.
        :raises LedgerError: the ledger cannot be read or written.
        """
        spec, manifest = self.spec, self.manifest
        started, begun_at = time.monotonic(), time.time()
        identity = Identity(self.host, self.app_key, manifest.campaign_key, spec.plan_id, manifest.generation)
        queue = SendQueue(audience)
        builder = RequestBuilder(queue, identity, spec.batch_size, spec.use_book_info)
        with SenderPool(new_wire, policy.max_in_flight) as sender_pool:
            reconciler = look_up and Reconciler(
                lambda biz_ids: sender_pool.run_exclusively(lambda _: look_up(biz_ids), cancellation),
                cancellation,
                dated=dated,
                zone=created_at_zone,
                reused=manifest.generation > 1,
            )
            recovery = Recovery(builder, self.ledger, manifest, policy, reconciler, cancellation)
            words = {key: said for key, said in settle.items() if key not in self._spent_words}
            retried = recovery.run(words, started, lost=lost)
            batches = queue.batches()
            order = self._order(policy, schedule, cancellation)
            total = sum(count for _, count in batches)
            try:
                with Progress(manifest, total) as progress:
                    submission = Dispatcher(
                        sender_pool=sender_pool,
                        # It waits for the ledger itself, and reads the answers of what is under way meanwhile.
                        ledger=impatient(self.ledger),
                        queue=queue,
                        manifest=manifest,
                        progress=progress,
                        schedule=schedule,
                        retry=RetryPolicy(policy.max_attempts, random.Random()),
                        policy=policy,
                        cancellation=cancellation,
                        reconciler=reconciler,
                        retried=retried,
                    )
                    for batch_num, count in batches:
                        if order is not None:
                            order.wait_for(batch_num)
                        submission.send_batch(
                            BatchTally(batch_num, count), partial(builder.requests, batch_num)
                        )
                    submission.finish()
                if order is not None:
                    self.leave_order()
            except SubmissionStopped:
                recovery.wait_for_others()
                raise
            finally:
                self._count_overtaken(begun_at)
            recovery.wait_for_others()

    def leave_order(self) -> None:
        """Let no shard wait for this one any more: it has no recipient left.

        :raises LedgerError: the ledger cannot be written.
        """
        self.ledger.report_progress(SENT_ALL)

    def _order(self, policy: Policy, schedule: SendSchedule, cancellation: Cancellation) -> ShardOrder | None:
        if policy.shards is None:
            return None
        return ShardOrder(
            ledger=self.ledger,
            shards=policy.shards,
            patience=policy.shard_patience,
            schedule=schedule,
            cancellation=cancellation,
            is_new=not policy.is_resumed,
        )

    def _count_overtaken(self, since: float) -> None:
        """Count the recipients of this try's requests that left after other task instances had sent a later batch.

        :param since: epoch seconds.
        """
        with suppress(LedgerError):
            if others := self.ledger.sent_by_others():
                late = count_overtaken(self.ledger.sent_since(since), others)
                self.manifest.late = max(self.manifest.late, late)
