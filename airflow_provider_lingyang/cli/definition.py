"""The commands that Airflow's command line gets. Every call of ``airflow`` imports this: nothing heavy may be in it."""

from __future__ import annotations

from collections.abc import Callable

from airflow.cli.cli_config import ARG_OUTPUT, ActionCommand, Arg, CLICommand, GroupCommand, lazy_load_command

_arg: Callable[..., Arg] = Arg
"""Untyped in Airflow."""

_CONN_ID = _arg(
    ("--conn-id",), required=True, help="The Airflow connection that campaigns have as ledger_conn_id"
)
_CAMPAIGN_KEY = _arg(("--campaign-key",), metavar="KEY", help="Only the campaign with this key")
_PLAN_ID = _arg(("--plan-id",), metavar="N", type=int, help="Only campaigns of this plan")
_YES = _arg(
    ("-y", "--yes"), action="store_true", help="Do it. Without it only shows what would be done (a dry run)"
)
_BEFORE = "a date, from its midnight in China on, or ISO 8601"


def _action(name: str, help_text: str, *args: Arg, description: str | None = None) -> ActionCommand:
    return ActionCommand(
        name=name,
        help=help_text,
        func=lazy_load_command(f"airflow_provider_lingyang.cli.ledger.run_{name}"),
        args=(_CONN_ID, *args, ARG_OUTPUT),
        description=description,
    )


LEDGER_COMMANDS = (
    _action("list", "List the campaigns of a ledger, with their counts", _CAMPAIGN_KEY, _PLAN_ID),
    _action(
        "show",
        "Show a campaign, and its requests in doubt",
        _CAMPAIGN_KEY,
        _PLAN_ID,
        _arg(
            ("--biz-ids",),
            action="store_true",
            help="With --output json or yaml: all accepted biz_ids, too",
        ),
    ),
    _action(
        "settle",
        "Say what became of requests in doubt",
        _arg(("--campaign-key",), metavar="KEY", required=True, help="Of which campaign"),
        _arg(("--plan-id",), metavar="N", type=int, required=True, help="Of which plan"),
        _arg(
            ("words",),
            nargs="+",
            metavar="CODE=WORD",
            help="A request as `show` names it (CODE, CODE#2 …), and accepted or not_executed",
        ),
        _arg(
            ("--take-over",),
            action="store_true",
            help="Take a request away from a task that has not noted its end, such as a killed one. A running try ends "
            "with an error. Of not_executed this only waits until none can send the request; then find out again",
        ),
        _YES,
        description="Say what became of requests in doubt. accepted: they are not sent again. not_executed: the next "
        "try sends them again, and NO LOOK-UP IS ASKED before: find out in the Lingyang console first. Where the "
        "connection has a result_query, give the word to the task instead (its argument settle): it looks the "
        "recipients up all the same. Refused while a process may still send the request.",
    ),
    _action(
        "prune",
        "Delete what the ledger holds of campaigns that are over",
        _arg(
            ("--before",),
            metavar="DATE",
            required=True,
            help=f"Campaigns that were last active before this: {_BEFORE}",
        ),
        _arg(
            ("--close-campaigns",),
            action="store_true",
            help="Also delete campaigns with a campaign_key of their own. Later tries and runs with such a key are "
            "refused, because nothing knows any more which recipients were contacted",
        ),
        _YES,
        description="Delete what the ledger holds of campaigns that are over: finished, without requests in doubt, and "
        "every task has noted its end. Of a campaign of one run all is deleted; a Clear of that run is refused from "
        "then on. Of a campaign with a campaign_key of its own the digests of the ids and the states stay, so that a "
        "later run contacts no recipient again; all else about its recipients is erased.",
    ),
    _action(
        "forget",
        "Erase what the ledger holds of recipients",
        _arg(("--biz-id",), metavar="ID", nargs="+", default=[], help="The recipients"),
        _arg(
            ("--contact",),
            action="store_true",
            help="Ask for a recipient's phone number, email and ids, and erase the biz_ids that are DERIVED from them; "
            "a recipient with a biz_id of the audience's own is not found by a contact. From stdin: a JSON object",
        ),
        _arg(
            ("--lingyang-conn-id",),
            metavar="ID",
            default="lingyang_default",
            help="With --contact: the connection whose App secret derived the ids (default: lingyang_default)",
        ),
        _CAMPAIGN_KEY,
        _PLAN_ID,
        _YES,
        description="Erase what the ledger holds of recipients: biz_id, reason, kept columns, the platform's task id. "
        "A digest of the id and the final state stay, so that no try contacts the recipient again. Take the recipient "
        "out of the audience, too: one who was not sent to is written down anew by the next try.",
    ),
    _action(
        "stats",
        "Show how much a ledger holds, and what prune would free",
        _arg(
            ("--before",),
            metavar="DATE",
            default=None,
            help=f"What `prune --before` this would free: {_BEFORE} (default: now)",
        ),
    ),
)


def get_lingyang_cli_commands() -> list[CLICommand]:
    """Return the commands ``airflow lingyang …``."""
    return [
        GroupCommand(
            name="lingyang",
            help="Campaigns of Lingyang customer service cloud",
            subcommands=(
                GroupCommand(
                    name="ledger", help="Ledgers of campaigns in a database", subcommands=LEDGER_COMMANDS
                ),
            ),
        )
    ]
