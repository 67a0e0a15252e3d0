"""A real Chromium for the tests of pages. Where it or playwright is missing the tests are skipped, unless WHORL_BROWSER=required."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks.board import ARGUMENTS, CHROMIUM


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    missing = None if Path(CHROMIUM).exists() else f"{CHROMIUM} is missing: scripts/install_chromium.sh"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = 'playwright is missing: pip install "whorl[browser]"'
    if missing and os.environ.get("WHORL_BROWSER") == "required":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


class Tabs:
    """Opens pages and writes down what they ask for and complain about."""

    def __init__(self, browser: Any):
        self._browser = browser
        self._contexts: list[Any] = []
        self.complaints: list[str] = []  # errors of scripts, of the content-security policy, of loading; dialogs
        self.requests: list[str] = []

    def open(self, url: str, *, permissions: tuple[str, ...] = (), script: str = "", **options: Any) -> Any:
        """A new tab at `url`. options: of a playwright context, such as viewport. script: runs before the page's own."""
        context = self._browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self._contexts.append(context)
        if permissions:
            context.grant_permissions(list(permissions))
        if script:
            context.add_init_script(script)
        tab = context.new_page()
        tab.on("console", lambda message: self.complaints.append(message.text))
        tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        tab.on("requestfailed", self._failed)
        tab.on("request", lambda request: self.requests.append(request.url))
        tab.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        tab.goto(url)
        return tab

    def _failed(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # the tab went to another page meanwhile
            self.complaints.append(f"not loaded: {request.url}, {request.failure}")

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def tabs(chromium: Any) -> Iterator[Tabs]:
    """At the end of the test no page may have complained."""
    opened = Tabs(chromium)
    yield opened
    opened.close()
    assert opened.complaints == []
