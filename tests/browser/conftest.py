"""A real Airflow and a real browser, on this machine only."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from airflow_provider_lingyang.sandbox.process import SandboxProcess
from tests.browser.page import SCREENSHOTS, Page
from tests.conftest import AirflowConnection, missing
from tests.helpers.airflow_processes import AirflowProcesses, own_database
from tests.helpers.servers import free_port
from tests.real.conftest import new_enough, pytest_runtest_makereport
from tests.versions import AIRFLOW_PYTHON

__all__ = [
    "new_enough",
    "pytest_runtest_makereport",
]  # fixture and hook of the other tests with a real Airflow
DAG = "campaign_from_sql"
EXAMPLE = Path(__file__).parents[2] / "dags_examples" / f"{DAG}.py"
PEOPLE, WAVES = 60, 12


@pytest.fixture(scope="package")
def programs() -> tuple[str, str]:
    """The browser, and what drives it."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        missing("Chromium with its driver (Debian: chromium, chromium-driver)")
    assert browser is not None and driver is not None
    return browser, driver


@pytest.fixture(scope="package")
def airflow(
    programs: tuple[str, str],
    new_enough: None,
    postgres_server: AirflowConnection,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[AirflowProcesses]:
    """With the example DAG, its audience, and no connection to a gateway."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / EXAMPLE.name).write_text(EXAMPLE.read_text().replace("retries=3", "retries=0"))
    with sqlite3.connect(home / "audience.db") as db:
        columns = ("order_no", "wave", "mobile", "customer", "gift", "shop")
        db.execute(f"CREATE TABLE customers ({', '.join(f'{column} TEXT' for column in columns)})")
        rows = [
            (f"A{n}", str(n % WAVES + 1), f"100007770{n:02}", f"CANARY{n}", "gift", "shop")
            for n in range(PEOPLE)
        ]
        db.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?, ?)", rows)
    db.close()
    env = {
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Nothing is killed here, and a browser beside it keeps the machine busy.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        # Nobody else's, if another Airflow runs on this machine.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW_CONN_AUDIENCE_DB": json.dumps({"conn_type": "sqlite", "host": str(home / "audience.db")}),
    }
    database = own_database(postgres_server, "airflow_browser")
    processes = AirflowProcesses(
        home, database, home / "dags", env, dag=DAG, standalone=True, python=AIRFLOW_PYTHON
    )
    processes.start()
    try:
        yield processes
    finally:
        processes.stop()


@pytest.fixture(scope="package")
def gateway() -> Iterator[SandboxProcess]:
    # Pictures show the README's port.
    with SandboxProcess("--answer-after", "0", port=8787 if SCREENSHOTS else 0) as process:
        yield process


class Driver(Service):
    """Ends with the tests, and with it the browser that it starts, however they end."""

    def __init__(self, path: str, airflow: AirflowProcesses) -> None:
        super().__init__(path, popen_kw={"start_new_session": True})
        self._airflow = airflow

    def start(self) -> None:
        super().start()
        self._airflow.sessions.add(self.process.pid)


@pytest.fixture(scope="package")
def page(
    programs: tuple[str, str], airflow: AirflowProcesses, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Page]:
    browser, driver = programs
    options = ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--no-sandbox",  # refuses to run as root otherwise
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--window-size=1280,800",
        "--lang=en-US",
        f"--user-data-dir={tmp_path_factory.mktemp('browser')}",
        # It speaks to this machine only.
        "--no-first-run",
        "--no-proxy-server",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    chrome = Chrome(options=options, service=Driver(driver, airflow))
    try:
        yield Page(chrome, airflow.url)
    finally:
        chrome.quit()
