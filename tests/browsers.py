"""A headless Chromium, for tests of web pages."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from answering_backends import wait_until

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def headless_chromium() -> Iterator[Any]:
    """Its driver; skips the test where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="needs the extra `dev`: selenium")
    found = next(filter(None, map(shutil.which, _BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if found is None or driver is None:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    options = selenium.ChromeOptions()
    options.binary_location = found
    for one in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1200,1200"):
        options.add_argument(one)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to start as root otherwise
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


class Page:
    """One that is open."""

    def __init__(self, browser: Any) -> None:
        self.browser = browser

    def open(self, url: str) -> Page:
        """The web page of a server, once it has looked around."""
        self.browser.get(f"{url}/")
        self.wait(
            lambda: self.seen("#state") not in ("", "asking …") and self.seen("#server-version"), "it looks"
        )
        return self

    def ask(self, prompt: str = "What is the sum") -> None:
        self.wait(lambda: self.find("#right-model").get_property("value"), "models are told")
        self.fill("#prompt", prompt)
        self.find("#ask").click()

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """As it stands in the document, seen or not."""
        return str(self.find(selector).get_property("textContent"))

    def seen(self, selector: str) -> str:
        """What a person sees of it; nothing where it is hidden."""
        return str(self.find(selector).text)

    def fill(self, selector: str, text: str) -> None:
        field = self.find(selector)
        field.clear()
        field.send_keys(text)

    def choose(self, selector: str, value: str) -> None:
        self.find(f"{selector} option[value='{value}']").click()

    def run(self, script: str) -> Any:
        return self.browser.execute_script(script)

    def wait(self, is_so: Callable[[], Any], what: str) -> None:
        wait_until(lambda: bool(is_so()), f"{what}; the page says {self.seen('body')!r}")


def looked_at(browser: Any, file: Path) -> Page:
    """A page that is a file, which shows all by itself: no fault is told, nothing else is asked for, and every picture
    and every table has its place."""
    browser.get_log("browser")
    browser.get_log("performance")
    browser.get(file.as_uri())
    events = [json.loads(one["message"])["message"] for one in browser.get_log("performance")]
    asked = {
        one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"
    }
    assert asked == {file.as_uri()}, asked
    told = browser.get_log("browser")
    assert told == [], f"no fault, and nothing that the policy forbids: {told}"
    for one in browser.find_elements("css selector", "svg, table"):
        assert one.is_displayed() and one.size["width"] > 200 and one.size["height"] > 60, one.size
    return Page(browser)
