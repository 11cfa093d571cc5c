"""The calls of a look-up, page by page, and what their answers prove.

A look-up is a coroutine that awaits nothing but its calls. Over the client for event loops it is awaited;
:func:`finish` runs it over the client for tasks, whose calls block.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
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
Perform = Callable[[Call[Page]], Awaitable[Page]]
"""Makes one call, and returns its answer as a page."""

log = logging.getLogger(__name__)

MAX_PAGES = 200
"""Pages of one call: a gateway with endless pages must not hold a task up for ever."""
_ARGUMENTS = frozenset(("40", "41", "42", "43"))
"""Codes of a missing or refused argument; its name stands after the colon of msg."""


def finish(perform: Callable[[Call[Page]], Page], look_up: Callable[[Perform], Coroutine[Any, Any, T]]) -> T:
    """Return the result of a look-up over a client whose calls block.

    :param look_up: takes what makes its calls.
    :raises LingyangError: the typed reason, after the last attempt.
    """

    async def perform_at_once(call: Call[Page]) -> Page:
        return perform(call)

    try:
        look_up(perform_at_once).send(None)
    except StopIteration as end:
        found: T = end.value
        return found
    raise AssertionError("a look-up awaits something else than its calls")


async def fetch(
    perform: Perform,
    query: ResultQuery,
    biz_ids: Sequence[str],
    now: Callable[[], datetime],
    task_ids: Mapping[str, str | None] | None = None,
) -> dict[str, TaskResult]:
    """Look up for a wait: one result for each id, see :meth:`ResultQuery.preferred`.

    :param now: returns the present moment (aware).
    :param task_ids: ``biz_id`` → the task that is meant, where it is known.
    """
    found: dict[str, TaskResult] = {}
    for chunk in query.chunks(biz_ids):
        pages = await _pages(perform, query, chunk, now)
        results = pages[0].results if len(pages) == 1 else [each for page in pages for each in page.results]
        chosen = query.preferred(results, task_ids)
        if len(chosen) < len(chunk) and (doubt := _incomplete(query, pages)):
            _warn_once(query.method, doubt)
        found |= {biz_id: chosen[biz_id] for biz_id in chunk if biz_id in chosen}
    return found


async def prove(
    perform: Perform, query: ResultQuery, biz_ids: Sequence[str], now: Callable[[], datetime]
) -> LookupAnswer:
    """Look up for evidence: every result of each id, and the ids of which the absence is proven.

    A failed call ends the look-up: earlier results are kept, the other ids stay in doubt.

    :param now: returns the present moment (aware).
    :raises LingyangError: the first call failed.
    """
    results: dict[str, list[TaskResult]] = {}
    absent: set[str] = set()
    single: set[str] = set()
    why = ""
    for chunk in query.chunks(biz_ids):
        try:
            pages = await _pages(perform, query, chunk, now)
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
        doubt = next(
            filter(None, (page.objection(asked, number) for number, page in enumerate(pages, 1))), None
        )
        doubt = doubt or _incomplete(query, pages)
        if doubt is None and not _is_complete(query, pages):
            # An answer about one id cannot omit it unnoticed; of several, each must be looked up alone.
            if len(chunk) > 1:
                single |= asked
                continue
            doubt = "its pages hold no total" if len(pages) > 1 else None
            if doubt is None and query.page_field and not pages[0].items:
                doubt = await _confirm(perform, query, chunk, now)
        if doubt is None:
            absent |= asked
        else:
            why = doubt
    return LookupAnswer(results, frozenset(absent), why, frozenset(single - absent))


async def _pages(
    perform: Perform, query: ResultQuery, chunk: Sequence[str], now: Callable[[], datetime]
) -> list[Page]:
    pages: list[Page] = []
    while True:
        number = len(pages) + 1
        pages.append(await _page(perform, query, chunk, now, number))
        if not query.page_field or number == MAX_PAGES or not _goes_on(query, pages):
            return pages


async def _page(
    perform: Perform,
    query: ResultQuery,
    chunk: Sequence[str],
    now: Callable[[], datetime],
    number: int | None,
) -> Page:
    """Make one call.

    :param number: of the page, from 1; None: the one that the API returns by default.
    """

    def is_ours(page: Page) -> bool:
        return bool(page.results) and asked.issuperset([result.biz_id for result in page.results])

    asked = frozenset(chunk)
    params = query.parameters(chunk, now(), number)
    try:
        return await perform(
            Call(query.method, params, partial(read_page, query), idempotent=True, ids=len(chunk), is_ours=is_ours)
        )
    except LingyangError as error:
        raise with_lookup_hint(error) from None


async def _confirm(
    perform: Perform, query: ResultQuery, chunk: Sequence[str], now: Callable[[], datetime]
) -> str | None:
    """Ask without a page's number: where pages count from 0, the first was not read, and no total shows it."""
    try:
        page = await _page(perform, query, chunk, now, None)
    except LingyangError as error:
        return error.facts
    if page.items:
        return "its first page is not the one with number 1"
    return page.objection(chunk, 1) or _incomplete(query, [page])


def _goes_on(query: ResultQuery, pages: Sequence[Page]) -> bool:
    """Whether there may be another page."""
    *before, page = pages
    keys = page.keys()
    if not keys or (before and keys <= set().union(*(each.keys() for each in before))):
        # An empty page, or nothing new: a gateway that takes no page's number answers the first for ever.
        return False
    signs = page.signs
    if signs.more or signs.pages > len(pages):
        return True
    if signs.totals:
        return _distinct(pages) < max(signs.totals)
    return not signs.last and len(page.items) >= _page_size(query, page, 0)


def _incomplete(query: ResultQuery, pages: Sequence[Page]) -> str | None:
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
    if len(last.items) >= _page_size(query, last, math.inf) and not any(totals):
        return "it holds as many results as a page can"
    if len(pages) >= MAX_PAGES:
        return f"it has more than {MAX_PAGES} pages"
    return None


def _page_size(query: ResultQuery, page: Page, unknown: float) -> float:
    sizes = [size for size in (page.signs.page_size, query.page_size) if size]
    return min(sizes, default=unknown)


def _is_complete(query: ResultQuery, pages: Sequence[Page]) -> bool:
    """Whether pages without an objection state themselves that they hold every result."""
    if len(pages) > 1:
        # Lists shift between two calls: only a total proves completeness.
        return all(page.signs.totals for page in pages)
    return bool(pages[0].signs.totals) or (pages[0].signs.last and not query.page_field)


def _distinct(pages: Sequence[Page]) -> int:
    seen: set[tuple[object, ...]] = set()
    found = 0
    for page in pages:
        found += page.new(seen)
        seen |= page.keys()
    return found


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
