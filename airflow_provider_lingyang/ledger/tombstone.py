"""A note that a task has begun to send, in the state of its outlet assets (Airflow 3.3 and later).

From Airflow 3.4 on, Clear discards a task's own state, and the ledger with it, unless *Keep task state and resume* is
ticked. The state of an asset survives. Keys there::

    lingyang/begun/KEY       of one task instance: its run, since when and with what it may have sent, when it finished
    lingyang/begun           task instances that finished, and when: their notes are deleted 30 days later

The note is written before the first intent. Where there is one, something may have been sent. Where there is none,
nothing is proved: it may not have been possible to write it, or the asset was another one. Therefore no failure here
is one of the campaign.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self

from airflow_provider_lingyang.ledger.task_try import TaskTry

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

KEPT = timedelta(days=30)
"""How long after the campaign's end."""
_FINISHED = "lingyang/begun"


class AssetStateStore(Protocol):
    """What is used of ``context["asset_state_store"][asset]``."""

    def get(self, key: str) -> Any:
        """Return the value of a key, or None."""

    def set(self, key: str, value: Any) -> None:
        """Write the value of a key."""

    def delete(self, key: str) -> None:
        """Delete a key, where it is there."""


class Tombstone:
    """Tells that a task instance has begun to send, whatever becomes of its ledger. For the task's main thread only.

    :param stores: the state of each outlet asset.
    :param task_try: which task instance.
    :param now: the clock.
    """

    def __init__(
        self,
        stores: Sequence[AssetStateStore],
        task_try: TaskTry,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._stores = stores
        self._task_try = task_try
        self._now = now
        self._key = f"{_FINISHED}/{task_try.task_instance_key}"

    @classmethod
    def of(cls, context: Context, task_try: TaskTry) -> Self | None:
        """Return the one of a running task, or None where none of its outlets is an asset with a state."""
        accessors: Any = context.get("asset_state_store")
        stores = []
        for outlet in context.get("outlets") or () if accessors is not None else ():
            try:
                stores.append(accessors[outlet])
            except (KeyError, TypeError):
                continue  # an alias, or no asset at all: lineage has other outlets
        return cls(stores, task_try) if stores else None

    def found(self) -> tuple[datetime, str | None] | None:
        """Return since when an earlier try may have sent, and with which settings. None proves nothing."""
        found = []
        for store in self._stores:
            with _harmless("read"):
                if note := store.get(self._key):
                    found.append((datetime.fromisoformat(note["since"]), note.get("settings")))
        return min(found, key=lambda one: one[0], default=None)

    def write(self, settings: str) -> None:
        """Note that requests may leave from now on. A note that is there keeps its beginning.

        :param settings: stands for what requests and derived ids are made with.
        """
        task_try = self._task_try
        new = {"dag_id": task_try.dag_id, "run_id": task_try.run_id, "task_id": task_try.task_id}
        new |= {"since": self._now().isoformat(), "settings": settings}
        for store in self._stores:
            with _harmless("written"):
                note = store.get(self._key)
                if not note or note["finished"]:
                    store.set(self._key, (note or new) | {"finished": None})

    def finish(self) -> None:
        """Note that the campaign is finished, and delete the notes of those that did so 30 days ago."""
        now = self._now()
        for store in self._stores:
            with _harmless("written"):
                note = store.get(self._key)
                if not note:
                    continue  # nothing was sent by this task instance, or it could not be noted
                store.set(self._key, note | {"finished": now.isoformat()})
                # Of two campaigns that finish at the same moment one may lose its entry. Its note then stays.
                finished = dict(store.get(_FINISHED) or {})
                for task_instance, at in list(finished.items()):
                    if now - datetime.fromtimestamp(at, UTC) > KEPT:
                        _delete(store, task_instance, now)
                        del finished[task_instance]
                store.set(_FINISHED, finished | {self._task_try.task_instance_key: int(now.timestamp())})


def _delete(store: AssetStateStore, task_instance: str, now: datetime) -> None:
    """Delete a note, unless its task instance has begun again, or finished again later."""
    key = f"{_FINISHED}/{task_instance}"
    note = store.get(key)
    if note and note["finished"] and now - datetime.fromisoformat(note["finished"]) > KEPT:
        store.delete(key)


@contextmanager
def _harmless(done: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning(
            "the state of an outlet asset cannot be %s (%s): should a Clear discard this task's own state, its next "
            "try cannot tell that earlier ones have begun to send",
            done,
            type(error).__name__,
        )
