"""Signs of an answer beside its list of results: success, failure, and whether the list is complete. Pure.

The platform's APIs say it in many ways (success: pages 58273, 67861, 61849, 64303, 58763; pages: 26038, 71971), so
names are recognised in any spelling. A recognised value must be good; a value with two readings is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_lingyang.gateway.answer_values import (
    SUCCESS_WORDS,
    Sign,
    decoded_json,
    is_plain_name,
    sign_of,
)

_FAILURE_TEXT = re.compile(
    r"(?<!no )(?<!0 )(?<!without )(?<!无)(?<!没有)"
    "(?:fail|error|exception|timed?[ -]?out|busy|unavailable|retry|denied|forbidden|illegal"
    "|失败|错误|异常|超时|繁忙|重试|稍后|限流|不可用)"
)
_POSITIVE = SUCCESS_WORDS | {"true", "1", "y", "yes"}
_NEGATIVE = frozenset(
    ("false", "0", "n", "no", "fail", "failed", "failure", "error", "否", "不", "失败", "错误", "异常")
)
_DONE_WORDS = SUCCESS_WORDS | {"1", "true", "done", "finish", "finished", "complete", "completed", "normal"}
_DEPTH = 4
_ITEMS = 100


@dataclass(slots=True)
class Signs:
    """The signs of one answer.

    :param positive: numbers of the structs on the path that hold a flag which is true.
    :param negative: the name of a flag that is false.
    :param unclear: the name of a flag that is neither, or of a sign of failure.
    :param totals: how many results there are on all pages.
    :param counts: how many there are, here or on all pages.
    :param more: the name of a sign of more results.
    :param last: something says that there are no more.
    :param page: which page this is, where it says so.
    :param pages: how many pages there are, where it says so.
    :param page_size: how many results a page holds, where it says so.
    """

    positive: set[int] = field(default_factory=set)
    negative: str | None = None
    unclear: str | None = None
    totals: set[int] = field(default_factory=set)
    counts: set[int] = field(default_factory=set)
    more: str | None = None
    last: bool = False
    page: set[int] = field(default_factory=set)
    pages: int = 0
    page_size: int | None = None
    _stated: tuple[Mapping[str, Any], str] | None = None

    @classmethod
    def of(
        cls,
        structs: Iterable[tuple[Mapping[str, Any], str | None]],
        stated: tuple[Mapping[str, Any], str] | None,
        beside: Mapping[str, Any],
    ) -> Signs:
        """Return the signs of the structs on the path to a list.

        :param structs: each with the name of its member that is on the path.
        :param stated: a struct, and the name of its member with a meaning by the query's author.
        :param beside: the members beside the answer's root element.
        """
        # A flag keeps its meaning, also where the query gives it another.
        signs = cls(_stated=None if stated is None or sign_of(stated[1]) is Sign.FLAG else stated)
        for number, (struct, on_path) in enumerate(structs):
            for name, value in struct.items():
                if name == on_path:
                    continue
                if not signs._is_stated(struct, name):
                    signs._read(name, value, number)
                signs._read_within(value, _DEPTH, name)
        signs._read_beside(beside, _DEPTH, "")
        return signs

    def _read(self, name: str, value: Any, number: int | None) -> None:
        sign = sign_of(name)
        if sign is None or (sign is Sign.STATUS and isinstance(value, (dict, list))):
            return
        if not is_plain_name(name):
            # It may be data.
            name = "…"
        if sign is Sign.FLAG:
            word = _word(value)
            if word in _POSITIVE:
                if number is not None:
                    self.positive.add(number)
            elif word in _NEGATIVE:
                self.negative = self.negative or name
            else:
                self.unclear = self.unclear or name
        elif sign is Sign.OTHER_FLAG or (sign is Sign.STATUS and number is None):
            # A number may be how many of them there are.
            if _word(value) in _NEGATIVE - {"0"}:
                self.unclear = self.unclear or name
        elif sign is Sign.MESSAGE:
            if isinstance(value, str) and _FAILURE_TEXT.search(value.casefold()):
                self.unclear = self.unclear or name
        elif sign in _GOOD_VALUES:
            word = _word(value)
            # Nothing is good, and so are zeros alone.
            if word.strip("0") and word not in _GOOD_VALUES[sign]:
                self.unclear = self.unclear or name
        else:
            self._read_paging(sign, name, value)

    def _read_paging(self, sign: Sign, name: str, value: Any) -> None:
        if sign is Sign.MORE or sign is Sign.LAST:
            word = _word(value)
            # A number under a name such as "last" may be how many there are.
            is_count = sign is Sign.LAST and word.isdigit() and word != "0"
            if word in (_NEGATIVE if sign is Sign.MORE else _POSITIVE):
                self.last = True
            elif word not in ("", "none", "null") and not is_count:
                self.more = self.more or name
        elif sign is Sign.CURSOR:
            if _word(value) not in ("", "0", "false", "none", "null") and value not in ([], {}):
                self.more = self.more or name
        elif sign is Sign.PAGES and isinstance(value, bool):
            # Of "last_page" and its like.
            self._read_paging(Sign.LAST, name, value)
        elif value is not None and not (isinstance(value, (dict, list, bool)) and sign is not Sign.TOTAL):
            found = _whole(value)
            if sign is Sign.TOTAL:
                # A total that is no number equals none.
                self.totals.add(-1 if found is None else found)
            elif sign is Sign.COUNT:
                self.counts.add(-1 if found is None else found)
            elif found is not None and sign is Sign.PAGE:
                self.page.add(found)
            elif found is not None and sign is Sign.PAGES:
                self.pages = max(self.pages, found)
            elif found and sign is Sign.PAGE_SIZE:
                self.page_size = min(found, self.page_size or found)

    def _read_beside(self, struct: Mapping[str, Any], depth: int, of: str) -> None:
        """Read a struct beside the path: its flags count only against success.

        :param of: its name; in a "page" a "size" is a page's.
        """
        prefix = "page" if of.casefold().startswith(("page", "paging", "pagination")) else ""
        for name, value in struct.items():
            if not self._is_stated(struct, name):
                self._read(name if sign_of(name) else prefix + name, value, None)
            if depth:
                self._read_within(value, depth - 1, name)

    def _is_stated(self, struct: Mapping[str, Any], name: str) -> bool:
        stated = self._stated
        return stated is not None and stated[0] is struct and stated[1] == name

    def _read_within(self, value: Any, depth: int, name: str) -> None:
        value = decoded_json(value)
        if isinstance(value, dict):
            self._read_beside(value, depth, name)
        elif isinstance(value, list):
            # Of items only signs that cannot be their own number or code.
            for item in value[:_ITEMS]:
                for inner, said in item.items() if isinstance(item, dict) else ():
                    if sign_of(inner) in (Sign.FLAG, Sign.OTHER_FLAG, Sign.ERROR):
                        self._read(inner, said, None)


_GOOD_VALUES = {
    Sign.ERROR: SUCCESS_WORDS | {"false", "200"},
    Sign.CODE: SUCCESS_WORDS | {"200"},
    Sign.STATUS: _DONE_WORDS | {"200"},
}


def _word(value: Any) -> str:
    """Return a value as a word; an empty one as ""; a list or struct as a word that has no meaning."""
    if isinstance(value, str):
        return value.strip().casefold()
    if value is None or value == [] or value == {}:
        return ""
    if isinstance(value, (bool, int)):
        return str(value).lower()
    return "?"


def _whole(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = value.strip() if isinstance(value, str) else str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def same_word(value: Any, words: Iterable[str]) -> bool:
    """Whether a value is one of the words that the author of a query gave: text, number, or Boolean in any spelling."""
    if value is None or isinstance(value, (dict, list)):
        return False
    text = str(value)
    word = text.casefold()
    return any(text == other or (word in ("true", "false") and word == other.casefold()) for other in words)
