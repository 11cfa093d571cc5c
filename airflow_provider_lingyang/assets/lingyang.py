"""Campaigns as assets of Airflow: what their URIs look like, and what their events tell."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AssetAlias

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from airflow.providers.common.compat.sdk import Context

log = logging.getLogger(__name__)

_PATH = re.compile(r"/0*([1-9][0-9]{0,18})(/answers)?", re.ASCII)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Return an asset's URI in its one spelling. Airflow asks for every URI that begins with ``lingyang:``.

    :raises ValueError: it is neither ``lingyang://plans/123`` nor ``lingyang://plans/123/answers``.
    """
    found = _PATH.fullmatch(uri.path)
    if uri.netloc != "plans" or found is None or uri.query or uri.fragment:
        raise ValueError(
            "URI format lingyang:// must be lingyang://plans/<plan_id>, or lingyang://plans/<plan_id>/answers"
        )
    return uri._replace(path=f"/{found[1]}{found[2] or ''}")


def tell_outlets(
    context: Context, *, campaign: Mapping[str, Any] | None, counts: Mapping[str, int], **more: Any
) -> None:
    """Put what a task did into the events of the assets that it has as outlets.

    Aliases are left alone: which asset one stands for only the author knows.

    :param campaign: the manifest, where there is one: its ``campaign_key`` and ``plan_id`` are told.
    :param counts: how many people are in which state.
    :param more: further plain JSON.
    """
    extra = {name: campaign.get(name) for name in ("campaign_key", "plan_id")} if campaign else {}
    for outlet in context.get("outlets") or ():
        if isinstance(outlet, AssetAlias):
            continue
        try:
            event = context["outlet_events"][outlet]
        except Exception as error:
            # The people have been contacted: an outlet that is no asset (lineage has others), or a reference that
            # cannot be resolved now, is no reason to fail.
            log.warning(
                "the event of the outlet %s tells no counts: %s", type(outlet).__name__, type(error).__name__
            )
        else:
            event.extra |= {**extra, "counts": dict(counts), **more}
