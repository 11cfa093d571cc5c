"""Runs two campaigns through a real fleet that is disturbed, and judges them: `make fleet`.

Everything it starts runs on this machine only, in a folder that is removed when all went well. Exits with 0 only where
gateway, ledger and warehouse agree, recipient by recipient, and every disturbance hit.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import psycopg

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

from tests.fleet.disturbances import Disturbances  # noqa: E402  # after the path
from tests.fleet.evidence import ledger_rows, warehouse_rows  # noqa: E402
from tests.fleet.processes import Fleet  # noqa: E402
from tests.fleet.servers import PLANS, Servers, audience  # noqa: E402
from tests.fleet.verdict import CampaignFacts, judge  # noqa: E402
from tests.helpers.servers import ServerMissingError  # noqa: E402
from tests.helpers.sessions import Sessions  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--recipients", type=int, default=20_000, help="of each campaign (default %(default)s)"
    )
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".fleet", help="folder to empty and fill (default .fleet)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the folder where all went well, too")
    options = parser.parse_args()
    work = options.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with (work.parent / f"{work.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"FAILED  another run is at work in {work}")
            return 1
        try:
            shutil.rmtree(work)
            work.mkdir()
            problems = run(work, options.recipients)
        except KeyboardInterrupt:
            print(f"STOPPED  with all its programs; logs: {work}")
            return 130
        except ServerMissingError as error:
            print(f"FAILED  {error} is not installed")
            return 1
        except AssertionError as error:
            problems = [str(error)]
        for problem in problems:
            print(f"  {problem}")
        if problems:
            print(f"FAILED  logs: {work}")
            return 1
        if not options.keep:
            shutil.rmtree(work)
        print("OK  every recipient was contacted once; gateway, ledger and warehouse agree")
        return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def run(work: Path, size: int) -> list[str]:
    """Run everything; return what is wrong."""
    began = time.monotonic()

    def stage(text: str) -> None:
        print(f"[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    with ExitStack() as stack:
        stage(f"servers, and an audience of {len(PLANS)} × {size} recipients")
        servers = Servers(work, stack.enter_context(Sessions()), size)
        stack.callback(servers.stop)
        servers.start()
        stage("Airflow: API server, scheduler, dag-processor, triggerer, two workers of Celery")
        home = work / "airflow"
        home.mkdir()
        fleet = Fleet(home, servers.database, HERE / "dags", servers.environment(), servers.consumer.run)
        fleet.start()
        stack.callback(fleet.stop)
        problems: list[str] = []
        try:
            problems += send(fleet, servers, stage)
        except AssertionError as error:
            problems.append(str(error))
        stage("verdict")
        for dag_id in fleet.runs:
            try:
                problems += report(dag_id, fleet, servers)
            except (OSError, psycopg.Error) as error:
                problems.append(f"{dag_id}: no verdict ({type(error).__name__}: {error})")
        again = ", ".join(f"{name} {times}" for name, times in sorted(fleet.restarts.items()))
        print(f"started again by the keeper: {again or 'nothing'}")
    stage("all ended")
    return problems


def send(fleet: Fleet, servers: Servers, stage: Callable[[str], None]) -> list[str]:
    """Run both campaigns to their end, and disturb them; return which disturbances missed."""
    disturbances = Disturbances(fleet, servers)
    with_lookup, pushed = PLANS
    stage(f"campaign {with_lookup}")
    fleet.trigger(with_lookup)
    disturbances.wait_for_share(with_lookup, 0.2)
    shards = disturbances.kill_worker(with_lookup)
    stage(f"campaign {pushed}")
    fleet.trigger(pushed)
    disturbances.wait_for_share(pushed, 0.4)
    disturbances.restart_postgres(pushed)
    stage(f"the next try of the killed tasks of {with_lookup}")
    disturbances.wait_for_recovery(with_lookup, shards)
    disturbances.restart_redis(with_lookup)
    stage(f"the deferred waits of {pushed}")
    disturbances.restart_triggerer(pushed)
    stage("the end of both campaigns")
    for dag_id in PLANS:
        fleet.until(lambda dag_id=dag_id: fleet.state(dag_id) == "success", f"the end of {dag_id}", 900)
    return disturbances.missed


def report(dag_id: str, fleet: Fleet, servers: Servers) -> list[str]:
    """Print the figures of a campaign, and return what is wrong."""
    plan_id, server = PLANS[dag_id], servers.postgres.connection
    instances = {f"{each['task_id']}[{each['map_index']}]": each for each in fleet.instances(dag_id)}
    facts = CampaignFacts(
        name=dag_id,
        shards={biz_id: shard for biz_id, (shard, *_) in audience(plan_id, servers.size).items()},
        executed=servers.gateway.executed(plan_id),
        requests=servers.gateway.requests(plan_id),
        ledger=ledger_rows(server, plan_id),
        warehouse=warehouse_rows(server, plan_id),
        manifests=[manifest["counts"] for manifest in fleet.manifests(dag_id)],
        states={name: each["state"] for name, each in instances.items()},
        tries={name: each["try_number"] for name, each in instances.items()},
    )
    verdict = judge(facts)
    print(
        f"{dag_id}: audience {servers.size}, gateway {len(facts.executed)}, ledger {len(facts.ledger)}, warehouse "
        f"{len(facts.warehouse)}; duplicates {verdict.duplicates}, lost {verdict.lost}, in doubt {verdict.in_doubt}, "
        f"out of order {verdict.disorder}; {verdict.rate:.0f} recipients/s"
    )
    retried = ", ".join(f"{name} {tries}" for name, tries in verdict.retried.items()) or "none above 1"
    print(f"  tries used: {retried}; by hand: {'; '.join(verdict.by_hand) or 'nothing'}")
    return list(verdict.problems)


if __name__ == "__main__":
    sys.exit(main())
