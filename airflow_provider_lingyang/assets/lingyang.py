"""Campaigns as assets of Airflow: their URIs, and the extra of their events."""

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
    """Return an asset's URI in its canonical form. Airflow calls it for every URI that begins with ``lingyang:``.

    :raises ValueError: it is neither ``lingyang://plans/123`` nor ``lingyang://plans/123/answers``.
    """
    found = _PATH.fullmatch(uri.path)
    if uri.netloc != "plans" or found is None or uri.query or uri.fragment:
        raise ValueError(
            "URI format lingyang:// must be lingyang://plans/<plan_id>, or lingyang://plans/<plan_id>/answers"
        )
    return uri._replace(path=f"/{found[1]}{found[2] or ''}")


def add_to_outlet_events(
    context: Context, *, campaign: object, counts: Mapping[str, int], **more: Any
) -> None:
    """Add the outcome of a task to the events of the assets in its outlets.

    Aliases are skipped: only the DAG's author knows the asset that one stands for.

    :param campaign: the manifest, whose ``campaign_key`` and ``plan_id`` are added; anything else: there is none.
    :param counts: state → number of recipients.
    :param more: further plain JSON.
    """
    known = campaign if isinstance(campaign, Mapping) else {}
    extra = {name: known.get(name) for name in ("campaign_key", "plan_id")} if known else {}
    for outlet in context.get("outlets") or ():
        if isinstance(outlet, AssetAlias):
            continue
        try:
            event = context["outlet_events"][outlet]
        except Exception as error:
            # The recipients have been contacted: an outlet that is no asset (lineage has others), or a reference
            # that cannot be resolved now, is no reason to fail.
            log.warning(
                "the event of the outlet %s has no counts: %s", type(outlet).__name__, type(error).__name__
            )
        else:
            event.extra |= {**extra, "counts": dict(counts), **more}
