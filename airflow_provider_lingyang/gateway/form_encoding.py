"""Percent-encoding of forms. Pure."""

from __future__ import annotations

from typing import Final

KEPT: Final = ":,/@"
"""Sent as they are: JSON and ids are full of them, and without them it takes a quarter longer. RFC 3986 lets them stand
in a query, and a form's parser looks for ``&`` and ``=``, and decodes ``%`` and ``+``, nothing else.
"""
_NO_LOOP = b'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~% \\"' + KEPT.encode()
"""Bytes that the loop skips: they stay as they are, or are replaced separately."""


def form_encoded(text: str) -> bytes:
    """Return a text as ``application/x-www-form-urlencoded``, as ``quote_plus(text, safe=KEPT)`` does, but sooner.

    :raises UnicodeEncodeError: it holds half a character.
    """
    encoded = text.encode()
    rare = set(encoded.translate(None, _NO_LOOP))
    # The percent sign first: the others add more of it. The plus sign before the space, which becomes one. The most
    # frequent last: each makes the text longer.
    encoded = encoded.replace(b"%", b"%25")
    for byte in rare:
        encoded = encoded.replace(bytes((byte,)), b"%%%02X" % byte)
    return encoded.replace(b"\\", b"%5C").replace(b'"', b"%22").replace(b" ", b"+")
