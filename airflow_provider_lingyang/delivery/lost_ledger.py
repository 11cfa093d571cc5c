"""A ledger that knows nothing of tries which Airflow knows of: what that means, and what to do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_lingyang.identity import lost_key


@dataclass(frozen=True, slots=True, kw_only=True)
class LostLedger:
    """What a try knows that has come too late to its ledger.

    :param try_number: of this try.
    :param campaign_key: of this campaign, and which of its task instances this is where there are several.
    :param cause: how its kind of ledger gets lost.
    :param next_time: how not to lose it; empty: nothing to say.
    :param settled_by_next_try: whether a word that the try before has asked for counts in this one.
    :param begun_at: since when an earlier try may have sent, where anything outside the ledger tells. Default None:
        nothing does, which proves nothing.
    """

    try_number: int
    campaign_key: str
    cause: str
    next_time: str = ""
    settled_by_next_try: bool = True
    begun_at: datetime | None = None

    @property
    def key(self) -> str:
        """What stands in ``settle`` of the next try for all that was sent before this one."""
        return lost_key(self.try_number, self.campaign_key)

    @property
    def key_before(self) -> str | None:
        """What stands in ``settle`` of this try for all that was sent before; None: no word counts."""
        # The try before has found it lost, and asked; what is sent after that, by whatever try, is not meant.
        return lost_key(self.try_number - 1, self.campaign_key) if self.settled_by_next_try else None

    @property
    def warning(self) -> str:
        """What to know before the recipients of this run are sent to in another way."""
        return (
            f"This is try {self.try_number}, and earlier ones may have sent something: the ledger knows nothing of "
            f"them ({self.cause}), so read their logs first"
        )

    def __str__(self) -> str:
        line = json.dumps({self.key: "not_executed"}, ensure_ascii=False)
        sent = "may have sent something"
        if self.begun_at is not None:
            sent = f"have begun to send ({self.begun_at:%Y-%m-%d %H:%M:%S %Z})"
        return (
            f"this is try {self.try_number} of the task, and the ledger knows nothing of an earlier one: {self.cause}. "
            f"Earlier tries {sent}. What to do now: read the logs of the earlier tries, and find out in the Lingyang "
            "console what was executed. Where anything was, send the remaining recipients in a new run, from an "
            "audience without those already reached. Only where nothing was sent at all, give this task "
            f"settle={line} and clear it: that counts in try {self.try_number + 1} and in no other (a bare '*' in none)"
            + (f". Next time: {self.next_time}" if self.next_time else "")
        )
