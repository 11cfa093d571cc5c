"""The settings of a gateway client, checked before anything is sent, and its way out: the same for both clients."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.signing import SIGN_METHODS
from airflow_provider_lingyang.gateway.transport import CONNECT_TIMEOUT

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


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
            if _HALF_A_CHARACTER.search(value):
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
        return self.connect_timeout + self.timeout

    @property
    def connect_timeout(self) -> float:
        """Seconds within which a connection is made."""
        return min(CONNECT_TIMEOUT, self.timeout)

    @property
    def proxy(self) -> str | None:
        """The proxy of the environment on the way to the gateway: without TLS it could read session and audience."""
        return None if self.plain_http else proxy_of(self.url)

    @property
    def plain_http(self) -> bool:
        """Whether the gateway is a process on this machine, spoken to without TLS."""
        return urlsplit(self.url).scheme == "http"


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


def proxy_of(url: str) -> str | None:
    """Return the proxy that the environment names for a URL, or None.

    Variables as everywhere: ``HTTPS_PROXY``, else ``ALL_PROXY``, and ``NO_PROXY`` (names, addresses and networks such
    as ``10.0.0.0/8``, or ``*``); a name in small letters wins.

    :raises LingyangConfigError: it cannot be used. SOCKS cannot: its libraries make connections of their own, which do
        not say whether a request was sent.
    """
    proxies = getproxies_environment()
    parts = urlsplit(url)
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_excepted(parts.hostname or "", parts.port or 443, proxies.get("no", "")):
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    try:
        address = urlsplit(proxy)
        usable = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
        for text in (address.username, address.password):
            unquote(text or "").encode("latin-1")  # what Basic authentication takes
    except ValueError:
        usable = False
    if not usable:
        raise LingyangConfigError(
            "the proxy that the environment names cannot be used; nothing was sent. Set HTTPS_PROXY to an http:// or "
            "https:// address (SOCKS is not supported), or name the gateway in NO_PROXY"
        )
    if address.username and address.password is None:
        # Without a password one client would send the user, and the other not.
        proxy = proxy.replace("@", ":@", 1)
    return proxy


def _is_excepted(host: str, port: int, no_proxy: str) -> bool:
    host = host.lower().rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in no_proxy.lower().split(","):
        entry = entry.strip()
        if entry == "*":
            return True
        try:
            network = ipaddress.ip_network(entry.strip("[]"), strict=False)
        except ValueError:
            if _names(entry.lstrip("*."), host, port):
                return True
        else:
            if address is not None and address in network:
                return True
    return False


def _names(entry: str, host: str, port: int) -> bool:
    try:
        named = urlsplit(f"//{entry}")
        name, at = (named.hostname or "").rstrip("."), named.port
    except ValueError:
        return False
    return bool(name) and at in (None, port) and (host == name or host.endswith(f".{name}"))
