"""Normalise a phone number: one canonical spelling. Pure.

Source: the format guide of Alibaba Cloud's voice messaging service. A mobile is dialled with ``+86``,
``0086``, ``86`` or nothing before it; a landline keeps its trunk 0 inside China; ``+`` or ``00`` with another country's
code is an international call; an extension is a field of its own.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from datetime import date

PLAIN = (
    "^(?:[2-79][0-9]{4,19}|8[0-57-9][0-9]{3,18}|1[0-2][0-9]{3,18}|1[3-9][0-9]{3,9}"
    "|0[2-9][0-9]{8,10}|010[0-9]{7,9})$"
)
"""Numbers that are in their one spelling: nearly all. Without look-ahead, which pydantic's expressions have not."""

NOT_A_NUMBER = "is not a phone number (5 to 20 digits)"
EXTENSION = "holds an extension: the platform has no field for it, so give the number without it"
SEVERAL = "holds more than one number: give each recipient one"

_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "}
_DASHES = dict.fromkeys((*range(0x2010, 0x2016), 0x2212, 0xFE58, 0xFE63), "-")
# Invisible marks of direction and width that editors and address books put around a number.
_INVISIBLE = dict.fromkeys(
    (0x00AD, 0x061C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x206A))
)
INVISIBLE = "".join(map(chr, _INVISIBLE))
_TRANSLATED = {**_HALF_WIDTH, **_DASHES, **_INVISIBLE}

_SPELLED = re.compile(r"\(?\s*(?:\+\s*)?\(?\s*(?:\+\s*)?[0-9][0-9\s().-]*")
_EXTENSION = re.compile(r"[#*]|转|轉|分机|分機|ext|[0-9\s.)]x|[0-9]\s*[pw,]+\s*[0-9]{1,5}$", re.IGNORECASE)
_SEVERAL = re.compile(
    r"[/\\|,;、，；&\n\r\v\f\x1c-\x1f\x85\u2028\u2029]|[0-9]\s*(?:或|和|and|or)\s*\(?\+?[0-9]"
)
_ADDRESS = re.compile(r"[^\s@]@[^\s@]+\.[^\s@.]")
_TRUNK = re.compile(r"\(\s*0\s*\)")

_MOBILE = re.compile(r"1[3-9][0-9]{9}")
_SERVICE = re.compile(r"[48]00[0-9]{7}")
# Area codes have two digits (10, 20 to 29) or three; a subscriber's number begins with none of 0 and 1.
_AREA = re.compile(r"(?:10|2[0-9])[2-9][0-9]{7}|[3-9][0-9]{2}[2-9][0-9]{6,7}")

# Within a text: groups of digits, three or more in each, so that no date is read as a number.
_RUN = re.compile(r"[0-9]+x?(?:[\s.()-]{1,3}[0-9]+x?)*")
_GROUP = re.compile(r"[0-9]+x?")
_ABROAD = re.compile(r"(?<![0-9a-z])\+\s*[0-9](?:[\s().-]{0,3}[0-9]){6,}")
_MOBILE_WITHIN = re.compile(rf"(?:(?:00)?86|0)?{_MOBILE.pattern}")
_LANDLINE_WITHIN = re.compile(rf"(?:0086)?0(?:{_AREA.pattern})|0086(?:{_AREA.pattern})")
_IDENTITY = re.compile(r"[1-9][0-9]{5}(?P<born>(?:19|20)[0-9]{6})[0-9]{3}[0-9x]")
_LONGEST = 18
# A random one would be taken for a mobile number now and then.
_DIGEST = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})(?![0-9a-z])"
)


class PhoneNumberError(ValueError):
    """The text is no phone number, or more than one; says why, without the text."""


def canonical_phone(text: str) -> str:
    """Return the one spelling of a phone number: digits only, as it is dialled inside China.

    ``+86``, ``0086`` and ``86`` before a mobile are left out; a landline has its trunk 0; another country's number
    begins with ``00``. Spaces, hyphens, dots, parentheses and full-width forms do not matter.

    :raises PhoneNumberError: it is none, has an extension, or is more than one.
    """
    text = text.strip().translate(_TRANSLATED).strip()
    if not _SPELLED.fullmatch(text):
        raise PhoneNumberError(_why(text))
    if _SEVERAL.search(text):
        raise PhoneNumberError(SEVERAL)
    groups = re.findall(r"[0-9]+", _TRUNK.sub(" ", text) if re.match(r"\(?\s*(?:\+|00)", text) else text)
    digits = "".join(groups)
    if "." in text and any(len(group) < 3 for group in groups[1:]):
        # A decimal number that was written out.
        raise PhoneNumberError(NOT_A_NUMBER)
    if sum(len(group) >= 7 for group in groups) > 1:
        raise PhoneNumberError(SEVERAL)
    country = "+" in text
    if digits.startswith("00") and not country:
        country, digits = True, digits[2:]
    if country and digits.startswith("86"):
        number = _domestic(digits[2:], explicit=True)
    elif country:
        # No country's code begins with 0, and with it a number has 15 digits at most.
        if not re.fullmatch(r"[1-9][0-9]{6,14}", digits):
            raise PhoneNumberError(NOT_A_NUMBER)
        number = f"00{digits}"
    else:
        number = _domestic(digits, explicit=False)
    # A whole number with more digits behind it. A mobile in two parts is one.
    followed = any(len(group) >= 7 for group in groups[:-1]) or _SERVICE.match(number)
    if followed and len(groups) > 1 and not (_MOBILE.fullmatch(number) or _SERVICE.fullmatch(number)):
        raise PhoneNumberError(EXTENSION)
    return number


def looks_like_contact(text: str) -> bool:
    """Whether a text is a mobile number in any spelling, or one with a ``+``, or holds an email address.

    Other digits may be an id.
    """
    text = text.translate(_TRANSLATED)
    if _ADDRESS.search(text):
        return True
    try:
        number = canonical_phone(text)
    except PhoneNumberError:
        return False
    return "+" in text or bool(_MOBILE.fullmatch(number))


def holds_contact(text: str) -> bool:
    """Whether a contact stands anywhere in a text, or is all of it.

    Found are: an email address; a number with a ``+``; a mobile number of China, also after ``86``, ``0086`` or ``0``;
    a landline of China with its area code; an identity number of China (18 characters, with a date of birth). They may
    have letters beside them, and blanks, hyphens, dots and parentheses between groups of three digits or more. Digits
    that belong to a longer number are none of these, and no digits of a UUID or of a hexadecimal digest are.

    Not found are: a landline without its area code, another country's number without ``+``, an identity number of 15
    digits, a name, and anything that is written in words or encoded.
    """
    if looks_like_contact(text):
        return True
    text = text.translate(_TRANSLATED)
    if not text.isascii():
        text = "".join(str(unicodedata.decimal(each, each)) for each in unicodedata.normalize("NFKC", text))
    text = _DIGEST.sub(" / ", text.lower())
    return bool(_ADDRESS.search(text) or _ABROAD.search(text)) or any(
        _runs_into_contact(_GROUP.findall(run[0])) for run in _RUN.finditer(text)
    )


def _runs_into_contact(groups: list[str]) -> bool:
    for start in range(len(groups)):
        number = ""
        for group in groups[start:]:
            # A country's code, or the trunk 0, may be shorter.
            if len(group) < 3 and (number or group not in ("86", "0")):
                break
            number += group
            if len(number) > _LONGEST:
                break
            if _MOBILE_WITHIN.fullmatch(number) or _LANDLINE_WITHIN.fullmatch(number) or _is_identity(number):
                return True
            # An "x" behind a number is an extension or nothing.
            if number.endswith("x"):
                if _MOBILE_WITHIN.fullmatch(number[:-1]) or _LANDLINE_WITHIN.fullmatch(number[:-1]):
                    return True
                break
    return False


def _is_identity(number: str) -> bool:
    found = _IDENTITY.fullmatch(number)
    if found is not None:
        born = found["born"]
        with suppress(ValueError):
            return bool(date(int(born[:4]), int(born[4:6]), int(born[6:])))
    return False


def _domestic(digits: str, *, explicit: bool) -> str:
    """Return a number inside China.

    :param explicit: the country's code was before it, so a landline may lack its trunk 0.
    """
    national = digits[2:] if digits.startswith("86") else ""
    if _MOBILE.fullmatch(national) or (len(national) >= 10 and _landline(national)):
        # No number inside China is that long and begins so.
        digits, explicit = national, True
    if digits.startswith("0") and _MOBILE.fullmatch(digits[1:]):
        # Dialled so from another city; no area code begins with 013 to 019.
        digits = digits[1:]
    if explicit and not _SERVICE.fullmatch(digits) and _AREA.fullmatch(digits):
        digits = f"0{digits}"
    if not re.fullmatch(r"[0-9]{5,20}", digits) or digits.startswith("00"):
        raise PhoneNumberError(NOT_A_NUMBER)
    if digits.startswith("0") and len(digits) > 12:
        raise PhoneNumberError(EXTENSION)
    if _MOBILE.match(digits) and len(digits) > 11:
        raise PhoneNumberError(SEVERAL if len(digits) >= 18 else EXTENSION)
    return digits


def _landline(digits: str) -> bool:
    return bool(_AREA.fullmatch(digits.removeprefix("0")) or _SERVICE.fullmatch(digits))


def _why(text: str) -> str:
    if not re.search(r"[0-9]{3}", text):
        return NOT_A_NUMBER
    if _EXTENSION.search(text):
        return EXTENSION
    return SEVERAL if _SEVERAL.search(text) or text.count("+") > 1 else NOT_A_NUMBER
