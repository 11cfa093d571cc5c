"""What Airflow 2 makes of the connection form, with its own pages: a command line, because the tests have Airflow 3.

python tests/airflow_2/connection_form.py       with the Python of an environment of Airflow 2 with this package
"""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any

QUERY = {"method": "客户 m", "biz_ids_field": "ids", "items_path": "x"}
EXTRA = {"session_token": "CANARY-session", "timeout": 20, "result_query": QUERY}
PREFIX = "extra__lingyang__"


def fields(page: str) -> dict[str, str]:
    """What a browser would send of a page with a form if nobody touched it."""
    found = {}
    for tag in re.findall(r"<input[^>]*>", page):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', tag))
        if "name" in attributes and (attributes.get("type") != "checkbox" or " checked" in tag):
            found[attributes["name"]] = html.unescape(attributes.get("value", ""))
    for name, text in re.findall(r'<textarea[^>]* name="([^"]*)"[^>]*>\r?\n?(.*?)</textarea>', page, re.S):
        found[name] = html.unescape(text)
    for name, options in re.findall(r'<select[^>]* name="([^"]*)"[^>]*>(.*?)</select>', page, re.S):
        chosen = re.search(r"<option[^>]* selected[^>]*>([^<]*)<", options)
        found[name] = html.unescape(chosen[1]) if chosen else ""
    return found


def check(client: Any) -> None:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session

    def stored() -> dict[str, Any]:
        with create_session() as session:
            extra = session.query(Connection).filter_by(conn_id="case").one().extra_dejson
            return {name: value for name, value in extra.items() if value not in (None, "")}

    with create_session() as session:
        session.query(Connection).filter_by(conn_id="case").delete()
        made = Connection(
            conn_id="case", conn_type="lingyang", host="https://x/", login="k", password="CANARY-p"
        )
        made.extra = json.dumps(EXTRA)
        session.add(made)
        session.flush()
        number = made.id

    page = client.get(f"/connection/edit/{number}").text
    assert "CANARY" not in page
    sent = fields(page) | {"conn_type": "lingyang"}
    assert json.loads(sent[f"{PREFIX}result_query"]) == QUERY
    assert sent[f"{PREFIX}timeout"] == "20"
    choices = re.search(rf'<select[^>]* name="{PREFIX}sign_method">(.*?)</select>', page)
    assert choices and re.findall(">([^<]+)<", choices[1]) == ["hmac-sha256", "hmac", "md5"]
    assert sent[f"{PREFIX}sign_method"] == "hmac-sha256"

    def send(**changes: str) -> str:
        body = sent | {PREFIX + name: value for name, value in changes.items()}
        answer: str = client.post(f"/connection/edit/{number}", data=body, follow_redirects=True).text
        return html.unescape(answer)

    assert "result_query: it is not JSON (line 1, column 11)" in send(result_query='{"method": ')
    assert "'items' is no key of it" in send(
        result_query='{"method": "m", "biz_ids_field": "b", "items": "x"}'
    )
    assert "must be one of: hmac-sha256, hmac, md5" in send(sign_method="sha1")
    assert stored() == EXTRA, stored()
    again = fields(send(session_token="typed", sign_method="sha1"))
    assert again[f"{PREFIX}session_token"] == "typed"

    send(max_attempts="2")
    after = stored()
    assert after.pop("dedupes_by_code") is after.pop("plan_variables_as_text") is False
    assert after.pop("international_numbers") == "refuse"
    assert json.loads(after.pop("result_query")) == QUERY
    assert after == {
        "session_token": "CANARY-session",
        "sign_method": "hmac-sha256",
        "timeout": "20",
        "max_attempts": 2,
    }, after
    send(session_token="")
    assert "session_token" not in stored()


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"AIRFLOW_HOME": home, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
        os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
        command = [sys.executable, "-m", "airflow", "db", "migrate"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        from airflow.www.app import create_app

        app = create_app(testing=True)
        app.config |= {"WTF_CSRF_ENABLED": False, "AUTH_ROLE_PUBLIC": "Admin"}
        with app.test_client() as client:
            check(client)
    print("the connection form of Airflow 2 shows, checks and keeps what it should, and no secret")
    return 0


if __name__ == "__main__":
    sys.exit(main())
