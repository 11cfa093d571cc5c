"""Percent-encoding of forms. Pure."""

from __future__ import annotations

from typing import Final

KEPT: Final = ":,/@"
"""Sent as they are: JSON and ids are full of them, and without them it takes a quarter longer. RFC 3986 lets them stand
in a query, and a form's parser looks for ``&`` and ``=``, and decodes ``%`` and ``+``, nothing else.
"""
_NO_LOOP = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~% " + KEPT.encode()
"""Bytes that the loop skips: they stay as they are; the percent sign and the space are replaced separately."""


def form_encoded(text: str) -> bytes:
    """Return a text as ``application/x-www-form-urlencoded``, as ``quote_plus(text, safe=KEPT)`` does, but sooner.

    :raises UnicodeEncodeError: it holds half a character.
    """
    encoded = text.encode()
    # The percent sign first, because the others bring more of it; the space last, because it becomes a plus sign.
    special = encoded.translate(None, _NO_LOOP)
    encoded = encoded.replace(b"%", b"%25")
    while special:
        byte = special[:1]
        special = special.translate(None, byte)
        encoded = encoded.replace(byte, b"%%%02X" % byte[0])
    return encoded.replace(b" ", b"+")
