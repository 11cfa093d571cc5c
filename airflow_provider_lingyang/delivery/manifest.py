"""What became of every row of an audience: counts that always add up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from airflow_provider_lingyang.identity import LOST_LEDGER, recipient_hash

_MAX_BATCHES = 100
_MAX_REASONS = 20


@dataclass(slots=True)
class BatchTally:
    """What became of one ``batch_num``."""

    batch_num: str | None
    tasks: int
    requests: int = 0
    accepted: int = 0
    rejected: int = 0

    @property
    def name(self) -> str:
        """What messages call it."""
        return "without batch_num" if self.batch_num is None else f"batch_num {self.batch_num}"


@dataclass(slots=True)
class RequestInDoubt:
    """A request in doubt: it may or may not have been executed."""

    task_unique_code: str
    batch_num: str | None
    tasks: int
    reason: str = "broken off"


@dataclass(slots=True)
class Manifest:
    """The submission's account. What is in no other state is not_sent, so the counts add up at any moment.

    :param campaign_key: which campaign.
    :param output_slots: what the plan asks, for the sensor.
    :param source: where the XComs with the ids are: dag_id, run_id, task_id, map_index.
    :param ids_limit: how many accepted ids are kept.
    """

    campaign_key: str
    output_slots: Sequence[str]
    source: dict[str, Any]
    ids_limit: int = 0
    plan_id: int | None = None
    generation: int = 1
    audience: int = 0
    invalid: int = 0
    accepted: int = 0
    already_accepted: int = 0
    rejected: int = 0
    late: int = 0
    vanished: int = 0
    not_sent_reason: str = "not attempted"
    """Why recipients without a reason of their own were not sent."""
    settle_key: Callable[[str], str] = str
    """Gives what stands in ``settle`` for a request in doubt."""
    lost_key: str = ""
    """The same for all that a lost ledger may have held; empty: no word is asked for."""
    history_counted: bool = True
    """Whether these counts know what was sent before."""
    ledger: dict[str, Any] | None = None
    ledger_lacks: dict[str, int] = field(default_factory=dict)
    """State → number of recipients whose state could not be written to the ledger."""
    plan_url: str | None = None
    """Where a person finds the plan."""
    plan: dict[str, Any] | None = None
    """What would be sent, where nothing is."""
    batches: list[BatchTally] = field(default_factory=list)
    doubts: list[RequestInDoubt] = field(default_factory=list)
    reasons: dict[str, Counter[str]] = field(default_factory=dict)
    _accepted_ids: dict[str, int | None] = field(default_factory=dict)
    _rejected_ids: list[str] = field(default_factory=list)
    _digest: int = 0
    _started: float = field(default_factory=time.monotonic)

    @property
    def in_doubt(self) -> int:
        """Rows that may or may not have been contacted."""
        return sum(doubt.tasks for doubt in self.doubts)

    @property
    def not_sent(self) -> int:
        """Rows that no request carried out of here, or that provably was not executed."""
        settled = self.accepted + self.already_accepted + self.rejected
        return self.audience - self.invalid - settled - self.in_doubt

    @property
    def why_not_attempted(self) -> str:
        """Why recipients without a reason of their own were not sent."""
        counted = "" if self.history_counted else " by this try; earlier ones are not counted"
        return self.not_sent_reason + counted

    @property
    def biz_ids(self) -> list[str] | None:
        """The accepted ids, or None when there are more than may travel by XCom."""
        return list(self._accepted_ids) if self._ids_fit_xcom else None

    @property
    def task_ids(self) -> list[int | None] | None:
        """The platform's tasks of :attr:`biz_ids`, in the same order; None where none is known."""
        known = any(task_id is not None for task_id in self._accepted_ids.values())
        return list(self._accepted_ids.values()) if self._ids_fit_xcom and known else None

    @property
    def rejected_ids(self) -> list[str] | None:
        """The rejected ids, or None when there are more than may travel by XCom."""
        return self._rejected_ids if self.rejected <= self.ids_limit else None

    @property
    def _ids_fit_xcom(self) -> bool:
        return self.accepted + self.already_accepted <= self.ids_limit

    def add_history(self, accepted: Iterable[str], rejected: Iterable[str]) -> None:
        """Book what earlier tries did for recipients of this audience.

        :param accepted: all ids of those accepted.
        :param rejected: all ids of those rejected.
        """
        for biz_id in accepted:
            self.already_accepted += 1
            self._note_accepted(biz_id, None)
        before = self.rejected
        for biz_id in rejected:
            self.rejected += 1
            self._note_rejected(biz_id)
        self.add_reason("rejected", "in an earlier try", self.rejected - before)

    def _note_accepted(self, biz_id: str, task_id: int | None) -> None:
        self._digest ^= int.from_bytes(recipient_hash(biz_id))
        if len(self._accepted_ids) < self.ids_limit:
            self._accepted_ids[biz_id] = task_id

    def _note_rejected(self, biz_id: str) -> None:
        if len(self._rejected_ids) < self.ids_limit:
            self._rejected_ids.append(biz_id)

    def doubt(self, task_unique_code: str, batch_num: str | None, tasks: int) -> RequestInDoubt:
        """Book a request as in doubt, from before it leaves."""
        doubt = RequestInDoubt(task_unique_code, batch_num, tasks)
        self.doubts.append(doubt)
        return doubt

    def settle(
        self,
        doubt: RequestInDoubt,
        batch: BatchTally,
        *,
        accepted: Mapping[str, int | None] = MappingProxyType({}),
        rejected: Sequence[str] = (),
        in_doubt: int = 0,
    ) -> None:
        """Book the outcome of a request; the recipients that no number counts were not sent.

        :param accepted: ids of the accepted, and their tasks.
        :param rejected: ids of the rejected.
        :param in_doubt: how many of it are still in doubt.
        """
        total = self.accepted + len(accepted), self.rejected + len(rejected)
        # In one statement without a call: a signal handler that raises cannot come in between.
        doubt.tasks, self.accepted, self.rejected = in_doubt, *total
        batch.accepted += len(accepted)
        batch.rejected += len(rejected)
        if not in_doubt:
            self.doubts.remove(doubt)
        for biz_id, task_id in accepted.items():
            self._note_accepted(biz_id, task_id)
        for biz_id in rejected:
            self._note_rejected(biz_id)

    def add_reason(self, state: str, reason: str, count: int) -> None:
        """Note why rows are in a state."""
        if count:
            reasons = self.reasons.setdefault(state, Counter())
            known = reason in reasons or len(reasons) < _MAX_REASONS
            reasons[reason if known else "other reasons"] += count

    def _settle_as(self, code: str) -> dict[str, str]:
        """Return what stands in ``settle`` for a request in doubt, where that is not its code alone."""
        key = self.lost_key if code == LOST_LEDGER else self.settle_key(code)
        return {} if key in ("", code) else {"settle": key}

    def _all_reasons(self) -> dict[str, dict[str, int]]:
        found: dict[str, Counter[str]] = {state: Counter(reasons) for state, reasons in self.reasons.items()}
        for doubt in self.doubts:
            found.setdefault("in_doubt", Counter())[doubt.reason] += doubt.tasks
        explained = sum(found.get("not_sent", Counter()).values())
        if (unexplained := self.not_sent - explained) > 0:
            found.setdefault("not_sent", Counter())[self.why_not_attempted] += unexplained
        return {state: dict(reasons) for state, reasons in found.items()}

    def counts(self) -> dict[str, int]:
        """Return the states and how many rows are in each."""
        return {
            "audience": self.audience,
            "accepted": self.accepted,
            "already_accepted": self.already_accepted,
            "rejected": self.rejected,
            "invalid": self.invalid,
            "not_sent": self.not_sent,
            "in_doubt": self.in_doubt,
            "late": self.late,
            "vanished": self.vanished,
        }

    def in_words(self) -> str:
        """Return the counts as one sentence."""
        before = "" if self.history_counted else ". What was sent before is not in these counts"
        if self.ledger_lacks:
            lacks = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in self.ledger_lacks.items())
            before += (
                f". The ledger does not know of {lacks}; this manifest does. The next try finds them in doubt"
            )
        if not self.audience:
            return f"No row of the audience was read{before}"
        return (
            f"audience {self.audience} = accepted {self.accepted} + already accepted {self.already_accepted} + "
            f"rejected {self.rejected} + invalid {self.invalid} + not sent {self.not_sent} + in doubt {self.in_doubt}"
            f"{before}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the account as plain JSON of a few KB: at most the first 100 batches."""
        return {
            "campaign_key": self.campaign_key,
            "plan_id": self.plan_id,
            "plan_url": self.plan_url,
            "generation": self.generation,
            "output_slots": list(self.output_slots),
            "counts": self.counts(),
            "history_counted": self.history_counted,
            "batches": [asdict(batch) for batch in self.batches[:_MAX_BATCHES]],
            "batches_left_out": max(0, len(self.batches) - _MAX_BATCHES),
            "reasons": self._all_reasons(),
            "in_doubt": [
                {
                    "task_unique_code": doubt.task_unique_code,
                    "batch_num": doubt.batch_num,
                    "tasks": doubt.tasks,
                    **self._settle_as(doubt.task_unique_code),
                }
                for doubt in self.doubts[:_MAX_BATCHES]
            ],
            # The digest tells whether ids that are read elsewhere are the accepted ones, in whatever order.
            "biz_ids": {**self.source, "digest": f"{self._digest:032x}"},
            "ledger": self.ledger,
            "duration_s": round(time.monotonic() - self._started, 3),
            **({"ledger_lacks": self.ledger_lacks} if self.ledger_lacks else {}),
        } | ({} if self.plan is None else {"plan": self.plan})
