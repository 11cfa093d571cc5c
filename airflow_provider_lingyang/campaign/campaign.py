"""One campaign from its rows to its account: read, decide, send. Knows neither Airflow nor HTTP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from airflow_provider_lingyang.campaign.audience import AudienceReader, Problem, Recipient
from airflow_provider_lingyang.campaign.batches import Identity, requests_of_batch
from airflow_provider_lingyang.campaign.manifest import BatchTally, Manifest
from airflow_provider_lingyang.campaign.reading import Reading
from airflow_provider_lingyang.campaign.spool import AudienceError, Spool
from airflow_provider_lingyang.campaign.submission import Pace, Sender, Submission
from airflow_provider_lingyang.gateway.models import UseBookInfo, explain

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


def parse_plan_id(value: Any) -> int:
    """Return the plan's number.

    :raises AudienceError: it is none.
    """
    text = str(value).strip()
    digits = text.isascii() and text.isdigit() and len(text) < 20
    if isinstance(value, bool) or not digits or int(text) >= 2**63:
        raise AudienceError(f"plan_id must be a number; it is {text[:40]!r}")
    return int(text)


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
    :param host: the gateway URL, part of every request's identity.
    :param app_key: likewise.
    :param key: keys derived ids: the App secret.
    """

    def __init__(self, spec: CampaignSpec, manifest: Manifest, *, host: str, app_key: str, key: str) -> None:
        self._spec = spec
        self._manifest = manifest
        self._identity = Identity(host, app_key, manifest.campaign_key, spec.plan_id, manifest.generation)
        self._key = key
        manifest.plan_id = spec.plan_id

    def read(self, source: RowSource, spool: Spool, stopped: Callable[[], bool]) -> None:
        """Read the whole audience and decide whether it may be sent.

        :param stopped: whether the task was told to stop.
        :raises ArgumentError: a column is unknown, missing or twice there.
        :raises AudienceError: the audience may not be sent.
        :raises SpoolError: no room for its private copy.
        :raises NobodyToSendTo: it is empty.
        """
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
                reading.fill(rows, stopped)
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

    def show_plan(self, spool: Spool) -> None:
        """Log what would be sent, and book everybody as not sent."""
        self._manifest.because("not_sent", "validate_only", len(spool))
        for batch_num, count in spool.batches():
            requests = -(-count // self._spec.batch_size)
            log.info("validate_only: batch_num %s: tasks %d, requests %d", batch_num, count, requests)

    def send(self, spool: Spool, send: Sender, pace: Pace, stopped: Callable[[], bool]) -> None:
        """Send everybody, in the order of ``batch_num``.

        :param send: sends one request.
        :param pace: holds requests back.
        :param stopped: whether the task was told to stop: then no further request leaves.
        :raises SubmissionStopped: the rest was not sent.
        """
        submission = Submission(send, self._manifest, pace, stopped)
        for batch_num, count in spool.batches():
            requests = requests_of_batch(
                spool,
                batch_num,
                identity=self._identity,
                batch_size=self._spec.batch_size,
                use_book_info=self._spec.use_book_info,
            )
            submission.send_batch(BatchTally(batch_num, count), requests)
