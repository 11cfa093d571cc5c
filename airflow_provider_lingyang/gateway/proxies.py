"""Which proxy of the environment leads to the gateway: the same for both clients."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed lacks it

from airflow_provider_lingyang.gateway.errors import LingyangConfigError


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
    entries = [entry.strip() for entry in no_proxy.split(",")]
    names = ",".join(entry.lstrip("*.").rstrip(".") for entry in entries)
    if "*" in entries or proxy_bypass_environment(f"{host}:{port}", {"no": names}):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return any(_holds(entry.strip("[]"), address) for entry in entries)


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False
