"""A real Chromium, driven by Playwright: tabs that collect whatever goes wrong in them."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright
from playwright.sync_api import Error as PlaywrightError

# Quiet, and without its sandbox: tests run as root. Playwright gives each start a folder of its own for the user's data.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "laptop": (1280, 800), "wide": (1920, 1080)}
PATIENCE_MS = 60_000
_LOADS = 4
_CUT_OFF = "net::ERR_NETWORK_CHANGED"


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """The distribution's Chromium. LookupError when it is not installed: ``scripts/setup --tests`` installs it."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise LookupError("no chromium is installed here: run scripts/setup --tests")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield started
        finally:
            started.close()


class Tab:
    """A page in a context of its own. ``wrong``: errors of scripts, violations of the policy, requests to other origins."""

    def __init__(
        self, browser: Browser, origin: str, size: str = "laptop", scheme: str = "light", **options: Any
    ) -> None:
        width, height = SIZES[size]
        self.origin = origin
        self.wrong: list[str] = []
        self.expected: tuple[str, ...] = ()
        self._was_cut_off = False
        scheme_option: Any = scheme
        self._context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme_option, **options
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self.page: Page = self._context.new_page()
        self.page.on("console", self._told)
        self.page.on("pageerror", lambda error: self.wrong.append(f"script: {error}"))
        self.page.on("request", self._asked)
        self.page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))

    def go(self, path: str = "") -> None:
        """Opens the page, or a view of it: the path is what follows ``#/``.

        Chromium gives up what it loads when the machine gets or loses a network card, as it does by other tests. Then the page
        is opened again.
        """
        for more in reversed(range(_LOADS)):
            self._was_cut_off = False
            try:
                self.page.goto(f"{self.origin}/#/{path}")
                self.page.wait_for_selector(
                    "body[data-link=live]", timeout=PATIENCE_MS / _LOADS if more else PATIENCE_MS
                )
                return
            except PlaywrightError as error:
                if not more or not (self._was_cut_off or _CUT_OFF in str(error)):
                    raise

    def close(self) -> None:
        """AssertionError when anything went wrong in the tab."""
        self._context.close()
        wrong = [one for one in self.wrong if not any(words in one for words in self.expected)]
        assert not wrong, wrong

    def _told(self, message: ConsoleMessage) -> None:
        if _CUT_OFF in message.text:
            self._was_cut_off = True
        elif message.type in ("error", "warning"):
            self.wrong.append(f"console: {message.text}")

    def _asked(self, request: Request) -> None:
        if urlsplit(request.url).netloc != urlsplit(self.origin).netloc:
            self.wrong.append(f"another origin: {request.url}")


def keeps_the_rules(page: Page) -> None:
    """Those of axe-core; what it looks at includes the contrast of texts."""
    found = Axe().run(page)
    assert "color-contrast" in {rule["id"] for rule in found.response["passes"]}
    assert not found.response["violations"], found.generate_report()
