"""How far sending is, in a log that stays readable."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from airflow_provider_lingyang.audience.store import AudienceStore
from airflow_provider_lingyang.cancellation import Cancellation
from airflow_provider_lingyang.delivery.dispatcher import Dispatcher
from airflow_provider_lingyang.delivery.manifest import BatchTally, Manifest
from airflow_provider_lingyang.delivery.policy import Policy
from airflow_provider_lingyang.delivery.progress import BATCH_LINES, BETWEEN_LINES, Progress, duration
from airflow_provider_lingyang.delivery.requests import BatchRequest
from airflow_provider_lingyang.delivery.schedule import SendSchedule
from airflow_provider_lingyang.delivery.send_queue import SendQueue
from airflow_provider_lingyang.delivery.sender_pool import SenderPool
from airflow_provider_lingyang.errors import SubmissionStopped
from airflow_provider_lingyang.gateway import errors
from airflow_provider_lingyang.gateway.attempts import RetryPolicy
from airflow_provider_lingyang.gateway.protocol import Answer
from airflow_provider_lingyang.gateway.receipt import SubmitReceipt, read_receipt
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.ledger.base import Ledger

LINE = re.compile(
    r"sent to (?P<sent>\d+) of (?P<of>\d+): accepted (?P<accepted>\d+), rejected (?P<rejected>\d+); "
    r"(?P<pace>[\d.]+) requests per second, (?P<to_go>.+) to go at this pace"
)


class Wire:
    """Accepts everybody, but answers as it is told to. A struct is the ids of its two tasks."""

    def __init__(self, answers: Callable[[int], BaseException | None]) -> None:
        self._answers = answers
        self._numbers = itertools.count()

    def submit_struct(self, struct: str, *, before_send: Any) -> SubmitReceipt:
        before_send()
        if error := self._answers(next(self._numbers)):
            raise error
        data = [{"task_id": 1, "task_request": {"biz_id": biz_id}} for biz_id in struct.split()]
        return read_receipt(Answer({"result": {"success": True, "data": data}}, "r", Scrubber({}, {})))

    def close(self) -> None:
        pass


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[str], list[str]]:
    """Gives the lines that begin with some words."""
    caplog.set_level("INFO")
    return lambda start: [m for record in caplog.records if (m := record.getMessage()).startswith(start)]


def send(
    sizes: Sequence[int],
    clock: Callable[[int], float],
    answers: Callable[[int], BaseException | None] = lambda _: None,
) -> Manifest:
    """Send batches of so many requests each, of two people.

    :param clock: how late it is once so many requests are answered.
    :param answers: what is wrong with an answer.
    """
    manifest = Manifest("key", [], {}, audience=2 * sum(sizes))

    def now() -> float:
        return clock((manifest.accepted + manifest.rejected) // 2)

    with (
        SenderPool(lambda: Wire(answers)) as sender_pool,
        AudienceStore() as audience,
        Progress(manifest, manifest.audience, monotonic=now) as progress,
    ):
        submission = Dispatcher(
            sender_pool=sender_pool,
            ledger=Ledger(),
            queue=SendQueue(audience),
            manifest=manifest,
            progress=progress,
            schedule=SendSchedule(),
            retry=RetryPolicy(1, random.Random(1)),
            policy=Policy(max_attempts=1),
            cancellation=Cancellation(lambda: None),
        )
        for number, size in enumerate(sizes, 1):
            requests = [
                BatchRequest(f"c{number}-{n}", str(number), (ids := (f"{number}-{n}a", f"{number}-{n}b")), " ".join(ids))
                for n in range(size)
            ]  # fmt: skip
            submission.send_batch(BatchTally(str(number), 2 * size), lambda _, these=requests: these)
    return manifest


def test_progress_of_a_long_batch_is_logged_every_few_seconds_with_its_eta(
    lines: Callable[[str], list[str]],
) -> None:
    refused = errors.RequestRefusedError("refused")
    send([100], lambda answered: 1.0 * answered, lambda number: refused if number == 3 else None)
    told = lines("sent to")
    assert len(told) == 100 // BETWEEN_LINES
    first, middle = LINE.fullmatch(told[0]), LINE.fullmatch(told[9])
    assert first and middle, told
    assert first.groupdict() == {
        "sent": "10", "of": "200", "accepted": "8", "rejected": "2", "pace": "1", "to_go": "2 min"
    }  # fmt: skip
    assert (middle["sent"], middle["accepted"], middle["to_go"]) == ("100", "98", "50 s")
    assert lines("batch_num") == [
        "batch_num 1: tasks 200, requests 100, accepted 198, rejected 2; 1 requests per second"
    ]


def test_progress_pace_is_that_of_the_last_minute(lines: Callable[[str], list[str]]) -> None:
    send([60], lambda answered: min(answered, 40) * 0.5 + max(0, answered - 40) * 20.0)
    found = [LINE.fullmatch(line) for line in lines("sent to")[:-1]]
    assert all(found)
    paces = [float(match["pace"]) for match in found if match]
    assert paces[0] == 2
    assert paces[-1] == 0.05


def test_progress_of_a_fast_campaign_is_limited_to_one_line_a_second(
    lines: Callable[[str], list[str]],
) -> None:
    manifest = send([1] * 1000, lambda answered: 0.005 * answered)
    told = lines("batch_num")
    assert BATCH_LINES + 4 <= len(told) <= BATCH_LINES + 7
    assert told[0] == (
        "batch_num 1: tasks 2, requests 1, accepted 2, rejected 0; 200 requests per second, 5 s to go at this pace"
    )
    assert re.match(rf"batch_num {BATCH_LINES + 1} to \d+ \(\d+ of them\): ", told[BATCH_LINES])
    # However they are put together, everybody is in one line.
    assert sum(int(re.search(r"accepted (\d+)", line)[1]) for line in told) == manifest.accepted == 2000  # type: ignore[index]
    assert "1000 (" in told[-1]


def test_progress_of_a_slow_batch_has_its_own_line(lines: Callable[[str], list[str]]) -> None:
    send([1] * (BATCH_LINES + 5) + [30], lambda answered: 0.1 * answered)
    assert lines("batch_num")[-1] == (
        f"batch_num {BATCH_LINES + 6}: tasks 60, requests 30, accepted 60, rejected 0; 10 requests per second"
    )


def test_progress_of_earlier_batches_is_logged_when_sending_fails(
    lines: Callable[[str], list[str]],
) -> None:
    away = errors.NotSentError("away")
    with pytest.raises(SubmissionStopped):
        send(
            [1] * (BATCH_LINES + 5),
            lambda answered: 0.01 * answered,
            lambda number: away if number == BATCH_LINES + 3 else None,
        )
    last = lines("batch_num")[-1]
    assert last.startswith(f"batch_num {BATCH_LINES + 1} to {BATCH_LINES + 3} (3 of them)")
    assert last.endswith(" requests per second"), "it is over: nothing is to go"


def test_progress_is_not_repeated_while_nothing_changes(
    lines: Callable[[str], list[str]],
) -> None:
    now = 0.0
    manifest = Manifest("key", [], {}, audience=4, batches=[BatchTally("1", 4, requests=1, accepted=2)])
    progress = Progress(manifest, 4, monotonic=lambda: now)
    for _ in range(100):
        now += 1.0
        progress.look()
    assert len(lines("sent to")) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (12 * 60, "12 min"),
        (5399, "1 h 30 min"),
        (12_000, "3 h 20 min"),
    ],
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert duration(seconds) == text
