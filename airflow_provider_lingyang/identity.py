"""What stands for a recipient, a request in doubt or a lost ledger. Pure, and imports nothing heavy."""

from __future__ import annotations

import hashlib

IDENTITY_VERSION = 2
"""Of the canonical forms that derived ids are made from. A campaign keeps the version that it began with; version 1
knew only ``+86`` and ``0086``, spaces and hyphens, and the case of ASCII."""
LOST_LEDGER = "*"
"""Stands for all that a ledger may have held which is gone."""


def settle_key(task_unique_code: str, number: int) -> str:
    """Return what stands in ``settle`` for one intent of a code: the code for the first, ``code#2`` for the second."""
    return task_unique_code if number == 1 else f"{task_unique_code}#{number}"


def lost_key(try_number: int, campaign_key: str) -> str:
    """Return what stands in ``settle``, for the next try only, for all that came before a try which found it lost."""
    return f"{LOST_LEDGER}#{try_number} {campaign_key}"


def recipient_hash(biz_id: str) -> bytes:
    """Return the 128 bits that stand for a recipient."""
    return hashlib.sha256(biz_id.encode()).digest()[:16]


def digest(*parts: object) -> str:
    """Return 32 hex digits that stand for some values, in order."""
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]
