"""Keep a request's values out of texts, phone numbers among them: gateways like to quote requests."""

from __future__ import annotations

import base64
import html
import json
import re
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote, quote_plus, unquote_to_bytes

from airflow_provider_lingyang.gateway.form_encoding import KEPT

_KEPT = frozenset(("biz_id", "biz_ids", "task_unique_code", "batch_num", "task_id", "plan_id"))
"""Identifiers may appear in texts; every other value of a request may not."""
_MAX_TEXT = 500
_MAX_READ = 256 * 1024
"""Characters. No gateway writes more than it was sent; looking for values in more would take too long."""
_CALL_ID = re.compile(r"[0-9A-Za-z._:-]{1,64}")
_MIN_DIGITS, _MIN_SPACED = 7, 10
"""A value is looked for as digits from this length on; one that is spaced out itself only where it is no date."""
_SPACED = r"[\s.()\u2010-\u2015-]"
_BETWEEN_DIGITS = re.compile(r"(?<=[0-9])[^\w%&]{1,4}(?=[0-9])|(?<=[0-9])_{1,4}(?=[0-9])")
"""Characters between two digits, other than letters: a value of the request is known by its digits alone."""
_COUNTRY = re.compile(r"^(?:(?:\+|00)86|86(?=1[0-9]{10}$)|\+)")
_ENCODED = re.compile(
    r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[0-9A-Za-z]{1,32});?"
    r"|(?:%[0-9a-fA-F]{2})+"
    r"|(?:\\+u[dD][89abAB][0-9a-fA-F]{2}\\+u[dD][c-fC-F][0-9a-fA-F]{2})|\\+u[0-9a-fA-F]{4}|\\+x[0-9a-fA-F]{2}"
)
"""An entity of HTML, bytes in per cent signs, and characters in JSON's and Python's escapes."""
_BASE64 = re.compile(r"(?<![0-9A-Za-z+/_=-])[0-9A-Za-z+/_-]{8,}={0,2}(?![0-9A-Za-z+/_=-])")
_DECODED_TIMES = 3
_FORMAT = re.compile(
    "[\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Characters that are not seen: they may stand anywhere in a value."""
_NUMBER = re.compile(rf"[0-9]{{{_MIN_DIGITS},}}")
_MARK = r"[\s.·‐-―-]"
_CONTACT = re.compile(
    rf"(?<![0-9A-Za-z])(?:\+?(?:00)?86{_MARK}?)?\(?1{_MARK}?[3-9]{_MARK}?[0-9]\)?(?:{_MARK}{{0,2}}[0-9]){{8}}(?![0-9A-Za-z])"
    r"|[^\s@<>()\[\]:,;\"'!?、。]{1,64}@[^\s@<>()\[\]:,;\"'!?、。]{1,255}"
)
"""A mobile number of China, or a mailbox: it may be of a recipient outside of the request."""
_OTHER_CONTACT = "contact"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Scrubber:
    """Replaces every value of one request by its field's name, and any other contact by ``<contact>``.

    Costs nothing until a text has to be scrubbed, which is only after an error.

    :param params: the request's business parameters, structs as JSON text.
    :param credentials: further values that no text may hold: value → name.
    """

    def __init__(self, params: Mapping[str, str], credentials: Mapping[str, str]) -> None:
        self._params = params
        self._credentials = credentials

    def __call__(self, text: str | None) -> str | None:
        """Return the text as one line without the request's values, shortened to 500 characters."""
        if not text:
            return text
        if len(text) > _MAX_READ:
            return f"<a text of {len(text)} characters>"
        pieces: list[str] = []
        done = 0
        views = _views(text)
        others = ((start, end, _OTHER_CONTACT) for view in views for start, end in view.contacts())
        for start, end, name in _merged([*self._found(views), *others]):
            pieces += text[done:start], f"<{name}>"
            done = end
        text = "".join(pieces) + text[done:]
        # Only after that: a cut could leave half a value that no longer matches.
        return _UNPRINTABLE.sub(" ", text[:_MAX_TEXT])

    def call_id(self, text: str | None) -> str | None:
        """Return the gateway's id of a call; like a text, but at no cost for one that is none of the request's."""
        if text and _CALL_ID.fullmatch(text):
            bare = re.sub(r"[._:-]", "", text).lower()
            spellings = {each.encode() for each in (text.lower(), bare, *_NUMBER.findall(bare))}
            # As bytes, so of ASCII only, which is all of such an id: to fold a request takes longer than to sign it.
            held = [
                value.encode(errors="replace").lower()
                for value in (*self._params.values(), *self._credentials)
            ]
            if not any(spelling in value for spelling in spellings for value in held):
                return text
        return self(text)

    def _found(self, views: Sequence[_View]) -> Iterator[tuple[int, int, str]]:
        """Yield where values stand in the text; they may overlap."""
        digits = [view.respelled(_BETWEEN_DIGITS, lambda _: "") for view in views]
        for value, name in self._values:
            for spelling in _spellings(value) | {_plain(value)}:
                # "15" and "no" stand inside other words, where they are not the request's.
                alone = len(spelling) < 4 and spelling.isascii()
                for view in views:
                    yield from view.find(spelling, name, alone=alone)
            if number := _digits(value):
                for view in digits:
                    yield from view.find(number, name)

    @cached_property
    def _values(self) -> list[tuple[str, str]]:
        found = dict(self._credentials)
        for name, text in self._params.items():
            for value, where in _leaves(name, text):
                found.setdefault(value, where)
        # A single letter or digit is everywhere; a single Chinese character may be a name.
        return [(value, name) for value, name in found.items() if len(value) > 1 or not value.isascii()]


def _views(text: str) -> list[_View]:
    """Return a text as it was written and as it reads decoded, each folded: one value has many spellings."""
    views = [_View(text, range(len(text)), range(1, len(text) + 1))]
    for _ in range(_DECODED_TIMES):
        decoded = views[-1].respelled(_ENCODED, _decoded)
        if decoded.text == views[-1].text:
            break
        views.append(decoded)
    # Last: a text in base64 may be spelled in any of the other ways, and the other way round.
    for view in views[:]:
        within = view.respelled(_BASE64, _of_base64)
        if within.text != view.text:
            views += [within, within.respelled(_ENCODED, _decoded)]
    return [view.folded() for view in views]


def _decoded(text: str) -> str:
    """Return the decoded escape, or the escape itself where it stands for nothing."""
    if text[0] == "&":
        return html.unescape(text)
    if text[0] == "%":
        raw = unquote_to_bytes(text)
        for encoding in ("utf-8", "gb18030"):
            try:
                return raw.decode(encoding)
            except UnicodeDecodeError:
                continue
        return text
    codes = [int(code, 16) for code in re.findall(r"[ux]([0-9a-fA-F]+)", text)]
    if len(codes) == 2:
        return chr(0x10000 + ((codes[0] - 0xD800) << 10) + (codes[1] - 0xDC00))
    return chr(codes[0])


def _of_base64(text: str) -> str:
    """Return the text in a piece of base64, or the piece itself where it holds none: most such words are words."""
    bare = text.rstrip("=").translate(_URL_SAFE)
    try:
        found = base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode()
    except ValueError:
        return text
    return text if _NO_TEXT.search(found) else found


_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f]")
_URL_SAFE = str.maketrans("-_", "+/")


def _plain(text: str) -> str:
    """Return a text without invisible differences: width, form and case of its characters."""
    return unicodedata.normalize("NFKC", _FORMAT.sub("", text)).casefold()


def _merged(spans: Iterable[tuple[int, int, str]]) -> Iterator[tuple[int, int, str]]:
    """Join spans that overlap, so that no end of a value is left over.

    The earliest, longest one gives the name, and a field of the request goes before any other contact.
    """
    current: tuple[int, int, str] | None = None
    for start, end, name in sorted(spans, key=lambda span: (span[0], -span[1])):
        if current is not None and start < current[1]:
            first = name if current[2] == _OTHER_CONTACT else current[2]
            current = (current[0], max(current[1], end), first)
            continue
        if current is not None:
            yield current
        current = (start, end, name)
    if current is not None:
        yield current


@dataclass(frozen=True, slots=True)
class _View:
    """A text, read in one way, and from where to where each of its characters stands in what was written."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]

    def respelled(self, pattern: re.Pattern[str], spell: Callable[[str], str]) -> _View:
        """Return it with each match of a pattern respelled."""
        pieces: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        done = 0
        for found in pattern.finditer(self.text):
            begin, end = found.span()
            word = spell(found[0])
            pieces += self.text[done:begin], word
            starts += self.starts[done:begin]
            ends += self.ends[done:begin]
            starts += [self.starts[begin]] * len(word)
            ends += [self.ends[end - 1]] * len(word)
            done = end
        if not pieces:
            return self
        return _View(
            "".join(pieces) + self.text[done:], [*starts, *self.starts[done:]], [*ends, *self.ends[done:]]
        )

    def folded(self) -> _View:
        """Return it without differences of width, form and case, and without characters that are not seen."""
        view = self
        if not view.text.isascii():
            view = view.respelled(_FORMAT, lambda _: "").respelled(
                _NOT_ASCII, partial(unicodedata.normalize, "NFKC")
            )
        folded = view.text.casefold()
        if len(folded) == len(view.text):
            return _View(folded, view.starts, view.ends)
        return view.respelled(_ANY, str.casefold)

    def contacts(self) -> Iterator[tuple[int, int]]:
        """Yield where it holds a contact, of the request or not."""
        for found in _CONTACT.finditer(self.text):
            yield self.starts[found.start()], self.ends[found.end() - 1]

    def find(self, word: str, name: str, *, alone: bool = False) -> Iterator[tuple[int, int, str]]:
        """Yield where a word was written.

        :param alone: only where it is no part of a longer one.
        """
        if word not in self.text:
            return
        pattern = re.escape(word)
        if alone:
            pattern = rf"(?<![0-9A-Za-z]){pattern}(?![0-9A-Za-z])"
        # As a lookahead it finds a value that overlaps itself, too.
        for found in re.finditer(f"(?={pattern})", self.text):
            yield self.starts[found.start()], self.ends[found.start() + len(word) - 1], name


_ANY = re.compile("(?s:.)")
_NOT_ASCII = re.compile("(?s:.)[\u0300-\u036f\u3099\u309a]+|[^\x00-\x7f]")
"""One character, with the marks that are written above it."""


def _digits(value: str) -> str | None:
    """Return the digits of a possible phone number, without the country's; None: it is none."""
    digits = re.sub(_SPACED, "", value)
    spaced = digits != value
    digits = _COUNTRY.sub("", digits)
    least = _MIN_SPACED if spaced else _MIN_DIGITS
    return digits if digits.isascii() and digits.isdigit() and len(digits) >= least else None


def _spellings(value: str) -> set[str]:
    """Return a value, in lower case, raw and as it looks inside JSON, inside JSON inside JSON, and inside a form."""
    found = {value}
    if not (value.isascii() and value.isalnum()):
        for ascii_only in (True, False):
            escaped = value
            for _ in range(2):
                escaped = json.dumps(escaped, ensure_ascii=ascii_only)[1:-1]
                found.add(escaped)
        found |= {quote(value, safe="", errors="replace"), quote_plus(value, errors="replace")}
        found.add(quote_plus(value, safe=KEPT, errors="replace"))  # as it was sent
    return {spelling.casefold() for spelling in found}


def _leaves(name: str, text: str) -> Iterator[tuple[str, str]]:
    """Yield (value, name of its field) for all that a parameter holds. Without recursion: it may be deep."""
    pending: deque[tuple[str, Any, bool]] = deque([(name, text, True)])
    while pending:
        name, value, ours = pending.popleft()
        # Inside input_params and the like, a variable may be called as it pleases.
        if ours and name in _KEPT:
            continue
        if isinstance(value, dict):
            pending += ((str(key), inner, ours) for key, inner in value.items())
        elif isinstance(value, list):
            pending += ((name, inner, ours) for inner in value)
        elif isinstance(value, str):
            if value not in ("{}", "[]"):
                yield value, name
            if value.lstrip()[:1] in ("{", "["):
                try:
                    inside = json.loads(value, strict=False)
                except (ValueError, RecursionError):
                    continue
                pending.append((name, inside, value is text))
        elif isinstance(value, (int, float)) and abs(value) > 9999:
            yield json.dumps(value), name
