"""The contact of a recipient, and the ``biz_id`` that is derived from it. Pure."""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_lingyang.gateway.contacts import INVISIBLE
from airflow_provider_lingyang.gateway.field_types import dump_json, to_text

IDENTITY_FIELDS = ("phone_number", "email", "outer_user_id", "cms_user_id")
"""Fields that a derived ``biz_id`` is made from."""
_INVISIBLE = dict.fromkeys(map(ord, INVISIBLE))


def canonical(task: Mapping[str, Any], name: str) -> Any:
    """Return a contact so that equal ones look equal: of mailboxes case does not matter, of ids of members it may."""
    value = task.get(name)
    return canonical_email(value) if name == "email" and value else value


def identity_of(task: Mapping[str, Any], fields: Mapping[str, Any], version: int) -> list[Any]:
    """Return what a derived ``biz_id`` is made from: the values of :data:`IDENTITY_FIELDS` in their canonical forms.

    :param task: the task as it is written.
    :param fields: its fields as the row has them.
    :param version: of the canonical forms.
    """
    if version != 1:
        return [canonical(task, name) for name in IDENTITY_FIELDS]
    phone, email, *ids = map(task.get, IDENTITY_FIELDS)
    # A spelling that version 1 refused had no id: it takes the one of the same number in digits.
    first = phone and canonical_phone_of_version_1(to_text(fields["phone_number"]))
    return [first or phone, email and email.lower(), *ids]


def derived_id(app_secret: bytes, campaign: str, identity: Sequence[Any]) -> str:
    """Return the ``biz_id`` of a recipient that has none.

    :param app_secret: makes the id impossible to enumerate.
    :param campaign: makes ids of different campaigns differ.
    :param identity: see :func:`identity_of`.
    """
    return hmac.new(app_secret, dump_json([campaign, *identity]).encode(), hashlib.sha256).hexdigest()[:32]


def canonical_email(text: str) -> str:
    """Return a mailbox so that two spellings of one are equal; a request keeps the original spelling.

    Neither case nor width matters, and a domain in Unicode is the one that its ASCII form names.
    """
    folded = unicodedata.normalize("NFKC", text.strip().translate(_INVISIBLE)).casefold()
    name, _, domain = folded.rpartition("@")
    domain = domain.rstrip(".")
    try:
        domain = domain.encode("idna").decode()
    except UnicodeError:  # A label that is too long, or blank.
        pass
    return f"{name}@{domain}"


def canonical_phone_of_version_1(text: str) -> str | None:
    """Return the canonical form of version 1 of a phone number; None where version 1 refused it."""
    digits = re.sub(r"(?<=[0-9])[\s-]+(?=[0-9])", "", text.strip())
    digits = re.sub(r"^(?:\+\s*|00)86", "", digits)
    return digits if re.fullmatch(r"[0-9]{5,20}", digits) else None
