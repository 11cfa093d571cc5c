"""Show what the ledger in a database knows: ``python -m airflow_provider_lingyang.ledger list --conn-id LEDGER``.

Reads only. Results go to stdout, and nothing else does.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from datetime import datetime
from typing import Any

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.ledger.listing import ListedCampaign, Listing


class _CommandError(Exception):
    """What to tell the user, and the exit code: 2 for arguments that cannot be right, else 1."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the process with a message where it cannot be right."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lingyang.ledger",
        description="Show what a ledger in a database knows.",
    )
    commands = parser.add_subparsers(required=True, metavar="list")
    command = commands.add_parser(
        "list",
        help="list campaigns; with --campaign-key or --plan-id also their requests in doubt",
        description="List the campaigns of a ledger; of those that are asked for also each request in doubt.",
    )
    command.add_argument(
        "--conn-id", required=True, help="the Airflow connection that campaigns have as ledger_conn_id"
    )
    command.add_argument("--campaign-key", metavar="KEY", help="only the campaign with this key")
    command.add_argument("--plan-id", type=int, metavar="N", help="only campaigns of this plan")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.add_argument(
        "--biz-ids", action="store_true", help="with --json and a campaign: all accepted biz_ids, too"
    )
    options = parser.parse_args(argv)
    options.one = options.campaign_key is not None or options.plan_id is not None
    if options.biz_ids and not (options.json and options.one):
        command.error("--biz-ids needs --json, and --campaign-key or --plan-id")
    return options


def read(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what is to be shown, as plain JSON.

    :raises LedgerError: the database cannot be read.
    """
    with closing(Listing(_hook(options.conn_id), options.conn_id)) as listing:
        if not listing.has_tables():
            raise _CommandError(
                f"no campaign has used this database yet: on connection {options.conn_id!r} there is no table "
                "lingyang_ledger_campaign that can be read"
            )
        campaigns = listing.campaigns(options.campaign_key, options.plan_id)
        if not campaigns and options.one:
            asked = [f"campaign_key {options.campaign_key!r}"] if options.campaign_key is not None else []
            asked += [f"plan_id {options.plan_id}"] if options.plan_id is not None else []
            raise _CommandError(
                f"the ledger on connection {options.conn_id!r} knows no campaign with {' and '.join(asked)}"
            )
        return [_facts(listing, campaign, options) for campaign in campaigns]


def _facts(listing: Listing, campaign: ListedCampaign, options: argparse.Namespace) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "campaign_key": campaign.campaign_key,
        "plan_id": campaign.plan_id,
        "generation": campaign.generation,
        "opened": _time(campaign.opened_at),
        "finished": campaign.finished,
        "counts": campaign.counts,
    }
    if options.one:
        facts["requests_in_doubt"] = [
            {
                "task_unique_code": request.task_unique_code,
                "batch_num": request.batch_num,
                "written_at": _time(request.written_at),
                "biz_ids": request.biz_ids,
            }
            | ({} if request.settle_key == request.task_unique_code else {"settle": request.settle_key})
            for request in listing.in_doubt(campaign)
        ]
    if options.biz_ids:
        facts["accepted"] = listing.accepted(campaign)
    return facts


def _hook(conn_id: str) -> Any:
    # Airflow 3 looks into its own database only where an environment variable says that this is no task.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow_provider_lingyang.storage.query import QueryError, sql_hook

    try:
        return sql_hook(conn_id)
    except QueryError as error:
        raise _CommandError(str(error), 2) from None


def _time(epoch: float) -> str:
    return datetime.fromtimestamp(epoch, CHINA).isoformat(timespec="seconds")


def _text(campaigns: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield lines to read. Keys and ids are quoted as in JSON: blanks count, control characters are harmless."""
    for campaign in campaigns:
        counts = ", ".join(f"{state} {count}" for state, count in campaign["counts"].items())
        yield (
            f"campaign_key {_quoted(campaign['campaign_key'])}  plan_id {campaign['plan_id']}  "
            f"generation {campaign['generation']}  opened {campaign['opened']}  "
            f"finished {'yes' if campaign['finished'] else 'no'}  {counts}"
        )
        for request in campaign.get("requests_in_doubt", ()):
            key = request.get("settle", request["task_unique_code"])
            yield (
                f"  in doubt: {key}  batch_num {_quoted(request['batch_num'])}  "
                f"written_at {request['written_at']}  biz_ids {_quoted(request['biz_ids'])}"
            )
    if not campaigns:
        yield "no campaigns"
    if any(campaign.get("requests_in_doubt") for campaign in campaigns):
        yield "Once you know what became of one, give the task settle={CODE: 'accepted'} or {CODE: 'not_executed'}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _quiet() -> Iterator[None]:
    """Airflow logs and warns to stdout, where the result belongs."""
    with redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = arguments(argv)
    try:
        with _quiet():
            found = read(options)
    except _CommandError as error:
        print(f"ledger: {error}", file=sys.stderr)
        return error.code
    except Exception as error:
        text = (
            str(error)
            if isinstance(error, LedgerError)
            else f"Airflow failed: {type(error).__name__}: {error}"
        )
        print(f"ledger: {text}", file=sys.stderr)
        return 1
    lines = [json.dumps(found, indent=2)] if options.json else _text(found)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Chinese.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:
        # Its reader has seen enough, as "head" does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
