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
from contextlib import closing, redirect_stdout
from datetime import datetime
from itertools import groupby
from typing import Any

from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.identity import settle_key
from airflow_provider_lingyang.ledger.sql_tables import (
    ACCEPTED,
    IN_DOUBT,
    STATES,
    campaign_id,
    version_of,
)
from airflow_provider_lingyang.storage.database import Database, Transaction

_quoted = json.JSONEncoder(ensure_ascii=False).encode


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ends the process with a message where it cannot be right."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_lingyang.ledger",
        description="List the campaigns of a ledger in a database; of those that are asked for also each request in "
        "doubt.",
    )
    parser.add_argument("command", choices=["list"])
    parser.add_argument(
        "--conn-id", required=True, help="the Airflow connection that campaigns have as ledger_conn_id"
    )
    parser.add_argument("--campaign-key", metavar="KEY", help="only the campaign with this key")
    parser.add_argument("--plan-id", type=int, metavar="N", help="only campaigns of this plan")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--biz-ids", action="store_true", help="with --json and a campaign: all accepted biz_ids, too"
    )
    options = parser.parse_args(argv)
    options.one = options.campaign_key is not None or options.plan_id is not None
    if options.biz_ids and not (options.json and options.one):
        parser.error("--biz-ids needs --json, and --campaign-key or --plan-id")
    return options


def read(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the campaigns that are asked for as plain JSON, in the order in which they were opened.

    :raises argparse.ArgumentError: there is no such connection to a database.
    :raises LedgerError: the database cannot be read, or holds nothing that is asked for.
    """
    # Airflow 3 looks into its own database only where an environment variable says that this is no task.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow_provider_lingyang.storage.query import QueryError, sql_hook

    try:
        hook = sql_hook(options.conn_id)
    except QueryError as error:
        raise argparse.ArgumentError(None, str(error)) from None
    ledger = f"connection {options.conn_id!r}"
    with closing(Database(hook, options.conn_id)) as database:
        version_of(database)
        if not database.columns("lingyang_ledger_campaign"):
            raise LedgerError(
                f"no campaign has used this database yet: on {ledger} there is no table lingyang_ledger_campaign that "
                "can be read"
            )
        with database.transaction() as run:
            rows = run.rows(
                "SELECT campaign, generation, campaign_key, plan_id, opened_at, finished_by FROM "
                "lingyang_ledger_campaign ORDER BY opened_at, campaign, generation",
                [],
            )
            found = [
                _campaign(run, options, row)
                for row in rows
                # Compared here, because some databases take upper and lower case for the same.
                if options.campaign_key in (None, row[2]) and options.plan_id in (None, row[3])
            ]
    if not found and options.one:
        asked = [f"campaign_key {options.campaign_key!r}"] if options.campaign_key is not None else []
        asked += [f"plan_id {options.plan_id}"] if options.plan_id is not None else []
        raise LedgerError(f"the ledger on {ledger} knows no campaign with {' and '.join(asked)}")
    return found


def _campaign(run: Transaction, options: argparse.Namespace, row: Sequence[Any]) -> dict[str, Any]:
    campaign, generation, campaign_key, plan_id, opened_at, finished_by = row
    this = campaign_id(campaign, generation)
    counts = run.rows(
        "SELECT state, count(*) FROM lingyang_ledger_recipient WHERE campaign=? GROUP BY state", [this]
    )
    shown: dict[str, Any] = {
        "campaign_key": campaign_key,
        "plan_id": plan_id,
        "generation": generation,
        "opened": _time(opened_at),
        "finished": bool(finished_by),
        "counts": dict.fromkeys(STATES, 0) | {STATES[state - 1]: int(count) for state, count in counts},
    }
    if options.one:
        shown["requests_in_doubt"] = [
            {
                "task_unique_code": code,
                "batch_num": batch_num,
                "written_at": _time(written_at),
                "biz_ids": [row[-1] for row in rows],
            }
            | ({} if number == 1 else {"settle": settle_key(code, number)})
            for (code, batch_num, written_at, number), rows in groupby(
                _recipients(run, this, IN_DOUBT), lambda row: row[:-1]
            )
        ]
    if options.biz_ids:
        shown["accepted"] = [row[-1] for row in _recipients(run, this, ACCEPTED)]
    return shown


def _recipients(run: Transaction, campaign: int, state: int) -> list[Sequence[Any]]:
    """Return the requests of a campaign, each once for each recipient in a state, oldest first."""
    return run.rows(
        "SELECT request.task_unique_code, request.batch_num, request.written_at, request.intents, recipient.biz_id "
        "FROM lingyang_ledger_request request JOIN lingyang_ledger_recipient recipient ON "
        "recipient.request=request.request WHERE request.campaign=? AND recipient.state=? "
        "ORDER BY request.written_at, request.task_unique_code, recipient.place",
        [campaign, state],
    )


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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    options = arguments(argv)
    logging.disable(logging.ERROR)
    try:
        # Airflow logs and warns to stdout, where the result belongs.
        with redirect_stdout(sys.stderr), warnings.catch_warnings(action="ignore"):
            found = read(options)
    except Exception as error:
        is_expected = isinstance(error, (LedgerError, argparse.ArgumentError))
        text = str(error) if is_expected else f"Airflow failed: {type(error).__name__}: {error}"
        print(f"ledger: {text}", file=sys.stderr)
        return 2 if isinstance(error, argparse.ArgumentError) else 1
    finally:
        logging.disable(logging.NOTSET)
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
