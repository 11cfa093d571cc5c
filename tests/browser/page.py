"""A tab of a real browser, used as a person uses it: what is not there yet is waited for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver import Chrome
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

T = TypeVar("T")
SCREENSHOTS = os.environ.get("LINGYANG_SCREENSHOTS")
"""The folder that takes screenshots; without it none are made."""
NOT_YET = (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
STILL = "return document.getAnimations().every(one => one.playState !== 'running' || one.effect.getTiming().iterations === Infinity)"


class Page:
    """What is on the screen is named by XPath.

    :param url: where Airflow is.
    """

    def __init__(self, driver: Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        permissions = {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"], "origin": url}
        driver.execute_cdp_cmd("Browser.grantPermissions", permissions)

    def until(self, happens: Callable[[], T], what: str, seconds: float = 30) -> T:
        """Return what is true at last."""
        waiting = WebDriverWait(self.driver, seconds, 0.1, ignored_exceptions=NOT_YET)
        try:
            return waiting.until(lambda _: happens())  # type: ignore[return-value]
        except TimeoutException:
            raise AssertionError(
                f"{what} was waited for in vain; the page says:\n{self.text()[:3000]}"
            ) from None

    def open(self, path: str) -> None:
        self.driver.get(f"{self.url}{path}")

    def see(self, xpath: str, seconds: float = 30) -> WebElement:
        """Return the first such thing that can be seen."""

        def seen() -> WebElement | None:
            found = self.driver.find_elements(By.XPATH, xpath)
            return next((one for one in found if one.is_displayed()), None)

        found = self.until(seen, xpath, seconds)
        assert found is not None
        return found

    def click(self, xpath: str) -> None:
        def clicked() -> bool:
            self.see(xpath).click()
            return True

        self.until(clicked, f"a click on {xpath}")

    def write(self, xpath: str, text: str) -> None:
        """Replace what a field holds."""

        def wrote() -> bool:
            self.see(xpath).send_keys(Keys.CONTROL, "a")
            self.see(xpath).send_keys(text or Keys.DELETE)
            return True

        self.until(wrote, f"a field at {xpath}")

    def paste(self, xpath: str, text: str) -> None:
        """Replace what an editor holds from the clipboard: typed brackets would be completed by it."""
        copy = "navigator.clipboard.writeText(arguments[0]).then(arguments[1], arguments[1])"
        refused = self.driver.execute_async_script(copy, text)
        assert refused is None, refused
        self.click(xpath)
        for key in "av":
            self.press(Keys.CONTROL, key)

    def press(self, modifier: str, key: str) -> None:
        """Press two keys together."""
        ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def text(self, xpath: str = "//body") -> str:
        """What a person can read there."""
        # Editors write every blank as one that does not break.
        return self.until(lambda: [self.see(xpath).text.replace("\xa0", " ")], xpath)[0]

    def value(self, xpath: str) -> str:
        """What a field holds."""
        return self.until(lambda: [self.see(xpath).get_attribute("value")], xpath)[0] or ""

    def holds(self, text: str) -> bool:
        """Whether the page holds a text anywhere, seen or not, in fields too."""
        values = "return [...document.querySelectorAll('input, textarea')].map(one => one.value)"
        return text in self.driver.page_source or text in json.dumps(self.driver.execute_script(values))

    def shoot(self, name: str, xpath: str = "//body", *, height: int = 800) -> None:
        """Make a screenshot of a part of the page, once nothing moves any more."""
        if SCREENSHOTS is None:
            return
        self.driver.set_window_size(1280, height)
        self.until(lambda: self.driver.execute_script(STILL), "a page that stands still")
        folder = Path(SCREENSHOTS)
        folder.mkdir(exist_ok=True)
        assert self.see(xpath).screenshot(str(folder / f"{name}.png"))
