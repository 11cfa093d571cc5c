"""The settings of a gateway client, checked before anything is sent."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS
from airflow_provider_lingyang.gateway.transport import CONNECT_TIMEOUT


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """The settings of a gateway client.

    :param url: the full gateway URL; https, http only to loopback.
    :param app_key: the App key.
    :param app_secret: the App secret.
    :param session_token: the user session, where the API needs one.
    :param sign_method: ``hmac-sha256``, ``hmac`` or ``md5``.
    :param timeout: seconds: for the connection to be made, and again for the whole answer to arrive.
    :param max_attempts: of one request, the first included; a write is retried only when it was not executed.
    :raises LingyangConfigError: for a value that cannot be right.
    """

    url: str
    app_key: str
    app_secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    sign_method: str = SIGN_METHODS[0]
    timeout: float = 30.0
    max_attempts: int = 3

    def __post_init__(self) -> None:
        _check_url(self.url)
        for value, name in ((self.app_key, "App key"), *self.credentials.items()):
            if not _is_unicode(value):
                raise LingyangConfigError(f"the {name} holds half a character, which no text can")
        if not self.app_key:
            raise LingyangConfigError("the App key is missing")
        if not self.app_secret:
            raise LingyangConfigError("the App secret is missing")
        if self.sign_method not in SIGN_METHODS:
            raise LingyangConfigError(
                f"unknown sign_method {self.sign_method[:20]!r}: use one of {', '.join(SIGN_METHODS)}"
            )
        if not 0 < self.timeout <= 3600:
            raise LingyangConfigError("timeout must be more than 0 and at most 3600 seconds")
        if self.max_attempts < 1:
            raise LingyangConfigError("max_attempts must be at least 1")

    @property
    def credentials(self) -> dict[str, str]:
        """Values that no text may hold, with their names."""
        named = {self.app_secret: "app_secret", self.session_token or "": "session_token"}
        return {value: name for value, name in named.items() if value}

    @property
    def answer_within(self) -> float:
        """Seconds within which an attempt is over: the timeouts of the connection and of the answer."""
        return min(CONNECT_TIMEOUT, self.timeout) + self.timeout

    @property
    def plain_http(self) -> bool:
        """Whether the gateway is a process on this machine, spoken to without TLS."""
        return urlsplit(self.url).scheme == "http"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_url(url: str) -> None:
    if not url.isprintable():
        raise LingyangConfigError("the gateway URL holds a character that cannot be printed")
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:
        raise LingyangConfigError("the gateway URL cannot be read") from None
    if parts.scheme not in ("https", "http") or not host:
        raise LingyangConfigError(
            "the gateway URL must be a full one, such as https://eco.taobao.com/router/rest"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LingyangConfigError("the gateway URL must hold no user, password, query or fragment")
    if parts.scheme == "http" and not _is_loopback(host):
        raise LingyangConfigError("plain http is allowed to this machine only (a sandbox): use https")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
