"""How the ledger is written in the values of the task state store.

Each value holds the number of its format; the first format held none. A segment is the text of a JSON object: Airflow,
which hands a value on four times, would look at every part of an object each time.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from airflow_provider_lingyang.errors import LedgerRefusedError, LedgerUnusableError
from airflow_provider_lingyang.ledger.base import Intent, RecordedRequest
from airflow_provider_lingyang.ledger.format_version import refuse_newer

VERSION = 2
SEGMENT_BYTES = 60_000
_FIELDS = {
    "batch_num": "b",
    "number": "i",
    "open_for": "o",
    "struct_digest": "s",
    "written_at": "t",
    "accepted": "a",
    "rejected": "r",
    "not_executed": "n",
    "in_doubt": "d",
}
"""Of a request: its names in an entry. What is missing there is as in :func:`empty_request`."""
_HASHES = {"accepted", "rejected", "not_executed"}
_VERSION = "v"
_HASH_BYTES = 16
_HASH_BASE64 = 22
"""A hash's share of the text, rounded up."""
_LISTS_BYTES = 60
"""Names, quotes and padding of the lists of hashes."""
_MOST = 10**9
"""More than the number of an intent can be."""


def empty_request(code: str) -> RecordedRequest:
    """Return a request of which nothing is known."""
    return RecordedRequest(code, None, "", 0.0)


def intended(intent: Intent, number: int) -> RecordedRequest:
    """Return the request that an intent begins."""
    return RecordedRequest(
        intent.task_unique_code,
        intent.batch_num,
        intent.struct_digest,
        intent.written_at,
        in_doubt=list(intent.biz_ids),
        number=number,
        open_for=intent.open_for,
    )


def encode(request: RecordedRequest) -> str:
    """Return a request as a segment holds it."""
    empty = empty_request("")
    entry = {
        key: _packed(value) if name in _HASHES else value
        for name, key in _FIELDS.items()
        if (value := getattr(request, name)) != getattr(empty, name) and value not in ([], ())
    }
    return json.dumps({request.task_unique_code: entry})[1:-1]


def _decode(code: str, entry: Mapping[str, Any]) -> RecordedRequest:
    known: dict[str, Any] = {name: entry[key] for name, key in _FIELDS.items() if key in entry}
    known |= {name: _unpacked(known[name]) for name in _HASHES & known.keys()}
    return replace(empty_request(code), **known)


def segment(entries: Sequence[str]) -> str:
    """Return a segment of encoded requests."""
    return "{" + ",".join([f'"{_VERSION}":{VERSION}', *entries]) + "}"


def read_segment(key: str, text: Any) -> list[RecordedRequest]:
    """Return the requests of a segment.

    :raises LedgerRefusedError: it is no ledger's, or a newer version's.
    """
    with ours(key):
        entries = json.loads(text)
        check_version(key, entries.pop(_VERSION, 1))
        return [_decode(code, entry) for code, entry in entries.items()]


def check_version(key: str, version: int) -> None:
    """Refuse what a newer version of this package has written."""
    refuse_newer(version, VERSION, f"what the task state store holds under {key!r}")


@contextmanager
def ours(key: str) -> Iterator[None]:
    """Refuse a value that cannot be read as a ledger writes it."""
    try:
        yield
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise LedgerRefusedError(
            f"the task state store holds something under {key!r} that is no ledger's, so which recipients "
            "earlier tries reached is not known. Find out who wrote it. To start over, send to the other recipients "
            "in a new run"
        ) from error


def size(text: str) -> int:
    """Return how long a part of a value is in the store, which keeps JSON."""
    return len(json.dumps(text))


def check_size(intent: Intent) -> None:
    """Refuse a request that does not fit: as an intent, or as an outcome of whatever kind.

    :raises LedgerUnusableError: it does not.
    """
    rest = size(encode(replace(intended(intent, _MOST), in_doubt=[""])))
    ids = sum(max(size(json.dumps(each)), _HASH_BASE64) for each in intent.biz_ids)
    if rest + _LISTS_BYTES + ids > SEGMENT_BYTES:
        raise LedgerUnusableError(
            f"a request of {len(intent.biz_ids)} recipients does not fit into the task state store (60 KB a value): "
            "set a smaller batch_size, or keep the ledger in a database with ledger_conn_id"
        )


def _packed(hashes: Sequence[bytes]) -> str:
    return b64encode(b"".join(hashes)).decode()


def _unpacked(text: str) -> list[bytes]:
    raw = b64decode(text)
    return [raw[start : start + _HASH_BYTES] for start in range(0, len(raw), _HASH_BYTES)]
