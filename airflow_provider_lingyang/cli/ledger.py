"""The commands about a ledger in a database. They are read and changed by people, and by no task."""

from __future__ import annotations

import getpass
import json
import logging
import os
import sys
import time
import warnings
from argparse import ArgumentError, Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stdout
from datetime import datetime
from typing import Any

from airflow_provider_lingyang.cli.output import Result, Rows, show
from airflow_provider_lingyang.errors import LedgerError
from airflow_provider_lingyang.gateway.dates import CHINA
from airflow_provider_lingyang.ledger.sql_report import (
    Generation,
    accepted_ids,
    check_version,
    generations,
    requests_in_doubt,
    summary,
)
from airflow_provider_lingyang.ledger.sql_retention import TOO_YOUNG, Pruned, Retention, forget
from airflow_provider_lingyang.ledger.sql_settle import Settlement
from airflow_provider_lingyang.ledger.sql_statistics import statistics
from airflow_provider_lingyang.storage.database import Database

_IN_A_TABLE = 3
"""Ids of a request in doubt that a table shows."""
_DRY = "Nothing was changed: this was a dry run. --yes does it"
_CONTACT = ("phone_number", "email", "outer_user_id", "cms_user_id")


def run_list(args: Namespace) -> None:
    """Run ``list``."""
    _run(args, _list)


def run_show(args: Namespace) -> None:
    """Run ``show``."""
    _run(args, _show)


def run_settle(args: Namespace) -> None:
    """Run ``settle``."""
    _run(args, _settle)


def run_prune(args: Namespace) -> None:
    """Run ``prune``."""
    _run(args, _prune)


def run_forget(args: Namespace) -> None:
    """Run ``forget``."""
    _run(args, _forget)


def run_stats(args: Namespace) -> None:
    """Run ``stats``."""
    _run(args, _stats)


def _run(args: Namespace, command: Callable[[Namespace, Database], Result]) -> None:
    """Run a command and print what it gives. End the process where it fails: 2 for a wrong argument, 1 for all else."""
    # Not Airflow's action_cli: it would write the ids that are forgotten into Airflow's log of commands.
    logging.disable(logging.ERROR)
    try:
        # Airflow logs and warns to stdout, where the result belongs.
        with (
            redirect_stdout(sys.stderr),
            warnings.catch_warnings(action="ignore"),
            _database(args.conn_id) as database,
        ):
            result = command(args, database)
    except KeyboardInterrupt:
        print("ledger: interrupted. What is done is done; run it again to go on", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        is_expected = isinstance(error, (LedgerError, ArgumentError))
        text = str(error) if is_expected else f"Airflow failed: {type(error).__name__}: {error}"
        print(f"ledger: {text}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)
    finally:
        logging.disable(logging.NOTSET)
    show(result, args.output)
    if result.failed:
        sys.exit(1)


@contextmanager
def _database(conn_id: str) -> Iterator[Database]:
    # Airflow 3 looks into its own database only where an environment variable says that this is no task.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    from airflow_provider_lingyang.storage.query import QueryError, sql_hook

    try:
        hook = sql_hook(conn_id)
    except QueryError as error:
        raise ArgumentError(None, str(error)) from None
    with closing(Database(hook, conn_id)) as database:
        check_version(database)
        yield database


def _generations(args: Namespace, database: Database) -> list[Generation]:
    """Return the campaigns that are asked for.

    :raises LedgerError: some are asked for, and there is none.
    """
    key, plan_id = args.campaign_key, args.plan_id
    with database.transaction() as run:
        found = generations(run, key, plan_id)
    if not found and (key, plan_id) != (None, None):
        asked = [f"campaign_key {key!r}"] if key is not None else []
        asked += [f"plan_id {plan_id}"] if plan_id is not None else []
        raise LedgerError(f"{database.name} knows no campaign with {' and '.join(asked)}")
    return found


def _list(args: Namespace, database: Database) -> Result:
    found = []
    for row in _generations(args, database):
        with database.transaction() as run:
            found.append(summary(run, row))
    return Result(found, [_short(found)])


def _short(campaigns: Rows) -> Rows:
    left_out = {"dag_id", "run_id", "finished", "pruned_at", "requests_in_doubt", "accepted_biz_ids"}
    return [{name: value for name, value in row.items() if name not in left_out} for row in campaigns]


def _show(args: Namespace, database: Database) -> Result:
    if (args.campaign_key, args.plan_id) == (None, None):
        raise ArgumentError(None, "show needs --campaign-key or --plan-id")
    if args.biz_ids and args.output not in ("json", "yaml"):
        raise ArgumentError(None, "--biz-ids needs --output json or yaml")
    found = []
    for row in _generations(args, database):
        with database.transaction() as run:
            one = summary(run, row) | {"requests_in_doubt": list(requests_in_doubt(run, row))}
            if args.biz_ids:
                one["accepted_biz_ids"] = accepted_ids(run, row.number)
        found.append(one)
    doubtful = [request for one in found for request in one["requests_in_doubt"]]
    shown = [request | {"biz_ids": _few(request["biz_ids"])} for request in doubtful]
    notes = []
    if doubtful:
        notes.append(
            "Once you know what became of a request in doubt, give the task settle={CODE: 'accepted'} or {CODE: "
            "'not_executed'}, or use the command settle"
        )
    if any(request["may_be_sent"] for request in doubtful):
        notes.append(
            "may_be_sent: what is found out about such a request may be false a moment later. Find out once no process "
            "can send it"
        )
    return Result(found, [_short(found), shown], notes)


def _few(biz_ids: list[str]) -> list[str]:
    return biz_ids[:_IN_A_TABLE] + (["…"] if len(biz_ids) > _IN_A_TABLE else [])


def _settle(args: Namespace, database: Database) -> Result:
    from airflow_provider_lingyang.config import arguments

    pairs = [word.partition("=") for word in args.words]
    try:
        words = arguments.parse_settle({key: said for key, _, said in pairs})
    except arguments.ArgumentError as error:
        raise ArgumentError(None, str(error)) from None
    if len(words) < len(pairs):
        raise ArgumentError(None, "settle names a request twice")
    settlement = Settlement(database, args.campaign_key, args.plan_id, args.yes, args.take_over, wait=_wait)
    verdicts = [settlement.settle(key, said) for key, said in words.items()]
    notes = [] if args.yes else [_DRY]
    if any(verdict.settled and verdict.word == "not_executed" for verdict in verdicts):
        notes.append(
            "not_executed: no look-up was asked. The next try sends these recipients again, on your word alone"
        )
    return Result(
        [verdict._asdict() for verdict in verdicts],
        notes=notes,
        failed=not all(verdict.settled for verdict in verdicts),
    )


def _wait(seconds: float) -> None:
    print(
        f"taken over; waiting {seconds:.0f} s until no process can send it any more (Ctrl-C: it stays taken over)",
        file=sys.stderr,
    )
    time.sleep(seconds)


def _prune(args: Namespace, database: Database) -> Result:
    retention = Retention(database, _epoch("--before", args.before), args.close_campaigns)
    totals: dict[str, Counter[str]] = {}
    for planned in retention.plan():
        found = planned
        if args.yes and not planned.stays:
            found = retention.prune(planned)
        _add(totals, found, args.before)
    rows: Rows = [
        {"what": what, **{name: counted[name] for name in ("campaigns", "recipients", "requests", "rows")}}
        for what, counted in totals.items()
    ]
    notes = [] if args.yes else [_DRY]
    if "erased" in totals:
        notes.append(
            "erased: these campaigns have a campaign_key of their own, so a later run may come with it: digests of the "
            "ids and states stay, and keep it from contacting a recipient again. --close-campaigns deletes them, too; "
            "a run with such a campaign_key is then refused"
        )
    if "deleted" in totals:
        notes.append(
            "deleted: a Clear of their runs, or a run with such a campaign_key, is refused from now on"
        )
    return Result(rows, notes=notes)


def _add(totals: dict[str, Counter[str]], found: Pruned, before: str) -> None:
    if found.stays:
        what = f"stays: {found.stays}" + (f" {before}" if found.stays == TOO_YOUNG else "")
    else:
        what = "deleted" if found.closes else "erased"
    totals.setdefault(what, Counter()).update(
        campaigns=1, recipients=found.recipients, requests=found.requests, rows=found.audience_rows
    )


def _epoch(name: str, text: str) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentError(None, f"{name} must be a date, such as 2026-01-31; it is {text[:40]!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=CHINA)).timestamp()


def _forget(args: Namespace, database: Database) -> Result:
    if bool(args.biz_id) == args.contact:
        raise ArgumentError(None, "forget needs --biz-id or --contact")
    derive = _derived_by(args.lingyang_conn_id, _read_contact()) if args.contact else None
    rows, notes = [], [] if args.yes else [_DRY]
    other_secret = 0
    for row in _generations(args, database):
        if derive is None:
            biz_ids = args.biz_id
        elif (biz_id := derive(row)) is not None:
            biz_ids = [biz_id]
        else:
            other_secret += 1
            continue
        found = forget(database, row, biz_ids, execute=args.yes)
        if found.recipients or found.audience_rows or found.in_doubt:
            rows.append(
                {
                    "campaign_key": row.campaign_key,
                    "plan_id": row.plan_id,
                    "generation": row.generation,
                    "recipients": found.recipients,
                    "rows": found.audience_rows,
                    "in_doubt": found.in_doubt,
                }
            )
    left = any(row["in_doubt"] for row in rows)
    if left:
        notes.append(
            "in_doubt: a recipient in doubt cannot be forgotten, because its id is needed to find out. "
            "Settle these requests, then run this again"
        )
    if args.contact:
        notes.append(
            "Only ids that were derived from exactly this contact were looked for. A recipient whose biz_id came with "
            "the audience is found by that (--biz-id)"
        )
    if other_secret:
        notes.append(
            f"{other_secret} campaign(s) were sent with another App secret: their ids cannot be derived"
        )
    notes.append(
        "The digest of the id and the state stay. XComs, logs of Airflow and tables of results may hold the id, too"
    )
    return Result(rows, notes=notes, failed=left)


def _read_contact() -> dict[str, str]:
    """Return a recipient's fields as the audience has them. Never from the command line, which shells write down."""
    given: Any
    if sys.stdin.isatty():
        given = {name: getpass.getpass(f"{name} (empty: the audience has none): ") for name in _CONTACT}
    else:
        try:
            given = json.load(sys.stdin)
        except ValueError:
            given = None
    if not isinstance(given, dict) or not set(given) <= set(_CONTACT):
        raise ArgumentError(
            None, f"--contact reads a JSON object with some of {', '.join(_CONTACT)} from stdin"
        )
    return {name: value for name, value in given.items() if value}


def _derived_by(conn_id: str, contact: dict[str, str]) -> Callable[[Generation], str | None]:
    """Return what derives a recipient's ``biz_id`` in a campaign; it returns None where that had another App secret."""
    from airflow_provider_lingyang.audience.parser import Recipient, RowParser
    from airflow_provider_lingyang.gateway.errors import LingyangError
    from airflow_provider_lingyang.hooks.lingyang import LingyangHook
    from airflow_provider_lingyang.ledger.base import Header

    try:
        settings = LingyangHook(conn_id).settings
    except LingyangError as error:
        raise ArgumentError(None, str(error)) from None

    def derive(row: Generation) -> str | None:
        header = Header.of(
            host=settings.url, app_key=settings.app_key, app_secret=settings.app_secret, plan_id=row.plan_id
        )
        if header.key_fingerprint != row.key_fingerprint:
            return None
        parser = RowParser(
            columns={},
            task_defaults={"input_params": {}, "output_params": {}},
            input_params_columns={},
            output_slots=(),
            channel=None,
            campaign=f"{row.campaign_key}/{row.plan_id}",
            app_secret=settings.app_secret,
            identity_version=row.identity_version or 1,
            international_numbers=True,
        )
        parsed = parser.parse_mapping(1, contact)
        if not isinstance(parsed, Recipient):
            # Names of fields and reasons, and no value.
            raise ArgumentError(None, "--contact: " + "; ".join(f"{name} {why}" for name, why in parsed))
        return parsed.biz_id

    return derive


def _stats(args: Namespace, database: Database) -> Result:
    before = time.time() if args.before is None else _epoch("--before", args.before)
    return Result(
        [{"name": name, "value": value} for name, value in statistics(database, Retention(database, before))]
    )
