"""``python -m airflow_provider_lingyang.ledger list --conn-id LEDGER``: the commands of ``airflow lingyang ledger``.

For every Airflow: before 3.2 its command line takes no commands of providers. Results go to stdout, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout


def command_line() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    from airflow_provider_lingyang.cli.definition import LEDGER_COMMANDS

    parser = argparse.ArgumentParser(prog="python -m airflow_provider_lingyang.ledger")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in LEDGER_COMMANDS:
        one = commands.add_parser(
            command.name, help=command.help, description=command.description or command.help
        )
        for arg in command.args:
            arg.add_to_parser(one)
        one.set_defaults(func=command.func)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code."""
    # Before Airflow is imported: see cli/ledger.py.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"
    # What others print while Airflow starts is no result.
    with redirect_stdout(sys.stderr):
        parser = command_line()
    args = parser.parse_args(argv)
    try:
        args.func(args)
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
