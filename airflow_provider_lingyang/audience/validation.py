"""The audience, read once, as a whole: validated, checked for repetitions, counted. Nothing is sent before."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from airflow_provider_lingyang.audience.parser import Problems, Recipient
from airflow_provider_lingyang.audience.store import SHOWN, AudienceError, AudienceStore, Invalid
from airflow_provider_lingyang.config.literals import OnDuplicateContact, OnInvalid
from airflow_provider_lingyang.errors import SubmissionStopped

log = logging.getLogger(__name__)

REPEATED_CONTACT = "repeats an earlier row's contact"
"""Why a row is not sent."""
_LACKING = "is missing, while other rows have one"


@dataclass(slots=True)
class Validation:
    """What is known of the audience so far; true at any moment, also when reading breaks off.

    :param store: the recipients that can be sent.
    :param audience: rows read.
    :param invalid: rows that cannot be sent.
    :param repeated_contacts: valid rows left out because an earlier one has their contact.
    :param contacts_in_ids: valid rows whose ``biz_id`` holds their phone number or email address.
    """

    store: AudienceStore
    audience: int = 0
    invalid: Invalid = field(default_factory=Invalid)
    repeated_contacts: int = 0
    contacts_in_ids: int = 0

    def read(self, rows: Iterable[Recipient | Problems], stopped: Callable[[], bool] = lambda: False) -> None:
        """Read every row into the store.

        :param rows: from the first, in order.
        :param stopped: whether the task was asked to stop.
        :raises SubmissionStopped: it was.
        :raises SpoolError: the disk is full.
        """
        for row in rows:
            if stopped():
                raise SubmissionStopped(
                    "the task was asked to stop while it read the audience; this try sent nothing"
                )
            self.audience += 1
            if isinstance(row, Recipient):
                self.store.add(row)
                self.contacts_in_ids += _shows_contact(row)
            else:
                self.invalid.add(row, [self.audience])
                self.store.leave_out(self.audience, row)
        for column in ("batch_num", "biz_id"):
            count, first = self.store.drop_incomplete(column, _LACKING)
            if count:
                self.invalid.add(Problems([(column, _LACKING)]), first, count)

    def check(
        self, *, on_invalid: OnInvalid, on_duplicate_contact: OnDuplicateContact, max_recipients: int | None
    ) -> None:
        """Decide whether this audience may be sent.

        :param on_invalid: ``fail`` or ``skip``.
        :param on_duplicate_contact: ``warn``, ``fail`` or ``keep_first``.
        :param max_recipients: more valid rows than this are an error.
        :raises AudienceError: it may not; says which rows, and why.
        """
        if self.invalid.rows:
            text = f"{self.invalid.rows} of {self.audience} row(s) are not valid: {self.invalid}"
            if on_invalid == "fail":
                raise AudienceError(f"{text}. Correct them, or set on_invalid='skip' to send the others")
            log.warning("%s; on_invalid='skip' leaves them out", text)
        if self.contacts_in_ids:
            log.warning(
                "%d row(s) have their phone number or email address in the biz_id, and biz_ids appear in logs, XCom "
                "and the ledger: select another biz_id, or none: it is a keyed hash then",
                self.contacts_in_ids,
            )
        if spellings := self.store.batch_nums_of_equal_number():
            raise AudienceError(
                f"batch_num spells one number in several ways: {', '.join(spellings)}; use one of them"
            )
        self._check_contacts(on_duplicate_contact)
        count, rows = self.store.repeated_biz_ids()
        if count:
            raise AudienceError(
                f"{count} row(s) repeat a biz_id, which must be unique in a campaign: {'; '.join(rows)}. Make it "
                "unique; where it is made from the contact, in whatever spelling, set "
                "on_duplicate_contact='keep_first' or select a biz_id"
            )
        if max_recipients is not None and len(self.store) > max_recipients:
            raise AudienceError(
                f"{len(self.store)} valid recipients are more than max_recipients={max_recipients}: "
                "check the query, or raise the limit"
            )

    def _check_contacts(self, on_duplicate_contact: OnDuplicateContact) -> None:
        if on_duplicate_contact == "keep_first":
            self.repeated_contacts = self.store.drop_repeated_contacts(REPEATED_CONTACT)
            if self.repeated_contacts:
                log.warning(
                    "%d row(s) repeat an earlier row's contact and are left out", self.repeated_contacts
                )
            return
        count, first = self.store.repeated_contacts()
        if not count:
            return
        shown = ", ".join(map(str, first)) + (", …" if count > SHOWN else "")
        text = f"{count} row(s) repeat an earlier row's contact (row {shown})"
        if on_duplicate_contact == "fail":
            raise AudienceError(f"{text}: such a recipient would be contacted more than once")
        log.warning("%s: such a recipient is contacted more than once", text)


def _shows_contact(recipient: Recipient) -> bool:
    kind, _, value = recipient.contact.partition(" ")
    return not recipient.derived and kind in ("phone_number", "email") and value in recipient.biz_id.lower()
