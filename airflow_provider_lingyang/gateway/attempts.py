"""The attempts of one call: signing, rate limit, session rules, classification, retry. Sans-I/O.

:meth:`Attempts.of` is a generator that both clients drive. It yields :class:`Sleep`, :class:`Synchronise` and
:class:`Send`, and takes back the value of the answer, or the error.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar, cast

from airflow_provider_lingyang.errors import (
    LedgerError,
    LedgerFencedError,
    LedgerRefusedError,
    LedgerUnusableError,
)
from airflow_provider_lingyang.gateway import protocol
from airflow_provider_lingyang.gateway.errors import (
    AnswerUnreadableError,
    GatewayError,
    LingyangError,
    NotSentError,
    ReceiverLimitedError,
    Replay,
    ThrottledError,
    TransportError,
)
from airflow_provider_lingyang.gateway.models import SUBMIT_METHOD
from airflow_provider_lingyang.gateway.rate_limiter import RateLimiter
from airflow_provider_lingyang.gateway.scrub import Scrubber
from airflow_provider_lingyang.gateway.settings import GatewaySettings
from airflow_provider_lingyang.gateway.transport import SECOND_ANSWER, answer_limit

T = TypeVar("T")

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
"""Seconds. A longer throttle is the caller's to wait out: sleeping through it occupies a worker slot."""
_BASE, _CAP = 0.5, 10.0
_ONE_API = "limited-by-api-access-count"
"""In the ``sub_code`` of a limit for calls of one API."""


class Ban(NamedTuple):
    """For how long a throttle bans calls.

    :param seconds: until it is over.
    :param is_of_one_api: whether it bans calls of one API only, and for so long that others should not wait for it.
    """

    seconds: float
    is_of_one_api: bool

    @classmethod
    def of(cls, error: LingyangError) -> Ban | None:
        """Return the ban that an error announces, or None."""
        if not isinstance(error, ThrottledError) or isinstance(error, ReceiverLimitedError):
            return None
        # One second more than announced: the gateway counts a ban in whole seconds.
        seconds = 1.0 + (error.retry_after or 1.0)
        is_of_one_api = _ONE_API in (error.sub_code or "").casefold()
        return cls(seconds, is_of_one_api and seconds > LONGEST_WAIT + 1)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How many attempts one call has, and how long apart, for both clients.

    A write is repeated only when it provably was not executed; a look-up also when that is unknown.

    :param max_attempts: at most, the first included.
    :param rng: source of jitter.
    """

    max_attempts: int
    rng: random.Random

    def delay(self, error: LingyangError, attempt: int, *, idempotent: bool) -> float | None:
        """Return the seconds to wait before the next attempt, or None when there must be none.

        :param attempt: how many attempts were made, from 1.
        :param idempotent: whether executing it twice does no harm (a look-up).
        """
        may = error.replay is Replay.SAFE or (idempotent and error.replay is Replay.AMBIGUOUS)
        if not may or attempt >= self.max_attempts:
            return None
        if isinstance(error, ThrottledError):
            # One second more than announced: the gateway counts a ban in whole seconds.
            wait = 1.0 + (error.retry_after or 1.0)
            return wait if wait <= LONGEST_WAIT + 1 else None
        backoff: float = min(_CAP, _BASE * 2 ** (attempt - 1))
        return self.rng.uniform(0.5, 1.0) * backoff


@dataclass(frozen=True, slots=True, repr=False)
class Call(Generic[T]):
    """One call of a method of the platform.

    :param method: the platform's method name.
    :param params: business parameters as text; structs are JSON already.
    :param read: returns the value of an answer; raises a :class:`LingyangError` for one that has none.
    :param idempotent: executing it twice does no harm, so it is retried also where it may have been executed.
    :param ids: how many recipients it asks for: the limit of the answer's length grows with them.
    :param is_ours: whether a value can only be of this call: then it may use a connection that served another call.
        Default None: it needs a connection of its own.
    """

    method: str
    params: Mapping[str, str]
    read: Callable[[protocol.Answer], T]
    idempotent: bool = False
    ids: int = 0
    is_ours: Callable[[T], bool] | None = None


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait before going on; takes False back where the wait was cut short.

    :param seconds: 0: only let other callers go on.
    """

    seconds: float


@dataclass(frozen=True, slots=True)
class Synchronise:
    """Synchronise a rate limit that processes share: call :meth:`run`, which blocks."""

    run: Callable[[], None]


Step = Sleep | Synchronise
"""A step of a call that sends nothing."""


@dataclass(slots=True, eq=False, repr=False)
class Send(Generic[T]):
    """Send the form of a call, read the answer: :meth:`read`, listen for as long as it says, :meth:`result`."""

    call: Call[T]
    form: bytes
    scrub: Scrubber
    clock: Callable[[], datetime]
    may_reuse: bool
    """Whether a connection that served another call may be used."""
    reused: bool = False
    """Set by the client once the request is sent: whether its connection served another call."""
    ours: bool = False
    """Whether the value can only be of this call: then its connection may serve another one."""
    _value: T | None = None
    _refusal: GatewayError | None = None

    @property
    def limit(self) -> int:
        """Bytes that the answer may have."""
        return answer_limit(self.form, self.call.ids)

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> float | None:
        """Read a complete answer.

        :param headers: by name, in any case.
        :param body: decoded.
        :return: seconds to listen for a second answer on the same connection; None: nothing can contradict this one.
        :raises LingyangError: it leaves open whether the request was executed.
        """
        at_once = 0.0 if self.call.idempotent else None
        try:
            self._value = self.call.read(
                protocol.read_answer(
                    status=status,
                    content_type=headers.get("Content-Type", ""),
                    body=body,
                    scrub=self.scrub,
                    date=headers.get("Date"),
                    now=self.clock(),
                )
            )
        except GatewayError as error:
            if error.replay is Replay.AMBIGUOUS:
                raise
            # A refusal counts alone. Accepted recipients stay accepted, whatever follows.
            self._refusal = error
            return SECOND_ANSWER if at_once is None else at_once
        return at_once

    def result(self, *, followed: bool) -> T:
        """Return the value of the answer.

        :param followed: whether a second answer came.
        :raises LingyangError: it is a refusal, or one of two answers.
        """
        if followed:
            # None of them counts.
            raise AnswerUnreadableError("the gateway answered more than once")
        if self._refusal is not None:
            raise self._refusal
        value = cast(T, self._value)
        self.ours = self.may_reuse and self.call.is_ours is not None and self.call.is_ours(value)
        return value


@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes calls, with what a client has for all of them: see the parameters of ``GatewayClient``."""

    settings: GatewaySettings
    retry: RetryPolicy
    clock: Callable[[], datetime]
    monotonic: Callable[[], float]
    limiter: RateLimiter | None = None

    def of(self, call: Call[T]) -> Generator[Step | Send[T], Any, T]:
        """Make one call.

        :return: the value of the answer.
        :raises LingyangError: the typed reason, after the last attempt.
        """
        attempt = 0
        while True:
            attempt += 1
            yield from self._turn()
            started = self.monotonic()
            try:
                return (yield from self._attempt(call))
            except LingyangError as error:
                delay = self.retry.delay(error, attempt, idempotent=call.idempotent)
                ban = Ban.of(error)
                # Of another API, its callers learn by themselves.
                is_shared = ban is not None and (not ban.is_of_one_api or call.method == SUBMIT_METHOD)
                if self.limiter is not None and ban is not None and is_shared:
                    self.limiter.ban(ban.seconds, submits_only=ban.is_of_one_api)
                    if delay is None and self.limiter.has_unshared_ban:
                        with suppress(LedgerError):
                            yield Synchronise(partial(self.limiter.synchronise, 0))
                if delay is None:
                    raise
                log.warning(
                    "%s: attempt %d, after %.1f s: %s; again in %.1f s",
                    call.method,
                    attempt,
                    self.monotonic() - started,
                    error.facts,
                    delay,
                )
                throttled = isinstance(error, ThrottledError)
            if throttled and self.limiter is not None:
                # All calls wait, so that the first one back does not meet the same answer as the last.
                self.limiter.pause(delay)
            else:
                yield Sleep(delay)

    def _turn(self) -> Generator[Step, Any, None]:
        """Wait until the rate limit lets the next request pass.

        :raises NotSentError: the wait was cut short, or the database of a shared limit is away.
        :raises ThrottledError: a ban lasts too long to be waited for.
        """
        if (limiter := self.limiter) is None:
            return
        yield Sleep(0.0)
        with limiter.waiting():
            # Ask again after each wait: another call may have gone first.
            while True:
                yield from self._synchronised(limiter)
                if (left := limiter.pause_left) > LONGEST_WAIT + 1:
                    raise ThrottledError(
                        f"nothing was sent: the App key is throttled for {left:.0f} more seconds, as an earlier call "
                        "was answered",
                        retry_after=left,
                    )
                if (wait := limiter.acquire()) <= 0:
                    return
                yield from self._slept(wait)

    def _synchronised(self, limiter: RateLimiter) -> Generator[Step, Any, None]:
        """Synchronise a shared rate limit where that is due; wait for its database while that is away."""
        began, pause = self.monotonic(), _BASE
        while limiter.is_due and limiter.pace is not None:
            try:
                yield Synchronise(limiter.synchronise)
                return
            except (LedgerFencedError, LedgerRefusedError, LedgerUnusableError) as error:
                raise NotSentError(f"nothing was sent: the shared rate limit is unknown: {error}") from None
            except LedgerError as error:
                if self.monotonic() - began >= limiter.pace.patience:
                    raise NotSentError(
                        f"nothing was sent: the shared rate limit is unknown: {error}"
                    ) from None
                yield from self._slept(pause)
                pause = min(_CAP, 2 * pause)

    def _slept(self, seconds: float) -> Generator[Step, Any, None]:
        if (yield Sleep(seconds)) is False:
            raise NotSentError(
                "the task was asked to stop while the call waited for the rate limit; nothing was sent",
                replay=Replay.NEVER,
            )

    def _attempt(self, call: Call[T]) -> Generator[Step | Send[T], Any, T]:
        # Signed inside the attempt: the timestamp must be of this one.
        form = protocol.signed_form(self.settings, call.method, call.params, self.clock())
        scrub = Scrubber(call.params, {protocol.signature_of(form): "sign", **self.settings.credentials})
        if call.is_ours is not None:
            send = Send(call, form, scrub, self.clock, may_reuse=True)
            try:
                value: T = yield send
            except LingyangError as error:
                # A throttle is true, whichever call it answers. A broken connection has answered none.
                if not send.reused or isinstance(error, (ThrottledError, TransportError)):
                    raise
            else:
                if send.ours or not send.reused:
                    return value
            log.debug(
                "%s: the answer on a kept connection may be another call's; again on a new one", call.method
            )
            yield from self._turn()
        last: T = yield Send(call, form, scrub, self.clock, may_reuse=False)
        return last
