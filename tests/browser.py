"""A real Chromium, headless, that is asked for one page and notes everything that it should not do."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Request, sync_playwright

#: Screenshots are kept here (not under version control).
ARTEFACTS = Path(__file__).resolve().parents[1] / "artefacts"
#: Milliseconds that a page is waited for; long enough for a slow, busy machine.
PATIENCE = 60_000.0
_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def need_chromium() -> str:
    """Where it is; skips where it is missing, which is a failure in CI."""
    found = shutil.which("chromium")
    if found is None:
        message = "the program 'chromium' is missing"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


class Watched:
    """A page and what it did.

    Args:
        page: of the browser.
        host: the only ``address:port`` that it may ask.
    """

    def __init__(self, page: Page, host: str) -> None:
        self.page = page
        self.errors: list[str] = []
        """What it wrote to the console as a warning or an error."""
        self.foreign: list[str] = []
        """What it asked of others."""
        self._host = host
        page.set_default_timeout(PATIENCE)
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("warning", "error") else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._asked)

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and parts.netloc != self._host:
            self.foreign.append(request.url)

    def shot(self, name: str) -> None:
        """Keep a picture of it."""
        ARTEFACTS.mkdir(exist_ok=True)
        self.page.screenshot(path=ARTEFACTS / f"{name}.png")


@contextmanager
def browser() -> Iterator[Browser]:
    """Chromium, in the namespace that this process is in."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=need_chromium(), args=_ARGUMENTS)
        try:
            yield started
        finally:
            started.close()


@contextmanager
def watched(
    chromium: Browser, url: str, *, scheme: str = "light", size: tuple[int, int] = (1440, 900)
) -> Iterator[Watched]:
    """Open a page in a session of its own."""
    context = chromium.new_context(
        color_scheme="dark" if scheme == "dark" else "light", viewport={"width": size[0], "height": size[1]}
    )
    try:
        page = Watched(context.new_page(), urlsplit(url).netloc)
        page.page.goto(url)
        yield page
    finally:
        context.close()
