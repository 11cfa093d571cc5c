"""Members of an answer: what their names mean, and their values in the shapes that the platform gives them. Pure.

Names are recognised in any spelling: case, underscores and hyphens do not count.
"""

from __future__ import annotations

import enum
import json
import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

SUCCESS_WORDS = frozenset(("success", "succeed", "succeeded", "successful", "ok"))
"""Values that say success, folded."""


class Sign(enum.Enum):
    """The meaning of a name."""

    FLAG = enum.auto()
    """True where the call succeeded."""
    OTHER_FLAG = enum.auto()
    """Another flag: it may speak of something else, so it counts only where it is false."""
    MESSAGE = enum.auto()
    """A text for a reader."""
    ERROR = enum.auto()
    """Empty, or false, where the call succeeded."""
    CODE = enum.auto()
    """Empty, 0 or a success word where the call succeeded."""
    STATUS = enum.auto()
    """The same, or a word for "done"; only on the path itself, because elsewhere it may be anything's."""
    TOTAL = enum.auto()
    """How many results there are on all pages."""
    COUNT = enum.auto()
    """How many results there are, on this page or on all."""
    PAGES = enum.auto()
    """How many pages there are."""
    PAGE = enum.auto()
    """Which page this is."""
    PAGE_SIZE = enum.auto()
    """How many results a page holds at most."""
    MORE = enum.auto()
    """True where there is another page."""
    LAST = enum.auto()
    """True where there is none."""
    CURSOR = enum.auto()
    """Not empty where there is another page."""


_PREFIX = (
    "(?:is|has|biz|busi|business|result|res|rsp|resp|response|request|query|api|service|invoke|call|op|sys|system|data"
    "|ret|rtn|return|inner)*"
)
_MANY = (
    "(?:records?|results?|items?|rows?|elements?|hits?|tasks?|data|size|count|counts|cnt|num|number|nums)*"
)
_NAMES = {
    _PREFIX + "(?:success|succeed|succeeds|succeeded|successful|successed|succ|ok)(?:flag)?": Sign.FLAG,
    _PREFIX
    + "(?:err|error|errors|exception|exceptions|fault|fail|fails|failed|failure|failures).*": Sign.ERROR,
    ".*(?:error|exception).*|sub(?:msg|message)": Sign.ERROR,
    "(?:sub|biz|result|res|ret|rtn|return|resp|response|rsp|status|state|http|httpstatus|msg|message|busi|business|api"
    "|sys|system|inner|top)*code|ret|rc|httpstatus": Sign.CODE,
    "(?:result|res|response|resp|ret|query|biz)*(?:status|state)|result": Sign.STATUS,
    "(?:total|max|all)pages?(?:count|num|number|no)?|pages?(?:count|total)|pages|lastpage(?:no|num)?": Sign.PAGES,
    "total" + _MANY + "|(?:record|item|result|row|data|list|task|hit|all|element|page)s?total": Sign.TOTAL,
    "(?:record|item|result|row|data|list|task|hit|all|element)?s?(?:count|cnt)": Sign.COUNT,
    "(?:curr?|current)?page(?:no|num|number|index|idx|current)?": Sign.PAGE,
    "page(?:size|limit|rows|records)|(?:per|each)page|limit|maxresults?|sizeofpage": Sign.PAGE_SIZE,
    "(?:is|has|have|exists?)*(?:next|more)(?:page|pages|data|results?|items?|records?|flag)?": Sign.MORE,
    "(?:is)?(?:truncated|partial|incomplete|overflow)": Sign.MORE,
    "is(?:the)?(?:last|end|finish|finished|over|complete|completed)(?:page|flag)?|nomore(?:data|pages?)?": Sign.LAST,
    "complete|completed|endflag|lastflag": Sign.LAST,
    "next.*|(?:end|after)?cursor|scrollid|(?:page|continuation)(?:token|key)|continuation|marker": Sign.CURSOR,
    # The names below are on no page of the platform, and count only against an answer.
    "(?:is|has|request|query)*(?:(?:un|not|non)suc+es.*|time(?:d|r)?out|timeouted|degraded?|fallback|throttled"
    "|limited|stale|retry|retryable|invalid|broken|aborted|cancell?ed|busy|rejected|blocked"
    "|(?:permission|access)?denied|partial.*|incomplete.*|truncat.*|(?:need|should)retry|warn(?:ing)?s?)": Sign.ERROR,
    "(?:unprocessed|skipped|invalid)(?:biz)?(?:ids?|keys?|items?)?": Sign.ERROR,
    ".*(?:suc+es+|suc+e+d|suc+e+ded|suc+es+ful|ok|成功|正常|有效)": Sign.OTHER_FLAG,
    "(?:is|all|data|result)*(?:valid|ready|available|done|healthy|alive|normal|reliable|accurate)": Sign.OTHER_FLAG,
    "(?:is|has)?(?:remaining|remain|remainder|leftover)" + _MANY: Sign.CURSOR,
    _PREFIX
    + "(?:err)?(?:msg|message|messages|reason|tips?|desc|description|detail|details|info)": Sign.MESSAGE,
    "numfound|found|numberofelements|总数": Sign.COUNT,
}
_PATTERNS = {re.compile(pattern): sign for pattern, sign in _NAMES.items()}
_NOT_LETTERS = re.compile(r"[\W_]+")
_MAX_NAME_LENGTH = 64


@lru_cache(2048)
def sign_of(name: str) -> Sign | None:
    """Return the meaning of a name, in any spelling; None: it says nothing about the answer."""
    if len(name) > _MAX_NAME_LENGTH:
        return None
    plain = _NOT_LETTERS.sub("", unicodedata.normalize("NFKC", name).casefold())
    return next((sign for pattern, sign in _PATTERNS.items() if pattern.fullmatch(plain)), None)


_DECODER = json.JSONDecoder(strict=False)
_MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def is_plain_name(name: str) -> bool:
    """Whether a member's name may be shown: any other may be data, such as a phone number."""
    return _MEMBER_NAME.fullmatch(name) is not None


def decoded_json(node: Any) -> Any:
    """Return a value, decoded where it is the JSON text of a struct or a list."""
    if isinstance(node, str) and node.lstrip()[:1] in ("{", "["):
        try:
            return _DECODER.decode(node.strip())
        except (ValueError, RecursionError):
            pass
    return node


def as_list(value: Any) -> list[Any]:
    """Return a list of the platform in any of its spellings: absent, null, ``{}``, wrapped once, or plain."""
    if value is None or value == {} or value == "":
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        (inner,) = value.values()
        if isinstance(inner, list):
            return inner
        if not inner and not isinstance(inner, (bool, int)):
            return []
        if isinstance(inner, Mapping):
            return [inner]
    return [value]


def plain_text(value: Any) -> str | None:
    """Return a value of an answer as text; None for null, a list or a struct."""
    if value is None or isinstance(value, str):
        return value
    # Not Mapping, a check that takes ten times as long: JSON's structs are dicts.
    return None if isinstance(value, (dict, list)) else str(value)


def names_in(node: Mapping[str, Any]) -> str:
    """Return the names in a struct of an answer; those that may be data, such as a phone number, as "…"."""
    names = [name for name in node if is_plain_name(name)][:20]
    return ", ".join(sorted(names) + ["…"] * (len(names) < len(node))) or "nothing"
