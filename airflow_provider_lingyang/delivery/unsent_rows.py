"""At the end of a try: what became of the rows that are in no request, for the people who read the ledger."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_lingyang.audience.store import NOT_SENT, AudienceStore
from airflow_provider_lingyang.audience.validation import REPEATED_CONTACT
from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.manifest import Manifest
from airflow_provider_lingyang.delivery.request_state import RequestState
from airflow_provider_lingyang.delivery.schedule import DeferSending
from airflow_provider_lingyang.delivery.send_queue import LEFT_OUT, OTHER_BIZ_ID
from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError
from airflow_provider_lingyang.identity import LOST_LEDGER
from airflow_provider_lingyang.ledger.base import Ledger
from airflow_provider_lingyang.ledger.patience import impatient
from airflow_provider_lingyang.ledger.unsent_row import UnsentRow

log = logging.getLogger(__name__)


@contextmanager
def explained(
    audience: AudienceStore, manifest: Manifest, ledger: Ledger, cancellation: Cancellation
) -> Iterator[None]:
    """Have the ledger show what became of each row, once the try has ended.

    Not where the campaign goes on, or no time is left. Whatever fails changes nothing else.
    """
    try:
        yield
    except DeferSending:
        raise
    except Exception as error:
        # A ledger that is away, or another process's, takes nothing.
        if not isinstance(error, LedgerError) or isinstance(error, LedgerRefusedError):
            _explain(audience, manifest, ledger, cancellation)
        raise
    _explain(audience, manifest, ledger, cancellation)


def _explain(audience: AudienceStore, manifest: Manifest, ledger: Ledger, cancellation: Cancellation) -> None:
    if not ledger.shows_rows or cancellation.requested():
        return
    doubts = {doubt.task_unique_code: doubt.reason for doubt in manifest.doubts}
    is_lost = doubts.pop(LOST_LEDGER, None)
    rows = unsent_rows(audience, manifest, is_lost)
    try:
        impatient(ledger).explain(_until_cancelled(rows, cancellation), doubts)
    except Exception as error:
        log.warning(
            "the ledger's view lingyang_recipients does not show all rows that were not sent (%s); nothing else "
            "depends on it",
            error if isinstance(error, LedgerError) else type(error).__name__,
        )


def unsent_rows(audience: AudienceStore, manifest: Manifest, lost: str | None = None) -> Iterator[UnsentRow]:
    """Yield the rows that are left out, then recipients that may be in no request.

    :param lost: why it is unknown whether earlier tries reached those recipients. Default None: they did not.
    """
    for number, state, batch_num, biz_id, reason, kept in audience.left_out():
        yield UnsentRow(number, state, False, batch_num, biz_id, reason, kept)
    reasons = manifest.reasons.get(NOT_SENT, Counter())
    if manifest.not_sent == reasons[REPEATED_CONTACT] and lost is None:
        return
    for number, batch_num, biz_id, found, kept in audience.in_states(RequestState.PENDING, LEFT_OUT):
        if found == LEFT_OUT:
            state, why = NOT_SENT, OTHER_BIZ_ID
        elif lost is not None:
            state, why = "in_doubt", lost
        else:
            state, why = NOT_SENT, manifest.why_not_attempted
        yield UnsentRow(number, state, True, batch_num, biz_id, why, kept)


def _until_cancelled(rows: Iterator[UnsentRow], cancellation: Cancellation) -> Iterator[UnsentRow]:
    for row in rows:
        if cancellation.requested():
            return
        yield row
