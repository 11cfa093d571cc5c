"""A schedule: one campaign, what goes wrong in its tries, and what changes in between. All of it follows from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, get_args

from airflow_provider_lingyang.sandbox.lookup_styles import Failure

TIMEOUT = 0.35
"""Seconds a client waits for an answer."""
SETTLE = 0.35
"""Seconds after which a look-up knows everything; more than a late index needs."""
LATE = 0.2

GATEWAY: dict[str, dict[str, Any]] = {
    "reset before": {"kind": "reset_before"},
    "reset during": {"kind": "reset_during"},
    "reset after": {"kind": "reset_after"},
    "answer lost": {"kind": "no_answer"},
    "answer lost, not executed": {"kind": "no_answer", "executed": False},
    "slow past the time-out": {"kind": "slow", "seconds": 2 * TIMEOUT},
    "http 500": {"kind": "http", "status": 500},
    "http 502, executed": {"kind": "http", "status": 502, "executed": True},
    "truncated": {"kind": "truncated"},
    "empty": {"kind": "empty"},
    "empty, not executed": {"kind": "empty", "executed": False},
    "wrong root": {"kind": "wrong_root", "times": 2},
    "xml": {"kind": "xml", "times": 2},
    "control characters": {"kind": "control_characters", "times": 2},
    "html": {"kind": "html"},
    "throttle 1 s": {"kind": "throttle", "seconds": 1, "times": 2},
    "throttle 31062 s": {"kind": "throttle", "seconds": 31_062},
    "isp timeout": {"kind": "error", "sub_code": "isp.remote-service-timeout", "executed": True},
    "isp unavailable": {"kind": "error", "sub_code": "isp.remote-service-unavailable"},
    "isp null pointer": {"kind": "error", "sub_code": "isp.null-pointer-exception", "executed": True},
    "isv parameter": {"kind": "error", "code": 15, "sub_code": "isv.invalid-parameter:x", "times": 2},
    "isv business": {"kind": "error", "code": 15, "sub_code": "isv.plan-service-error:PAUSED", "times": 2},
    "success false": {"kind": "refuse", "times": 2},
    "permission": {"kind": "permission"},
    "session expired": {"kind": "error", "code": 27, "sub_code": "invalid-sessionkey", "times": 2},
    "session required": {"kind": "session_required"},
    "clock ahead": {"kind": "clock", "seconds": 660},
    "clock behind": {"kind": "clock", "seconds": -660},
    "late index": {"kind": "late_index", "seconds": LATE, "times": None},
    # One at least: an answer that echoes none is in doubt, for good where the gateway repeats it.
    "partial": {"kind": "partial", "first": 1, "times": 2},
    "echo twice": {"kind": "echo", "mode": "twice", "times": 2},
    "echo of a stranger": {"kind": "echo", "mode": "unknown_biz_id"},
    "echo of nobody": {"kind": "echo", "mode": "missing_biz_id"},
}
"""Name → rule of the sandbox."""
LOOKUPS: dict[str, dict[str, Any]] = {
    **{f"look-up failed, {style}": {"kind": "lookup_failed", "style": style} for style in get_args(Failure)},
    "look-up without a flag": {"kind": "lookup_without_flag"},
    **{
        f"look-up, {kind} {style}": {"kind": f"lookup_{kind}", "style": style}
        for kind, style in (
            ("ids", "other_case"),
            ("ids", "strangers_only"),
            ("ids", "stranger_beside"),
            ("dates", "utc"),
            ("dates", "milliseconds"),
            ("dates", "year_1"),
            ("dates", "epoch"),
            ("pages", "total"),
            ("pages", "has_next"),
            ("pages", "cursor"),
            ("pages", "page_size"),
            ("several", "older_first"),
            ("several", "older_last"),
            ("several", "older_of_all"),
        )
    },
}
"""How look-ups answer in a try: name → rule of the sandbox. Drawn beside the faults, where anything is looked up."""
AMBIGUOUS = {
    *("reset before", "reset during", "reset after", "answer lost", "answer lost, not executed"),
    *(
        "slow past the time-out",
        "http 500",
        "http 502, executed",
        "truncated",
        "empty",
        "empty, not executed",
    ),
    *("html", "isp timeout", "isp unavailable", "isp null pointer"),
    *("echo of a stranger", "echo of nobody", "gateway restarted"),
}
SWITCHES = {"session required", "clock ahead", "clock behind"}
PROCESS = ("kill", "kill in flight", "pause", "gateway restarted", "gateway away")
LEDGER = ("ledger fails before", "ledger fails after", "outcome not written", "ledger emptied")
BETWEEN = (
    "secret rotated",
    "audience changed",
    "cleared",
    "resubmitted",
    "two workers",
    "batch size changed",
)
FAULTS = (*GATEWAY, *PROCESS, *LEDGER, *BETWEEN)
HARD = AMBIGUOUS | {"kill", "kill in flight", "outcome not written", "late index"}
IN_DOUBT_BY = {"kill", "kill in flight", "pause", "outcome not written", "two workers"}
"""What leaves up to 2 x max_in_flight requests in doubt."""


_EACH = 4
"""Faults of the list in each schedule, beside those by chance."""


@dataclass
class Try:
    """What goes wrong in one try.

    :param faults: names of what the gateway does, with the number of requests that pass before.
    :param events: what happens to the process or the ledger, with the number of ledger writes before.
    """

    faults: list[tuple[str, int]] = field(default_factory=list)
    events: list[tuple[str, int]] = field(default_factory=list)


@dataclass
class Schedule:
    seed: int
    ledger: str
    mode: str
    rows: list[dict[str, Any]]
    arguments: dict[str, Any]
    tries: list[Try]

    @property
    def names(self) -> list[str]:
        return [name for one in self.tries for name, _ in [*one.faults, *one.events]]

    @property
    def untidy(self) -> bool:
        """Whether rows may go after a later batch_num had left."""
        changes = {
            "audience changed",
            "cleared",
            "resubmitted",
            "ledger emptied",
            "two workers",
            "batch size changed",
        }
        # A worker that wakes up before its intent is stale sends what its retry has sent already: the gateway, which
        # de-duplicates, executes nothing, but it sees an early batch_num again.
        woken = "pause" in self.names and self.mode == "dedupe"
        return bool(changes & set(self.names)) or self.arguments["on_in_doubt"] == "continue" or woken


def row(number: int, batch_num: str) -> dict[str, Any]:
    return {
        "biz_id": f"B{number}",
        "phone_number": f"1000000{9000 + number}",
        "user_name": f"CANARY客户{number}",
        "batch_num": batch_num,
        "input_params": {"name": "CANARYgift"},
        "output_params": {"intention": ""},
    }


def _in_turn(number: int) -> str:
    """Go through all faults, then through all of them in another order, and so on."""
    round_, place = divmod(number, len(FAULTS))
    return random.Random(f"round {round_}").sample(FAULTS, len(FAULTS))[place]


def make(seed: int) -> Schedule:
    rng = random.Random(f"chaos {seed}")
    # Each fault in turn, so that each comes up often enough, and further ones by chance.
    named = [_in_turn(_EACH * seed + place) for place in range(_EACH)]
    if not HARD & set(named):
        named.append(rng.choice(["kill", "kill", "kill in flight", "outcome not written"]))
    while rng.random() < 0.2:
        named.append(rng.choice([name for name in FAULTS if name not in named]))
    rng.shuffle(named)
    # One that leaves doubts comes first: later there may be nobody left to send to.
    first = next(name for name in named if name in HARD)
    named.remove(first)
    named.insert(0, first)
    ledger = rng.choice(["task state", "task state", "sql", "sql", "none"])
    if set(named) & {*LEDGER, *BETWEEN, "pause"} and ledger == "none":
        ledger = rng.choice(["task state", "sql"])
    if "two workers" in named:
        ledger = "sql"
    if any(name.startswith(("ledger fails", "outcome")) for name in named) and "two workers" not in named:
        ledger = "task state"
    batches = rng.randint(2, 5)
    rows = [row(n, str(rng.randint(1, batches))) for n in range(rng.randint(14, 30))]
    arguments = {
        "batch_size": rng.randint(1, 3),
        "max_in_flight": rng.choice([1, 1, 2, 4]),
        "on_in_doubt": rng.choice(["stop", "stop", "stop", "continue"]),
        "on_invalid": "skip",
    }
    if rng.random() < 0.3:
        rows.append(row(500, "1") | {"phone_number": "CANARY no phone"})
    tries: list[Try] = []
    for name in named:
        if not tries or rng.random() < 0.6:
            tries.append(Try())
        where = tries[-1].faults if name in GATEWAY else tries[-1].events
        where.append((name, rng.randint(0, 2) if len(tries) > 1 else rng.randint(0, 1)))
        if name == "late index":
            # Executed, and not to be found at first: that matters only to a try that was killed meanwhile.
            tries[-1].events.append(("kill in flight", rng.randint(0, 2)))
    for one in tries:
        # So that the next try has something left to do.
        if one.faults and rng.random() < 0.8:
            one.faults.append(("permission", rng.randint(1, 3)))
    mode = rng.choice(["look up", "look up", "blind", "dedupe"])
    if mode == "look up":
        # From a source of its own: what else goes wrong under a seed stays.
        drawn = random.Random(f"look-ups {seed}")
        for one in tries:
            if drawn.random() < 0.5:
                one.faults.append((drawn.choice(sorted(LOOKUPS)), 0))
    return Schedule(seed, ledger, mode, rows, arguments, tries)
