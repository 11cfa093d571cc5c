"""Settings of a client: what cannot be right is an error, and no credential is shown."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_lingyang.gateway.errors import LingyangConfigError
from airflow_provider_lingyang.gateway.settings import GatewaySettings


def settings(**fields: Any) -> GatewaySettings:
    return GatewaySettings(
        **{"url": "https://gateway.test/router/rest", "app_key": "k", "app_secret": "s"} | fields
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://eco.taobao.com/router/rest",
        "https://gateway.test:8443/x",
        "http://127.0.0.1:8787/router/rest",
        "http://localhost/router/rest",
        "http://[::1]:1/",
        "HTTPS://gateway.test",
        "http://127.9.9.9/",
    ],
)
def test_a_gateway_is_a_full_url(url: str) -> None:
    assert settings(url=url).url == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "full one"),
        ("eco.taobao.com/router/rest", "full one"),
        ("ftp://eco.taobao.com", "full one"),
        ("https://", "full one"),
        ("https:///router/rest", "full one"),
        ("https://gateway.test:port/", "cannot be read"),
        ("https://gateway.test:99999/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
        ("https://user:hunter2@gateway.test/", "no user, password"),
        ("https://gateway.test/?a=b", "query"),
        ("https://gateway.test/#a", "fragment"),
        ("http://gateway.test/router/rest", "this machine only"),
        ("http://127.0.0.1.gateway.test/", "this machine only"),
        ("http://0.0.0.0/", "this machine only"),
        ("http://10.0.0.1/", "this machine only"),
    ],
)
def test_a_url_that_cannot_be_right_is_an_error_that_does_not_repeat_it(url: str, why: str) -> None:
    with pytest.raises(LingyangConfigError, match=why) as caught:
        settings(url=url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"app_key": ""}, "App key is missing"),
        ({"app_secret": ""}, "App secret is missing"),
        ({"sign_method": "sha256"}, "unknown sign_method 'sha256'"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"max_attempts": 0}, "max_attempts"),
    ],
)
def test_settings_that_cannot_be_right_are_errors(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(LingyangConfigError, match=why):
        settings(**fields)


def test_no_credential_is_in_the_repr_of_settings() -> None:
    shown = repr(settings(app_secret="canary-secret", session_token="canary-session"))
    assert "canary" not in shown


def test_credentials_are_named_for_the_scrubber() -> None:
    found = settings(app_secret="the-secret", session_token="the-session").credentials
    assert found == {"the-secret": "app_secret", "the-session": "session_token"}
    assert settings().credentials == {"s": "app_secret"}
