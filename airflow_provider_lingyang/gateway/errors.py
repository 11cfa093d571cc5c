"""The errors of the wire. Each has its facts as attributes: no caller reads message text.

::

    LingyangError
    ├── LingyangConfigError     a setting or argument is wrong; nothing was sent
    ├── RequestInvalidError     a request breaks the API page's rules; nothing was sent
    ├── TransportError          no answer
    │   ├── NotSentError            nothing was sent
    │   └── AnswerLostError         it may have been sent; its outcome is unknown
    ├── AnswerUnreadableError   the answer is not one of the gateway; the outcome is unknown
    └── GatewayError            the gateway refused
        ├── ThrottledError          called too often; not executed
        │   └── ReceiverLimitedError    a limit of one receiver, or of the account
        ├── CallRefusedError        the call itself: signature, session, permission, arguments …
        ├── RequestRefusedError     this request: isv.* or success=false
        └── ServiceError            the gateway or its backend failed
"""

from __future__ import annotations

import enum


class Replay(enum.Enum):
    """Whether the same request may be sent again at once."""

    SAFE = "safe"
    """Provably not executed: send it again."""
    AMBIGUOUS = "ambiguous"
    """It may have been executed: do not send a write again."""
    NEVER = "never"
    """To send the same again is of no use: something has to be changed first."""


LOOK_UP = "It may have been executed: look the biz_ids up before sending them again."


class LingyangError(Exception):
    """Root of every error of this package's gateway side.

    :param message: what happened, in one sentence, without personal data.
    :param replay: whether the same request may be sent again at once.
    :param code: the gateway's code, as text (it is a number in JSON, sometimes a word).
    :param sub_code: the gateway's finer code, such as ``isv.invalid-parameter``.
    :param msg: the gateway's text for ``code``, with values of the request replaced by field names.
    :param sub_msg: the gateway's text for ``sub_code``, treated likewise.
    :param request_id: the gateway's id of the call, for its support.
    :param retry_after: seconds until a throttle ends, where the gateway announced it.
    :param hint: how to correct it.
    """

    default_replay = Replay.NEVER
    default_hint: str | None = None

    def __init__(
        self,
        message: str,
        *,
        replay: Replay | None = None,
        code: str | None = None,
        sub_code: str | None = None,
        msg: str | None = None,
        sub_msg: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.replay = replay or self.default_replay
        self.code = code
        self.sub_code = sub_code
        self.msg = msg
        self.sub_msg = sub_msg
        self.request_id = request_id
        self.retry_after = retry_after
        self.hint = hint or self.default_hint

    @property
    def facts(self) -> str:
        """What happened, with the gateway's own words, and without the hint."""
        names = ("code", "sub_code", "msg", "sub_msg", "request_id")
        facts = [f"{name} {value}" for name in names if (value := getattr(self, name))]
        return self.message + (f" [{', '.join(facts)}]" if facts else "")

    def __str__(self) -> str:
        return f"{self.facts}. {self.hint.rstrip('.')}" if self.hint else self.facts


class LingyangConfigError(LingyangError, ValueError):
    """A setting or an argument is wrong. Nothing was sent."""


class RequestInvalidError(LingyangError, ValueError):
    """A request breaks the rules of the API page. Nothing was sent."""


class TransportError(LingyangError):
    """No answer came back."""


class NotSentError(TransportError):
    """Nothing was sent: the gateway was not reached."""

    default_replay = Replay.SAFE


class AnswerLostError(TransportError):
    """The connection broke or timed out after the request may have been sent."""

    default_replay = Replay.AMBIGUOUS
    default_hint = LOOK_UP


class AnswerUnreadableError(LingyangError):
    """The answer is not one of the gateway (a proxy's page, HTTP 502): the request may have been executed behind it."""

    default_replay = Replay.AMBIGUOUS
    default_hint = LOOK_UP


class GatewayError(LingyangError):
    """The gateway answered with a refusal."""


class ThrottledError(GatewayError):
    """Called too often. Not executed; ``retry_after`` is the wait, where known."""

    default_replay = Replay.SAFE


class ReceiverLimitedError(ThrottledError):
    """A limit of one receiver, or of the account: the platform does not say which receiver.

    Other recipients of the request may have been contacted, so it is not sent again at once.
    """

    default_replay = Replay.AMBIGUOUS


class CallRefusedError(GatewayError):
    """The call itself was refused (signature, session, permission, arguments …): every call would be."""


class RequestRefusedError(GatewayError):
    """This request was refused for its content; others may pass."""


class ServiceError(GatewayError):
    """The gateway, or the backend behind it, failed."""

    default_replay = Replay.AMBIGUOUS
