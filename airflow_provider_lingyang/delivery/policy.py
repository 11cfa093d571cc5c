"""How a campaign is sent, and what ends its sending."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_lingyang.config.options import LEDGER_PATIENCE, RECEIVER_LIMIT_PATIENCE, SHARD_PATIENCE
from airflow_provider_lingyang.ledger.base import INTENT_LIFE


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a campaign is sent.

    :param max_in_flight: requests under way at a time.
    :param max_attempts: how often one request is sent at most while it provably was not executed.
    :param lookup_settle: seconds after which a look-up knows of every executed request.
    :param answer_within: seconds from when a request may leave until it is answered or given up: the time-outs of a
        connection and of an answer.
    :param dedupes_by_code: whether the gateway executes a ``task_unique_code`` only once.
    :param on_in_doubt: ``stop`` or ``continue``.
    :param on_rejected: ``continue`` or ``fail``.
    :param ledger_patience: seconds for which a ledger that is away is waited for.
    :param receiver_limit_patience: seconds for which a campaign waits at most for limits of single receivers.
    :param shards: how many task instances keep one order of ``batch_num``; None: this one alone keeps it.
    :param is_resumed: whether the try goes on after a deferral.
    :param shard_patience: seconds for which a batch waits at most for other shards.
    """

    max_in_flight: int = 1
    max_attempts: int = 3
    lookup_settle: float = 60.0
    answer_within: float = 40.0
    dedupes_by_code: bool = False
    on_in_doubt: str = "stop"
    on_rejected: str = "continue"
    ledger_patience: float = LEDGER_PATIENCE
    receiver_limit_patience: float = RECEIVER_LIMIT_PATIENCE
    shards: int | None = None
    is_resumed: bool = False
    shard_patience: float = SHARD_PATIENCE

    @property
    def intent_life(self) -> float:
        """Seconds after which an intent must be renewed: well before a look-up by another try may count."""
        # Not 0, or every intent would be stale before its request can leave.
        return min(INTENT_LIFE, max(0.05, self.lookup_settle / 2))

    @property
    def open_for(self) -> float:
        """Seconds after which a request is no longer under way, once its intent cannot be renewed any more."""
        return self.intent_life + self.answer_within
