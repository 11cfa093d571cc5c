"""The signature of a request: parameters → string to sign → digest. Pure.

Source: Taobao Open Platform, "API call method",
doc.alidayu.com/docs/doc.htm?treeId=49&articleId=101617&docType=1
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from airflow_provider_lingyang.gateway.errors import LingyangConfigError

SIGN_METHODS = ("hmac-sha256", "hmac", "md5")
"""Values of ``sign_method``; the first is this package's default. ``hmac`` is HMAC-MD5."""


def string_to_sign(params: Mapping[str, str]) -> str:
    """Return the text that is signed: every name and value, sorted by name, without separators.

    :param params: system and business parameters before URL encoding. ``sign`` itself, and parameters
        whose name or value is empty, are left out: the gateway leaves them out too.
    """
    return "".join(
        name + value for name, value in sorted(params.items()) if name and value and name != "sign"
    )


def sign(params: Mapping[str, str], secret: str, sign_method: str) -> str:
    """Return the signature of a request, as upper-case hex.

    :param params: system and business parameters before URL encoding; the signed text must be
        byte for byte the sent one.
    :param secret: the App secret.
    :param sign_method: ``hmac-sha256``, ``hmac`` (HMAC-MD5) or ``md5`` (MD5 of secret + text + secret).
    :raises LingyangConfigError: for another ``sign_method``.
    """
    text = string_to_sign(params).encode()
    app_secret = secret.encode()
    match sign_method:
        case "hmac-sha256":
            return hmac.digest(app_secret, text, "sha256").hex().upper()
        case "hmac":
            return hmac.digest(app_secret, text, "md5").hex().upper()
        case "md5":
            return hashlib.md5(app_secret + text + app_secret, usedforsecurity=False).hexdigest().upper()
        case _:
            raise LingyangConfigError(
                f"unknown sign_method {sign_method!r}: use one of {', '.join(SIGN_METHODS)}"
            )
