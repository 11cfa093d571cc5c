"""Errors on the way to the gateway or back, in the same words for both clients. Pure."""

from __future__ import annotations

import os
import re
import ssl

from airflow_provider_lingyang.gateway.errors import (
    AnswerLostError,
    NotSentError,
    Replay,
)

CONNECT_TIMEOUT = 10.0
"""Seconds at most for a connection to be made: a gateway that is there answers within a few."""
IDLE_LIMIT = 5.0
"""Seconds that a look-up's connection is kept without use: the gateway may close it unnoticed. Writes are sent on new
connections only."""
SECOND_ANSWER = 0.2
"""Seconds to wait after a refused write for a second, contradicting answer, unless the gateway closes the connection
before, as requested."""
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")


def not_connected(
    reason: str, *, peer: str = "the gateway", certificate: bool = False, within: float | None = None
) -> NotSentError:
    """Return the error for a connection that was not made.

    :param reason: see :func:`reason_of`.
    :param certificate: the peer's certificate was refused.
    :param within: seconds that were waited for the connection; None: it failed sooner.
    """
    if certificate:
        return NotSentError(
            f"the TLS certificate of {peer} was refused ({reason}); nothing was sent",
            replay=Replay.NEVER,
            hint="Check the connection's host, this machine's clock, and REQUESTS_CA_BUNDLE where a proxy reads TLS.",
        )
    waited = f" within {within:g} s" if within is not None else ""
    return NotSentError(
        f"{peer} was not reached{waited} ({reason}); nothing was sent",
        hint="Check the connection's host, the network, the firewall, and HTTPS_PROXY and NO_PROXY in the environment.",
    )


def no_ca_bundle() -> NotSentError:
    """Return the error for a CA bundle that the environment names and that cannot be read."""
    return NotSentError(
        "the CA bundle that the environment names is not there; nothing was sent",
        replay=Replay.NEVER,
        hint="Correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.",
    )


def not_in_time(timeout: float) -> AnswerLostError:
    """Return the error for an answer that did not come."""
    return AnswerLostError(
        f"the gateway did not answer in time (connected, but no complete answer within {timeout:g} s)"
    )


def broken(error: BaseException) -> AnswerLostError:
    """Return the error for a connection that broke after the request may have been sent."""
    return AnswerLostError(f"the connection to the gateway broke ({reason_of(error)})")


def reason_of(error: BaseException) -> str:
    """Return the innermost reason in a few words, without the URLs and headers that outer ones repeat."""
    for item in reversed(chain(error)):
        if isinstance(item, ssl.SSLCertVerificationError) and item.verify_message:
            return item.verify_message
        if type(item).__name__ == "CertificateError":
            return "Hostname mismatch"
        if found := _TUNNEL.search(str(item)):
            return f"the proxy answered HTTP {found[1]}"
        if isinstance(item, OSError) and item.strerror:
            # asyncio's own text holds the address instead of the reason.
            own_words = item.errno and item.strerror.startswith("Connect call")
            return os.strerror(item.errno or 0) if own_words else item.strerror
    return type(chain(error)[-1]).__name__


def chain(error: BaseException) -> list[BaseException]:
    """Return an error and all its causes, in any of the libraries' ways of chaining them."""
    found: list[BaseException] = []
    pending: list[object] = [error]
    while pending and len(found) < 20:
        item = pending.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            pending += [getattr(item, "reason", None), item.__cause__, item.__context__, *item.args]
    return found
