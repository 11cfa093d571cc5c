"""A row of the audience that is in no request. Nothing is decided by it."""

from __future__ import annotations

from typing import NamedTuple


class UnsentRow(NamedTuple):
    """A row of the audience that is in no request, for people.

    :param number: of the row, from 1.
    :param state: ``invalid``, ``excluded``, ``not_sent`` or ``in_doubt``.
    :param is_recipient: whether it stands for its recipient; another row may where it does not.
    :param biz_id: None: it is not known.
    :param reason: without values of the row.
    :param kept: the JSON of the columns that are kept, or None.
    """

    number: int
    state: str
    is_recipient: bool
    batch_num: str | None
    biz_id: str | None
    reason: str
    kept: str | None = None
