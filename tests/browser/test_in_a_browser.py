"""What a data engineer does with this package in Airflow's pages, done and looked at in a browser."""

from __future__ import annotations

import json

import pytest
from selenium.webdriver.common.keys import Keys

from airflow_provider_lingyang.config.connection import conn_fields
from airflow_provider_lingyang.sandbox import APP_KEY, APP_SECRET, SESSION
from airflow_provider_lingyang.sandbox.process import RESULT_QUERY, SandboxProcess
from tests.browser.conftest import DAG, PEOPLE, WAVES
from tests.browser.page import Page
from tests.helpers.airflow_processes import AirflowProcesses

CONNECTION = "lingyang_default"
DIALOG = "//*[@role='dialog']"
SAVE = f"{DIALOG}//button[contains(., 'Save')]"
EDITOR = "//*[@id='element_result_query']"
TOAST = "//*[@data-scope='toast'][@data-part='root']"
PRIVATE = ("CANARY", "1000077700", APP_SECRET, SESSION)
"""Of the audience and of the connection."""


def field(name: str) -> str:
    return f"{DIALOG}//input[@name='{name}']"


def section(page: Page, name: str) -> None:
    page.click(f"{DIALOG}//button[normalize-space(.)='{name}']")


def new_connection(page: Page, name: str) -> None:
    page.open("/connections")
    page.click("//button[contains(., 'Add Connection')]")
    page.write(field("connection_id"), name)
    page.write(f"{DIALOG}//input[@role='combobox']", "Lingyang")
    page.click("//*[@role='option'][contains(., 'Lingyang customer service cloud')]")


def press(page: Page, button: str, name: str = CONNECTION) -> None:
    """Press a button in the connection's line of the list."""
    page.click(f"//tr[contains(., '{name}')]//button[@aria-label='{button}']")


@pytest.fixture(scope="module")
def connection(page: Page, airflow: AirflowProcesses, gateway: SandboxProcess) -> str:
    """Made with the form."""
    new_connection(page, CONNECTION)
    page.see(f"{DIALOG}//label[contains(., 'Gateway URL')]")
    page.write(field("host"), gateway.url)
    page.write(field("login"), APP_KEY)
    page.write(field("password"), APP_SECRET)
    page.shoot("connection_form", DIALOG, height=1000)
    section(page, "Extra Fields")
    page.write(field("element_session_token"), SESSION)
    page.write(field("element_timeout"), "7.5")
    page.paste(EDITOR, json.dumps(RESULT_QUERY, indent=2))
    # An editor shows what is where its cursor is.
    page.see(f"{EDITOR}[contains(., 'NOT_REACHED')]")
    page.press(Keys.CONTROL, Keys.HOME)
    page.see(f"{EDITOR}[contains(., 'sandbox.lingyang')]")
    page.shoot("connection_form_extra", "//*[@role='region'][.//*[@name='element_timeout']]", height=2000)
    page.click(SAVE)
    page.see(f"//tr[contains(., '{CONNECTION}')][contains(., '{gateway.url}')]")
    # Airflow 3.3.2 says "Bad Request" to a test of a connection without a port: its own button sends 0, and that is
    # taken for another machine (apache/airflow#73298).
    body = {"connection_id": CONNECTION, "conn_type": "lingyang", "port": 0}
    airflow.api("PATCH", f"/api/v2/connections/{CONNECTION}?update_mask=port", body)
    return CONNECTION


def test_the_form_has_every_field_with_its_help_and_hides_what_has_no_meaning(page: Page) -> None:
    new_connection(page, "looked_at")
    page.see(field("host"))
    assert page.see(field("host")).get_attribute("placeholder") == "https://eco.taobao.com/router/rest"
    assert page.see(field("password")).get_attribute("type") == "password"
    for hidden in ("schema", "port"):
        assert not page.driver.find_elements("xpath", field(hidden))
    section(page, "Extra Fields")
    page.see(EDITOR)
    said = page.text(DIALOG)
    for each in conn_fields().values():
        assert each["label"] in said
        assert each["description"] in said
    assert page.see(field("element_session_token")).get_attribute("type") == "password"
    # Every method has an m.
    page.write("//*[@id='element_sign_method']//input[@role='combobox']", "m")
    for method in ("hmac-sha256", "hmac", "md5"):
        page.see(f"//*[@role='option'][normalize-space(.)='{method}']")


def test_result_query_that_is_no_json_shows_an_error_and_cannot_be_saved(page: Page) -> None:
    new_connection(page, "no_json")
    section(page, "Extra Fields")
    page.paste(EDITOR, '{"method": ')
    page.see(f"{DIALOG}//*[contains(., 'Unexpected end of JSON')]")
    assert not page.see(SAVE).is_enabled()
    page.paste(EDITOR, '{"method": "m"}')
    page.until(lambda: page.see(SAVE).is_enabled(), "a form that can be saved")


def test_a_connection_made_with_the_form_works_and_says_so(
    page: Page, connection: str, gateway: SandboxProcess
) -> None:
    gateway.reset()
    page.open("/connections")
    press(page, "Test Connection")
    page.see(f"{TOAST}[contains(., 'The gateway accepts the App key and the signature')]")
    page.shoot("connection_test", height=640)
    page.see(f"{TOAST}[contains(., 'Successful')]")
    assert [request["method"] for request in gateway.record()["requests"]] == ["taobao.time.get"]


def test_saved_connection_is_shown_without_its_secret(
    page: Page, connection: str, airflow: AirflowProcesses
) -> None:
    page.open("/connections")
    press(page, "Edit Connection")
    page.see(f"{DIALOG}//label[contains(., 'App secret')]")
    assert page.value(field("password")) == "***"
    section(page, "Extra Fields")
    assert page.value(field("element_session_token")) == "***"
    assert page.value(field("element_timeout")) == "7.5"
    page.see(f"{EDITOR}[contains(., 'sandbox.lingyang')]")
    assert not page.holds(APP_SECRET)
    assert not page.holds(SESSION)
    section(page, "Extra Fields JSON")
    page.see(f"{DIALOG}//*[contains(@class, 'view-lines')][contains(., 'session_token')]")
    assert not page.holds(SESSION)

    # Saved with something else changed, they are what they were.
    section(page, "Extra Fields")
    page.write(field("element_max_attempts"), "2")
    page.click(SAVE)
    path = f"/api/v2/connections/{connection}"
    page.until(lambda: json.loads(airflow.api("GET", path)["extra"])["max_attempts"] == 2, "what was changed")
    press(page, "Test Connection")
    page.see(f"{TOAST}[contains(., 'The gateway accepts the App key and the signature')]")


def test_invalid_field_is_named_by_the_connection_test(page: Page, airflow: AirflowProcesses) -> None:
    extra = json.dumps({"timeout": 20, "lookup_settle": 5})
    body = {"connection_id": "cannot_be_right", "conn_type": "lingyang", "port": 0, "extra": extra}
    airflow.api(
        "POST", "/api/v2/connections", body | {"host": "https://x/", "login": "key", "password": "s" * 20}
    )
    page.open("/connections")
    press(page, "Test Connection", "cannot_be_right")
    page.see(f"{TOAST}[contains(., 'lookup_settle (5) must be at least timeout (20)')]")


def test_a_campaign_triggered_on_its_page_turns_green_and_shows_nothing_private(
    page: Page, connection: str, gateway: SandboxProcess
) -> None:
    gateway.reset()
    page.open(f"/dags/{DAG}")
    page.click("//button[contains(., 'Trigger')]")
    page.click(f"{DIALOG}//button[normalize-space(.)='Trigger']")
    for task in ("submit", "wait_for_answers", "print_answers"):
        page.see(f"//tr[contains(., '{task}')][contains(., 'Success')]", seconds=100)
    page.until(lambda: page.text().count("Success") == 4, "a run that is as green as its three tasks")
    page.shoot("campaign_grid", height=850)
    record = gateway.record(requests=False)
    assert record["totals"]["executed_tasks"] == len(record["executions"]["by_biz_id"]) == PEOPLE
    assert record["order_violations"] == []

    page.click("//tr//a[normalize-space(.)='submit']")
    page.see(f"//*[contains(., 'batch_num {WAVES}: tasks 5')]")
    nothing_private(page)
    page.shoot("campaign_log", height=850)

    page.click("//a[normalize-space(.)='Rendered Templates']")
    page.see("//tr[contains(., 'sql')][contains(., 'FROM customers')]")
    page.see("//tr[contains(., 'plan_id')][contains(., '10001')]")
    nothing_private(page)

    page.click("//a[normalize-space(.)='Storage']")
    page.click("//a[normalize-space(.)='XCom']")
    page.see("//tr[contains(., 'manifest')]")
    page.click("//button[@aria-label='Expand all extra JSON']")
    manifest = "//tr[contains(., 'manifest')]"
    page.until(lambda: f'"accepted": {PEOPLE},' in page.text(manifest), "the manifest")
    nothing_private(page)
    page.shoot("campaign_xcom", manifest, height=1200)


def nothing_private(page: Page) -> None:
    assert not [private for private in PRIVATE if page.holds(private)]
