"""Simulated recipients: their results, the same in every run with the same seed.

Invented for the sandbox; nothing of it is the platform's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

CHOICES = ("愿意", "不愿意", "再考虑")
"""Values of a slot."""
TIME_CHOICES = ("上午", "下午", "晚上")
"""Values of a slot with ``time`` in its name."""

WAITING, ANSWERED, NOT_REACHED = "WAITING", "ANSWERED", "NOT_REACHED"


def is_reached(seed: int, biz_id: str) -> bool:
    """Whether the recipient answers at all; about one in ten does not.

    :param seed: of the sandbox; another seed, other results.
    :param biz_id: of the recipient.
    """
    return _draw(seed, biz_id, "reached") >= 0.1


def answer_delay(seed: int, biz_id: str, answer_after: float) -> float:
    """Return the seconds until the recipient has answered or is given up.

    :param answer_after: the longest delay in seconds; the shortest is half of it.
    """
    return answer_after * (0.5 + 0.5 * _draw(seed, biz_id, "delay"))


def slot_value(seed: int, biz_id: str, slot: str) -> str:
    """Return the recipient's value of one slot."""
    choices = TIME_CHOICES if "time" in slot.lower() else CHOICES
    return choices[int(_draw(seed, biz_id, f"slot:{slot}") * len(choices))]


def result(
    seed: int, biz_id: str, slots: Iterable[str], *, waited: float, answer_after: float
) -> tuple[str, dict[str, str]]:
    """Return the recipient's status and slot values some time after the task was executed.

    :param slots: names of the slots, the keys of the submitted ``output_params``.
    :param waited: seconds since the task was executed.
    :param answer_after: the longest delay of an answer in seconds.
    :returns: ``WAITING``, ``ANSWERED`` or ``NOT_REACHED``; values are ``""`` unless ``ANSWERED``.
    """
    if waited < answer_delay(seed, biz_id, answer_after):
        return WAITING, dict.fromkeys(slots, "")
    if not is_reached(seed, biz_id):
        return NOT_REACHED, dict.fromkeys(slots, "")
    return ANSWERED, {slot: slot_value(seed, biz_id, slot) for slot in slots}


def _draw(seed: int, biz_id: str, purpose: str) -> float:
    digest = hashlib.sha256(f"{seed}\0{biz_id}\0{purpose}".encode()).digest()
    return int.from_bytes(digest[:6]) / 2**48
