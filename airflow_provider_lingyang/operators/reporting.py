"""What a try of a submission reports: the manifest, the ids, and one sentence on how it ended."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    TaskDeferred,
)
from airflow.providers.common.compat.version_compat import get_base_airflow_version_tuple

from airflow_provider_lingyang.audience.store import AudienceError
from airflow_provider_lingyang.config.arguments import ArgumentError
from airflow_provider_lingyang.delivery.campaign import EmptyAudience
from airflow_provider_lingyang.delivery.manifest import Manifest
from airflow_provider_lingyang.delivery.schedule import DeferSending
from airflow_provider_lingyang.errors import LedgerError, LedgerRefusedError, SubmissionStopped
from airflow_provider_lingyang.gateway.errors import LingyangError
from airflow_provider_lingyang.identity import LOST_LEDGER
from airflow_provider_lingyang.ledger.base import Ledger
from airflow_provider_lingyang.ledger.task_try import TaskTry
from airflow_provider_lingyang.operators import ledgers
from airflow_provider_lingyang.storage.private_sqlite import SpoolError
from airflow_provider_lingyang.storage.query import QueryError

log = logging.getLogger(__name__)

_SHOWN = 10


@dataclass(slots=True)
class TryReport:
    """The report of one try.

    :param task: the operator.
    :param ti: the task instance, which keeps the XComs.
    """

    task: Any
    ti: Any
    manifest: Manifest
    task_try: TaskTry
    ledger: Ledger = field(default_factory=Ledger)
    ids_query: dict[str, Any] | None = None

    @contextmanager
    def accounted(self) -> Iterator[dict[str, Any]]:
        """Publish the manifest however the try ends, and raise what Airflow understands.

        Gives the manifest as plain JSON, filled at the end.
        """
        account: dict[str, Any] = {}
        failure: AirflowException | None = None
        later: DeferSending | None = None
        try:
            yield account
        except DeferSending as error:
            touched = self.manifest.accepted + self.manifest.already_accepted
            touched += self.manifest.rejected + self.manifest.in_doubt
            if self.ledger.is_durable or not touched:
                later = error
            else:
                failure = self.broken_off(f"{error.why}. {self._summary()}")
        except Exception as error:
            failure = self.to_airflow(error)
        except BaseException:
            self._publish(account)
            raise
        if failure is None and later is None and self.manifest.doubts:
            before_clear = f". {ledgers.BEFORE_CLEAR}" if self._is_discarded_by_clear else ""
            log.warning("%s%s", self._summary(), before_clear)
        if later is not None:
            # The manifest is the last line.
            log.info("%s. Until then the task holds no worker", later)
        if problem := self._publish(account, waits=later is not None):
            failure = failure or self.broken_off(f"{problem}. {self.manifest.in_words()}")
        if failure is not None:
            ordinary = type(failure) in (AirflowException, AirflowFailException)
            if ordinary and self._is_discarded_by_clear and ledgers.KEEP_STATE not in str(failure):
                failure = type(failure)(f"{str(failure).rstrip('.')}. {ledgers.BEFORE_CLEAR}")
            # from None: the original may repeat data, and Airflow prints what an error is chained to.
            raise failure from None
        if later is not None:
            from airflow.providers.standard.triggers.temporal import DateTimeTrigger

            trigger = DateTimeTrigger(moment=later.until.astimezone(UTC))
            raise TaskDeferred(trigger=trigger, method_name="resume")

    def to_airflow(self, error: Exception) -> AirflowException | None:
        """Return Airflow's error for one that ended the try; None: the try succeeds all the same."""
        if isinstance(error, EmptyAudience):
            if self.task.on_empty == "succeed":
                log.warning("%s", error)
                return None
            kind = AirflowSkipException if self.task.on_empty == "skip" else AirflowFailException
            return kind(str(error))
        nothing = "nothing was sent"
        if self.task_try.has_history or self.task_try.in_loop:
            nothing += " by this try"
        counts = self.manifest.in_words()
        refused = (AudienceError, ArgumentError, LingyangError, LedgerRefusedError)
        if isinstance(error, (*refused, SpoolError, QueryError)):
            message = f"{nothing}: {str(error).rstrip('.')}. {counts}"
            return self.broken_off(message, final=isinstance(error, refused))
        if isinstance(error, LedgerError):
            return self.broken_off(f"{str(error).rstrip('.')}, so nothing more was sent. {counts}")
        if isinstance(error, SubmissionStopped):
            return self.broken_off(f"{error}. {self._summary()}", final=error.final)
        if isinstance(error, AirflowException):
            return error
        # Not chained, and without its text: what an unforeseen error repeats of the data is unknown.
        log.error(
            "unforeseen %s:\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
        )
        return AirflowFailException(
            f"unforeseen {type(error).__name__}, see the traceback above. {self._summary()}"
        )

    def broken_off(self, message: str, *, final: bool = False) -> AirflowException:
        """Return the failure of a try; final too where a later one could not go on."""
        final = final or not self.ledger.is_durable
        return (AirflowFailException if final else AirflowException)(message)

    @property
    def _is_discarded_by_clear(self) -> bool:
        """Whether there is a ledger, and Clear discards it by default."""
        in_task_state = self.ledger.is_durable and self.task.ledger_conn_id is None
        return in_task_state and ledgers.clear_discards_task_state()

    def _summary(self) -> str:
        """Return what became of the audience, and what to do now."""
        return f"{self.manifest.in_words()}. {_way_out(self.manifest, self.ledger)}"

    def _publish(self, account: dict[str, Any], *, waits: bool = False) -> str | None:
        """Push the manifest and the ids, and log the manifest last; return what went wrong, without raising it."""
        manifest = self.manifest
        account |= manifest.to_json()
        problem = None
        xcoms: dict[str, Any] = {"manifest": account, "biz_ids": manifest.biz_ids}
        if manifest.task_ids is not None:
            xcoms["task_ids"] = manifest.task_ids
        without = manifest.rejected_ids
        if manifest.biz_ids is None and self.ids_query is not None and without is not None:
            xcoms["biz_ids_query"] = {**self.ids_query, "without": without}
        if self.task_try.resumed:
            # XComs pushed before the deferral remain, and are about other ids.
            xcoms = {"task_ids": None, "biz_ids_query": None} | xcoms
        if get_base_airflow_version_tuple()[:2] == (3, 0):
            # It fails when it is to keep null. A missing XCom reads as null, too. One pushed before the end would
            # stay, so none is.
            xcoms = {"manifest": account} if waits else {k: v for k, v in xcoms.items() if v is not None}
        for key, value in xcoms.items():
            try:
                self.ti.xcom_push(key=key, value=value)
            except Exception as error:
                # Without its text: a backend may quote the value.
                problem = (
                    f"XCom {key!r} could not be pushed ({type(error).__name__}); the manifest is in the log"
                )
                log.error("%s", problem)
        log.info("manifest %s", json.dumps(account, ensure_ascii=False))
        return problem


def _way_out(manifest: Manifest, ledger: Ledger) -> str:
    if not ledger.is_durable:
        return _way_out_without_ledger(manifest)
    # A lost ledger's entry stands for no single request, so the console shows none for it.
    if codes := [
        doubt.task_unique_code for doubt in manifest.doubts if doubt.task_unique_code != LOST_LEDGER
    ]:
        line = ", ".join(f'"{manifest.settle_key(code)}": "accepted"' for code in codes[:_SHOWN])
        more = f" and {len(codes) - _SHOWN} more, see in_doubt in the manifest" if len(codes) > _SHOWN else ""
        return (
            "Find out in the Lingyang console whether the requests in doubt were executed, then give this task "
            f"settle={{{line}}}{more} (or 'not_executed') and clear it; it goes on from there and repeats no "
            "recipient. (settle is the operator's argument; in the examples it comes from the Airflow Variable "
            f"lingyang_settle_{manifest.source.get('dag_id')})"
        )
    return (
        "The ledger knows the recipients already reached: correct the cause; the next try, or Clear, goes on with the "
        "others"
    )


def _way_out_without_ledger(manifest: Manifest) -> str:
    if not manifest.history_counted:
        # It failed before it had come to its ledger, or has none: what was before this try is not known here.
        return (
            "Correct the cause and clear this task. Trigger no new run: what earlier tries sent is not known to it, "
            "and it would send to all"
        )
    if manifest.in_doubt or manifest.accepted or manifest.rejected:
        cause = "find out in the Lingyang console whether the request in doubt was executed"
        return (
            f"Without a ledger this run sends nothing more: {cause if manifest.in_doubt else 'correct the cause'}, "
            "then send the remaining recipients in a new run, from an audience without those already reached"
        )
    return "Nothing was executed: correct the cause, then trigger a new run"
