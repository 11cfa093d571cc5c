"""Errors that end a try, raised and caught in several rooms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class LedgerError(Exception):
    """The ledger cannot be read or written, so nothing leaves. A later try may find it well again."""


class LedgerFencedError(LedgerError):
    """Another try or another worker has taken over: this one may write, and therefore send, nothing more.

    :param unwritten: what is left of the outcomes that were to be written; None: all of them.
    """

    def __init__(self, message: str, unwritten: Sequence[Any] | None = None) -> None:
        super().__init__(message)
        self.unwritten = unwritten


class LedgerUnusableError(LedgerError):
    """It cannot be read or written until a person has changed something: a permission, a table, a ``batch_size``."""


class LedgerRefusedError(LedgerError):
    """What the ledger holds forbids to send; no retry helps."""


class SubmissionStopped(Exception):
    """The rest of the campaign was not sent. The text says where and why.

    :param final: whether a person must do something first, so that another try is of no use.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final
