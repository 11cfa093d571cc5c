"""One campaign from its rows to its account: read, decide, send. Knows neither Airflow nor HTTP."""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airflow_provider_lingyang.audience.parser import AudienceReader, Problem, Recipient
from airflow_provider_lingyang.audience.store import AudienceError, Spool
from airflow_provider_lingyang.audience.validation import Reading
from airflow_provider_lingyang.cancellation import Stop
from airflow_provider_lingyang.delivery.dispatcher import Policy, Submission
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.preview import Plan
from airflow_provider_lingyang.delivery.progress import Progress
from airflow_provider_lingyang.delivery.reconciler import Inquiry, LookUp
from airflow_provider_lingyang.delivery.recovery import Resume, inherit, recall
from airflow_provider_lingyang.delivery.requests import BatchRequest, Identity, RequestBuilder
from airflow_provider_lingyang.delivery.schedule import Gate
from airflow_provider_lingyang.delivery.sender_pool import Couriers, Wire
from airflow_provider_lingyang.gateway.models import UseBookInfo, explain
from airflow_provider_lingyang.gateway.retry import RetryPolicy
from airflow_provider_lingyang.ledger.base import Header, Ledger

log = logging.getLogger(__name__)

RowSource = Callable[[AudienceReader], AbstractContextManager[Iterator[Recipient | list[Problem]]]]
"""Opens the audience and gives its rows, read."""


class NobodyToSendTo(Exception):
    """The audience is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSpec:
    """What is to be done, after rendering. The names are the operator's; see there."""

    plan_id: int
    channel: str | None
    use_book_info: UseBookInfo | None
    columns: Mapping[str, str]
    task_defaults: Mapping[str, Any]
    input_params_columns: Mapping[str, str]
    output_slots: Sequence[str]
    batch_size: int
    max_recipients: int | None
    on_invalid: str
    on_duplicate_contact: str


def parse_book(value: Mapping[str, Any] | None) -> UseBookInfo | None:
    """Return who pays.

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


class Campaign:
    """Reads an audience, then sends it.

    :param spec: what is to be done.
    :param manifest: the account; true at any moment.
    :param ledger: what earlier tries left, and what this one leaves.
    :param host: the gateway URL, part of every request's identity.
    :param app_key: likewise.
    :param key: keys derived ids: the App secret.
    """

    def __init__(
        self,
        spec: CampaignSpec,
        manifest: Manifest,
        ledger: Ledger,
        *,
        host: str,
        app_key: str,
        key: str,
    ) -> None:
        self._spec = spec
        self._manifest = manifest
        self._ledger = ledger
        self._host = host
        self._app_key = app_key
        self._key = key
        manifest.plan_id = spec.plan_id

    def open(self, *, resubmit: bool) -> None:
        """Open the campaign in the ledger.

        :param resubmit: a Clear of a finished submission sends everybody again.
        :raises LedgerRefusedError: it belongs to another app, or was begun with another secret.
        :raises LedgerError: the ledger cannot be written.
        """
        header = Header.of(
            host=self._host, app_key=self._app_key, app_secret=self._key, plan_id=self._spec.plan_id
        )
        self._manifest.generation = self._ledger.open(header, resubmit=resubmit)
        self._manifest.ledger = self._ledger.handle

    def read(self, source: RowSource, spool: Spool, stop: Stop, *, unknown_past: bool = False) -> None:
        """Read the whole audience and decide whether it may be sent.

        :param stop: ends the reading when the task is told to stop.
        :param unknown_past: there were earlier tries, and the ledger knows nothing of them.
        :raises ArgumentError: a column is unknown, missing or twice there.
        :raises AudienceError: the audience may not be sent.
        :raises SpoolError: no room for its private copy.
        :raises NobodyToSendTo: it is empty.
        :raises SubmissionStopped: the task was told to stop.
        """
        try:
            self._read(source, spool, stop)
        except Exception:
            if self._ledger.remembers and not stop.told():
                self._account_for_past(spool, unknown_past=unknown_past)
            raise

    def _account_for_past(self, spool: Spool, *, unknown_past: bool) -> None:
        """Book what earlier tries did, as far as that is possible: this one ends without knowing."""
        try:
            recall(spool, self._ledger, self._manifest)
            inherit(spool, self._manifest)
        except Exception as error:
            # What ended this try is what has to be told.
            log.warning("what earlier tries did cannot be counted: %s", type(error).__name__)
        else:
            self._manifest.past_counted = not unknown_past

    def _read(self, source: RowSource, spool: Spool, stop: Stop) -> None:
        spec = self._spec
        reader = AudienceReader(
            columns=spec.columns,
            task_defaults=spec.task_defaults,
            input_params_columns=spec.input_params_columns,
            output_slots=spec.output_slots,
            channel=spec.channel,
            campaign=f"{self._manifest.campaign_key}/{spec.plan_id}",
            key=self._key,
        )
        reading = Reading(spool)
        try:
            with source(reader) as rows:
                reading.fill(rows, stop.told)
            log.info("read %d rows: %d valid, %d invalid", reading.audience, len(spool), reading.invalid.rows)
            reading.check(
                on_invalid=spec.on_invalid,
                on_duplicate_contact=spec.on_duplicate_contact,
                max_recipients=spec.max_recipients,
            )
        finally:
            self._manifest.audience = reading.audience
            self._manifest.invalid = reading.invalid.rows
            self._manifest.because("not_sent", "repeats an earlier row's contact", reading.repeated_contacts)
        if not reading.audience:
            raise NobodyToSendTo("nobody to send to: the audience has no rows")
        if not len(spool):
            raise AudienceError(f"not one of {reading.audience} row(s) is valid: {reading.invalid}")

    def show_plan(self, spool: Spool, gate: Gate) -> None:
        """Log what would be sent, and book everybody as not sent.

        :param gate: would hold requests back.
        """
        plan = Plan.of(spool, self._spec.batch_size, gate)
        self._manifest.because("not_sent", "validate_only", len(spool))
        self._manifest.plan = plan.to_json()
        log.info("validate_only, so nothing is sent. %s", plan)
        if plan.too_late:
            log.warning("the plan does not end before send_until: the rest would not be sent")

    def send(
        self,
        spool: Spool,
        *,
        new_wire: Callable[[], Wire],
        look_up: LookUp | None,
        dated: bool,
        gate: Gate,
        policy: Policy,
        stop: Stop,
        settle: Mapping[str, str],
        unknown_past: bool = False,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Send everybody who is still to be sent to, in the order of ``batch_num``.

        :param new_wire: makes a connection to the gateway that sends each request once.
        :param look_up: asks for results by ``biz_id``; None: no look-up is configured.
        :param dated: whether its results tell when they were created.
        :param gate: holds requests back.
        :param stop: whether the task was told to stop: then no further request leaves.
        :param settle: what the author knows of requests in doubt: code → ``accepted`` or ``not_executed``.
        :param unknown_past: there were earlier tries, and the ledger knows nothing of them: everybody is in doubt.
        :param rng: source of jitter between attempts.
        :param clock: returns epoch seconds.
        :raises SubmissionStopped: the rest was not sent.
        :raises Later: the rest cannot be sent now.
        :raises LedgerError: the ledger cannot be read or written.
        """
        spec, manifest = self._spec, self._manifest
        started = monotonic()
        identity = Identity(
            self._host, self._app_key, manifest.campaign_key, spec.plan_id, manifest.generation
        )
        builder = RequestBuilder(spool, identity, spec.batch_size, spec.use_book_info)
        with Couriers(new_wire, policy.max_in_flight + policy.ahead) as couriers:
            inquiry = look_up and Inquiry(
                lambda biz_ids: couriers.call(lambda _: look_up(biz_ids), stop),
                stop,
                dated=dated,
                reused=manifest.generation > 1,
                monotonic=monotonic,
            )
            resume = Resume(builder, self._ledger, manifest, policy, inquiry, stop)
            resent = resume.go_on(settle, started + policy.lookup_settle, unknown_past=unknown_past)
            batches = spool.batches()
            total = sum(count for _, count in batches)
            with Progress(manifest, total, monotonic=monotonic) as progress:
                submission = Submission(
                    couriers=couriers,
                    ledger=self._ledger,
                    spool=spool,
                    manifest=manifest,
                    progress=progress,
                    gate=gate,
                    retry=RetryPolicy(policy.max_attempts, rng or random.Random()),
                    policy=policy,
                    stop=stop,
                    inquiry=inquiry,
                    resent=resent,
                    clock=clock,
                    monotonic=monotonic,
                )
                for batch_num, count in batches:

                    def requests(
                        after: int | None, batch_num: str | None = batch_num
                    ) -> Iterable[BatchRequest]:
                        if after is not None:
                            return builder.again(batch_num, after=after)
                        return itertools.chain(builder.again(batch_num), builder.new(batch_num))

                    submission.send_batch(BatchTally(batch_num, count), requests)
