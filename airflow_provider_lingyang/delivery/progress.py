"""Progress of sending, in the log: a line every few seconds, and one for each ``batch_num`` that is done."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest

log = logging.getLogger(__name__)

BETWEEN_LINES = 5.0
"""Seconds between two lines of how far it is."""
BATCH_LINES = 20
"""So many ``batch_num`` have a line each however fast they are; of later ones there is one a second at most."""
_BETWEEN_BATCH_LINES = 1.0
_PACE_OF = 60.0
"""The pace is that of so many seconds: after a throttle it is soon the present one again."""


class Progress:
    """Logs the progress of sending; a context manager, so that the last lines are logged however it ends.

    :param manifest: where every outcome is booked; only read.
    :param total: number of recipients to be sent to.
    :param monotonic: returns seconds.
    """

    def __init__(
        self, manifest: Manifest, total: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._manifest = manifest
        self._total = total
        self._monotonic = monotonic
        self._line_at = self._batch_line_at = monotonic()
        self._lines = 0
        self._kept: list[BatchTally] = []
        self._moments = deque([(self._line_at, 0, 0)])

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        # Whatever ended it, nothing is to go at any pace.
        self._tell_batches(self._monotonic(), to_go=False)

    def look(self) -> None:
        """Tell how far it is, where it is time to. Called at every turn of the main loop, so it must be cheap."""
        now = self._monotonic()
        if self._kept and now - self._batch_line_at >= _BETWEEN_BATCH_LINES:
            self._tell_batches(now)
        if now - self._line_at >= BETWEEN_LINES:
            self._line_at = now
            self._tell(now)

    def batch_done(self, batch: BatchTally) -> None:
        """Tell what became of a ``batch_num``: at once, or with those that follow it within a second."""
        now = self._monotonic()
        self._kept.append(batch)
        if self._lines < BATCH_LINES or now - self._batch_line_at >= _BETWEEN_BATCH_LINES:
            self._tell_batches(now)

    def _tell(self, now: float) -> None:
        before = self._moments[-1][1:]
        sent, pace = self._pace(now)
        if self._moments[-1][1:] != before:
            log.info(
                "sent to %d of %d: accepted %d, rejected %d%s",
                sent,
                self._total,
                sum(batch.accepted for batch in self._manifest.batches),
                sum(batch.rejected for batch in self._manifest.batches),
                pace,
            )

    def _tell_batches(self, now: float, *, to_go: bool = True) -> None:
        kept, self._kept = self._kept, []
        if not kept:
            return
        self._lines += 1
        self._batch_line_at = now
        more = f" to {kept[-1].batch_num} ({len(kept)} of them)" if len(kept) > 1 else ""
        log.info(
            "%s%s: tasks %d, requests %d, accepted %d, rejected %d%s",
            kept[0].name,
            more,
            sum(batch.tasks for batch in kept),
            sum(batch.requests for batch in kept),
            sum(batch.accepted for batch in kept),
            sum(batch.rejected for batch in kept),
            self._pace(now, to_go=to_go)[1],
        )

    def _pace(self, now: float, *, to_go: bool = True) -> tuple[int, str]:
        """Note how far it is; return the number of recipients sent to, and the end of a line: how fast that goes."""
        batches = self._manifest.batches
        requests = sum(batch.requests for batch in batches)
        # A batch_num that is done has no recipient left to send to: without an answer a recipient is in doubt.
        done = sum(batch.tasks for batch in batches[:-1])
        sent = done + sum(batch.accepted + batch.rejected for batch in batches[-1:])
        if (requests, sent) != self._moments[-1][1:]:
            while len(self._moments) > 1 and self._moments[1][0] <= now - _PACE_OF:
                self._moments.popleft()
            self._moments.append((now, requests, sent))
        then, requests_then, sent_then = self._moments[0]
        took = now - then
        if took <= 0:
            return sent, ""
        text = f"; {(requests - requests_then) / took:.3g} requests per second"
        pace, left = (sent - sent_then) / took, self._total - sent
        if to_go and pace > 0 and left > 0:
            text += f", {duration(left / pace)} to go at this pace"
        return sent, text


def duration(seconds: float) -> str:
    """Return a time as a person would say it: ``45 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
