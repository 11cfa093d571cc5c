"""Who answers what, and when: the same people give the same answers in every run.

Nothing of this is the platform's: it stands in for people who pick up a phone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

CHOICES = ("愿意", "不愿意", "再考虑")
"""What a person may put into a slot."""
TIMES = ("上午", "下午", "晚上")
"""What they put into one whose name asks for a time."""

WAITING, ANSWERED, NOT_REACHED = "WAITING", "ANSWERED", "NOT_REACHED"


def is_reached(seed: int, biz_id: str) -> bool:
    """Whether this person ever picks up; about one in ten does not.

    :param seed: of the sandbox; another seed, other people.
    :param biz_id: who.
    """
    return _draw(seed, biz_id, "reached") >= 0.1


def delay(seed: int, biz_id: str, answer_after: float) -> float:
    """Return after how many seconds this person has answered, or was given up.

    :param answer_after: the longest it takes, in seconds; nobody takes less than half of it.
    """
    return answer_after * (0.5 + 0.5 * _draw(seed, biz_id, "delay"))


def choice(seed: int, biz_id: str, slot: str) -> str:
    """Return what this person answers to one slot."""
    choices = TIMES if "time" in slot.lower() else CHOICES
    return choices[int(_draw(seed, biz_id, f"slot:{slot}") * len(choices))]


def state(
    seed: int, biz_id: str, slots: Iterable[str], *, waited: float, answer_after: float
) -> tuple[str, dict[str, str]]:
    """Return a person's status and slots some time after the task was executed.

    :param slots: the names of the slots, the keys of the submitted ``output_params``.
    :param waited: seconds since the task was executed.
    :param answer_after: the longest a person takes, in seconds.
    :returns: ``WAITING``, ``ANSWERED`` or ``NOT_REACHED``; slots are ``""`` unless ``ANSWERED``.
    """
    if waited < delay(seed, biz_id, answer_after):
        return WAITING, dict.fromkeys(slots, "")
    if not is_reached(seed, biz_id):
        return NOT_REACHED, dict.fromkeys(slots, "")
    return ANSWERED, {slot: choice(seed, biz_id, slot) for slot in slots}


def _draw(seed: int, biz_id: str, purpose: str) -> float:
    digest = hashlib.sha256(f"{seed}\0{biz_id}\0{purpose}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
