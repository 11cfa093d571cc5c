"""The calls of a look-up, page by page, and what their answers prove.

A look-up is a coroutine that awaits nothing but its calls. Over the client for event loops it is awaited;
:func:`run_blocking` runs it over the client for tasks, whose calls block.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, TypeVar

from airflow_provider_lingyang.gateway.attempts import Call
from airflow_provider_lingyang.gateway.errors import (
    LOOK_UP,
    CallRefusedError,
    LingyangError,
    RequestRefusedError,
)
from airflow_provider_lingyang.lookup.page import Page, read_page
from airflow_provider_lingyang.lookup.query import ResultQuery
from airflow_provider_lingyang.lookup.result import LookupAnswer, TaskResult

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_PAGES = 200
"""Pages of one call: a gateway with endless pages must not hold a task up for ever."""
_ARGUMENTS = frozenset(("40", "41", "42", "43"))
"""Codes of a missing or refused argument; its name stands after the colon of msg."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """The calls of a look-up. It holds no state: one may serve any number of look-ups.

    :param perform: makes one call, and returns its answer as a page: at once where calls block, else to be awaited.
    :param query: describes the calls and their answers.
    :param now: returns the present moment (aware).
    """

    perform: Callable[[Call[Page]], Page | Awaitable[Page]]
    query: ResultQuery
    now: Callable[[], datetime]

    async def fetch(
        self, biz_ids: Sequence[str], task_ids: Mapping[str, str | None] | None = None
    ) -> dict[str, TaskResult]:
        """Look up for a wait: one result for each id, see :meth:`ResultQuery.preferred`.

        :param task_ids: ``biz_id`` → the task that is meant, where it is known.
        """
        found: dict[str, TaskResult] = {}
        for chunk in self.query.chunks(biz_ids):
            pages = await self._pages(chunk)
            results = (
                pages[0].results if len(pages) == 1 else [each for page in pages for each in page.results]
            )
            chosen = self.query.preferred(results, task_ids)
            if len(chosen) < len(chunk) and (doubt := _incomplete(pages)):
                _warn_once(self.query.method, doubt)
            found |= {biz_id: chosen[biz_id] for biz_id in chunk if biz_id in chosen}
        return found

    async def prove(self, biz_ids: Sequence[str]) -> LookupAnswer:
        """Look up for evidence: every result of each id, and the ids of which the absence is proven.

        A failed call ends the look-up: earlier results are kept, the other ids stay in doubt.

        :raises LingyangError: the first call failed.
        """
        results: dict[str, list[TaskResult]] = {}
        absent: set[str] = set()
        single: set[str] = set()
        why = ""
        for chunk in self.query.chunks(biz_ids):
            try:
                pages = await self._pages(chunk)
            except LingyangError as error:
                if not (results or absent):
                    raise
                why = error.facts
                break
            asked = set(chunk)
            for page in pages:
                for result in page.results:
                    if result.biz_id in asked:
                        results.setdefault(result.biz_id, []).append(result)
            objections = (page.objection(asked, number) for number, page in enumerate(pages, 1))
            doubt = next(filter(None, objections), None) or _incomplete(pages)
            if doubt is None and not _is_complete(pages):
                # An answer about one id cannot omit it unnoticed; of several, each must be looked up alone.
                if len(chunk) > 1:
                    single |= asked
                    continue
                doubt = "its pages hold no total" if len(pages) > 1 else None
                if doubt is None and self.query.page_field and not pages[0].items:
                    doubt = await self._confirm(chunk)
            if doubt is None:
                absent |= asked
            else:
                why = doubt
        return LookupAnswer(results, frozenset(absent), why, frozenset(single - absent))

    async def _pages(self, chunk: Sequence[str]) -> list[Page]:
        pages: list[Page] = []
        while True:
            number = len(pages) + 1
            pages.append(await self._page(chunk, number))
            if not self.query.page_field or number == MAX_PAGES or not _goes_on(pages):
                return pages

    async def _page(self, chunk: Sequence[str], number: int | None) -> Page:
        """Make one call.

        :param number: of the page, from 1; None: the one that the API returns by default.
        """

        def is_ours(page: Page) -> bool:
            return bool(page.results) and asked.issuperset([result.biz_id for result in page.results])

        asked, query = frozenset(chunk), self.query
        params, read = query.parameters(chunk, self.now(), number), partial(read_page, query)
        call = Call(query.method, params, read, idempotent=True, ids=len(chunk), is_ours=is_ours)
        try:
            page = self.perform(call)
            return page if isinstance(page, Page) else await page
        except LingyangError as error:
            raise with_lookup_hint(error) from None

    async def _confirm(self, chunk: Sequence[str]) -> str | None:
        """Ask without a page's number: where pages count from 0, the first was not read, and no total shows it."""
        try:
            page = await self._page(chunk, None)
        except LingyangError as error:
            return error.facts
        if page.items:
            return "its first page is not the one with number 1"
        return page.objection(chunk, 1) or _incomplete([page])


def run_blocking(look_up: Coroutine[Any, Any, T]) -> T:
    """Run a look-up whose calls block, without an event loop, and return its result.

    :param look_up: may await nothing but its calls: no sleep, no future, no other coroutine that suspends.
    :raises LingyangError: the typed reason, after the last attempt.
    :raises AssertionError: it awaits something else, which nothing here would ever finish.
    """
    try:
        look_up.send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("a look-up awaits something else than its calls")


def _goes_on(pages: Sequence[Page]) -> bool:
    """Whether there may be another page."""
    *before, page = pages
    keys = page.keys()
    if keys <= set().union(*(each.keys() for each in before)):
        # An empty page, or nothing new: a gateway that takes no page's number answers the first for ever.
        return False
    signs = page.signs
    if signs.more or signs.pages > len(pages):
        return True
    if signs.totals:
        return _distinct(pages) < max(signs.totals)
    return not signs.last and len(page.items) >= _page_size(page, 0)


def _incomplete(pages: Sequence[Page]) -> str | None:
    """Return why the pages do not hold all results; None: no reason is known."""
    last = pages[-1]
    if last.signs.more:
        return f"its {last.signs.more} says that there are more results"
    if last.signs.pages > len(pages):
        return "it has more pages than were read"
    totals = [page.signs.totals for page in pages]
    found = _distinct(pages)
    if any(totals) and any(each != {found} for each in totals):
        return "its total is another than the number of different results"
    if any(count not in (found, len(page.items)) for page in pages for count in page.signs.counts):
        return "its count is another than the number of different results"
    if len(last.items) >= _page_size(last, math.inf) and not any(totals):
        return "it holds as many results as a page can"
    if len(pages) >= MAX_PAGES:
        return f"it has more than {MAX_PAGES} pages"
    return None


def _page_size(page: Page, unknown: float) -> float:
    sizes = [size for size in (page.signs.page_size, page.query.page_size) if size]
    return min(sizes, default=unknown)


def _is_complete(pages: Sequence[Page]) -> bool:
    """Whether pages without an objection state themselves that they hold every result."""
    if len(pages) > 1:
        # Lists shift between two calls: only a total proves completeness.
        return all(page.signs.totals for page in pages)
    return bool(pages[0].signs.totals) or (pages[0].signs.last and not pages[0].query.page_field)


def _distinct(pages: Sequence[Page]) -> int:
    """Return how many different results the pages hold."""
    first, *others = pages
    keys = first.keys()
    found = len(keys)
    if found < len(first.items):
        found = len({json.dumps(item, sort_keys=True, default=str) for item in first.items})
    return found + len(set[tuple[Any, ...]]().union(*(page.keys() for page in others)) - keys)


@lru_cache(64)
def _warn_once(method: str, doubt: str) -> None:
    log.warning(
        "an answer of %s may leave results out: %s. Describe its pages with page_field, page_size_field and page_size "
        "in the result_query, or lower max_biz_ids",
        method,
        doubt,
    )


def with_lookup_hint(error: LingyangError) -> LingyangError:
    """Return an error of a look-up with a hint for the author of its ``result_query``.

    The hints of the error tables are for requests that send.
    """
    arguments = isinstance(error, CallRefusedError) and error.code in _ARGUMENTS
    field = (error.sub_code or "").casefold().startswith(("isv.missing-parameter", "isv.invalid-parameter"))
    if arguments or (field and isinstance(error, (CallRefusedError, RequestRefusedError))):
        error.hint = (
            "It is a parameter of the look-up, named in msg, sub_code or sub_msg: correct the "
            "result_query's request_param, biz_ids_field, max_biz_ids, page_field, page_size_field or fixed_params."
        )
    elif error.hint:
        error.hint = error.hint.replace(LOOK_UP, "").strip() or None
    return error
